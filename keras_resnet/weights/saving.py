"""Saves weights in the formats of PyTorch, safetensors and Keras: `save`."""

import os
from pathlib import Path

import keras
import numpy as np

from keras_resnet.files import replacing
from keras_resnet.weights import pytorch
from keras_resnet.weights.origin import ANTI_ALIASING, VERSION
from keras_resnet.weights.state_dict import anti_aliasing_of, to_state_dict, version_of

SAVED_SUFFIXES = (".pth", ".pt", ".th", ".bin", ".safetensors", ".keras", ".weights.h5")


def save(model: keras.Model, path: str | os.PathLike[str]) -> Path:
    """Saves a model's weights; the suffix of the file determines the format.

    Args:
        model: A model of this package.
        path: The file. `.pth`, `.pt`, `.th` and `.bin` are files of torch.save, for
            `torch.load(weights_only=True)` and torchvision's `load_state_dict(strict=True)`;
            `.safetensors` has the same names; `.keras` is the whole model and `.weights.h5` Keras'
            format for weights. An existing file is replaced only after the new one is complete.

    Returns:
        The path.

    Raises:
        ValueError: if the suffix is unknown.
        OSError: if the disk is full; an existing file is kept.

    Example:
    >>> model = keras_resnet.ResNet18(classes=5)
    >>> keras_resnet.weights.save(model, "flowers.pth").name
    'flowers.pth'
    """
    path = Path(path)
    check_target(path)
    with replacing(path) as temporary:
        if path.name.endswith(".keras"):
            model.save(temporary)
        elif path.name.endswith(".weights.h5"):
            # HDF5 aborts the process if the disk is full, so the space is checked first.
            temporary.write_bytes(bytes(_size(model)))
            model.save_weights(temporary)
        elif path.name.endswith(".safetensors"):
            import safetensors.numpy

            state = {key: np.asarray(value, order="C") for key, value in _state(model).items()}
            version = version_of(model)
            said = {"format": "pt", **({VERSION: version} if version else {})}
            said[ANTI_ALIASING] = anti_aliasing_of(model)
            safetensors.numpy.save_file(state, temporary, said)
        else:
            pytorch.write(_state(model), temporary)
    return path


def _size(model):
    """Returns an upper bound of a .weights.h5's size in bytes, with 2 kB overhead per variable."""
    return sum(variable.numpy().nbytes + 4096 for variable in model.weights)


def check_target(path: str | os.PathLike[str]) -> None:
    """Raises a ValueError for a path to which `save` cannot write."""
    path = Path(path)
    if not path.name.endswith(SAVED_SUFFIXES):
        raise ValueError(
            f"The file name should end in one of {', '.join(SAVED_SUFFIXES)}. Received: {path}"
        )
    if not path.parent.is_dir():
        raise ValueError(f"The folder {path.parent} does not exist. Create it first.")


def _state(model):
    """Returns torchvision's state_dict, in its order, with PyTorch's `num_batches_tracked`."""
    state = to_state_dict(model)
    layers = list(dict.fromkeys(key.rpartition(".")[0] for key in state))
    leaves = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    for layer in layers:
        if f"{layer}.running_var" in state:
            # Keras does not count batches; PyTorch only uses the count without a momentum.
            state[f"{layer}.num_batches_tracked"] = np.zeros((), np.int64)
    ordered = (f"{layer}.{leaf}" for layer in layers for leaf in leaves)
    return {key: state[key] for key in ordered if key in state}
