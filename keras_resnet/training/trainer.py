"""Trains a network by a recipe and leaves a run folder."""

import contextlib
import dataclasses
import json
import logging
import shlex
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_resnet import models, visualize
from keras_resnet.data import Skipped, save_class_indices
from keras_resnet.data.checking import files_in_both
from keras_resnet.data.locations import training_sources
from keras_resnet.data.skipped import check_sample
from keras_resnet.files import write_text
from keras_resnet.training import checkpoint, tensorboard
from keras_resnet.training.adorning import adorning
from keras_resnet.training.caller import caller_restored
from keras_resnet.training.checkpoint import Progress
from keras_resnet.training.fingerprint import Fingerprint
from keras_resnet.training.finishing import finish
from keras_resnet.training.fitting import fit
from keras_resnet.training.keeper import training_ends
from keras_resnet.training.phases import Setting
from keras_resnet.training.placement import Placement
from keras_resnet.training.recipe import Recipe
from keras_resnet.training.report import write_skipped
from keras_resnet.training.run import RECIPE, locked, recipe_of, run_folder
from keras_resnet.training.validation import copy_weights

logger = logging.getLogger("keras_resnet")


def train(
    recipe: Recipe,
    output="runs/flowers",
    *,
    placement=None,
    save_every=None,
    note=None,
    command=None,
) -> Path:
    """Trains, evaluates, exports and reports.

    If `output` holds a training of the same recipe that was interrupted, this one goes on where
    that one's last checkpoint was. With `deterministic` in the recipe, and on the CPU of the same
    machine, it ends with the weights of a training that was never interrupted, bit for bit.

    Args:
        recipe: The training.
        output: The run folder; if it holds a finished training, the first of output-2, output-3,
            ... that does not is used.
        placement: A `Placement`, if not one device of this machine. Batch statistics are taken
            over all devices.
        save_every: Steps between checkpoints. Default: one after each epoch.
        note: A sentence on the data for the report.
        command: The command line that the report gives. Default: this process's.

    Returns:
        The run folder: `best.keras`, `best.pth`, `last.keras`, `class_indices.json`, `recipe.json`,
        `data.safetensors`, `history.csv`, `curves.png`, `confusion_matrix.png`, `mistakes.png`,
        `predictions.csv`, `skipped.csv`, `model.svg`, `tensorboard/`, `saved_model/1/` and, last,
        `report.md`. Until it is finished there is `checkpoint.safetensors` too. A picture or
        TensorBoard's logs that cannot be made are a warning; the report says which are missing.

    Raises:
        ValueError: if the data, the weights or a number of the recipe will not do, before anything
            is written; if the folder holds an unfinished training of another recipe, or another
            process trains there.
        TrainingError: if the loss becomes no number. The best network so far is kept.
        OSError: if the folder cannot be written. The last checkpoint is kept.
    """
    if recipe.data is None:
        raise ValueError("The recipe has no data: a folder, or the name of a data set.")
    placement = placement or Placement()
    placement.check(recipe)
    command = command or shlex.join(["python", *sys.argv])
    recipe = recipe.located()
    # One process writes and locks; the others, where there are several, see the same folder.
    lock = locked if placement.writes else _unlocked
    with caller_restored(), lock(output, recipe) as folder, placement.explained(folder):
        keras.utils.set_random_seed(recipe.seed)
        if recipe.deterministic:
            tf.config.experimental.enable_op_determinism()
        _train_in(folder, recipe, placement, save_every, note, command)
    return folder


@contextlib.contextmanager
def _unlocked(output, recipe):
    yield run_folder(output, recipe)


def _train_in(folder, recipe, placement, save_every, note, command):
    """Trains in a run folder, which this process, if it writes, has locked."""
    if placement.processes > 1 and _is_trained(folder, recipe):
        if not placement.writes:
            return
        placement = Placement()  # the others may have left: only the report is missing
    scope = placement.start()
    skipped = Skipped(), Skipped()
    split = {"validation_split": recipe.validation_split, "seed": recipe.seed}
    sources = parts = training_sources(recipe.data, **split)
    if placement.processes > 1:
        parts = training_sources(recipe.data, worker=placement.worker, **split)
    for source, bad in zip(parts, skipped, strict=True):
        check_sample(source, bad, max_bad=recipe.max_bad, seed=recipe.seed)
    recipe = recipe.resolved_as(recipe_of(folder) or recipe)
    recipe = placement.resolved(recipe, recipe.epochs * sources[0].count // recipe.batch_size)
    plain = models.create(
        recipe.model,
        weights=None if (folder / checkpoint.NAME).exists() else recipe.weights,
        classes=len(sources[0].class_names),
        input_shape=(recipe.image_size, recipe.image_size, 3),
        zero_init_residual=recipe.zero_init_residual,
        dtype="float32",
    )
    model = _network_that_trains(recipe, plain, scope, placement)
    progress, state = _progress(folder, sources, placement)
    for bad, before in zip(skipped, progress.skipped, strict=True):
        bad.reasons.update(before)
    callbacks = []
    missing: dict[str, str] = {}
    if placement.writes:
        _say_what_starts(recipe, plain, sources, folder, placement, progress)
        _write_beginning(recipe, sources, skipped, folder, command)
        if not state:
            Fingerprint.of(sources).write(folder)
        with adorning("model.svg", missing):
            visualize.plot(plain, folder / "model.svg")
        callbacks = tensorboard.callbacks(folder, missing)
    setting = Setting(
        recipe, model, plain, parts, skipped, folder, save_every, callbacks, placement, missing
    )
    fit(setting, progress, state, scope)
    placement.part()
    if placement.writes:
        whole = dataclasses.replace(setting, sources=sources)
        finish(whole, progress, note=note, command=command)
        (folder / checkpoint.NAME).unlink(missing_ok=True)


def _is_trained(folder, recipe):
    """Whether the last checkpoint in a folder is that of the end of training."""
    found = checkpoint.load(folder)
    return found is not None and training_ends(found[0].history, recipe)


def _network_that_trains(recipe, plain, scope, placement):
    """The network with all that is for training only, and the weights of the plain one."""
    side = None if recipe.train_size else recipe.image_size
    with scope():
        model = models.create(
            recipe.model,
            classes=plain.output.shape[-1],
            input_shape=(side, side, 3),
            dropout=recipe.dropout,
            drop_path=recipe.drop_path,
            synchronized=placement.devices > 1,
            dtype=recipe.precision,
        )
    copy_weights(plain, model)
    return model


def _progress(folder, sources, placement):
    """Where the training in a folder is, and the arrays of its checkpoint."""
    counts = tuple(source.count for source in sources)
    found = checkpoint.load(folder)
    here = np.array([found[0].epoch, found[0].step] if found else [-1, -1], np.int32)
    if (placement.total(here) != here * placement.processes).any():
        raise ValueError(
            f"The processes do not see the same checkpoint in {folder}: put the run folder on a "
            "disk that all of them share."
        )
    if found is None:
        return Progress(counts), {}
    known = Fingerprint.read(folder)
    if known is not None:
        known.check(sources, folder)
    elif found[0].counts != counts:  # an older release began it
        raise ValueError(
            f"The data has changed since {folder} began: {found[0].counts} images trained and "
            f"validated, now {counts}. Choose another run folder."
        )
    return found


def _write_beginning(recipe, sources, skipped, folder, command):
    classes = sources[0].class_names
    if not (folder / RECIPE).exists():
        content = {**_recipe_content(recipe), "classes": list(classes), "command": command}
        write_text(folder / RECIPE, json.dumps(content, indent=2))
    save_class_indices(classes, folder / "class_indices.json")
    write_skipped(skipped, folder)


def _recipe_content(recipe):
    """What recipe.json holds of the recipe itself."""
    preprocessing = dataclasses.asdict(recipe.preprocessing)
    added = {name: preprocessing[name] for name in ("resize", "mean", "std")}
    return json.loads(json.dumps({**dataclasses.asdict(recipe), **added}))


def _say_what_starts(recipe, model, sources, folder, placement, progress):
    train_source, val_source = sources
    logger.info(
        "%d images train, %d validate. Classes: %s.",
        train_source.count,
        val_source.count,
        ", ".join(train_source.class_names),
    )
    logger.info(
        "%s, %s parameters, at %d px in %s on %s. Run folder: %s.",
        recipe.model,
        f"{model.count_params():,}",
        recipe.train_size or recipe.image_size,
        recipe.precision,
        placement,
        folder,
    )
    if recipe.jit_compile:
        logger.info("XLA compiles the first steps, which takes about a minute.")
    twice = files_in_both(*sources)
    if twice:
        logger.warning(
            "%d images that validate train too, byte for byte: the accuracy will be too good. The "
            "first: %s. Remove one of each; keras-resnet check-data finds those of train and val "
            "folders.",
            len(twice),
            "; ".join(" and ".join(pair) for pair in twice[:3]),
        )
    if progress.epoch or progress.step:
        logger.info("Going on after %s.", progress)
