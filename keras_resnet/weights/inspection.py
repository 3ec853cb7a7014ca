"""What a file of weights holds, without a model: `inspect`."""

import dataclasses
import os
from pathlib import Path

import numpy as np

from keras_resnet.weights.architecture import Architecture, recognise
from keras_resnet.weights.download import sha256
from keras_resnet.weights.reading import read_checkpoint
from keras_resnet.weights.registry import PretrainedWeights, find_hash


@dataclasses.dataclass(frozen=True)
class Inspection:
    """What `inspect` found.

    Args:
        path: The file.
        container: "zip", "legacy" or "tar" (of torch.save), "safetensors", "keras" or "hdf5".
        size: Of the file, in bytes.
        sha256: Of the file, 64 hexadecimal digits.
        tensors: Name to array, as they are in the file, less a wrapper's prefix.
        architecture: What network they are of.
        published: The published weights that have this hash, or None.
    """

    path: Path
    container: str
    size: int
    sha256: str
    tensors: dict[str, np.ndarray]
    architecture: Architecture
    published: PretrainedWeights | None


def inspect(path: str | os.PathLike[str]) -> Inspection:
    """Looks into a file of weights of any kind.

    Args:
        path: The file.

    Raises:
        CheckpointError: if it cannot be read.
    """
    found = read_checkpoint(path)
    digest = sha256(found.path)
    return Inspection(
        found.path,
        found.container,
        found.path.stat().st_size,
        digest,
        found.tensors,
        recognise(found.weights),
        find_hash(digest),
    )
