"""What a network answers on labelled images."""

import dataclasses
import os

import numpy as np

from keras_resnet.data.pipeline import evaluation_batches

HEADER = ("file", "label", "predicted", "probability")


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A network's answers.

    Args:
        rows: (file, label, predicted, probability) of each image, strings.
        matrix: How many images of each class (rows) were taken for each class (columns).
        top5: The share whose label is among the five most probable classes.
    """

    rows: list[tuple[str, str, str, str]]
    matrix: np.ndarray
    top5: float

    @property
    def top1(self):
        """The share whose label is the most probable class."""
        return float(np.trace(self.matrix) / self.matrix.sum())

    @property
    def mistakes(self):
        """The rows that are wrong, the most certain first."""
        wrong = (row for row in self.rows if row[1] != row[2])
        return sorted(wrong, key=lambda row: -float(row[3]))


def evaluate(model, source, preprocessing, *, batch_size=32, skipped=None) -> Evaluation:
    """Has a network name the images of a source.

    Args:
        model: From normalised images to probabilities, (batch, classes).
        source: The images.
        preprocessing: The evaluation transform.
        batch_size: Images at a time.
        skipped: Is told of the images that cannot be decoded.
    """
    classes = source.class_names
    matrix = np.zeros((len(classes), len(classes)), int)
    rows, seen, near = [], set(), 0  # where a whole batch is bad, another image comes twice
    batches = evaluation_batches(source, preprocessing, batch_size=batch_size, skipped=skipped)
    for images, labels, names in batches:
        answers = np.asarray(model.predict_on_batch(images.numpy()))
        for name, label, answer in zip(names.numpy(), labels.numpy(), answers, strict=True):
            if name in seen:
                continue
            seen.add(name)
            best = np.argsort(-answer, kind="stable")[:5]
            matrix[label, best[0]] += 1
            near += int(label in best)
            probability = f"{answer[best[0]]:.6f}"
            rows.append((os.fsdecode(name), classes[label], classes[best[0]], probability))
    return Evaluation(rows, matrix, near / len(rows))
