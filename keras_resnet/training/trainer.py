"""Trains a network with a recipe and writes a run folder: `train`."""

import contextlib
import dataclasses
import json
import logging
import random
import shlex
import sys
import warnings
from pathlib import Path
from typing import Any, cast

import keras
import numpy as np
import tensorflow as tf
from keras.src.backend.common import global_state
from tensorflow.python.eager import context
from tensorflow.python.framework import config

from keras_resnet import features, models, visualize
from keras_resnet.configs import CONFIGS
from keras_resnet.convolution import lacks_onednn
from keras_resnet.data import Skipped, save_class_indices
from keras_resnet.data.checking import files_in_both
from keras_resnet.data.locations import training_sources
from keras_resnet.data.skipped import check_sample
from keras_resnet.files import write_text
from keras_resnet.preprocessing import Preprocessing
from keras_resnet.trained.fingerprint import Fingerprint
from keras_resnet.trained.run import BEST, CLASSES, LAST, RECIPE
from keras_resnet.training import adornments, checkpoint, labels
from keras_resnet.training.adornments import adorning
from keras_resnet.training.callbacks import copy_weights, write_network
from keras_resnet.training.checkpoint import TrainingState
from keras_resnet.training.distribution import Distribution
from keras_resnet.training.phases import Features, Training, fit, head_phase, network_phase
from keras_resnet.training.recipe import Recipe
from keras_resnet.training.report import finish, write_skipped
from keras_resnet.training.run_folder import locked, recipe_of, run_folder
from keras_resnet.training.weight_averaging import copy_average
from keras_resnet.weights.description import MULTI_LABEL, preprocessing_of

logger = logging.getLogger("keras_resnet")

# Keras' global seed, and the generator for random numbers without a seed.
SEEDS = ("global_random_seed", "global_seed_generator")
# JAX settings that distributed training changes.
JAX = ("jax_cpu_collectives_implementation", "jax_enable_preemption_service")


def train(
    recipe: Recipe,
    output: str | Path = "runs/flowers",
    *,
    distribution: Distribution | None = None,
    save_every: int | None = None,
    note: str | None = None,
    command: str | None = None,
    placement: Distribution | None = None,
) -> Path:
    """Trains, evaluates, exports and reports.

    If `output` has an interrupted training with the same recipe, it is resumed from its last
    checkpoint. With `deterministic` in the recipe, and on the CPU of the same machine, the
    resulting weights are bit-identical to those of an uninterrupted training.

    Args:
        recipe: The recipe.
        output: The run folder. If it has a finished training, the first of output-2, output-3, ...
            without one is used.
        distribution: A `Distribution`. Default: one device of this machine. Batch statistics are
            computed over all devices.
        save_every: Steps between checkpoints. Default: only at the end of each epoch.
        note: A sentence about the data, for the report.
        command: Command line to show in the report. Default: that of this process.
        placement: The old name of `distribution`.

    Returns:
        The run folder: `best.keras`, `best.pth`, `last.keras`, `class_indices.json`, `recipe.json`,
        `data.safetensors`, `history.csv`, `curves.png`, `confusion_matrix.png`, `mistakes.png`,
        `predictions.csv`, `skipped.csv`, `model.svg`, `tensorboard/`, `saved_model/1/` and, last,
        `report.md`. While the training is unfinished, there is `checkpoint.safetensors` too. A
        failure to create a picture or TensorBoard's logs is only a warning; the report lists what
        is missing.

    Raises:
        ValueError: if the data, the weights or a field of the recipe is invalid, before anything is
            written; if the folder has an unfinished training with another recipe, or another
            process is training there.
        TrainingError: if the loss becomes NaN or infinite. The best network so far is kept.
        OSError: if the folder cannot be written. The last checkpoint is kept.
    """
    if placement is not None:
        warnings.warn("placement was renamed: pass distribution.", DeprecationWarning, stacklevel=2)
    if recipe.data is None:
        raise ValueError("The recipe has no data: set it to a folder, or the name of a data set.")
    distribution = distribution or placement or Distribution()
    distribution.check(recipe)
    command = command or shlex.join(["python", *sys.argv])
    recipe = recipe.located()
    # One process locks and writes the folder; other processes, if any, share it.
    lock = locked if distribution.writes else _unlocked
    with (
        caller_restored(),
        lock(output, recipe) as folder,
        distribution.explained(folder),
        _interruption_explained(folder, command, distribution) as begun,
    ):
        keras.utils.set_random_seed(recipe.seed)
        if recipe.deterministic:
            tf.config.experimental.enable_op_determinism()
        _train_in(folder, recipe, distribution, save_every, note, command, begun)
    return folder


def _train_in(folder, recipe, distribution, save_every, note, command, begun):
    """Trains in a run folder, which is locked if this process writes it."""
    found = checkpoint.load(folder)
    if distribution.processes > 1 and found and found[0].ends(recipe):
        if not distribution.writes:
            return
        distribution = Distribution()  # other processes may have exited; only the report is missing
    scope = distribution.start()
    sources, parts, skipped = _data(recipe, distribution)
    before, usual = recipe_of(folder), Preprocessing(**CONFIGS[recipe.model].pixels)
    if before:
        recipe = recipe.resolved_as(before)
    elif recipe.weights:
        usual = preprocessing_of(recipe.weights, recipe.model) or usual
    recipe = recipe.with_pixels_of(usual)
    recipe = distribution.resolved(recipe, recipe.epochs * sources[0].count // recipe.batch_size)
    weights = None if found else recipe.weights
    plain, model = _networks(recipe, weights, sources[0], scope, distribution)
    state, arrays = _state(found, folder, sources, distribution)
    for bad, known in zip(skipped, state.skipped, strict=True):
        bad.reasons.update(known)
    training = Training(recipe, model, plain, parts, skipped, folder, save_every, distribution)
    if distribution.writes:
        _say_what_starts(training, sources, state)
        _write_beginning(training, sources, command)
    begun.append(state)
    _fit(training, state, arrays, scope)
    distribution.part()
    if distribution.writes:
        training = dataclasses.replace(training, sources=sources)
        if recipe.swa_start is not None:
            copy_average(training, folder)
            for name in (BEST, LAST):
                write_network(plain, folder / name)
        finish(training, state, note=note, command=command)
        (folder / checkpoint.NAME).unlink(missing_ok=True)


def _data(recipe, distribution):
    """Returns the training and validation images, this process's parts, and their `Skipped`."""
    split = {"validation_split": recipe.validation_split, "seed": recipe.seed}
    sources = parts = training_sources(recipe.data, **split)
    if distribution.processes > 1:
        parts = training_sources(recipe.data, worker=distribution.worker, **split)
    labels.check(recipe, sources, distribution.processes)
    if recipe.class_weights is not None:
        weights = labels.class_weights(recipe.class_weights, sources[0])
        parts = parts[0].weighted(weights), parts[1]
    skipped = Skipped(), Skipped()
    for source, bad in zip(parts, skipped, strict=True):
        check_sample(source, bad, max_bad=recipe.max_bad, seed=recipe.seed)
    return sources, parts, skipped


def _networks(recipe, weights, source, scope, distribution):
    """Builds the network to save, and the network to train, which returns logits."""
    plain = models.create(
        recipe.model,
        weights=weights,
        classes=len(source.class_names),
        classifier_activation="sigmoid" if source.multi_label else "softmax",
        input_shape=(recipe.image_size, recipe.image_size, 3),
        zero_init_residual=recipe.zero_init_residual,
        dtype="float32",
    )
    side = None if recipe.train_size or recipe.train_sizes else recipe.image_size
    with scope():
        model = models.create(
            recipe.model,
            classes=len(source.class_names),
            classifier_activation=None,
            input_shape=(side, side, 3),
            dropout=recipe.dropout,
            drop_path=recipe.drop_path,
            synchronized=distribution.devices > 1,
            dtype=recipe.precision,
        )
    copy_weights(plain, model)
    return plain, model


def _fit(training, state, arrays, scope):
    """Trains the head alone, then the network, from the current state to the end."""
    recipe, plain, model = training.recipe, training.plain, training.model
    if state.epoch < recipe.head_epochs:
        if arrays:
            checkpoint.restore(arrays, {"weights": plain.weights})
        with Features(training) as cached:
            fit(training, head_phase(training, cached), state, arrays)
        copy_weights(plain, model)
        arrays = {}
    elif arrays:
        checkpoint.restore(arrays, {"weights": model.weights})
    if state.ends(recipe):
        return
    if recipe.freeze_until:
        features.freeze(model, recipe.freeze_until)
    with scope():
        phase = network_phase(training)
    if phase.model.distillation is not None:
        teacher = phase.model.distillation.checksum()
        if state.teacher not in (None, teacher):
            raise ValueError(
                f"The teacher {recipe.teacher} has changed since {training.folder} began. Restore "
                "it, or choose another run folder."
            )
        state.teacher = teacher
    fit(training, phase, state, arrays, scope)


@contextlib.contextmanager
def _unlocked(output, recipe):
    yield run_folder(output, recipe)


def _state(found, folder, sources, distribution):
    """Returns the state of the training in a folder, and the arrays of its checkpoint."""
    counts = tuple(source.count for source in sources)
    here = np.array([found[0].epoch, found[0].step] if found else [-1, -1], np.int32)
    if (distribution.total(here) != here * distribution.processes).any():
        raise ValueError(
            f"The processes see different checkpoints in {folder}: put the run folder on a disk "
            "that they share."
        )
    if found is None:
        return TrainingState(counts), {}
    known = Fingerprint.read(folder)
    if known is not None:
        known.check(sources, folder)
    elif found[0].counts != counts:  # from an older release
        raise ValueError(
            f"The data has changed since {folder} began: {found[0].counts} training and "
            f"validation images, now {counts}. Choose another run folder."
        )
    return found


def _write_beginning(training, sources, command):
    recipe, folder, classes = training.recipe, training.folder, sources[0].class_names
    if not (folder / RECIPE).exists():
        content = {**dataclasses.asdict(recipe), "classes": list(classes), "command": command}
        content |= {MULTI_LABEL: True} if sources[0].multi_label else {}
        write_text(folder / RECIPE, json.dumps(content, indent=2))
    save_class_indices(classes, folder / CLASSES)
    write_skipped(training.skipped, folder)
    if not (folder / checkpoint.NAME).exists():
        Fingerprint.of(sources).write(folder)
    with adorning("model.svg", training.missing):
        visualize.plot(training.plain, folder / "model.svg")
    training.callbacks.extend(adornments.tensorboard(folder, training.missing))


def _say_what_starts(training, sources, state):
    recipe, (train_source, val_source) = training.recipe, sources
    logger.info(
        "%d training images, %d validation images. Classes: %s.",
        train_source.count,
        val_source.count,
        ", ".join(train_source.class_names),
    )
    logger.info(
        "%s, %s parameters, at %d px in %s on %s. Run folder: %s.",
        recipe.model,
        f"{training.plain.count_params():,}",
        recipe.train_size or recipe.image_size,
        recipe.precision,
        training.distribution,
        training.folder,
    )
    if recipe.jit_compile:
        logger.info("XLA is compiling the first steps, which takes about a minute.")
    if lacks_onednn():
        logger.info(
            "TensorFlow is running without oneDNN. Set TF_ENABLE_ONEDNN_OPTS=1 before importing "
            "it: a training step is then 1.1 to 1.3 times as fast."
        )
    twice = files_in_both(*sources)
    if twice:
        logger.warning(
            "%d validation images are also training images, byte for byte: the validation "
            "accuracy will be too high. The first: %s. Remove one of each pair; keras-resnet "
            "check-data lists those in train and val folders.",
            len(twice),
            "; ".join(" and ".join(pair) for pair in twice[:3]),
        )
    if state.epoch or state.step:
        logger.info("Continuing after %s.", state)


@contextlib.contextmanager
def _interruption_explained(folder, command, distribution):
    """Logs where Ctrl+C stopped a training; yields a list for its state, once it has begun."""
    begun: list[TrainingState] = []
    try:
        yield begun
    except KeyboardInterrupt:
        if distribution.writes:
            where = f"in epoch {begun[0].epoch + 1}, after step {begun[0].step}" if begun else ""
            found = checkpoint.load(folder)
            logger.warning(
                "Stopped %s. %s %s",
                where or "before the first step",
                f"The last checkpoint is from {found[0]}; the same command resumes from it:"
                if found
                else "There is no checkpoint yet; the same command starts over:",
                command,
            )
        raise


@contextlib.contextmanager
def caller_restored():
    """Restores the global state of the caller's program: seeds, determinism and JAX's settings.

    Keras and TensorFlow have no public functions for this. Not restored are TensorFlow's logical
    devices, the positions of TensorFlow operations with their own seeds, and JAX's connection to
    other processes, which is closed.
    """
    eager, jax = context.context(), cast(Any, sys.modules.get("jax"))
    python, numpy = random.getstate(), np.random.get_state()
    seed, drawn = eager._seed, getattr(eager, "_rng", None)
    rng = drawn and drawn.getstate()
    deterministic = config.is_op_determinism_enabled()
    seeds = {name: global_state.get_global_attribute(name) for name in SEEDS}
    settings = {name: getattr(jax.config, name) for name in JAX if jax}
    try:
        yield
    finally:
        for name, value in settings.items():
            jax.config.update(name, value)
        for name, value in seeds.items():
            global_state.set_global_attribute(name, value)
        if not deterministic:
            config.disable_op_determinism()
        tf.random.set_seed(seed)
        if rng:
            eager._rng.setstate(rng)
        np.random.set_state(numpy)
        random.setstate(python)
