"""Reads the files of `torch.save` into numpy arrays, safely and without PyTorch.

Two containers: the zip of torch >= 1.6, and the legacy one of torch 0.2 to 1.5, a row of pickles
and then the raw storages. Nothing that a file names is imported or called, and every size that a
file claims is compared with the file's own before it is used.

Sources: torch/serialization.py and torch/_utils.py of PyTorch.
"""

import dataclasses
import math
import mmap
import struct
import sys
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np

from keras_resnet.weights import safe_pickle
from keras_resnet.weights.safe_pickle import Inert, UnsafePickle

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_VERSION = 1001
NATIVE_ORDER = "<" if sys.byteorder == "little" else ">"

DTYPES = {
    "Float": np.dtype("float32"),
    "Double": np.dtype("float64"),
    "Half": np.dtype("float16"),
    "BFloat16": np.dtype(ml_dtypes.bfloat16),
    "Long": np.dtype("int64"),
    "Int": np.dtype("int32"),
    "Short": np.dtype("int16"),
    "Char": np.dtype("int8"),
    "Byte": np.dtype("uint8"),
    "Bool": np.dtype("bool"),
}
TORCH_DTYPES = {
    "float32": "Float",
    "float64": "Double",
    "float16": "Half",
    "bfloat16": "BFloat16",
    "int64": "Long",
    "int32": "Int",
    "int16": "Short",
    "int8": "Char",
    "uint8": "Byte",
    "bool": "Bool",
}
# In training checkpoints beside the weights; read over.
INERT = {
    "argparse.Namespace",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
    "numpy.ndarray",
    "numpy.dtype",
    "torch.device",
    "_codecs.encode",
}
SAVE_A_STATE_DICT = (
    "save its weights in PyTorch with torch.save(model.state_dict(), 'weights.pth') and load that"
)


class CheckpointError(ValueError):
    """A weights file that cannot be read, or does not fit the model."""


@dataclasses.dataclass(frozen=True)
class Storage:
    """A run of `count` elements in the file, to be found under `key`."""

    key: str
    dtype: np.dtype | None  # None: untyped, counted in bytes
    count: int
    start: int = 0  # first element within the storage called `key` (views of legacy files)


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor as the file describes it; offset and strides count elements."""

    storage: Storage
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read(path) -> tuple[object, str]:
    """Reads a file of `torch.save`.

    Args:
        path: The file.

    Returns:
        What was saved, with numpy arrays (read-only views of the file, mapped into memory) for the
        tensors of its dicts, and the name of the container, "zip" or "legacy".

    Raises:
        CheckpointError: if the file is not of this kind, is damaged, or holds what it should not.
    """
    path = Path(path)
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path} is empty. Copy or download it again.")
    with path.open("rb") as file:
        start = file.read(64)
        file.seek(0)
        container = "zip" if start.startswith(b"PK\x03\x04") else "legacy"
        if container == "legacy" and start[:1] != b"\x80":
            raise CheckpointError(
                f"{path} is not a PyTorch file: it starts with {start[:16]!r}. Expected a zip "
                "or a legacy file of torch.save. If it was downloaded, open it as text to see "
                "what came instead, and download it again."
            )
        buffer = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
        reader = {"zip": _read_zip, "legacy": _read_legacy}[container]
        try:
            return reader(file, buffer), container
        # RuntimeError, NotImplementedError and struct.error are zipfile's.
        except (ValueError, zipfile.BadZipFile, EOFError, RuntimeError, struct.error) as error:
            raise CheckpointError(
                f"{path} cannot be read as a {container} file of torch.save: {error}. "
                "If the file was cut short, copy or download it again; otherwise save the "
                "state_dict alone with torch.save(model.state_dict(), path)."
            ) from error


# The pickle inside


def _storage(pid):
    """What a persistent id stands for: (storage, type, key, location, count, and a view or None).

    Zip files leave the view out.
    """
    if isinstance(pid, tuple) and pid[:1] == ("module",):
        raise UnsafePickle(f"it holds a whole pickled nn.Module; {SAVE_A_STATE_DICT}")
    if (
        not isinstance(pid, tuple)
        or len(pid) not in (5, 6)
        or pid[0] != "storage"
        or not isinstance(pid[1], StorageType)
        or not isinstance(pid[2], str)
    ):
        raise UnsafePickle("it refers to something other than a storage")
    dtype, key, count, view = pid[1].dtype, pid[2], _count(pid[4]), (*pid, None)[5]
    if view is None:
        return Storage(key, dtype, count)
    if not isinstance(view, tuple) or len(view) != 3:
        raise UnsafePickle("it has a view of a storage that is no view")
    start, size = _count(view[1]), _count(view[2])
    if start + size > count:
        raise UnsafePickle("it has a view that reaches beyond its storage")
    return Storage(key, dtype, size, start)


@dataclasses.dataclass(frozen=True)
class StorageType:
    """Stands for a storage class, `torch.FloatStorage` for example; is never called."""

    dtype: np.dtype | None


def _rebuild_tensor(storage, offset, shape, strides, *_):
    if not isinstance(storage, Storage) or storage.dtype is None:
        raise UnsafePickle("it has a tensor without a typed storage")
    return _tensor(storage, storage.dtype, offset, shape, strides)


def _rebuild_tensor_v3(storage, offset, shape, strides, _grad, _hooks, dtype, *_):
    if not isinstance(storage, Storage) or not isinstance(dtype, StorageType):
        raise UnsafePickle("it has a tensor without a storage or a dtype")
    return _tensor(storage, dtype.dtype, offset, shape, strides)


def _tensor(storage, dtype, offset, shape, strides):
    if not isinstance(shape, tuple) or not isinstance(strides, tuple):
        raise UnsafePickle("it has a tensor whose shape is not a tuple")
    shape, strides = tuple(map(_count, shape)), tuple(map(_count, strides))
    if len(shape) != len(strides) or len(shape) > 16:
        raise UnsafePickle(f"it has a tensor of shape {shape} with strides {strides}")
    offset = _count(offset)
    held = storage.count
    if storage.dtype is None:
        held //= dtype.itemsize
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    if 0 in shape:
        raise UnsafePickle(f"it has a tensor without elements, of shape {shape}")
    if last >= held:
        raise UnsafePickle(
            f"it has a tensor of shape {shape} and strides {strides} from element {offset} on "
            f"that reaches beyond its storage of {held} elements"
        )
    if math.prod(shape) > held:
        raise UnsafePickle(
            f"it has a tensor of shape {shape}, more elements than the {held} of its storage"
        )
    return Tensor(storage, dtype, offset, shape, strides)


def _rebuild_parameter(data=None, *_):
    return data


def _ordered_dict(pairs=(), *_):
    return safe_pickle.make_dict([(key, value) for key, value in pairs])


def _size(dimensions=(), *_):
    return tuple(dimensions)


def _count(value):
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**62:
        raise UnsafePickle(f"it has {value!r:.60} where a size should be")
    return value


GLOBALS = {
    "collections.OrderedDict": _ordered_dict,
    "torch.Size": _size,
    "torch.nn.parameter.Parameter": _rebuild_parameter,
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v3": _rebuild_tensor_v3,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch._utils._rebuild_parameter_with_state": _rebuild_parameter,
    "torch.storage.UntypedStorage": StorageType(None),
    "torch.storage.TypedStorage": StorageType(None),
    **{f"torch.{name}Storage": StorageType(dtype) for name, dtype in DTYPES.items()},
    **{f"torch.{name}": StorageType(DTYPES[row]) for name, row in TORCH_DTYPES.items()},
    **{name: Inert(name) for name in INERT},
}


def _find_global(name):
    if name in GLOBALS:
        return GLOBALS[name]
    if name.startswith(("torch.nn.modules.", "torchvision.models.")):
        raise UnsafePickle(f"it holds a whole pickled nn.Module ({name}); {SAVE_A_STATE_DICT}")
    raise UnsafePickle(
        f"it names {name!r:.120}, which is not among the {len(GLOBALS)} names that an honest "
        "checkpoint needs; nothing of it was run"
    )


# The containers around it


def _read_zip(file, buffer):
    with zipfile.ZipFile(file) as archive:
        entries = {info.filename: info for info in archive.infolist()}
        pickles = [name for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise UnsafePickle("it is a zip, but has no data.pkl in its top folder")
        top = pickles[0].removesuffix("data.pkl")
        if f"{top}constants.pkl" in entries:
            raise UnsafePickle(f"it is a TorchScript archive; {SAVE_A_STATE_DICT}")
        for info in entries.values():
            if info.compress_type != zipfile.ZIP_STORED:
                raise UnsafePickle(f"its entry {info.filename!r:.60} is compressed")
        order = "<"
        if f"{top}byteorder" in entries:
            order = {b"little": "<", b"big": ">"}.get(archive.read(f"{top}byteorder"))
            if order is None:
                raise UnsafePickle("its byteorder is neither little nor big")
        with archive.open(pickles[0]) as stream:
            saved = safe_pickle.load(stream, _find_global, _storage)

    def find(storage):
        info = entries.get(f"{top}data/{storage.key}")
        if info is None:
            raise UnsafePickle(f"its storage {storage.key!r:.60} is missing")
        start = _start_of_entry(buffer, info)
        return buffer[start : start + info.file_size], order

    return _with_arrays(saved, find)


def _start_of_entry(buffer, info):
    """Where an entry's bytes start: behind its local header, whose length varies."""
    header = buffer[info.header_offset : info.header_offset + 30].tobytes()
    if len(header) < 30 or not header.startswith(b"PK\x03\x04"):
        raise UnsafePickle(f"its entry {info.filename!r:.60} has no header")
    name_size, extra_size = struct.unpack("<HH", header[26:30])
    start = info.header_offset + 30 + name_size + extra_size
    if start + info.file_size > len(buffer):
        raise UnsafePickle(f"its entry {info.filename!r:.60} ends behind the end of the file")
    return start


def _read_legacy(file, buffer):
    itemsizes = {}

    def storage_of(pid):
        storage = _storage(pid)
        if storage.dtype is None:
            raise UnsafePickle("it has a storage without a type")
        itemsizes[storage.key] = storage.dtype.itemsize
        return storage

    def load():
        return safe_pickle.load(file, _find_global, storage_of)

    if load() != LEGACY_MAGIC:
        raise UnsafePickle("it is a pickle, but not one of torch.save")
    if load() != LEGACY_VERSION:
        raise UnsafePickle(f"its version is not {LEGACY_VERSION}")
    info, saved, keys = load(), load(), load()
    if not isinstance(info, dict):
        raise UnsafePickle("it does not say how its numbers are stored")
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise UnsafePickle("it has no list of storages")
    order = "<" if info.get("little_endian", True) else ">"
    storages, position = {}, file.tell()
    for key in keys:
        if key not in itemsizes:
            raise UnsafePickle(f"it has a storage {key!r:.60} that no tensor uses")
        counted = buffer[position : position + 8].tobytes()
        if len(counted) < 8:
            raise UnsafePickle(f"it ends before its storage {key!r:.60}")
        start = position + 8
        position = start + _count(struct.unpack(f"{order}q", counted)[0]) * itemsizes[key]
        if position > len(buffer):
            raise UnsafePickle(f"it ends within its storage {key!r:.60}")
        storages[key] = buffer[start:position]

    def find(storage):
        if storage.key not in storages:
            raise UnsafePickle(f"its storage {storage.key!r:.60} is missing")
        return storages[storage.key], order

    return _with_arrays(saved, find)


def _with_arrays(saved, find):
    """Puts an array in the place of each tensor in the nested dicts and lists of `saved`.

    `find` gives the bytes of a storage and their order, "<" or ">".
    """
    if isinstance(saved, Tensor):
        return _array(saved, *find(saved.storage))
    seen, waiting = set(), [saved]
    while waiting:
        container = waiting.pop()
        if id(container) in seen or not isinstance(container, dict | list):
            continue
        seen.add(id(container))
        items = container.items() if isinstance(container, dict) else enumerate(container)
        for key, value in list(items):
            if isinstance(value, Tensor):
                container[key] = _array(value, *find(value.storage))
            else:
                waiting.append(value)
    return saved


def _array(tensor, buffer, order):
    """The tensor: a view of `buffer`, or a copy where its byte order is not this machine's."""
    storage, itemsize = tensor.storage, tensor.dtype.itemsize
    unit = 1 if storage.dtype is None else itemsize
    held = buffer[storage.start * unit : (storage.start + storage.count) * unit]
    if len(held) < storage.count * unit:
        raise UnsafePickle(
            f"its storage {storage.key!r:.60} should have {storage.count * unit} bytes and has "
            f"{len(held)}"
        )
    swap = itemsize > 1 and order != NATIVE_ORDER
    array = np.ndarray(
        tensor.shape,
        np.dtype(f"{order}u{itemsize}") if swap else tensor.dtype,
        held,
        tensor.offset * itemsize,
        [stride * itemsize for stride in tensor.strides],
    )
    return array.astype(f"u{itemsize}").view(tensor.dtype) if swap else array
