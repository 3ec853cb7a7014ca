"""What a finished training leaves: pictures, predictions, the SavedModel and the report."""

import dataclasses
import logging
import os
import shutil
import subprocess
import sys

import keras
import numpy as np
import tensorflow as tf

from keras_resnet import export, visualize, weights
from keras_resnet.export import verification
from keras_resnet.files import write_text
from keras_resnet.training import exporting, tensorboard
from keras_resnet.training.adorning import adorning
from keras_resnet.training.evaluation import evaluate
from keras_resnet.training.phases import Setting
from keras_resnet.training.report import SHOWN, report, write_history, write_skipped
from keras_resnet.training.run import REPORT, load_best

logger = logging.getLogger("keras_resnet")

VERIFIED = 16  # Validation images that the SavedModel and the model both answer.
PICTURED = 16  # Mistakes that are shown as pictures.


def finish(setting: Setting, progress, *, note, command):
    """Evaluates the best network, exports it and reports.

    Args:
        setting: The training's.
        progress: Its `Progress`, at the end.
        note: A sentence on the data for the report, or None.
        command: The command line that made the run.
    """
    recipe, folder, (train, val) = setting.recipe, setting.folder, setting.sources
    missing = setting.missing
    write_history(progress.history, folder)
    history = {name: [row[name] for row in progress.history] for name in progress.history[0]}
    with adorning("curves.png", missing):
        visualize.curves(history, folder / "curves.png")
    best = load_best(folder)
    weights.save(best, folder / "best.pth")
    found = evaluate(
        best,
        val,
        recipe.preprocessing,
        batch_size=recipe.batch_size,
        skipped=setting.skipped[1],
        pictured=PICTURED,
    )
    found.write(folder / "predictions.csv")
    with adorning("confusion_matrix.png", missing):
        visualize.confusion_matrix(found.matrix, val.class_names, folder / "confusion_matrix.png")
    with adorning("mistakes.png", missing):
        _draw_mistakes(found, folder / "mistakes.png")
    with adorning("pictures in TensorBoard", missing):
        tensorboard.write_pictures(recipe, train, folder, len(history["loss"]))
    error = _export(best, recipe, val, folder)

    left_out = write_skipped(setting.skipped, folder)
    best_epoch = int(np.argmax(history["val_accuracy"])) + 1
    facts = [
        *([("note", note)] if note else []),
        ("validation accuracy of the best epoch", f"{found.top1:.4f}"),
        ("its top-5 accuracy", f"{found.top5:.4f}"),
        ("best epoch", f"{best_epoch} of {len(history['loss'])}"),
        ("SavedModel against the model, largest difference", f"{error:.1e}"),
        ("device", str(setting.placement)),
        *_said(recipe),
    ]
    text = report(
        folder.name,
        facts=facts,
        classes=_classes(train, found.matrix),
        missing=missing,
        skipped=left_out,
        mistakes=found.mistakes,
        command=command,
    )
    write_text(folder / REPORT, text)
    for file, reason in left_out[:SHOWN]:
        logger.warning("Left out %s: %s.", file, reason)
    if left_out:
        logger.warning("%d images were left out: see %s.", len(left_out), folder / "skipped.csv")
    logger.info("Validation accuracy %.4f. The run is in %s.", found.top1, folder)


def _said(recipe):
    """(name, value) of all that a recipe says."""
    for name, value in dataclasses.asdict(recipe).items():
        if isinstance(value, dict):
            value = ", ".join(f"{key}={part}" for key, part in value.items())
        if value not in (None, "", ()):
            yield name, value


def _classes(train, matrix):
    """The columns of the report's table: {header: a cell for each class}."""
    totals = matrix.sum(axis=1)
    # Where only reading all images again would say how many of each class train, it is left out.
    counts = {} if train.counts is None else {"train": train.counts}
    right = [f"{share:.3f}" for share in np.diag(matrix) / np.maximum(totals, 1)]
    return {"class": train.class_names, **counts, "validate": totals, "right": right}


def _draw_mistakes(found, path):
    """Draws the images that were named wrongly, as the network saw them."""
    titles = {
        file: f"{label}, taken for {predicted} ({float(probability):.2f})"
        for file, label, predicted, probability in found.mistakes[:PICTURED]
    }
    if titles:
        visualize.gallery([found.pictures[file] for file in titles], list(titles.values()), path)


def _export(model, recipe, source, folder):
    """Writes the SavedModel and compares its answers, in a new process, with the model's."""
    shutil.rmtree(folder / "saved_model", ignore_errors=True)  # of a process that was killed
    if keras.backend.backend() == "tensorflow":
        version = exporting.export_network("saved_model", run=folder)
    else:  # a SavedModel is TensorFlow's
        version = folder / "saved_model" / "1"
        done = subprocess.run(  # noqa: S603 (our own program)
            [sys.executable, "-m", exporting.__name__, str(folder)],
            env={**os.environ, "KERAS_BACKEND": "tensorflow"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise ValueError(f"{version} could not be written:\n{done.stderr[-2000:]}")

    def load(_, item, __):
        content = source.read(item)
        return content, recipe.preprocessing(content)

    key = tf.constant([recipe.seed, -2], tf.int64)  # at random, without reading all images
    chosen = source.examples(key, 0).take(VERIFIED).map(load).ignore_errors()
    images, inputs = zip(*chosen.as_numpy_iterator(), strict=True)
    answers = export.answers_in_new_process(version, list(images))
    compared = verification.compare(answers, model, np.stack(inputs), verification.tolerance(model))
    compared.check(f"The SavedModel {version}")
    logger.info(
        "%s, run in a new process on %d validation images, answers as the model does: the largest "
        "difference is %.1e of the largest value.",
        version,
        compared.images,
        compared.error,
    )
    return compared.error
