"""Results of a finished training: charts, predictions, the SavedModel and the report."""

import contextlib
import dataclasses
import json
import logging
import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import version

import keras
import numpy as np
import tensorflow as tf

from keras_resnet import export, visualize, weights
from keras_resnet.export import verification
from keras_resnet.files import write_csv, write_text
from keras_resnet.trained import Evaluation, MultiLabelEvaluation, Network, evaluate
from keras_resnet.trained.evaluation import TOP5_CLASSES
from keras_resnet.trained.run import MEAN_AP, PREDICTIONS, REPORT, load_best
from keras_resnet.training import adornments, checkpoint
from keras_resnet.training.adornments import adorning
from keras_resnet.weights.description import THRESHOLDS

logger = logging.getLogger("keras_resnet")

VERIFIED = 16  # number of validation images on which the SavedModel is compared with the model
PICTURED = 16  # number of misclassified images that are drawn
PACKAGES = ("keras3-resnet", "keras", "tensorflow", "numpy")
EXPORT = (  # code that runs in a new process
    "import sys; from keras_resnet.trained import Network\n"
    "Network.from_run(sys.argv[1]).export('saved_model')"
)
SHOWN = 20  # maximum number of rows of a table in the report; the CSV files have all


def finish(training, state, *, note, command):
    """Evaluates the best network, exports it and writes the report.

    Args:
        training: A `Training`.
        state: Its final `TrainingState`.
        note: A sentence about the data for the report, or None.
        command: The command line of the training.
    """
    recipe, folder, (train, val) = training.recipe, training.folder, training.sources
    missing = training.missing
    write_history(state.history, folder)
    history = {name: [row[name] for row in state.history] for name in state.history[0]}
    with adorning("curves.png", missing):
        visualize.curves(history, folder / "curves.png")
    best = load_best(folder)
    weights.save(best, folder / "best.pth")
    found = evaluate(
        best,
        val,
        recipe.preprocessing,
        batch_size=recipe.batch_size,
        skipped=training.skipped[1],
        pictured=PICTURED,
    )
    if isinstance(found, MultiLabelEvaluation):
        found = found.with_best_thresholds()
        said = dict(zip(found.class_names, map(float, found.thresholds), strict=True))
        write_text(folder / THRESHOLDS, json.dumps(said, indent=2, ensure_ascii=False))
    else:
        with adorning("confusion_matrix.png", missing):
            path = folder / "confusion_matrix.png"
            visualize.confusion_matrix(found.matrix, val.class_names, path)
        with adorning("mistakes.png", missing):
            _draw_mistakes(found, folder / "mistakes.png")
    found.write(folder / PREDICTIONS)
    with adorning("images in TensorBoard", missing):
        adornments.write_pictures(recipe, train, folder, len(history["loss"]))
    error = _export(best, recipe, val, folder)

    left_out = write_skipped(training.skipped, folder)
    best_epoch = int(np.argmax([checkpoint.score(row) for row in state.history])) + 1
    averaged = recipe.swa_start is not None
    kept = "the averaged weights" if averaged else "the best epoch"
    facts = [
        *([("note", note)] if note else []),
        *_figures(found, kept),
        *([] if averaged else [("best epoch", f"{best_epoch} of {len(history['loss'])}")]),
        ("largest difference between the SavedModel and the model", f"{error:.1e}"),
        ("device", str(training.distribution)),
        *_said(recipe),
    ]
    text = report(
        folder.name,
        facts=facts,
        classes=_classes(train, found),
        missing=missing,
        skipped=left_out,
        found=found,
        command=command,
    )
    write_text(folder / REPORT, text)
    for file, reason in left_out[:SHOWN]:
        logger.warning("Skipped %s: %s.", file, reason)
    if left_out:
        logger.warning("%d images were skipped: see %s.", len(left_out), folder / "skipped.csv")
    result = str(found) if isinstance(found, MultiLabelEvaluation) else f"accuracy {found.top1:.4f}"
    logger.info("Validation %s. Run folder: %s.", result, folder)


def write_skipped(skipped, folder):
    """Writes skipped.csv; returns its (file, reason) rows."""
    rows = [row for part in skipped for row in [*part.unread.items(), *part.reasons.items()]]
    write_csv(folder / "skipped.csv", ("file", "reason"), rows)
    return rows


def write_history(history, folder):
    """Writes history.csv from a list with a dictionary for each epoch."""
    header = list(history[0])
    rows = [[row[name] for name in header] for row in history]
    write_csv(folder / "history.csv", header, rows)


def _said(recipe):
    """Yields (name, value) of all fields of a recipe."""
    for name, value in dataclasses.asdict(recipe).items():
        if isinstance(value, dict):
            value = ", ".join(f"{key}={part}" for key, part in value.items())
        if value not in (None, "", ()):
            yield name, value


def _figures(found, kept):
    """(name, value) of what the network reached that is kept."""
    if isinstance(found, MultiLabelEvaluation):
        yield f"mean average precision of {kept}", f"{found.figures[MEAN_AP]:.4f}"
        for mean in ("micro", "macro"):
            value = found.figures[f"f1_{mean}"]
            yield f"F1, {mean}, at thresholds chosen on these images", f"{value:.4f}"
        return
    yield f"validation accuracy of {kept}", f"{found.top1:.4f}"
    if len(found.matrix) >= TOP5_CLASSES:
        yield f"top-5 accuracy of {kept}", f"{found.top5:.4f}"


def _classes(train, found):
    """Returns the columns of the report's table of classes, {header: a cell for each class}."""

    def written(values):
        return [f"{value:.3f}" for value in values]

    # Without the training counts, if all images would have to be read again to count them.
    counts = {} if train.counts is None else {"train": train.counts}
    if isinstance(found, MultiLabelEvaluation):
        totals = found.targets.sum(0)
        columns = {"AP": found.average_precisions, "F1": found.f1, "threshold": found.thresholds}
        others = {name: written(values) for name, values in columns.items()}
    else:
        totals = found.matrix.sum(axis=1)
        others = {"right": written(np.diag(found.matrix) / np.maximum(totals, 1))}
    return {"class": train.class_names, **counts, "validate": totals, **others}


def _draw_mistakes(found, path):
    """Draws misclassified images, after preprocessing."""
    titles = {
        file: f"predicted {predicted} ({float(probability):.2f}), labelled {label}"
        for file, label, predicted, probability in found.mistakes[:PICTURED]
    }
    if titles:
        visualize.gallery([found.pictures[file] for file in titles], list(titles.values()), path)


def _export(model, recipe, source, folder):
    """Exports a SavedModel, and compares its predictions in a new process with the model's."""
    shutil.rmtree(folder / "saved_model", ignore_errors=True)  # from a killed process
    if keras.backend.backend() == "tensorflow":
        version = Network.from_run(folder).export("saved_model")
    else:  # SavedModels need TensorFlow
        version = folder / "saved_model" / "1"
        done = subprocess.run(  # noqa: S603 (a script of this package)
            [sys.executable, "-c", EXPORT, str(folder)],
            env={**os.environ, "KERAS_BACKEND": "tensorflow"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise ValueError(f"{version} could not be written:\n{done.stderr[-2000:]}")

    key = tf.constant([recipe.seed, -2], tf.int64)  # a random order, without reading all images
    images, inputs = [], []
    for _, item, *_ in source.examples(key, 0).take(VERIFIED).ignore_errors():
        with contextlib.suppress(tf.errors.OpError):  # unreadable
            content = source.read(item)
            inputs.append(recipe.preprocessing(content).numpy())
            images.append(content.numpy())
    answers = export.answers_in_new_process(version, images)
    compared = verification.compare(answers, model, np.stack(inputs), verification.tolerance(model))
    compared.check(f"The SavedModel {version}")
    logger.info(
        "%s was run in a new process on %d validation images; the largest difference from the "
        "model is %.1e of the largest output.",
        version,
        compared.images,
        compared.error,
    )
    return compared.error


def report(title, *, facts, classes, skipped, found, missing, command) -> str:
    """Returns the text of report.md.

    Args:
        title: The run's name.
        facts: (name, value) pairs.
        classes: The columns of the table of classes, {header: cells}.
        skipped: (file, reason) rows.
        found: The evaluation of the validation images, an `Evaluation` or a
            `MultiLabelEvaluation`.
        missing: {file: reason} of pictures that could not be created.
        command: The command line of the training.
    """

    def picture(name, file):
        return [] if file in missing else [f"![{name}]({file})", ""]

    lines = [f"# {title}", "", *_table(("", ""), facts), "", *picture("Curves", "curves.png")]
    if missing:
        lines += ["## Missing", "", *_table(("what", "why"), missing.items()), ""]
    lines += ["## Classes", "", *_table(classes, zip(*classes.values(), strict=True)), ""]
    mistakes = found.mistakes
    if isinstance(found, MultiLabelEvaluation):
        lines += ["## Validation images with a class missing or wrong", ""]
    else:
        lines += picture("Confusion matrix", "confusion_matrix.png")
        lines += ["## Misclassified validation images, most confident first", ""]
    lines += _table(found.header, mistakes[:SHOWN]) if mistakes else ["None."]
    pictured = mistakes and isinstance(found, Evaluation)
    lines += ["", *(picture("Mistakes", "mistakes.png") if pictured else [])]
    lines += ["All predictions are in predictions.csv.", "", "## Skipped files", ""]
    lines += _table(("file", "reason"), skipped[:SHOWN]) if skipped else ["None."]
    if len(skipped) > SHOWN:
        lines += ["", f"{len(skipped) - SHOWN} more are in skipped.csv."]
    lines += ["", "## Made by", "", "```", command, "```", ""]
    lines += _table(("package", "version"), [(name, _version(name)) for name in PACKAGES])
    lines += ["", f"Python {platform.python_version()} on {platform.platform()}", ""]
    lines += picture("The network", "model.svg")
    return "\n".join(lines)


def _table(header, rows):
    yield "| " + " | ".join(header) + " |"
    yield "|" + " --- |" * len(header)
    for row in rows:
        yield "| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |"


def _version(package):
    try:
        return version(package)
    except ImportError:  # importlib.metadata's PackageNotFoundError: run from a checkout
        return "not installed"
