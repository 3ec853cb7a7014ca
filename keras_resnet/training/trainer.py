"""Trains a network by a recipe and leaves a run folder."""

import collections
import dataclasses
import json
import logging
import os
import shlex
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_resnet import export, models, visualize, weights
from keras_resnet.data import Augmentation, Skipped, save_class_indices
from keras_resnet.data.datasets import tfds_sources
from keras_resnet.data.image_folder import split_images
from keras_resnet.data.pipeline import evaluation_batches, training_batches, without_names
from keras_resnet.data.places import steps_per_epoch
from keras_resnet.data.skipped import check_sample
from keras_resnet.files import replacing, write_text
from keras_resnet.training.recipe import Recipe
from keras_resnet.training.report import SHOWN, read_history, report, write_csv
from keras_resnet.training.run import new_run_folder

logger = logging.getLogger("keras_resnet")

VERIFIED = 16  # Validation images that the SavedModel and the model both answer.
TOLERANCE = 1e-4  # Largest difference between their probabilities.


def train(recipe: Recipe, output="runs/flowers", *, note=None, command=None) -> Path:
    """Trains, evaluates, exports and reports.

    Args:
        recipe: The training.
        output: The run folder; if it holds a run already, the next of output-2, output-3, ... is
            used.
        note: A sentence on the data for the report.
        command: The command line that the report gives. Default: this process's.

    Returns:
        The run folder: `best.keras`, `best.pth`, `last.keras`, `class_indices.json`, `recipe.json`,
        `history.csv`, `curves.png`, `confusion_matrix.png`, `predictions.csv`, `skipped.csv`,
        `model.svg`, `saved_model/1/` and, last, `report.md`.

    Raises:
        ValueError: if the data, the weights or a number of the recipe will not do; before anything
            is written.
    """
    command = command or shlex.join(["python", *sys.argv])
    keras.utils.set_random_seed(recipe.seed)
    skipped = Skipped(), Skipped()
    train_source, val_source = _sources(recipe, skipped)
    classes = train_source.class_names
    model = models.create(
        recipe.model,
        weights=recipe.weights,
        classes=len(classes),
        input_shape=(recipe.image_size, recipe.image_size, 3),
    )
    folder = new_run_folder(output)
    folder.mkdir(parents=True, exist_ok=True)
    _say_what_starts(recipe, model, train_source, val_source, folder)

    save_class_indices(classes, folder / "class_indices.json")
    write_text(folder / "recipe.json", _recipe_json(recipe, classes, command))
    _write_skipped(skipped, folder)
    visualize.plot(model, folder / "model.svg")

    train_labels = _fit(model, recipe, train_source, val_source, skipped, folder)
    history = read_history(folder / "history.csv")
    visualize.curves(history, folder / "curves.png")

    best = keras.saving.load_model(folder / "best.keras", compile=False)
    weights.save(best, folder / "best.pth")
    rows, matrix = _predictions(best, recipe, val_source, skipped[1])
    write_csv(folder / "predictions.csv", ("file", "label", "predicted", "probability"), rows)
    visualize.confusion_matrix(matrix, classes, folder / "confusion_matrix.png")
    error = _export(best, recipe, val_source, folder)

    left_out = _write_skipped(skipped, folder)
    accuracy = float(np.trace(matrix) / matrix.sum())
    facts = [
        *([("note", note)] if note else []),
        ("validation accuracy of the best epoch", f"{accuracy:.4f}"),
        ("best epoch", f"{int(np.argmax(history['val_accuracy'])) + 1} of {recipe.epochs}"),
        ("SavedModel against the model, largest difference", f"{error:.1e}"),
        ("device", _device()),
        *((name, value) for name, value in dataclasses.asdict(recipe).items() if value is not None),
    ]
    counts = zip(classes, train_labels, matrix.sum(axis=1), np.diag(matrix), strict=True)
    text = report(
        folder.name,
        facts=facts,
        classes=[
            (name, n, total, f"{right / max(total, 1):.3f}") for name, n, total, right in counts
        ],
        skipped=left_out,
        mistakes=sorted((row for row in rows if row[1] != row[2]), key=lambda row: -float(row[3])),
        command=command,
    )
    write_text(folder / "report.md", text)
    for file, reason in left_out[:SHOWN]:
        logger.warning("Left out %s: %s.", file, reason)
    if left_out:
        logger.warning("%d images were left out: see %s.", len(left_out), folder / "skipped.csv")
    logger.info("Validation accuracy %.4f. The run is in %s.", accuracy, folder)
    return folder


def _sources(recipe, skipped):
    """The training and validation sources; `skipped` is told what is bad of a sample of each."""
    if recipe.dataset is not None:
        sources = tfds_sources(recipe.dataset, validation_split=recipe.validation_split)
    else:
        parts = split_images(
            recipe.data_dir, validation_split=recipe.validation_split, seed=recipe.seed
        )
        sources = tuple(part.source() for part in parts)
    for source, bad in zip(sources, skipped, strict=True):
        check_sample(source, bad, max_bad=recipe.max_bad, seed=recipe.seed)
    return sources


def _write_skipped(skipped, folder):
    """Writes skipped.csv; returns its (file, reason) rows."""
    rows = [row for part in skipped for row in list(part.reasons.items())]
    write_csv(folder / "skipped.csv", ("file", "reason"), rows)
    return rows


def _say_what_starts(recipe, model, train_source, val_source, folder):
    logger.info(
        "%d images train, %d validate. Classes: %s.",
        train_source.count,
        val_source.count,
        ", ".join(train_source.class_names),
    )
    logger.info(
        "%s, %s parameters, at %d px on %s. Run folder: %s.",
        recipe.model,
        f"{model.count_params():,}",
        recipe.image_size,
        _device(),
        folder,
    )


def _device():
    accelerators = tf.config.list_physical_devices("GPU")
    return f"{len(accelerators)} GPU(s)" if accelerators else "the CPU"


def _recipe_json(recipe, classes, command):
    content = {
        **dataclasses.asdict(recipe),
        **{
            name: value
            for name, value in dataclasses.asdict(recipe.preprocessing).items()
            if name != "crop"  # it is the image_size
        },
        "classes": list(classes),
        "command": command,
    }
    return json.dumps(content, indent=2)


class _Checkpoint(keras.callbacks.Callback):
    """Saves each epoch's model, the best by validation accuracy too; never half a file."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder
        self.best = -1.0

    def on_epoch_end(self, epoch, logs=None):
        """Saves last.keras and, where it is the best so far, best.keras."""
        self._save("last.keras")
        if logs["val_accuracy"] > self.best:
            self.best = logs["val_accuracy"]
            self._save("best.keras")

    def _save(self, name):
        with replacing(self.folder / name) as temporary:
            self.model.save(temporary)


def _fit(model, recipe, train_source, val_source, skipped, folder):
    """Trains; returns how many training images each class has."""
    steps = steps_per_epoch(train_source, recipe.batch_size)
    learning_rate = recipe.learning_rate
    if recipe.schedule == "cosine":
        learning_rate = keras.optimizers.schedules.CosineDecay(learning_rate, recipe.epochs * steps)
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate),
        loss=keras.losses.SparseCategoricalCrossentropy(),
        metrics=["accuracy"],
    )
    train = training_batches(
        train_source,
        preprocessing=recipe.preprocessing,
        batch_size=recipe.batch_size,
        seed=recipe.seed,
        augmentation=Augmentation(crop_scale=recipe.crop_scale),
        first_step=0,
        skipped=skipped[0],
    )
    val = evaluation_batches(
        val_source, recipe.preprocessing, batch_size=recipe.batch_size, skipped=skipped[1]
    )
    sizes = train_source.count, val_source.count

    def judge_again(epoch, logs):
        _write_skipped(skipped, folder)
        if epoch == 0:
            for bad, count in zip(skipped, sizes, strict=True):
                bad.judge(len(bad) / count, recipe.max_bad, f"{len(bad)} of {count}")

    model.fit(
        train,
        steps_per_epoch=steps,
        validation_data=without_names(val),
        epochs=recipe.epochs,
        shuffle=False,  # the pipeline shuffles
        callbacks=[
            _Checkpoint(folder),
            keras.callbacks.CSVLogger(folder / "history.csv"),
            keras.callbacks.LambdaCallback(on_epoch_end=judge_again),
        ],
    )
    labels = collections.Counter(
        int(label) for _, _, label in train_source.examples(None, 0).as_numpy_iterator()
    )
    return [labels[number] for number in range(len(train_source.class_names))]


def _predictions(model, recipe, source, skipped):
    """(file, label, predicted, probability) rows of a source, and the confusion matrix."""
    classes = source.class_names
    matrix = np.zeros((len(classes), len(classes)), int)
    rows, seen = [], set()  # where a whole batch is bad, another image comes twice
    batches = evaluation_batches(
        source, recipe.preprocessing, batch_size=recipe.batch_size, skipped=skipped
    )
    for images, labels, names in batches:
        answers = model.predict_on_batch(images)
        for name, label, answer in zip(names.numpy(), labels.numpy(), answers, strict=True):
            if name in seen:
                continue
            seen.add(name)
            predicted = int(np.argmax(answer))
            matrix[label, predicted] += 1
            probability = f"{answer[predicted]:.6f}"
            rows.append((os.fsdecode(name), classes[label], classes[predicted], probability))
    return rows, matrix


def _export(model, recipe, source, folder):
    """Writes the SavedModel and compares its answers, in a new process, with the model's."""
    version = export.saved_model(
        model,
        folder / "saved_model",
        preprocessing=recipe.preprocessing,
        class_names=source.class_names,
    )

    def load(_, item, __):
        content = source.read(item)
        return content, recipe.preprocessing(content)

    step = max(source.count // VERIFIED, 1)
    chosen = source.examples(None, 0).shard(step, 0).take(VERIFIED).map(load).ignore_errors()
    images, inputs = zip(*chosen.as_numpy_iterator(), strict=True)
    expected = model.predict(np.stack(inputs), verbose=0)
    error = float(np.abs(export.probabilities_in_new_process(version, images) - expected).max())
    if not error <= TOLERANCE:
        raise ValueError(
            f"The SavedModel {version} and the model differ by {error:.2g} in their probabilities "
            f"on {len(images)} validation images; {TOLERANCE} was allowed. Do not serve it."
        )
    logger.info(
        "%s, run in a new process on %d validation images, answers as the model does: the largest "
        "difference is %.1e.",
        version,
        len(images),
        error,
    )
    return error
