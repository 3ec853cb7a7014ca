"""The phases of a training, each for a `model.fit`: the head alone, then the network."""

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
    """What is needed all along a training.

    Args:
        recipe: The training.
        model: The network that trains.
        plain: The same without what is for training only, float32: what is saved.
        sources: The images that train, and those that validate.
        skipped: What is told of the bad ones of each.
        folder: The run folder.
        save_every: Steps between checkpoints; None for the ends of epochs only.
        distribution: Where it runs.
        callbacks: More callbacks.
        missing: {what: why} of what only adorns the run and could not be made.
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
        model: What of it is trained.
        optimizer: By which.
        learning_rate: Its number or schedule.
        epochs: The epochs of the whole training that are this phase's, counted from 0.
        spans: The same in parts, each with images of one size.
        steps: Steps of an epoch.
        batch_size: Images of a step, of all processes together.
        batches: Function from a step of the phase to endless training batches from there on.
        validation: Validation batches; None if a callback validates.
        loss_weight: Of the recipe's loss in the whole one.
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
        """How many steps of this phase a `TrainingState` has behind it."""
        return (state.epoch - self.epochs.start) * self.steps + state.step

    def rate(self, step):
        """The learning rate of a step, counted from 0."""
        return float(
            self.learning_rate(step) if callable(self.learning_rate) else self.learning_rate
        )


def network_phase(training) -> Phase:
    """The network trains, from the stage after what is frozen on."""
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
    """What the network's last layer sees of all images, computed once; in files while it is used.

    Entered, it gives (features, labels) of the images that train and of those that validate:
    float32 (images, channels) and (images, classes). Images with weights have them as a third part.
    """

    def __init__(self, training):
        self.training = training
        self.files = [
            temporary_path(training.folder / f"{name}_features.npy") for name in ("train", "val")
        ]

    def __enter__(self):
        """Computes them."""
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
        if hasattr(os, "posix_fallocate"):  # without it, a full disk is a signal later
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
    """The head trains alone, on the features that `Features` gave."""
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
    """Trains a phase from where it is to its end.

    Args:
        training: A `Training`.
        phase: A `Phase`.
        state: Where the training is, which is kept up.
        arrays: Those of its checkpoint, if it has one.
        scope: Function to the context in which the network trains.
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

    # A MirroredStrategy's model trains outside of its scope, where callbacks may use others.
    context = scope if training.distribution.processes > 1 else contextlib.nullcontext
    with contextlib.closing(bar), context():
        if state.step:  # an epoch that was interrupted
            fit_epochs(state.epoch, state.epoch + 1, phase.steps - state.step)
        for span in phase.spans:
            if span.start > phase.epochs.start:  # at another size
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
