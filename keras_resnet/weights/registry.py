"""The published ImageNet weights: a row for each file, and `list_weights`.

Sources: torchvision 0.29.1, torchvision/models/resnet.py, the metadata of its weights; and
timm_weights.csv, which tools/timm_weights.py makes of timm's metadata and its measurements.
"""

import csv
import dataclasses
import functools
import importlib.resources
from collections.abc import Callable
from typing import Any

from keras_resnet.configs import CONFIGS, IMAGENET_MEAN, IMAGENET_STD
from keras_resnet.fields import row_of
from keras_resnet.preprocessing import Preprocessing

IMAGENET = "IMAGENET1K_V1"  # what weights="imagenet" means where torchvision has the network
TIMM = (
    "timm 1.0.31, and its results/results-imagenet.csv at 4e5207c7bb6592474ca56e28b2cf85be8f1a550f"
)


@dataclasses.dataclass(frozen=True)
class PretrainedWeights:
    """One published file of weights.

    Args:
        model: Name of the network, as in `list_models()`.
        name: Its publisher's name for them: "IMAGENET1K_V1" or "IMAGENET1K_V2" of torchvision's,
            the tag of timm's, "a1_in1k".
        sha256: The file's hash, whole or its first 8 hexadecimal digits; in the file's name are 8.
            None of what is on the Hugging Face hub, since timm's metadata has no hashes: that the
            file is the one that the hub has under its name is left to huggingface_hub, which goes
            by the hub's etag.
        accuracy: Top-1 accuracy on ImageNet's validation images, in per cent; None if it is not
            published, of weights with other classes for example.
        top5_accuracy: Top-5 accuracy, in per cent, or None.
        parameters: Number of parameters.
        gflops: Thousand million multiply-adds for one image of `crop` pixels, or None.
        resize: Length of the shorter side before cropping, in pixels.
        older: The hash of an older file of the same weights, likewise, or None.
        crop: Side of the crop, in pixels.
        interpolation: How the accuracy's images were resized.
        classes: Number of classes; 0 of weights without a classifier.
        licence: Of the file, or None if it is not said. ImageNet has terms of its own for what is
            made from its images.
        source: Where the figures are from.
        repository: Owner and name on the Hugging Face hub; None of torchvision's.
        crop_mode: As of `Preprocessing`.
        mean: Of the RGB channels, scaled to 0..1.
        std: Their standard deviation.
        test_crop: Side of larger images for which there is an accuracy too, or None.
        test_resize: Length of their shorter side before cropping.
        test_accuracy: Top-1 accuracy with those.
        test_top5_accuracy: Top-5 accuracy with those.
    """

    model: str
    name: str
    sha256: str | None
    accuracy: float | None
    top5_accuracy: float | None
    parameters: int
    gflops: float | None
    resize: int = 256
    older: str | None = None
    crop: int = 224
    interpolation: str = "bilinear"
    classes: int = 1000
    licence: str | None = "BSD-3-Clause"
    source: str = "torchvision 0.29.1, torchvision/models/resnet.py"
    repository: str | None = None
    crop_mode: str = "center"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    test_crop: int | None = None
    test_resize: int | None = None
    test_accuracy: float | None = None
    test_top5_accuracy: float | None = None

    @property
    def file(self) -> str:
        """The file's name, or the address on the hub."""
        return f"hf://{self.repository}" if self.repository else next(iter(self.files))

    @property
    def files(self) -> dict[str, str]:
        """File name to hash, of the file and of the older one; none of what is on the hub."""
        hashes = filter(None, (self.sha256, self.older))
        return {f"{self.model}-{sha256[:8]}.pth": sha256 for sha256 in hashes}

    @property
    def preprocessing(self) -> Preprocessing:
        """The transform with which the accuracy was measured, and that the network takes."""
        how: dict[str, Any] = {"interpolation": self.interpolation, "crop_mode": self.crop_mode}
        return Preprocessing(self.resize, self.crop, self.mean, self.std, **how)

    @property
    def best(self) -> tuple[float, int] | None:
        """The highest accuracy that is published, and the side of the images; None without one."""
        figures = ((self.accuracy, self.crop), (self.test_accuracy, self.test_crop))
        return max(((one, side) for one, side in figures if one and side), default=None)

    @property
    def max_bytes(self) -> int:
        """More than the file can have: 8 bytes a parameter and a mebibyte."""
        return 8 * self.parameters + 2**20


def _v1(model, sha256, *figures, **others):
    return PretrainedWeights(model, "IMAGENET1K_V1", sha256, *figures, **others)


def _v2(*figures):
    return dataclasses.replace(_v1(*figures), name="IMAGENET1K_V2", resize=232)


REGISTRY = (
    _v1("resnet18", "f37072fd", 69.758, 89.078, 11689512, 1.814, older="5c106cde"),
    _v1("resnet34", "b627a593", 73.314, 91.420, 21797672, 3.664, older="333f7ec4"),
    _v1("resnet50", "0676ba61", 76.130, 92.862, 25557032, 4.089, older="19c8e357"),
    _v2("resnet50", "11ad3fa6", 80.858, 95.434, 25557032, 4.089),
    _v1("resnet101", "63fe2227", 77.374, 93.546, 44549160, 7.801, older="5d3b4d8f"),
    _v2("resnet101", "cd907fc2", 81.886, 95.780, 44549160, 7.801),
    _v1("resnet152", "394f9c45", 78.312, 94.046, 60192808, 11.514, older="b121ed2d"),
    _v2("resnet152", "f82ba261", 82.284, 96.002, 60192808, 11.514),
    _v1("resnext50_32x4d", "7cdf4587", 77.618, 93.698, 25028904, 4.23),
    _v2("resnext50_32x4d", "1a0047aa", 81.198, 95.340, 25028904, 4.23),
    _v1("resnext101_32x8d", "8ba56ff5", 79.312, 94.526, 88791336, 16.414),
    _v2("resnext101_32x8d", "110c445d", 82.834, 96.228, 88791336, 16.414),
    _v1("resnext101_64x4d", "173b62eb", 83.246, 96.454, 83455272, 15.46, resize=232),
    _v1("wide_resnet50_2", "95faca4d", 78.468, 94.086, 68883240, 11.398),
    _v2("wide_resnet50_2", "9ba9bcbe", 81.602, 95.758, 68883240, 11.398),
    _v1("wide_resnet101_2", "32ee1156", 78.848, 94.284, 126886696, 22.753),
    _v2("wide_resnet101_2", "d733dc28", 82.510, 96.020, 126886696, 22.753),
)

# How the columns of timm_weights.csv are read; without a value, there is none.
READ: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(("model", "name", "licence", "interpolation", "crop_mode"), str),
    **dict.fromkeys(("classes", "parameters", "crop", "resize", "test_crop", "test_resize"), int),
    **dict.fromkeys(("accuracy", "top5_accuracy", "test_accuracy", "test_top5_accuracy"), float),
    **dict.fromkeys(("mean", "std"), lambda text: tuple(map(float, text.split()))),
}


@functools.cache
def _of_timm() -> tuple[PretrainedWeights, ...]:
    text = importlib.resources.files("keras_resnet").joinpath("timm_weights.csv").read_text()
    return tuple(map(_row_of_timm, csv.DictReader(text.splitlines())))


def _row_of_timm(cells):
    said: dict[str, Any] = {k: READ[k](cell) if cell else None for k, cell in cells.items()}
    repository = f"timm/{said['model']}.{said['name']}"
    return PretrainedWeights(**said, sha256=None, gflops=None, source=TIMM, repository=repository)


def published() -> tuple[PretrainedWeights, ...]:
    """All rows: torchvision's, then timm's, each in the order of CONFIGS."""
    return REGISTRY + _of_timm()


class WeightsTable(tuple):
    """Rows of the registry, that show as a table."""

    # Those that fit into 80 columns.
    TITLES = ("model", "name", "top-1", "top-5", "file")
    COLUMNS = ("model", "name", "accuracy", "top5_accuracy", "file")

    def __repr__(self) -> str:
        """A line for each row, under a line of titles."""
        cells = [[_shown(getattr(row, name)) for name in self.COLUMNS] for row in self]
        table = [list(self.TITLES), *cells]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = (
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            for row in table
        )
        return "\n".join(line.rstrip() for line in lines)


def _shown(value):
    return "-" if value is None else str(value)


def list_weights(model: str | None = None) -> WeightsTable:
    """The published weights of a network, or of all of them.

    Args:
        model: A name of `list_models()`; None for all.

    Returns:
        A tuple of `PretrainedWeights`, which shows as a table. Their `name` is what a builder
        takes as `weights`; each has its own `preprocessing`.

    Raises:
        ValueError: if there is no such network.

    >>> [weights.name for weights in keras_resnet.list_weights("resnet50")][:3]
    ['IMAGENET1K_V1', 'IMAGENET1K_V2', 'a1_in1k']
    """
    if model is not None:
        row_of(CONFIGS, model, "model")
    return WeightsTable(row for row in published() if model in (None, row.model))


def is_name(weights: object) -> bool:
    """Whether this is a name of published weights, and no file."""
    if not isinstance(weights, str):
        return False
    reserved = weights == "imagenet" or weights.startswith("IMAGENET1K_")
    return reserved or any(row.name == weights for row in published())


def best_of(model: str) -> PretrainedWeights | None:
    """The weights of the highest published accuracy, of those with ImageNet's 1,000 classes."""
    rows = [row for row in list_weights(model) if row.classes == 1000 and row.best]
    return max(rows, key=lambda row: row.best, default=None)


def find(model: str, name: str = "imagenet") -> PretrainedWeights:
    """The row of a network's weights, by their name or "imagenet".

    "imagenet" is torchvision's first version, or, of a network that torchvision has not,
    `best_of`.

    Raises:
        ValueError: if there are no such weights.
    """
    rows: dict[str, PretrainedWeights | None] = {row.name: row for row in list_weights(model)}
    usual = rows.get(IMAGENET) or best_of(model)
    row = usual if name == "imagenet" else rows.get(name)
    if row is None:
        there_are = f"There are: {', '.join([*['imagenet'] * bool(usual), *rows])}."
        if not rows:
            there_are = "None are published for it; pass the path of a file."
        raise ValueError(f"{model} has no such weights. Received: {name!r}. {there_are}")
    return row


def find_hash(sha256: str) -> PretrainedWeights | None:
    """The row of the file with this hash, all of it, if it is a published one."""
    return next(
        (row for row in published() for prefix in row.files.values() if sha256.startswith(prefix)),
        None,
    )


def find_file(name: str) -> PretrainedWeights | None:
    """The row of a published file's name, of an older one's too, or of its address on the hub."""
    return next((row for row in published() if name in row.files or name == row.file), None)
