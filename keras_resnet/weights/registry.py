"""The published ImageNet weights, with a row for each file: `list_weights`.

Sources: the metadata of the weights in torchvision 0.29.1, torchvision/models/resnet.py; and
timm_weights.csv, which tools/timm_weights.py creates from timm's metadata and results.
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

IMAGENET = "IMAGENET1K_V1"  # the meaning of weights="imagenet" for torchvision's networks
TIMM = (
    "timm 1.0.31, and its results/results-imagenet.csv at 4e5207c7bb6592474ca56e28b2cf85be8f1a550f"
)


@dataclasses.dataclass(frozen=True)
class PretrainedWeights:
    """One published file of weights.

    Args:
        model: Name of the network, as in `list_models()`.
        name: Name of the weights: "IMAGENET1K_V1" or "IMAGENET1K_V2" for torchvision's; for timm's
            the tag, "a1_in1k" for example.
        sha256: Hash of the file, or its first 8 hexadecimal digits, which are also in its name.
            None for files on the Hugging Face hub, since timm's metadata has no hashes; instead,
            huggingface_hub verifies the hub's etag.
        accuracy: Top-1 accuracy on ImageNet's validation images, in percent; None if it is not
            published, for example because of other classes.
        top5_accuracy: Top-5 accuracy, in percent, or None.
        parameters: Number of parameters.
        gflops: Billions of multiply-adds for one image of `crop` pixels, or None.
        resize: Length of the shorter side before cropping, in pixels.
        older: Hash of an older file with the same weights, or None.
        crop: Image size, in pixels.
        interpolation: Interpolation of the resizing.
        classes: Number of classes; 0 for weights without a classifier.
        licence: License of the file; None if it is not specified. ImageNet has its own terms of
            use.
        source: Source of the figures.
        repository: Owner and name on the Hugging Face hub; None for torchvision's.
        crop_mode: As for `Preprocessing`.
        mean: Mean of the RGB channels, for values in 0..1.
        std: Standard deviation of the RGB channels, for values in 0..1.
        test_crop: A larger image size for which an accuracy is published, or None.
        test_resize: Length of the shorter side before cropping, for this size.
        test_accuracy: Top-1 accuracy for this size.
        test_top5_accuracy: Top-5 accuracy for this size.
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
        """Name of the file, or its address on the hub."""
        return f"hf://{self.repository}" if self.repository else next(iter(self.files))

    @property
    def files(self) -> dict[str, str]:
        """Hashes by file name, of the file and the older one; empty for files on the hub."""
        hashes = filter(None, (self.sha256, self.older))
        return {f"{self.model}-{sha256[:8]}.pth": sha256 for sha256 in hashes}

    @property
    def preprocessing(self) -> Preprocessing:
        """The evaluation transform of the weights."""
        how: dict[str, Any] = {"interpolation": self.interpolation, "crop_mode": self.crop_mode}
        return Preprocessing(self.resize, self.crop, self.mean, self.std, **how)

    @property
    def best(self) -> tuple[float, int] | None:
        """The highest published accuracy, and its image size; None without one."""
        figures = ((self.accuracy, self.crop), (self.test_accuracy, self.test_crop))
        return max(((one, side) for one, side in figures if one and side), default=None)

    @property
    def max_bytes(self) -> int:
        """Maximum size of the file: 8 bytes per parameter, and 1 MiB."""
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

# Types of the columns of timm_weights.csv; empty cells are None.
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
    """Returns all rows: torchvision's, then timm's, each in the order of CONFIGS."""
    return REGISTRY + _of_timm()


class WeightsTable(tuple):
    """Rows of the registry, which are printed as a table."""

    # These fit into 80 columns.
    TITLES = ("model", "name", "top-1", "top-5", "file")
    COLUMNS = ("model", "name", "accuracy", "top5_accuracy", "file")

    def __repr__(self) -> str:
        """Returns a table with a line for each row."""
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
    """Lists the published weights of a network, or of all networks.

    Args:
        model: A name in `list_models()`; None for all.

    Returns:
        A tuple of `PretrainedWeights`, which is printed as a table. Their `name` can be passed to a
        builder as `weights`.

    Raises:
        ValueError: if there is no such network.

    >>> [weights.name for weights in keras_resnet.list_weights("resnet50")][:3]
    ['IMAGENET1K_V1', 'IMAGENET1K_V2', 'a1_in1k']
    """
    if model is not None:
        row_of(CONFIGS, model, "model")
    return WeightsTable(row for row in published() if model in (None, row.model))


def is_name(weights: object) -> bool:
    """Whether this is the name of published weights, not a file."""
    if not isinstance(weights, str):
        return False
    reserved = weights == "imagenet" or weights.startswith("IMAGENET1K_")
    return reserved or any(row.name == weights for row in published())


def best_of(model: str) -> PretrainedWeights | None:
    """Returns the weights with the highest published accuracy on ImageNet's 1,000 classes."""
    rows = [row for row in list_weights(model) if row.classes == 1000 and row.best]
    return max(rows, key=lambda row: row.best, default=None)


def find(model: str, name: str = "imagenet") -> PretrainedWeights:
    """Returns the row of a network's weights by name, or for "imagenet".

    "imagenet" is torchvision's first version, or `best_of` for networks that are not in
    torchvision.

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
    """Returns the row of the published file with this hash, 64 digits, if there is one."""
    return next(
        (row for row in published() for prefix in row.files.values() if sha256.startswith(prefix)),
        None,
    )


def find_file(name: str) -> PretrainedWeights | None:
    """Returns the row of a published file by its name, its older name or its hub address."""
    return next((row for row in published() if name in row.files or name == row.file), None)
