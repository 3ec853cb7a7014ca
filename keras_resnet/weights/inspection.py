"""Describes weights files, without a model: `inspect`."""

import dataclasses
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from keras_resnet.weights.architecture import KNOWN, Architecture, call_of, recognise
from keras_resnet.weights.description import preprocessing_of
from keras_resnet.weights.download import sha256
from keras_resnet.weights.reading import KERAS, Checkpoint, read_checkpoint
from keras_resnet.weights.registry import PretrainedWeights, find_file, find_hash
from keras_resnet.weights.selection import Weights, said_of

ASSUMED = (
    "RGB in 0..1, normalised by ImageNet's mean and standard deviation (assumed, not specified)"
)


@dataclasses.dataclass(frozen=True)
class Inspection:
    """The result of `inspect`.

    Args:
        path: The file.
        container: "zip", "legacy" or "tar" (of torch.save), "torchscript", "pickle" (of numpy
            arrays), "safetensors", "keras" or "hdf5".
        size: Size of the file in bytes.
        sha256: Hash of the file, 64 hexadecimal digits.
        tensors: Arrays by their names in the file, without the network's prefix.
        architecture: The recognized network.
        published: The published weights with this hash or, on the hub, this address; else None.
        layout: Description: the library whose names it has, and the network's prefix.
        head: Description: the name of the classifier, and other content.
        preprocessing: Description: the preprocessing of the images, as far as it is known.
        call: The call that builds the network with these weights, or why there is none.
    """

    path: Path
    container: str
    size: int
    sha256: str
    tensors: dict[str, np.ndarray]
    architecture: Architecture
    published: PretrainedWeights | None
    layout: str
    head: str
    preprocessing: str
    call: str


def inspect(path: str | os.PathLike[str], *, prefix: str | None = None) -> Inspection:
    """Describes the content of a weights file.

    Args:
        path: The file, a folder with a config.json, or "hf://owner/name".
        prefix: Prefix of the network, if the file contains several; the error lists them.

    Raises:
        CheckpointError: if it cannot be read.
    """
    checkpoint = read_checkpoint(path, prefix)
    digest = sha256(checkpoint.path)
    weights = checkpoint.weights()
    published = find_hash(digest)
    architecture = recognise(weights.state, checkpoint.origin.anti_aliasing)
    return Inspection(
        checkpoint.path,
        checkpoint.container,
        checkpoint.path.stat().st_size,
        digest,
        checkpoint.found.tensors,
        architecture,
        published or find_file(os.fspath(path)),
        _layout(checkpoint),
        _head(weights),
        _preprocessing(path, checkpoint, published),
        _call(checkpoint, weights, architecture, prefix),
    )


def _layout(checkpoint: Checkpoint) -> str:
    found = checkpoint.found
    whose = " and ".join(sorted(found.libraries)) or "PyTorch"
    if checkpoint.container in KERAS:
        whose = "keras.applications" if checkpoint.of_applications else "Keras"
    where = f", under {found.where!r:.200}" if found.where else ""
    said = (
        f"; {checkpoint.origin.said_by}: {checkpoint.origin.name}" if checkpoint.origin.name else ""
    )
    return f"names of {whose}{where}{said}"


def _head(weights: Weights) -> str:
    beside = f"; other content: {said_of(weights.left_over)}" if weights.left_over else ""
    return (weights.head or "none that was recognized as a classifier") + beside


def _preprocessing(
    path: str | os.PathLike[str], checkpoint: Checkpoint, published: PretrainedWeights | None
) -> str:
    try:
        said = published.preprocessing if published else preprocessing_of(path)
    except ValueError as error:
        return f"not supported: {error}"
    if said:
        return f"RGB in 0..1, {said}"
    return checkpoint.other_images(None) or checkpoint.two_networks or ASSUMED


def _call(
    checkpoint: Checkpoint, weights: Weights, architecture: Architecture, prefix: str | None
) -> str:
    if checkpoint.origin.differences:
        said = " and ".join(checkpoint.origin.differences)
        return f"none: {checkpoint.origin.name} {said}, unlike the networks of this package"
    if architecture.variant is None:
        return "none: this package has no such network"
    version = "v1" if checkpoint.of_applications_v1 else checkpoint.origin.version
    more: dict[str, Any] = {"weights": str(checkpoint.path), "prefix": prefix}
    more["version"] = version if version == "v1" else None
    more["output_stride"] = checkpoint.origin.output_stride % 32 or None
    doubtful = [key for key in weights.state if not KNOWN.fullmatch(key)]
    more["ignore"] = list(dict.fromkeys(re.sub(r"\..*", ".*", key) for key in doubtful)) or None
    other = f", which leaves out {said_of(doubtful)}" if doubtful else ""
    if checkpoint.asks_for_version:
        more["version"] = "v1.5" if "torchvision" in checkpoint.origin.name else "v1"
        other += "" if more["version"] == "v1.5" else ", or with version='v1.5'"
    given = "".join(f", {key}={value!r}" for key, value in more.items() if value is not None)
    return f"{call_of(architecture).removesuffix(')')}{given}){other}"
