"""The phases of a training, each a `model.fit`: the head alone, then the network."""

import dataclasses
import itertools
import math
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_resnet import features
from keras_resnet.data import Skipped
from keras_resnet.data.pipeline import evaluation_batches, training_batches, without_names
from keras_resnet.data.places import steps_per_epoch
from keras_resnet.data.source import Source
from keras_resnet.training import checkpoint
from keras_resnet.training.callbacks import Averages, Keeper, copy_validated, patience_ends, seeds
from keras_resnet.training.checkpoint import Progress
from keras_resnet.training.evaluation import evaluate
from keras_resnet.training.optimizers import Adam, create_optimizer
from keras_resnet.training.placement import Placement
from keras_resnet.training.progress import ProgressBar
from keras_resnet.training.recipe import Recipe
from keras_resnet.training.schedules import create_schedule


@dataclasses.dataclass(frozen=True)
class Setting:
    """What both phases need.

    Args:
        recipe: The training.
        model: The network that trains.
        plain: The same without what is for training only, float32: what is saved.
        sources: The images that train, and those that validate.
        skipped: What is told of the bad ones of each.
        folder: The run folder.
        save_every: Steps between checkpoints; None for the ends of epochs only.
        callbacks: More callbacks.
        placement: Where it runs.
    """

    recipe: Recipe
    model: keras.Model
    plain: keras.Model
    sources: tuple[Source, Source]
    skipped: tuple[Skipped, Skipped]
    folder: Path
    save_every: int | None
    callbacks: list[keras.callbacks.Callback]
    placement: Placement


@dataclasses.dataclass(frozen=True)
class Phase:
    """One `model.fit`.

    Args:
        name: "head" or "network", for the history.
        network: The whole network.
        model: What of it is trained.
        optimizer: By which.
        epochs: The epochs of the whole training that are this phase's, counted from 0.
        steps: Steps of an epoch.
        images: Images of an epoch.
        batches: Function from a step of the phase to endless training batches from there on.
        validation: Validation batches; None if a callback validates.
    """

    name: str
    network: keras.Model
    model: keras.Model
    optimizer: keras.optimizers.Optimizer
    epochs: range
    steps: int
    images: int
    batches: Callable[[int], tf.data.Dataset]
    validation: tf.data.Dataset | None


def fit(setting: Setting, progress: Progress, state: dict, scope):
    """Trains from where a training is to its end; keeps `progress` up.

    Args:
        setting: A `Setting`.
        progress: Where the training is.
        state: The arrays of its checkpoint, if it has one.
        scope: Function to the context in which the network trains.
    """
    recipe, model, plain = setting.recipe, setting.model, setting.plain
    head_epochs = recipe.head_epochs
    if progress.epoch < head_epochs:
        if state:
            checkpoint.restore(state, {"weights": plain.weights})
        with _Features(setting) as cached:
            _fit_phase(setting, _head_phase(setting, cached), progress, state)
        for target, variable in zip(model.weights, plain.weights, strict=True):
            target.assign(variable)
        state = {}
    elif state:
        checkpoint.restore(state, {"weights": model.weights})
    if progress.epoch == recipe.total_epochs:
        return
    if not patience_ends(progress.history, recipe.early_stopping, head_epochs):
        with scope():
            if recipe.freeze_until:
                features.freeze(model, recipe.freeze_until)
            _fit_phase(setting, _network_phase(setting), progress, state)


def _fit_phase(setting, phase, progress, state):
    recipe, model = setting.recipe, phase.model
    model.compile(
        optimizer=phase.optimizer,
        loss=keras.losses.CategoricalCrossentropy(),
        metrics=[
            keras.metrics.CategoricalAccuracy(name="accuracy"),
            keras.metrics.TopKCategoricalAccuracy(
                min(5, len(setting.sources[0].class_names)), name="top5"
            ),
        ],
        jit_compile=recipe.jit_compile,
    )
    model.optimizer.build(model.trainable_variables)
    done = (progress.epoch - phase.epochs.start) * phase.steps + progress.step
    if done:
        groups = {"optimizer": model.optimizer.variables, "seeds": seeds(phase.network)}
        checkpoint.restore(state, groups)
    bar = ProgressBar(
        recipe.total_epochs,
        phase.steps,
        recipe.batch_size,
        progress.step,
        shown=setting.placement.writes,
    )
    keeper = Keeper(
        folder=setting.folder,
        network=phase.network,
        plain=setting.plain,
        progress=progress,
        phase=phase.name,
        save_every=setting.save_every,
        steps=phase.steps,
        images=phase.images,
        patience=recipe.early_stopping,
        patient_from=recipe.head_epochs,
        bar=bar,
        writes=setting.placement.writes,
    )
    validating = Averages()
    if phase.validation is None:
        validating = SharedValidation(setting)
    batches = phase.batches(done)

    def fit_epochs(first, last, steps):
        model.fit(
            batches,
            steps_per_epoch=steps,
            initial_epoch=first,
            epochs=last,
            validation_data=phase.validation,
            shuffle=False,  # the pipeline shuffles
            verbose=0,
            callbacks=[validating, keeper, bar, *setting.callbacks],
        )

    try:
        if progress.step:  # an epoch that was interrupted
            first = progress.epoch
            fit_epochs(first, first + 1, phase.steps - progress.step)
            if model.stop_training:
                return
            batches = phase.batches((progress.epoch - phase.epochs.start) * phase.steps)
        if progress.epoch < phase.epochs.stop:
            fit_epochs(progress.epoch, phase.epochs.stop, phase.steps)
    finally:
        bar.stop()


def _network_phase(setting) -> Phase:
    recipe = setting.recipe
    train, val = setting.sources
    processes = setting.placement.processes
    batch_size = recipe.batch_size // processes
    steps = steps_per_epoch(train, batch_size)

    def batches(first_step):
        return _one_hot(
            training_batches(
                train,
                preprocessing=recipe.training_preprocessing,
                batch_size=batch_size,
                seed=recipe.seed,
                augmentation=recipe.augmentation,
                first_step=first_step,
                skipped=setting.skipped[0],
            ),
            train,
        )

    validation = None
    if processes == 1:
        validation = evaluation_batches(
            val, recipe.preprocessing, batch_size=recipe.batch_size, skipped=setting.skipped[1]
        )
        validation = _one_hot(without_names(validation), val)
    return Phase(
        "network",
        setting.model,
        setting.model,
        create_optimizer(recipe, create_schedule(recipe, steps)),
        range(recipe.head_epochs, recipe.total_epochs),
        steps,
        train.count * processes,
        batches,
        validation,
    )


def _one_hot(batches, source):
    """Labels as shares of each class, which augmentation may have made of them already."""
    if batches.element_spec[1].dtype.is_floating:
        return batches
    classes = len(source.class_names)
    return batches.map(lambda images, labels: (images, tf.one_hot(labels, classes)))


class SharedValidation(keras.callbacks.Callback):
    """Has each of several processes validate its part by itself, and sums up.

    Unlike a validation that all of them compute together, it does not need as many images of each.
    """

    def __init__(self, setting):
        super().__init__()
        self.setting = setting

    def on_epoch_end(self, epoch, logs=None):
        """Adds val_loss, val_accuracy and val_top5 to the logs."""
        setting, recipe = self.setting, self.setting.recipe
        distribution = keras.distribution.distribution()
        keras.distribution.set_distribution(None)
        try:
            copy_validated(self.model, self.model, setting.plain)
            found = evaluate(
                setting.plain,
                setting.sources[1],
                recipe.preprocessing,
                batch_size=recipe.batch_size // setting.placement.processes,
                skipped=setting.skipped[1],
            )
        finally:
            keras.distribution.set_distribution(distribution)
        means = np.array([found.loss, found.top1, found.top5])
        count, *sums = setting.placement.total([1, *means] * np.array(len(found.rows)))
        names = ("val_loss", "val_accuracy", "val_top5")
        logs.update(zip(names, (float(value / count) for value in sums), strict=True))


class _Features:
    """What the network's last layer sees of all images, computed once; in files while it is used.

    Entered, it gives (features, labels) of the images that train and of those that validate:
    float32 (images, channels) and (images, classes).
    """

    def __init__(self, setting):
        self.setting = setting
        self.files = [setting.folder / f".{name}_features.npy" for name in ("train", "val")]

    def __enter__(self):
        plain = self.setting.plain
        backbone = keras.Model(plain.input, plain.get_layer("avgpool").output)
        parts = zip(self.setting.sources, self.setting.skipped, self.files, strict=True)
        return [self._compute(backbone, *part) for part in parts]

    def __exit__(self, *error):
        for file in self.files:
            file.unlink(missing_ok=True)

    def _compute(self, backbone, source, skipped, file):
        recipe = self.setting.recipe
        shape = (source.count, backbone.output.shape[-1])
        found, labels = np.lib.format.open_memmap(file, "w+", np.float32, shape), []
        batches = evaluation_batches(
            source, recipe.preprocessing, batch_size=recipe.batch_size, skipped=skipped
        )
        for images, batch_labels, _ in batches:
            answers = backbone.predict_on_batch(images.numpy())
            found[len(labels) : len(labels) + len(answers)] = answers
            labels += batch_labels.numpy().tolist()
        return found[: len(labels)], np.eye(len(source.class_names), dtype=np.float32)[labels]


def _head_phase(setting, cached) -> Phase:
    recipe, plain = setting.recipe, setting.plain
    (x, y), validation = cached
    steps = math.ceil(len(x) / recipe.batch_size)

    def batches(first_step):
        def generate():
            for step in itertools.count(first_step):
                if step == first_step or step % steps == 0:
                    order = np.random.default_rng((recipe.seed, step // steps)).permutation(len(x))
                start = step % steps * recipe.batch_size
                chosen = order[start : start + recipe.batch_size]
                yield x[chosen], y[chosen]

        specs = tuple(tf.TensorSpec((None, part.shape[1]), tf.float32) for part in (x, y))
        return tf.data.Dataset.from_generator(generate, output_signature=specs).prefetch(2)

    head = keras.Sequential([keras.Input(x.shape[1:]), plain.get_layer("fc")])
    return Phase(
        "head",
        plain,
        head,
        Adam(recipe.head_learning_rate),
        range(recipe.head_epochs),
        steps,
        len(x),
        batches,
        tf.data.Dataset.from_tensor_slices(validation).batch(256),
    )
