"""What a file of weights holds: `read_checkpoint`, the way of every file up to its arrays.

    file -> container, told by its content -> the network in it -> torchvision's names

`loading` goes on from there: checked against the model -> assigned. Readers of containers
(`pytorch`, `safetensors_file`, `hdf5_file`) raise `UnsafeFileError` and nothing else.
"""

import dataclasses
import functools
import io
import mmap
import os
from pathlib import Path
from typing import Any

import numpy as np

from keras_resnet.weights import hdf5_file, keras_names, pytorch, safetensors_file
from keras_resnet.weights.errors import CheckpointError, UnsafeFileError
from keras_resnet.weights.finding import network_in
from keras_resnet.weights.names import as_torchvision
from keras_resnet.weights.zip_file import START, zip_members

SUFFIXES = (".pth", ".pt", ".th", ".bin", ".ckpt", ".safetensors", ".keras", ".weights.h5", ".h5")
KERAS_WEIGHTS = "model.weights.h5"  # within a `.keras` file, which is a zip
HDF5_START = b"\x89HDF\r\n\x1a\n"
KERAS = ("keras", "hdf5")
# Kind of file: what messages call it, and how to save it anew.
KINDS = {
    "safetensors": ("a safetensors file", "with safetensors"),
    "hdf5": ("an HDF5 file", "with Keras"),
    "keras": ("a .keras file", "with Keras"),
    "torch": (
        "a file of torch.save",
        "as the state_dict alone: torch.save(model.state_dict(), path)",
    ),
}


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """The weights of a file, of whatever library.

    Args:
        path: The file.
        container: "zip", "legacy" or "tar" (of torch.save), "safetensors", "keras" or "hdf5".
        tensors: Name to array, as they are in the file, less a wrapper's prefix; those of PyTorch
            and safetensors are read-only views of the file.
    """

    path: Path
    container: str
    tensors: dict[str, np.ndarray]

    @property
    def of_applications(self) -> bool:
        """Whether keras.applications made it, whose bottlenecks stride on their first kernel."""
        return self.container in KERAS and keras_names.of_applications(self.tensors)

    @functools.cached_property
    def state_dict(self) -> dict[str, np.ndarray]:
        """The weights under PyTorch's names, those of the library that wrote them, in its layout.

        Raises:
            CheckpointError: if two arrays get one name.
        """
        if self.container in KERAS:
            return keras_names.as_pytorch(self.tensors, self.path.name)
        return self.tensors

    @functools.cached_property
    def weights(self) -> dict[str, np.ndarray]:
        """The weights under torchvision's names and as its networks have them.

        Raises:
            CheckpointError: if two arrays get one name.
        """
        return as_torchvision(self.state_dict, self.path.name)


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Reads a file of weights. It is untrusted: nothing that it names is imported or run.

    Args:
        path: The file, which is taken for what it contains, not for its name.

    Raises:
        CheckpointError: if the file does not exist, is damaged, or holds no network, or several.
    """
    path = existing_file(path)
    container, saved = _read_container(path)
    tensors = saved if container in KERAS else network_in(saved, path)
    return Checkpoint(path, container, tensors)


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads the weights of a file of PyTorch, safetensors or Keras, without PyTorch.

    The file is taken for what it contains, not for its name: the zip, legacy or tar container of
    `torch.save`, safetensors, or what Keras saves. A training checkpoint's weights are found under
    whatever key they are, of several the first of `state_dict`, `model_state_dict`, `model`,
    `model_ema`, `state_dict_ema`, `net`; they lose the usual prefixes (`module.`, `backbone.`,
    ...).

    Args:
        path: The file. It is untrusted: nothing that it names is imported or run.

    Returns:
        Names to arrays in PyTorch's layout. The arrays may be read-only views of the file.

    Raises:
        CheckpointError: if the file does not exist, is damaged, or holds no state_dict, or several
            under other keys.
    """
    return read_checkpoint(path).state_dict


def existing_file(path: str | os.PathLike[str]) -> Path:
    """`path` as a Path, or a CheckpointError that says what is there instead."""
    path = Path(path)
    if path.is_file():
        return path
    what = "is a folder" if path.is_dir() else "does not exist"
    raise CheckpointError(
        f"The weights file {path} {what}. Expected a file that ends in one of "
        f"{', '.join(SUFFIXES)}; builders take 'imagenet' and the names of list_weights() too. "
        f"The current folder is {Path.cwd()}."
    )


def _read_container(path: Path) -> tuple[str, Any]:
    """The container, and what it holds: arrays by name, perhaps in dicts within dicts."""
    size = path.stat().st_size
    if size == 0:
        raise CheckpointError(f"{path} is empty. Copy or download it again.")
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    kind = {".h5": "hdf5", ".keras": "keras"}.get(path.suffix, "torch")  # for messages
    try:
        if mapped[8:9] == b"{":  # after a length, JSON
            kind = "safetensors"
            return kind, safetensors_file.read(path, mapped)
        if mapped[:8] == HDF5_START:
            kind = "hdf5"
            return kind, hdf5_file.read(path, size)
        if mapped[:4] == START:
            members, compressed = zip_members(mapped)
            if KERAS_WEIGHTS in members or KERAS_WEIGHTS in compressed:
                kind = "keras"
                if KERAS_WEIGHTS in compressed:
                    raise UnsafeFileError(f"its {KERAS_WEIGHTS} is compressed or encrypted")
                content = members[KERAS_WEIGHTS]
                return kind, hdf5_file.read(io.BytesIO(content), len(content))
        return pytorch.read(mapped)
    except UnsafeFileError as error:
        what, how = KINDS[kind]
        again = f"If it was cut short, copy or download it again; otherwise save it anew {how}."
        raise CheckpointError(
            f"{path} cannot be read as {what}: {error}. {error.advice or again}"
        ) from error
