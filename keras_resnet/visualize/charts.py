"""Charts of training runs and predictions, drawn with matplotlib without a display."""

import os
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_resnet.files import replacing
from keras_resnet.visualize.fonts import written


def save_figure(figure: Any, path: str | os.PathLike[str]) -> Path:
    """Writes a figure atomically."""
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120, bbox_inches="tight")
    return Path(path)


def grid(count: int, columns: int, width: float, height: float, title: str = "") -> tuple:
    """Makes a figure with a title and a grid of axes, whose size is in inches."""
    from matplotlib.figure import Figure

    columns = min(count, columns)
    rows = -(-count // columns)
    size = (width * columns, height * rows + (0.5 if title else 0))
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(title, fontsize=10)
    places = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in places:
        axes.axis("off")
    return figure, places[:count]


def curves(history: Mapping[str, Sequence[float]], path: str | os.PathLike[str]) -> Path:
    """Draws loss and accuracy over the epochs.

    Args:
        history: Lists of values per epoch, under "loss", "val_loss", "accuracy" and "val_accuracy";
            or, instead of the accuracies, under "val_mean_average_precision".
        path: The picture to write.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9, 3.6))
    second = "accuracy" if "accuracy" in history else "mean_average_precision"
    epochs = range(1, len(history["loss"]) + 1)
    for axes, quantity in zip(figure.subplots(1, 2), ("loss", second), strict=True):
        for name, label in ((quantity, "training"), (f"val_{quantity}", "validation")):
            if name in history:
                axes.plot(epochs, history[name], "o-", markersize=3, label=label, clip_on=False)
        axes.update_datalim([(1, 0)])  # leaves room above the highest loss
        axes.set(xlabel="epoch", ylabel=quantity.replace("_", " "))
        axes.set_xlim(0.5, len(epochs) + 0.5)
        axes.set_ylim(0, None if quantity == "loss" else 1.02)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
        axes.legend()
    return save_figure(figure, path)


def confusion_matrix(
    matrix: npt.ArrayLike, class_names: Sequence[str], path: str | os.PathLike[str]
) -> Path:
    """Draws a confusion matrix, with the true classes as rows and the predicted ones as columns.

    Args:
        matrix: Integers, (classes, classes).
        class_names: Class names, in any script. A name that no installed font supports is drawn as
            its index and an ASCII transliteration.
        path: The picture to write.
    """
    from matplotlib.figure import Figure

    matrix = np.asarray(matrix)
    count = len(class_names)
    side = min(max(4, 1.5 + 0.55 * count), 30)
    figure = Figure(figsize=(side, side))
    axes = figure.subplots()
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    texts, how = written(class_names)
    labels = [
        # With its index, if no font supports it.
        text if text == name else f"{number}: {text[:18]}"
        for number, (text, name) in enumerate(zip(texts, class_names, strict=True))
    ]
    axes.set_xticks(range(count), labels, rotation=45, ha="right", **how)
    axes.set_yticks(range(count), labels, **how)
    axes.set(xlabel="predicted", ylabel="labelled")
    if count <= 40:
        for row, column in np.ndindex(matrix.shape):
            colour = "white" if shares[row, column] > 0.5 else "black"
            number = str(matrix[row, column])
            axes.text(column, row, number, ha="center", va="center", color=colour)
    return save_figure(figure, path)


def gallery(
    images: Sequence[npt.ArrayLike], titles: Sequence[str], path: str | os.PathLike[str]
) -> Path:
    """Draws images with a title above each, four per row.

    Args:
        images: RGB pictures, uint8 arrays (height, width, 3) of any size.
        titles: A title for each image.
        path: The picture to write, which is returned.

    Raises:
        ValueError: if there are no images, or the number of titles differs.
    """
    if not len(images) or len(images) != len(titles):
        raise ValueError(
            f"Expected one or more images, and a title for each. Received: {len(images)} images, "
            f"{len(titles)} titles"
        )
    figure, places = grid(len(images), 4, 3.2, 3.3)
    titles, how = written(titles)
    for axes, image, title in zip(places, images, titles, strict=True):
        axes.imshow(image)
        axes.set_title(textwrap.fill(title, 34), fontsize=8, **how)
    return save_figure(figure, path)


def predictions(
    images: Sequence[npt.ArrayLike],
    titles: Sequence[str],
    answers: Iterable[Sequence[tuple[str, float]]],
    path: str | os.PathLike[str],
) -> Path:
    """Draws images, each next to a bar chart of its most probable classes.

    Args:
        images: RGB pictures, uint8 arrays (height, width, 3) of any size.
        titles: A title for each image.
        answers: For each image, a list of (class name, probability), highest first.
        path: The picture to write.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 2.8 * len(images)), layout="constrained")
    rows = figure.subplots(len(images), 2, squeeze=False)
    for (left, right), image, title, answer in zip(rows, images, titles, answers, strict=True):
        names, probabilities = zip(*answer, strict=True)
        (title, *labels), how = written([title, *names])
        left.imshow(image)
        left.set_title(title, fontsize=9, **how)
        left.axis("off")
        right.barh(range(len(labels)), probabilities, color="#4a86c5")
        right.set_yticks(range(len(labels)), labels, **how)
        right.invert_yaxis()
        right.set_xlim(0, 1.12)
        right.set_xlabel("probability")
        for place, probability in enumerate(probabilities):
            right.text(probability + 0.01, place, f"{probability:.3f}", va="center", fontsize=8)
    return save_figure(figure, path)
