"""What a network answers on labelled images."""

import contextlib
import dataclasses
import math
import os

import numpy as np

from keras_resnet.data import DataError, Skipped
from keras_resnet.data.locations import evaluation_source
from keras_resnet.data.pipeline import evaluation_batches
from keras_resnet.training.fingerprint import Fingerprint
from keras_resnet.training.opening import open_network
from keras_resnet.training.report import write_csv
from keras_resnet.training.run import Run


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A network's answers.

    Args:
        rows: (file, label, predicted, probability) of each image, strings.
        matrix: How many images of each class (rows) were taken for each class (columns).
        loss: The mean cross-entropy.
        top5: The share whose label is among the five most probable classes.
        pictures: {file: pixels, uint8 (crop, crop, 3)} of the first mistakes, as it saw them.
        counted: Which images these are, in words.
        trained: How many of them trained the network; None if nobody knows.
    """

    rows: list[tuple[str, str, str, str]]
    matrix: np.ndarray
    loss: float
    top5: float
    pictures: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    counted: str = ""
    trained: int | None = None

    @property
    def top1(self):
        """The share whose label is the most probable class."""
        return float(np.trace(self.matrix) / self.matrix.sum())

    @property
    def mistakes(self):
        """The rows that are wrong, the most certain first."""
        wrong = (row for row in self.rows if row[1] != row[2])
        return sorted(wrong, key=lambda row: -float(row[3]))

    def write(self, path):
        """Writes the rows as a CSV file: file, label, predicted, probability."""
        write_csv(path, ("file", "label", "predicted", "probability"), self.rows)


def evaluate(
    model, source, preprocessing, *, batch_size=32, skipped=None, pictured=0
) -> Evaluation:
    """Has a network name the images of a source.

    Args:
        model: From normalised images to probabilities, (batch, classes).
        source: The images.
        preprocessing: The evaluation transform.
        batch_size: Images at a time.
        skipped: Is told of the images that cannot be decoded.
        pictured: Of how many mistakes to keep the pictures.

    Returns:
        The answers, an `Evaluation`.
    """
    classes = source.class_names
    matrix = np.zeros((len(classes), len(classes)), int)
    rows, near, loss = [], 0, 0.0
    wrong: list[tuple] = []
    scale, offset = 255 * np.array(preprocessing.std), 255 * np.array(preprocessing.mean)
    seen = set()  # where a whole batch is bad, another image comes twice
    batches = evaluation_batches(source, preprocessing, batch_size=batch_size, skipped=skipped)
    for images, labels, names in batches:
        pixels = images.numpy()
        answers = np.asarray(model.predict_on_batch(pixels))
        columns = (names.numpy(), labels.numpy(), answers, pixels)
        for name, label, answer, image in zip(*columns, strict=True):
            if name in seen:
                continue
            seen.add(name)
            best = np.argsort(-answer, kind="stable")[:5]
            matrix[label, best[0]] += 1
            near += int(label in best)
            loss -= math.log(max(answer[label], 1e-7))  # as Keras does
            probability = f"{answer[best[0]]:.6f}"
            rows.append((os.fsdecode(name), classes[label], classes[best[0]], probability))
            if pictured and label != best[0]:
                wrong.append((rows[-1], image))
        # Copies: a view would keep its whole batch.
        wrong = [(row, image.copy()) for row, image in sorted(wrong, key=_certainty)[:pictured]]
    pictures = {
        row[0]: np.clip(image * scale + offset, 0, 255).round().astype(np.uint8)
        for row, image in wrong
    }
    return Evaluation(rows, matrix, loss / len(rows), near / len(rows), pictures)


def _certainty(mistake):
    return -float(mistake[0][3])


def evaluate_on(
    data, *, run=None, model=None, weights=None, preprocessing=None
) -> tuple[Evaluation, Skipped]:
    """Has a run's network, or any with weights, name the images of a data set.

    Args:
        data: A folder, a `.npz` file or the name of a data set of tensorflow-datasets; of its
            parts, the one that validates. If the run was trained on a folder without parts, and
            this is the same data, wherever it lies now, the images that it set aside; else all of
            such a folder. `counted` and `trained` of the answers say which.
        run: A run folder.
        model: Name of a network, instead of `run`; needs `weights`.
        weights: A file, or the name of published weights; only with `model`.
        preprocessing: As of `open_network`.

    Returns:
        The answers, and the images that could not be decoded.

    Raises:
        ValueError: if there is no such data, run or network, or the classes do not fit.
    """
    source, skipped = _chosen(data, run), Skipped()
    network = open_network(
        run, model, weights, classes=len(source.class_names), preprocessing=preprocessing
    )
    if run is not None and source.class_names != network.class_names:
        raise ValueError(
            f"The classes differ. {run}: {_some(network.class_names)}. {data}: "
            f"{_some(source.class_names)}."
        )
    found = evaluate(network.model, source, network.preprocessing, skipped=skipped)
    counted, trained = _counted(source, run)
    return dataclasses.replace(found, counted=counted, trained=trained), skipped


def _chosen(data, run):
    """The images to evaluate a network on."""
    split = {} if run is None else Run.open(run).split()
    if split.get("validation_split") is not None:
        # What has parts of its own, or a class of one image, cannot be split so.
        with contextlib.suppress(DataError):
            source, known = evaluation_source(data, **split), Fingerprint.read(run)
            if known is not None and known.find(source)[0]:
                return source
    return evaluation_source(data)


def _counted(source, run):
    """Which images are counted, in words; and how many of them trained."""
    if run is None:
        return "", None
    known = Fingerprint.read(run)
    aside, trained = known.find(source) if known is not None else (False, None)
    if aside:
        return f"the {source.count} images that the training set aside", trained
    share = (
        "how many of them trained is not known" if trained is None else f"{trained} of them trained"
    )
    return f"all {source.count} images; {share}", trained


def _some(names):
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
