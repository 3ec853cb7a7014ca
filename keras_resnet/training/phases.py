"""The phases of a training, with one `model.fit` each: the head alone, then the network."""

import contextlib
import dataclasses
import itertools
import os
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_resnet.data import Skipped
from keras_resnet.data.pipeline import evaluation_batches
from keras_resnet.data.source import Source
from keras_resnet.files import temporary_path
from keras_resnet.training import checkpoint
from keras_resnet.training.callbacks import (
    CROSS_ENTROPY,
    Averages,
    CallbackList,
    CheckpointCallback,
    LabelValidation,
    SharedValidation,
    seeds,
)
from keras_resnet.training.distillation import create_distillation
from keras_resnet.training.distribution import Distribution
from keras_resnet.training.feed import FedNetwork, Head, padded, training_feed, validation_feed
from keras_resnet.training.losses import create_loss
from keras_resnet.training.optimizers import Adam, create_optimizer, create_schedule
from keras_resnet.training.progress import ProgressBar
from keras_resnet.training.recipe import Recipe
from keras_resnet.training.weight_averaging import WeightAveraging


@dataclasses.dataclass(frozen=True)
class Training:
    """The objects that a training uses in all phases.

    Args:
        recipe: The recipe.
        model: The network that is trained.
        plain: The network that is saved: the same, in float32 and without training-only parts.
        sources: The training and the validation images.
        skipped: Collects the unreadable images of each.
        folder: The run folder.
        save_every: Steps between checkpoints; None for one at the end of each epoch.
        distribution: The devices and processes.
        callbacks: Additional callbacks.
        missing: {what: reason} of optional output that could not be created.
    """

    recipe: Recipe
    model: keras.Model
    plain: keras.Model
    sources: tuple[Source, Source]
    skipped: tuple[Skipped, Skipped]
    folder: Path
    save_every: int | None
    distribution: Distribution
    callbacks: list[keras.callbacks.Callback] = dataclasses.field(default_factory=list)
    missing: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Phase:
    """One `model.fit`.

    Args:
        name: "head" or "network", for the history.
        network: The whole network.
        model: The part of it that is trained.
        optimizer: Its optimizer.
        learning_rate: A number or a schedule.
        epochs: Range of this phase's epochs, from 0, in the whole training.
        spans: The same range in parts, each with images of one size.
        steps: Number of steps per epoch.
        batch_size: Number of images per step, over all processes.
        batches: Function from a step of the phase to endless training batches from this step on.
        validation: Validation batches; None if a callback validates.
        loss_weight: Weight of the recipe's loss; the rest is that of distillation.
    """

    name: str
    network: keras.Model
    model: keras.Model
    optimizer: keras.optimizers.Optimizer
    learning_rate: float | Callable
    epochs: range
    spans: list[range]
    steps: int
    batch_size: int
    batches: Callable[[int], tf.data.Dataset]
    validation: tf.data.Dataset | None
    loss_weight: float = 1.0

    def steps_done(self, state):
        """Returns the number of completed steps of this phase in a `TrainingState`."""
        return (state.epoch - self.epochs.start) * self.steps + state.step

    def rate(self, step):
        """Returns the learning rate of a step, counted from 0."""
        return float(
            self.learning_rate(step) if callable(self.learning_rate) else self.learning_rate
        )


def network_phase(training) -> Phase:
    """Makes the phase that trains the network, except for frozen layers."""
    recipe = training.recipe
    train, val = training.sources
    distribution = training.distribution
    batch_size = (
        min(recipe.batch_size, distribution.replicas * train.count) // distribution.processes
    )
    train = train.whole_batches(batch_size)
    steps = train.count // batch_size
    learning_rate = create_schedule(recipe, steps)
    epochs = range(recipe.head_epochs, recipe.total_epochs)

    def preprocessing(epoch):
        return recipe.training_preprocessing_in(epoch - recipe.head_epochs)

    def batches(first_step):
        return training_feed(
            train,
            preprocessing=preprocessing(epochs[first_step // steps]),
            batch_size=batch_size,
            seed=recipe.seed,
            augmentation=recipe.augmentation,
            first_step=first_step,
            skipped=training.skipped[0],
            shared=distribution.replicas > 1,
        )

    sizes = (group for _, group in itertools.groupby(epochs, preprocessing))
    validation = None
    if distribution.replicas == 1:
        validation = validation_feed(
            val, recipe.preprocessing, batch_size=recipe.batch_size, skipped=training.skipped[1]
        )
    return Phase(
        "network",
        training.model,
        FedNetwork(
            training.model,
            recipe.augmentation,
            recipe.preprocessing,
            create_distillation(recipe, train.class_names),
        ),
        create_optimizer(recipe, learning_rate),
        learning_rate,
        epochs,
        [range(group[0], group[-1] + 1) for group in map(list, sizes)],
        steps,
        batch_size * distribution.processes,
        batches,
        validation,
        1.0 if recipe.teacher is None else 1 - recipe.teacher_share,
    )


class Features:
    """The inputs of the network's last layer for all images, computed once, in temporary files.

    As a context manager, it returns (features, labels) of the training and of the validation
    images: float32 (images, channels) and (images, classes); and the images' weights if they have
    some.
    """

    def __init__(self, training):
        self.training = training
        self.files = [
            temporary_path(training.folder / f"{name}_features.npy") for name in ("train", "val")
        ]

    def __enter__(self):
        """Computes the features."""
        plain = self.training.plain
        backbone = keras.Model(plain.input, plain.get_layer("avgpool").output)
        parts = zip(self.training.sources, self.training.skipped, self.files, strict=True)
        return [self._compute(backbone, *part) for part in parts]

    def __exit__(self, *error):
        """Removes the files."""
        for file in self.files:
            file.unlink(missing_ok=True)

    def _compute(self, backbone, source, skipped, file):
        recipe = self.training.recipe
        shape = (source.count, backbone.output.shape[-1])
        found = np.lib.format.open_memmap(file, "w+", np.float32, shape)
        done, labels = 0, []
        if hasattr(os, "posix_fallocate"):  # otherwise a full disk would raise a signal later
            with file.open("r+b") as allocated:
                os.posix_fallocate(allocated.fileno(), 0, file.stat().st_size)
        batches = evaluation_batches(
            source, recipe.preprocessing, batch_size=recipe.batch_size, skipped=skipped
        )
        for images, batch_labels, _, *weights in batches:
            answers = backbone.predict_on_batch(images.numpy())
            found[done : done + len(answers)] = answers
            done += len(answers)
            labels.append([part.numpy() for part in (batch_labels, *weights)])
        shown, *weighing = (np.concatenate(column) for column in zip(*labels, strict=True))
        if not source.multi_label:
            shown = np.eye(len(source.class_names), dtype=np.float32)[shown]
        return found[:done], shown, *weighing


def head_phase(training, cached) -> Phase:
    """Makes the phase that trains the head alone, on the features from `Features`."""
    recipe, plain = training.recipe, training.plain
    (x, *labels), validation = cached
    batch_size = min(recipe.batch_size, len(x))
    steps = len(x) // batch_size

    def batches(first_step):
        def generate():
            for step in itertools.count(first_step):
                if step == first_step or step % steps == 0:
                    order = np.random.default_rng((recipe.seed, step // steps)).permutation(len(x))
                start = step % steps * batch_size
                chosen = order[start : start + batch_size]
                yield x[chosen], *(part[chosen] for part in labels)

        specs = tuple(
            tf.TensorSpec((batch_size, *part.shape[1:]), tf.float32) for part in (x, *labels)
        )
        return tf.data.Dataset.from_generator(generate, output_signature=specs).prefetch(2)

    return Phase(
        "head",
        plain,
        Head(plain.get_layer("fc")),
        Adam(recipe.head_learning_rate),
        recipe.head_learning_rate,
        range(recipe.head_epochs),
        [range(recipe.head_epochs)],
        steps,
        batch_size,
        batches,
        padded(tf.data.Dataset.from_tensor_slices(validation[:2]).batch(256), 256),
    )


def fit(training, phase, state, arrays, scope=contextlib.nullcontext):
    """Trains a phase from its current state to its end.

    Args:
        training: A `Training`.
        phase: A `Phase`.
        state: The `TrainingState`, which is updated.
        arrays: The arrays of the checkpoint, if there is one.
        scope: Function that makes the context for training.
    """
    recipe, model = training.recipe, phase.model
    with scope():
        _compile(training, phase)
    averaging = None
    if recipe.swa_start is not None:
        averaging = WeightAveraging(phase.network, recipe.head_epochs + recipe.swa_start)
    done = phase.steps_done(state)
    if done:
        groups = {"optimizer": model.optimizer.variables, "seeds": seeds(phase.network)}
        groups |= {"average": averaging.average} if averaging else {}
        checkpoint.restore(arrays, groups)
    bar = ProgressBar(
        phase,
        recipe,
        classes=len(training.sources[0].class_names),
        first_step=state.step,
        shown=training.distribution.writes,
    )
    validation = phase.validation
    if validation is None:
        validating: keras.callbacks.Callback = SharedValidation(training)
    elif training.sources[1].multi_label:
        validating, validation = LabelValidation(validation), None
    else:
        validating = Averages()
    keeping = CheckpointCallback(training, phase, state, bar, averaging)

    def fit_epochs(first, last, steps):
        model.fit(
            phase.batches(phase.steps_done(state)),
            steps_per_epoch=steps,
            initial_epoch=first,
            epochs=last,
            validation_data=validation,
            shuffle=False,  # the pipeline shuffles
            verbose=0,
            callbacks=CallbackList(
                [
                    validating,
                    *([averaging] if averaging else []),
                    *(keeping, bar, *training.callbacks),
                ],
                add_history=True,
                model=model,
                epochs=last,
                steps=steps,
            ),
        )

    # With MirroredStrategy, `fit` runs outside its scope, where callbacks may use other models.
    context = scope if training.distribution.processes > 1 else contextlib.nullcontext
    with contextlib.closing(bar), context():
        if state.step:  # an interrupted epoch
            fit_epochs(state.epoch, state.epoch + 1, phase.steps - state.step)
        for span in phase.spans:
            if span.start > phase.epochs.start:  # another image size
                model.make_train_function(force=True)
            if state.epoch < span.stop and not state.ends(recipe):
                fit_epochs(state.epoch, span.stop, phase.steps)


def _compile(training, phase):
    source = training.sources[0]
    metrics = [
        keras.metrics.CategoricalAccuracy(name="accuracy"),
        keras.metrics.TopKCategoricalAccuracy(min(5, len(source.class_names)), name="top5"),
        # Keras' mean of the loss counts the rows that fill a batch up.
        keras.metrics.CategoricalCrossentropy(CROSS_ENTROPY, from_logits=True),
    ]
    phase.model.compile(
        optimizer=phase.optimizer,
        loss=create_loss(training.recipe),
        loss_weights=phase.loss_weight,
        weighted_metrics=None if source.multi_label else metrics,
        jit_compile=training.recipe.jit_compile,
    )
    phase.model.optimizer.build(phase.model.trainable_variables)
