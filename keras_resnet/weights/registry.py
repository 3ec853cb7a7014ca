"""The published ImageNet weights: a row for each file, and `list_weights`.

Source: torchvision 0.29.1, torchvision/models/resnet.py, the metadata of its weights.
"""

import dataclasses

from keras_resnet.configs import CONFIGS
from keras_resnet.fields import row_of
from keras_resnet.preprocessing import Preprocessing

IMAGENET = "IMAGENET1K_V1"  # what weights="imagenet" means


@dataclasses.dataclass(frozen=True)
class PretrainedWeights:
    """One published file of weights.

    Args:
        model: Name of the network, as in `list_models()`.
        name: "IMAGENET1K_V1" or "IMAGENET1K_V2", torchvision's name for them.
        sha256: The file's hash, whole or its first 8 hexadecimal digits; in the file's name are 8.
        accuracy: Top-1 accuracy on ImageNet's validation images, in per cent.
        top5_accuracy: Top-5 accuracy, in per cent.
        parameters: Number of parameters.
        gflops: Thousand million multiply-adds for one image of `crop` pixels.
        resize: Length of the shorter side before cropping, in pixels.
        older: The hash of an older file of the same weights, likewise, or None.
        crop: Side of the crop, in pixels.
        interpolation: How the accuracy's images were resized.
        classes: Number of classes.
        licence: Of the file. ImageNet has terms of its own for what is made from its images.
        source: Where the figures are from.
    """

    model: str
    name: str
    sha256: str
    accuracy: float
    top5_accuracy: float
    parameters: int
    gflops: float
    resize: int = 256
    older: str | None = None
    crop: int = 224
    interpolation: str = "bilinear"
    classes: int = 1000
    licence: str = "BSD-3-Clause"
    source: str = "torchvision 0.29.1, torchvision/models/resnet.py"

    @property
    def file(self) -> str:
        """The file's name."""
        return f"{self.model}-{self.sha256[:8]}.pth"

    @property
    def files(self) -> dict[str, str]:
        """File name to hash, of the file and of the older one."""
        hashes = [self.sha256, self.older] if self.older else [self.sha256]
        return {f"{self.model}-{sha256[:8]}.pth": sha256 for sha256 in hashes}

    @property
    def preprocessing(self) -> Preprocessing:
        """The transform with which the accuracy was measured."""
        return Preprocessing(self.resize, self.crop, interpolation=self.interpolation)

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


class WeightsTable(tuple):
    """Rows of the registry, that show as a table."""

    # Those that fit into 80 columns.
    TITLES = ("model", "name", "top-1", "top-5", "file")
    COLUMNS = ("model", "name", "accuracy", "top5_accuracy", "file")

    def __repr__(self) -> str:
        """A line for each row, under a line of titles."""
        cells = [[str(getattr(row, name)) for name in self.COLUMNS] for row in self]
        table = [list(self.TITLES), *cells]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = (
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            for row in table
        )
        return "\n".join(line.rstrip() for line in lines)


def list_weights(model: str | None = None) -> WeightsTable:
    """The published weights of a network, or of all of them.

    Args:
        model: A name of `list_models()`; None for all.

    Returns:
        A tuple of `PretrainedWeights`, which shows as a table. Their `name` is what a builder
        takes as `weights`; each has its own `preprocessing`.

    Raises:
        ValueError: if there is no such network.

    >>> [weights.name for weights in keras_resnet.list_weights("resnet50")]
    ['IMAGENET1K_V1', 'IMAGENET1K_V2']
    """
    if model is not None:
        row_of(CONFIGS, model, "model")
    return WeightsTable(row for row in REGISTRY if model in (None, row.model))


def is_name(weights: object) -> bool:
    """Whether this is a name of published weights, and no file."""
    return isinstance(weights, str) and (weights == "imagenet" or weights.startswith("IMAGENET1K_"))


def find(model: str, name: str = "imagenet") -> PretrainedWeights:
    """The row of a network's weights, by their name or "imagenet".

    Raises:
        ValueError: if there are no such weights.
    """
    rows = {row.name: row for row in list_weights(model)}
    row = rows.get(IMAGENET if name == "imagenet" else name)
    if row is None:
        there_are = f"There are: {', '.join(['imagenet', *rows])}."
        if not rows:
            there_are = "None are published for it; pass the path of a file."
        raise ValueError(f"{model} has no such weights. Received: {name!r}. {there_are}")
    return row


def find_hash(sha256: str) -> PretrainedWeights | None:
    """The row of the file with this hash, all of it, if it is a published one."""
    return next(
        (row for row in REGISTRY for prefix in row.files.values() if sha256.startswith(prefix)),
        None,
    )


def find_file(name: str) -> PretrainedWeights | None:
    """The row of a published file's name, of an older one's too."""
    return next((row for row in REGISTRY if name in row.files), None)
