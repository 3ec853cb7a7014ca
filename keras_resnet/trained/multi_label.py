"""Evaluation of multi-label networks."""

import dataclasses
import functools
from pathlib import Path

import numpy as np

from keras_resnet.files import write_csv
from keras_resnet.trained import label_metrics


@dataclasses.dataclass(frozen=True)
class MultiLabelEvaluation:
    """The result of an evaluation of a multi-label network.

    Args:
        class_names: Class names.
        files: Names of the images.
        targets: Labels, uint8 (images, classes), 0 or 1.
        scores: Probabilities, float32 (images, classes).
        thresholds: Least probability at which each class is predicted, float32 (classes,).
        skipped: {file: reason} of the images that could not be decoded.
        counted: Description of the images that were used.
        trained: Number of them that the network was trained on; None if unknown.
    """

    class_names: tuple[str, ...]
    files: list[str]
    targets: np.ndarray
    scores: np.ndarray
    thresholds: np.ndarray
    skipped: dict[str, str] = dataclasses.field(default_factory=dict)
    counted: str = ""
    trained: int | None = None

    @classmethod
    def of(cls, class_names, files, targets, scores, thresholds=None) -> "MultiLabelEvaluation":
        """Makes an evaluation, with thresholds of 0.5 by default."""
        if thresholds is None:
            thresholds = [label_metrics.DEFAULT_THRESHOLD] * targets.shape[1]
        least = np.array(thresholds, np.float32)
        return cls(tuple(class_names), [*files], targets.astype(np.uint8), scores, least)

    header = ("file", "labels", "predicted", "probabilities")

    @property
    def predicted(self) -> np.ndarray:
        """Predicted classes, those that reach their thresholds, bool (images, classes)."""
        return self.scores >= self.thresholds

    @functools.cached_property
    def average_precisions(self) -> np.ndarray:
        """Average precision of each class, 0 to 1; NaN for a class without images."""
        return label_metrics.average_precisions(self.targets, self.scores)

    @property
    def f1(self) -> np.ndarray:
        """F1 of each class at its threshold, 0 to 1; NaN for a class without images."""
        return label_metrics.f1_scores(self.targets, self.predicted)

    @property
    def figures(self) -> dict[str, float]:
        """loss, mean_average_precision, f1_micro and f1_macro.

        Means are over the classes with images.
        """
        return {
            "loss": label_metrics.cross_entropy(self.targets, self.scores),
            "mean_average_precision": label_metrics.mean(self.average_precisions),
            "f1_micro": label_metrics.f1_micro(self.targets, self.predicted),
            "f1_macro": label_metrics.mean(self.f1),
        }

    @property
    def of_classes(self) -> dict[str, dict[str, float | None]]:
        """{class name: average_precision, f1 and threshold}, with None for NaN."""
        columns = zip(self.average_precisions, self.f1, self.thresholds, strict=True)
        rows = [[None if np.isnan(value) else float(value) for value in row] for row in columns]
        names = ("average_precision", "f1", "threshold")
        return {
            name: dict(zip(names, row, strict=True))
            for name, row in zip(self.class_names, rows, strict=True)
        }

    def with_best_thresholds(self) -> "MultiLabelEvaluation":
        """Returns the evaluation with the thresholds that give each class its highest F1."""
        best = label_metrics.best_thresholds(self.targets, self.scores)
        return dataclasses.replace(self, thresholds=best)

    @property
    def rows(self) -> list[tuple[str, str, str, str]]:
        """(file, labels, predicted, probabilities) of each image, separated by semicolons."""
        found = zip(self.files, self.targets, self.scores, strict=True)
        return [self._row(file, shown, score) for file, shown, score in found]

    def _row(self, file, shown, score):
        chosen = [np.flatnonzero(shown), np.flatnonzero(score >= self.thresholds)]
        labels, predicted = (";".join(self.class_names[i] for i in one) for one in chosen)
        return file, labels, predicted, ";".join(f"{score[i]:.6f}" for i in chosen[1])

    @property
    def mistakes(self) -> list[tuple[str, str, str, str]]:
        """The rows of images with a missing or wrong class, in order."""
        return [row for row in self.rows if row[1] != row[2]]

    def __str__(self):
        """Summary of the metrics."""
        said = "mAP {mean_average_precision:.4f}, F1 micro {f1_micro:.4f}, macro {f1_macro:.4f}"
        counts = f"{len(self.files)} images, {len(self.skipped)} left out"
        return f"{said.format(**self.figures)}, {counts}"

    def write(self, path: str | Path) -> None:
        """Writes the rows as a CSV file: file, labels, predicted, probabilities."""
        write_csv(path, self.header, self.rows)
