"""Reads weights files of all kinds: `read_checkpoint`.

    file -> container, recognized by its content -> the network in it -> torchvision's names

`loading` then checks the arrays against the model and assigns them. The readers of containers
(`pytorch`, `safetensors_file`, `hdf5_file`) only raise `UnsafeFileError`.
"""

import dataclasses
import io
import logging
import mmap
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_resnet.weights import hdf5_file, hub, keras_names, pytorch, safetensors_file
from keras_resnet.weights.errors import CheckpointError, UnsafeFileError, listed
from keras_resnet.weights.finding import MAX_DEPTH, Found, find, flat
from keras_resnet.weights.foreign import refuse_other_kind, refuse_other_zip
from keras_resnet.weights.names import TWO_NETWORKS
from keras_resnet.weights.origin import Origin, of_keras, origin_of
from keras_resnet.weights.selection import Weights, select
from keras_resnet.weights.structure import sites_in
from keras_resnet.weights.zip_file import START, zip_members

logger = logging.getLogger("keras_resnet")

SUFFIXES = (
    *(".pth", ".pt", ".th", ".bin", ".ckpt", ".pkl", ".pdparams"),
    *(".safetensors", ".keras", ".weights.h5", ".h5"),
)
KERAS_WEIGHTS = "model.weights.h5"  # within a `.keras` file, which is a zip
Source = str | os.PathLike[str] | Mapping[str, Any]
HDF5_START = b"\x89HDF\r\n\x1a\n"
KERAS = ("keras", "hdf5")
# Kind of file: its name in messages, and how to save it again.
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
    """The weights in a file of any library.

    Args:
        path: The file, or the name of a mapping in messages.
        container: "zip", "legacy" or "tar" (of torch.save), "torchscript", "pickle" (of numpy
            arrays), "safetensors", "keras", "hdf5", or "mapping".
        found: The network, and the tensors by their names in the file, without its prefix; those of
            PyTorch and safetensors are read-only views of the file.
        origin: The origin of the network, from its metadata or a config.json next to the file.
    """

    path: Path
    container: str
    found: Found
    origin: Origin

    @property
    def of_applications(self) -> bool:
        """Whether it is from keras.applications."""
        return self.container in KERAS and keras_names.of_applications(self.found.tensors)

    @property
    def of_applications_v2(self) -> bool:
        """Whether it is ResNet50V2, 101V2 or 152V2 of keras.applications."""
        return self.of_applications and keras_names.of_applications_v2(self.found.tensors)

    @property
    def of_applications_v1(self) -> bool:
        """Whether it is ResNet50, 101 or 152 of keras.applications, which are of version "v1"."""
        return self.of_applications and not self.of_applications_v2

    @property
    def state_dict(self) -> dict[str, np.ndarray]:
        """The weights in PyTorch's layout, with the names of the library that wrote them."""
        if self.container in KERAS:
            return keras_names.as_pytorch(self.found.tensors, self.path.name)
        return self.found.tensors

    def weights(self, classes: int | None = None) -> Weights:
        """Returns the weights with torchvision's names and structure.

        Args:
            classes: Expected number of classes, to recognize a head with another name.
        """
        if self.found.network is None:
            return Weights(self.state_dict, [], None)
        return select(
            self.found.network, classes, self.found.alone, self.container == "safetensors"
        )

    @property
    def two_networks(self) -> str:
        """Describes the two networks with these names; empty if there is only one."""
        library = min(self.found.libraries & TWO_NETWORKS.keys(), default=None)
        if library is None:
            return ""
        author = self.origin.name or "the origin is not specified"
        return (
            f"its names are {library}'s, which two kinds of networks use: "
            f"{TWO_NETWORKS[library]}; {author}."
        )

    def other_images(self, version: str | None) -> str:
        """Describes the preprocessing if it is, or may be, other than usual; else empty.

        Args:
            version: Position of the stride, which distinguishes networks with equal names.
        """
        if self.of_applications_v2:
            return "keras.applications.resnet_v2.preprocess_input: RGB in -1..1"
        if self.of_applications:
            return "keras.applications.resnet.preprocess_input: BGR in 0..255, minus a mean"
        two = self.two_networks if version != "v1.5" and "BGR" in self.two_networks else ""
        return self.origin.preprocessing or two

    @property
    def has_bottlenecks(self) -> bool:
        """Whether it has bottleneck blocks; `version` has no effect on others."""
        return self.found.network is not None and self.found.network.has_bottlenecks

    @property
    def asks_for_version(self) -> bool:
        """Whether its names are those of two networks, and the file does not specify which."""
        return self.has_bottlenecks and bool(self.two_networks) and not self.origin.version

    def check_version(
        self,
        version: str | None,
        given: bool,
        output_stride: int = 32,
        anti_aliasing: str = "none",
    ) -> None:
        """Checks that the file is for the same network as a model.

        Args:
            version: The model's, as for the builders; None if it has no bottlenecks.
            given: Whether the version was given explicitly.
            output_stride: The model's, as for the builders.
            anti_aliasing: The model's, as from `anti_aliasing_of`.

        Raises:
            CheckpointError: if the network is known to differ from the model's, or if its names are
                those of two networks and neither the file nor the caller specifies which.
        """
        own = version if self.has_bottlenecks else None
        self.origin.refuse_others(self.path, own, output_stride, anti_aliasing)
        if self.of_applications_v1 and version not in (None, "v1"):
            raise CheckpointError(
                f"{self.path} is from keras.applications, where bottleneck blocks stride in their "
                "first convolution. Build the model with version='v1'."
            )
        if self.asks_for_version and not given:
            raise CheckpointError(
                f"{self.path}: {self.two_networks} Pass version='v1' or version='v1.5'."
            )


def read_checkpoint(source: Source, prefix: str | None = None) -> Checkpoint:
    """Reads a weights file. It may be untrusted: no code in it is imported or executed.

    Args:
        source: The file, whose format is recognized from its content; or arrays by name.
        prefix: Prefix of the network, if the file contains several.

    Raises:
        CheckpointError: if the file does not exist, is damaged, or contains no network, or several.
    """
    if isinstance(source, Mapping):
        arrays = _as_arrays(source)
        found = find(arrays, "the mapping", (), prefix)
        return Checkpoint(Path("the mapping"), "mapping", found, Origin())
    path = existing_file(source)
    container, saved, passed_over, said = _read_container(path)
    if passed_over:
        names = listed(f"{one.name!r:.100}" for one in passed_over)
        logger.warning("%s: ignored content that is not weights: %s.", path.name, names)
    if container in KERAS:
        state = keras_names.as_pytorch(saved, path.name)
        networks = [site.network(state) for site in sites_in(state)[:1]]
        found = Found("", saved, (*networks, None)[0], frozenset(), True, {})
        return Checkpoint(path, container, found, said)
    saved = flat(saved) if container == "torchscript" else saved
    return Checkpoint(
        path, container, find(saved, path, passed_over, prefix), origin_of(path, said, saved)
    )


def read_state_dict(
    path: str | os.PathLike[str], *, prefix: str | None = None
) -> dict[str, np.ndarray]:
    """Reads the weights in a PyTorch, safetensors or Keras file, without PyTorch.

    The format is recognized from the content, not from the name: the zip, legacy or tar container
    of `torch.save`, TorchScript, safetensors, a pickle of NumPy arrays, or a file of Keras. In a
    training checkpoint, the network is found under any keys and prefix, which are removed.

    Args:
        path: The file. It may be untrusted: no code in it is imported or executed.
        prefix: Prefix of the network, if the file contains several; the error lists them.

    Returns:
        Arrays by name, in PyTorch's layout. The arrays may be read-only views of the file.

    Raises:
        CheckpointError: if the file does not exist, is damaged, or contains no state_dict, or
            several.
    """
    return read_checkpoint(path, prefix).state_dict


def _as_arrays(source, depth=0):
    """Converts the tensors in a mapping and in nested mappings to arrays.

    A mapping with nested mappings is a training checkpoint, in which other objects are ignored.
    """
    is_plain = depth == 0 and not any(isinstance(value, Mapping) for value in source.values())
    arrays = {}
    for key, value in source.items() if depth <= MAX_DEPTH else ():
        if depth == 0 and not isinstance(key, str):
            raise CheckpointError(
                f"The keys of the mapping should be strings. Received: {key!r:.80}"
            )
        if isinstance(value, Mapping):
            arrays[key] = _as_arrays(value, depth + 1)
        elif is_plain or hasattr(value, "__array__"):
            arrays[key] = _as_array(key, value)
    return arrays


def _as_array(key, value):
    """Converts an entry of a mapping, for example a torch tensor, to an array."""
    if isinstance(value, np.ndarray):
        return value
    try:
        array = np.asarray(value)
        if array.dtype.kind in "OSU":
            raise TypeError(f"it is a {type(value).__name__}")
        return array
    except (TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{key!r:.80} of the mapping is not an array: {error}") from error


def existing_file(path: str | os.PathLike[str]) -> Path:
    """Returns the file for a path, or for an address on the hub.

    Raises:
        CheckpointError: if it does not exist, or is a folder.
        ImportError: if it is on the hub, and the hub extra is not installed.
    """
    if hub.is_address(path) or hub.is_snapshot(path):
        return hub.weights_file(path)
    path = Path(path)
    if path.is_file():
        return path
    what = "is a folder" if path.is_dir() else "does not exist"
    raise CheckpointError(
        f"The weights file {path} {what}. Expected a file that ends in one of "
        f"{', '.join(SUFFIXES)}; builders also accept 'imagenet' and the names in list_weights(). "
        f"The current folder is {Path.cwd()}."
    )


def _read_container(path: Path) -> tuple[str, Any, list[Any], Any]:
    """Returns the container, its content, ignored objects, and its metadata.

    The metadata are strings by name, or an `Origin` for Keras files.
    """
    size = path.stat().st_size
    if size == 0:
        raise CheckpointError(f"{path} is empty. Copy or download it again.")
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    kind = {".h5": "hdf5", ".keras": "keras"}.get(path.suffix, "torch")  # for messages
    try:
        if mapped[8:9] == b"{":  # JSON, after its length
            kind = "safetensors"
            arrays, said = safetensors_file.read(path, mapped)
            return kind, arrays, [], said
        if mapped[:8] == HDF5_START:
            kind = "hdf5"
            return kind, hdf5_file.read(path, size), [], Origin()
        if mapped[:4] == START:
            members, compressed = zip_members(mapped)
            refuse_other_zip({*members, *compressed})
            if KERAS_WEIGHTS in members or KERAS_WEIGHTS in compressed:
                kind = "keras"
                if KERAS_WEIGHTS in compressed:
                    raise UnsafeFileError(f"its {KERAS_WEIGHTS} is compressed or encrypted")
                content = members[KERAS_WEIGHTS]
                origin = of_keras(members.get(hub.CONFIG))
                return kind, hdf5_file.read(io.BytesIO(content), len(content)), [], origin
        refuse_other_kind(mapped)
        return *pytorch.read(mapped), {}
    except UnsafeFileError as error:
        what, how = KINDS[kind]
        again = f"If it is truncated, copy or download it again; otherwise save it again {how}."
        raise CheckpointError(
            f"{path} cannot be read as {what}: {error}. {error.advice or again}"
        ) from error
