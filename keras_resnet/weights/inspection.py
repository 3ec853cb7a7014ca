"""What a file of weights holds, without a model: `inspect`."""

import dataclasses
from pathlib import Path

import numpy as np

from keras_resnet.weights import keras_files
from keras_resnet.weights.architecture import Architecture, recognise
from keras_resnet.weights.download import sha256
from keras_resnet.weights.loading import read
from keras_resnet.weights.names import as_torchvision
from keras_resnet.weights.registry import PretrainedWeights, find_hash
from keras_resnet.weights.state_dict import existing_file, read_container


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


def inspect(path) -> Inspection:
    """Looks into a file of weights of any kind.

    Args:
        path: The file.

    Raises:
        CheckpointError: if it cannot be read.
    """
    path = existing_file(path)
    if path.suffix == ".h5":
        container, tensors = "hdf5", keras_files.read_arrays(path)
        architecture = recognise(keras_files.as_torchvision(tensors, path.name)[0])
    elif path.suffix == ".keras":
        container, tensors = "keras", read(path, version="v1")
        architecture = recognise(tensors)
    else:
        container, tensors = read_container(path)
        architecture = recognise(as_torchvision(tensors, path.name))
    digest = sha256(path)
    return Inspection(
        path,
        container,
        path.stat().st_size,
        digest,
        tensors,
        architecture,
        find_hash(digest),
    )
