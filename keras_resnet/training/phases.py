"""The phases of a training, each for a `model.fit`: the head alone, then the network."""

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
from keras_resnet.training.feed import FedNetwork, padded, training_feed, validation_feed
from keras_resnet.training.optimizers import Adam, create_optimizer
from keras_resnet.training.placement import Placement
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
        missing: {what: why} of what only adorns the run and could not be made.
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
        steps: Steps of an epoch.
        batch_size: Images of a step, of all processes together.
        batches: Function from a step of the phase to endless training batches from there on.
        validation: Validation batches; None if a callback validates.
    """

    name: str
    network: keras.Model
    model: keras.Model
    optimizer: keras.optimizers.Optimizer
    learning_rate: float | Callable
    epochs: range
    steps: int
    batch_size: int
    batches: Callable[[int], tf.data.Dataset]
    validation: tf.data.Dataset | None

    def steps_done(self, progress):
        """How many steps of this phase a `Progress` has behind it."""
        return (progress.epoch - self.epochs.start) * self.steps + progress.step

    def rate(self, step):
        """The learning rate of a step, counted from 0."""
        return float(
            self.learning_rate(step) if callable(self.learning_rate) else self.learning_rate
        )


def network_phase(setting) -> Phase:
    """The network trains, from the stage after what is frozen on."""
    recipe = setting.recipe
    train, val = setting.sources
    placement = setting.placement
    batch_size = min(recipe.batch_size, placement.replicas * train.count) // placement.processes
    train = train.whole_batches(batch_size)
    steps = train.count // batch_size
    learning_rate = create_schedule(recipe, steps)

    def batches(first_step):
        return training_feed(
            train,
            preprocessing=recipe.training_preprocessing,
            batch_size=batch_size,
            seed=recipe.seed,
            augmentation=recipe.augmentation,
            first_step=first_step,
            skipped=setting.skipped[0],
            shared=placement.replicas > 1,
        )

    validation = None
    if placement.replicas == 1:
        validation = validation_feed(
            val, recipe.preprocessing, batch_size=recipe.batch_size, skipped=setting.skipped[1]
        )
    return Phase(
        "network",
        setting.model,
        FedNetwork(setting.model, recipe.augmentation, recipe.preprocessing),
        create_optimizer(recipe, learning_rate),
        learning_rate,
        range(recipe.head_epochs, recipe.total_epochs),
        steps,
        batch_size * placement.processes,
        batches,
        validation,
    )


class Features:
    """What the network's last layer sees of all images, computed once; in files while it is used.

    Entered, it gives (features, labels) of the images that train and of those that validate:
    float32 (images, channels) and (images, classes).
    """

    def __init__(self, setting):
        self.setting = setting
        self.files = [
            temporary_path(setting.folder / f"{name}_features.npy") for name in ("train", "val")
        ]

    def __enter__(self):
        """Computes them."""
        plain = self.setting.plain
        backbone = keras.Model(plain.input, plain.get_layer("avgpool").output)
        parts = zip(self.setting.sources, self.setting.skipped, self.files, strict=True)
        return [self._compute(backbone, *part) for part in parts]

    def __exit__(self, *error):
        """Removes the files."""
        for file in self.files:
            file.unlink(missing_ok=True)

    def _compute(self, backbone, source, skipped, file):
        recipe = self.setting.recipe
        shape = (source.count, backbone.output.shape[-1])
        found = np.lib.format.open_memmap(file, "w+", np.float32, shape)
        labels: list[int] = []
        if hasattr(os, "posix_fallocate"):  # without it, a full disk is a signal later
            with file.open("r+b") as allocated:
                os.posix_fallocate(allocated.fileno(), 0, file.stat().st_size)
        batches = evaluation_batches(
            source, recipe.preprocessing, batch_size=recipe.batch_size, skipped=skipped
        )
        for images, batch_labels, _ in batches:
            answers = backbone.predict_on_batch(images.numpy())
            found[len(labels) : len(labels) + len(answers)] = answers
            labels += batch_labels.numpy().tolist()
        return found[: len(labels)], np.eye(len(source.class_names), dtype=np.float32)[labels]


def head_phase(setting, cached) -> Phase:
    """The head trains alone, on the features that `Features` gave."""
    recipe, plain = setting.recipe, setting.plain
    (x, y), validation = cached
    batch_size = min(recipe.batch_size, len(x))
    steps = len(x) // batch_size

    def batches(first_step):
        def generate():
            for step in itertools.count(first_step):
                if step == first_step or step % steps == 0:
                    order = np.random.default_rng((recipe.seed, step // steps)).permutation(len(x))
                start = step % steps * batch_size
                chosen = order[start : start + batch_size]
                yield x[chosen], y[chosen]

        specs = tuple(tf.TensorSpec((batch_size, part.shape[1]), tf.float32) for part in (x, y))
        return tf.data.Dataset.from_generator(generate, output_signature=specs).prefetch(2)

    head = keras.Sequential([keras.Input(x.shape[1:]), plain.get_layer("fc")])
    return Phase(
        "head",
        plain,
        head,
        Adam(recipe.head_learning_rate),
        recipe.head_learning_rate,
        range(recipe.head_epochs),
        steps,
        batch_size,
        batches,
        padded(tf.data.Dataset.from_tensor_slices(validation).batch(256), 256),
    )
