"""Evaluation of networks on labelled images."""

import contextlib
import dataclasses
import math
import os
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from keras_resnet.data import DataError, Skipped
from keras_resnet.data.locations import evaluation_source
from keras_resnet.data.pipeline import evaluation_batches
from keras_resnet.data.source import Source
from keras_resnet.files import write_csv
from keras_resnet.preprocessing import Preprocessing, imagenet_classes
from keras_resnet.trained.fingerprint import Fingerprint, some
from keras_resnet.trained.multi_label import MultiLabelEvaluation
from keras_resnet.trained.prediction import answers

TOP5_CLASSES = 10  # minimum number of classes for which top-5 accuracy is shown


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation.

    Args:
        rows: (file, label, predicted, probability) of each image, strings.
        matrix: Confusion matrix: number of images of each class (rows) that were predicted as each
            class (columns).
        loss: Mean cross-entropy.
        top5: Top-5 accuracy, 0 to 1.
        pictures: {file: pixels, uint8 (height, width, 3)} of the first misclassified images, after
            preprocessing.
        skipped: {file: reason} of the images that could not be decoded.
        counted: Description of the images that were used.
        trained: Number of them that the network was trained on; None if unknown.
    """

    rows: list[tuple[str, str, str, str]]
    matrix: np.ndarray
    loss: float
    top5: float
    pictures: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    skipped: dict[str, str] = dataclasses.field(default_factory=dict)
    counted: str = ""
    trained: int | None = None

    header = ("file", "label", "predicted", "probability")

    @property
    def top1(self) -> float:
        """Top-1 accuracy, 0 to 1."""
        return float(np.trace(self.matrix) / self.matrix.sum())

    @property
    def figures(self) -> dict[str, float]:
        """loss, accuracy and top5."""
        return {"loss": self.loss, "accuracy": self.top1, "top5": self.top5}

    @property
    def mistakes(self) -> list[tuple[str, str, str, str]]:
        """The rows of misclassified images, highest probability first."""
        wrong = (row for row in self.rows if row[1] != row[2])
        return sorted(wrong, key=lambda row: -float(row[3]))

    def __str__(self):
        """Returns the accuracy and the numbers of images in one line."""
        top5 = f", top-5 {self.top5:.4f}" if len(self.matrix) >= TOP5_CLASSES else ""
        return f"top-1 {self.top1:.4f}{top5}, {len(self.rows)} images, {len(self.skipped)} skipped"

    def write(self, path: str | Path) -> None:
        """Writes the rows as a CSV file: file, label, predicted, probability."""
        write_csv(path, self.header, self.rows)


def evaluate(
    model: keras.Model,
    source: Source,
    preprocessing: Preprocessing,
    *,
    batch_size: int = 32,
    skipped: Skipped | None = None,
    pictured: int = 0,
    order: list[int] | None = None,
    thresholds: Sequence[float] | None = None,
    flip: bool = False,
) -> Evaluation | MultiLabelEvaluation:
    """Evaluates a network on the images of a source.

    Args:
        model: A model from normalised images to probabilities, (batch, classes).
        source: The images.
        preprocessing: The evaluation transform.
        batch_size: Number of images per batch.
        skipped: Collects the images that cannot be decoded.
        pictured: Number of misclassified images to keep; not of a multi-label source.
        order: Index of the model's class for each class of the source, if their order differs.
        thresholds: For a multi-label source, the least probability at which each class of the model
            is predicted. Default: 0.5.
        flip: Whether to average the probabilities with those of the mirrored images.

    Returns:
        The result, an `Evaluation`, or a `MultiLabelEvaluation` if the source is multi-label.
        Weights of images play no part.
    """
    batches = _answered(model, source, preprocessing, batch_size, skipped, order, flip)
    if source.multi_label:
        files, *columns = zip(*((*row[:3],) for rows in batches for row in rows), strict=True)
        if thresholds is not None and order is not None:
            thresholds = [thresholds[index] for index in order]
        targets, scores = map(np.stack, columns)
        return MultiLabelEvaluation.of(source.class_names, files, targets, scores, thresholds)
    classes = source.class_names
    matrix = np.zeros((len(classes), len(classes)), int)
    rows, near, loss = [], 0, 0.0
    wrong: list[tuple] = []
    scale, offset = 255 * np.array(preprocessing.std), 255 * np.array(preprocessing.mean)
    for batch in batches:
        for name, label, answer, image in batch:
            best = np.argsort(-answer, kind="stable")[:5]
            matrix[label, best[0]] += 1
            near += int(label in best)
            loss -= math.log(max(answer[label], 1e-7))  # as Keras does
            probability = f"{answer[best[0]]:.6f}"
            rows.append((name, classes[label], classes[best[0]], probability))
            if pictured and label != best[0]:
                wrong.append((rows[-1], image))
        # Copies, since a view would keep its whole batch in memory.
        wrong = [(row, image.copy()) for row, image in sorted(wrong, key=_certainty)[:pictured]]
    pictures = {
        row[0]: np.clip(image * scale + offset, 0, 255).round().astype(np.uint8)
        for row, image in wrong
    }
    return Evaluation(rows, matrix, loss / len(rows), near / len(rows), pictures)


def _answered(model, source, preprocessing, batch_size, skipped, order, flip):
    """[(name, label, answer, pixels), ...] of the images of each batch."""
    seen: set[str] = set()  # where a whole batch is bad, another image comes twice
    batches = evaluation_batches(source, preprocessing, batch_size=batch_size, skipped=skipped)
    for images, labels, names, *_ in batches:
        pixels = images.numpy()
        given = answers(model, pixels, flip)
        given = given if order is None else given[:, order]
        columns = (map(os.fsdecode, names.numpy()), labels.numpy(), given, pixels)
        rows = [row for row in zip(*columns, strict=True) if row[0] not in seen]
        seen.update(row[0] for row in rows)
        yield rows


def _certainty(mistake):
    return -float(mistake[0][3])


def evaluate_on(data, network, flip=False) -> Evaluation | MultiLabelEvaluation:
    """Implements `Network.evaluate`."""
    source, counted, trained = _chosen(data, network.run)
    if source.multi_label != (network.thresholds is not None):
        predicts, has = ("one class", "several")[:: 1 if source.multi_label else -1]
        raise ValueError(
            f"{network.file} predicts {predicts} for each image, but the labels of {data} are "
            f"{has} for each. Pass data of the network's kind."
        )
    classes, names = network.model.output_shape[-1], network.class_names
    if network.run is None and classes != len(source.class_names):
        raise ValueError(
            f"{network.file} has {classes} classes; {data} has {len(source.class_names)}."
        )
    if network.run is not None and source.class_names != names:
        raise ValueError(
            f"The classes differ. {network.run.folder}: {some(names, 10)}. {data}: "
            f"{some(source.class_names, 10)}."
        )
    skipped, order = Skipped(), None
    if names is not None and sorted(names) == sorted(source.class_names):
        order = [names.index(name) for name in source.class_names]
    elif names is not None and not _of_imagenet(names, source.class_names):
        raise ValueError(
            f"The class names differ, so the classes cannot be matched. {network.file}: "
            f"{some(names, 10)}. {data}: {some(source.class_names, 10)}. Rename the folders to "
            "the class names."
        )
    options = {"skipped": skipped, "order": order, "thresholds": network.thresholds, "flip": flip}
    found = evaluate(network.model, source, network.preprocessing, **options)
    return dataclasses.replace(found, skipped=skipped.reasons, counted=counted, trained=trained)


def _of_imagenet(names, folders):
    """Whether classes and folders are ImageNet's, in the same order, by name or WordNet id."""
    numbers, usual = (tuple(column) for column in zip(*imagenet_classes(), strict=True))
    return len(names) == len(numbers) and (tuple(folders) == numbers or tuple(names) == usual)


def _chosen(data, run):
    """Returns the images to evaluate on, their description, and how many were trained on."""
    if run is None:
        return evaluation_source(data), "", None
    known = Fingerprint.read(run.folder)
    if known is not None and run.split["validation_split"] is not None:
        # Data with parts, or with a class of one image, cannot be split.
        with contextlib.suppress(DataError):
            source = evaluation_source(data, **run.split)
            aside, trained = known.find(source)
            if aside:
                return source, _counted(source, aside, trained), trained
    source = evaluation_source(data, class_names=run.class_names)
    aside, trained = (False, None) if known is None else known.find(source)
    return source, _counted(source, aside, trained), trained


def _counted(source, aside, trained):
    """Describes the images that were used."""
    if aside:
        return f"the {source.count} images set aside for validation"
    share = (
        "it is unknown how many of them were used in training"
        if trained is None
        else f"{trained} of them were used in training"
    )
    return f"all {source.count} images; {share}"
