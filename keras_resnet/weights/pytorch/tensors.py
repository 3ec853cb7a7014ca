"""The tensors in pickles of torch.save: descriptions, bounds checks, and conversion to arrays.

Source: torch/_utils.py and torch/serialization.py of PyTorch.
"""

import dataclasses
import math
import struct
import sys
from typing import Any

import ml_dtypes
import numpy as np

from keras_resnet.weights.errors import UnsafeFileError
from keras_resnet.weights.pytorch.unpickler import Opaque, Unpickler

INT64 = struct.Struct("<q")  # counts between pickles, and sizes in tar files
MAX_DIMENSIONS = 16
NATIVE_ORDER = "<" if sys.byteorder == "little" else ">"

# By storage class; the names of the dtypes are the same as in torch.
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
    "ComplexFloat": np.dtype("complex64"),
    "ComplexDouble": np.dtype("complex128"),
}
# Ignored, as their values need separate scales.
QUANTIZED = {
    "QInt8": np.dtype("int8"),
    "QUInt8": np.dtype("uint8"),
    "QInt32": np.dtype("int32"),
}
# Without a storage class; the tensors have the dtype.
NEWER_DTYPES = [
    np.dtype(dtype)
    for dtype in ("uint16", "uint32", "uint64", ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2)
]


@dataclasses.dataclass(frozen=True)
class Storage:
    """A range of `count` elements in the file, with a key."""

    key: str
    dtype: np.dtype | None  # None: untyped, counted in bytes
    count: int
    start: int = 0  # first element within the storage `key` (for views in legacy files)


@dataclasses.dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor as described in the file; offset and strides are in elements.

    Compared by identity, since sizes could be chosen to have equal hashes.
    """

    storage: Storage
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Parameter:
    """A parameter of torch 0.1 during unpickling: first empty, then with its state."""

    tensor: Tensor | None = None

    def set_state(self, state: Any) -> None:
        """Sets the tensor, the first item."""
        if isinstance(state, tuple) and state and isinstance(state[0], Tensor):
            self.tensor = state[0]


def find_storage(pid: Any) -> Storage | Opaque:
    """Resolves a persistent id, ("storage", type, key, location, count, view or None).

    Zip files have no view. The result is an Opaque for unknown types, and for ("module", class,
    file, text).
    """
    if isinstance(pid, tuple) and len(pid) > 1 and isinstance(pid[1], Opaque):
        return pid[1]
    if (
        not isinstance(pid, tuple)
        or len(pid) not in (5, 6)
        or pid[0] != "storage"
        or not isinstance(pid[1], StorageType)
        or not isinstance(pid[2], str)
    ):
        raise UnsafeFileError("it refers to something other than a storage")
    dtype, key, count, view = pid[1].dtype, pid[2], checked_count(pid[4]), (*pid, None)[5]
    if view is None:
        return Storage(key, dtype, count)
    if not isinstance(view, tuple) or len(view) != 3:
        raise UnsafeFileError("it has an invalid view of a storage")
    return view_of(Storage(key, dtype, count), *view[1:])


def view_of(whole: Storage, start: Any, count: Any) -> Storage:
    """Returns a view of `count` elements of a storage from `start` on, bounds-checked."""
    start, count = checked_count(start), checked_count(count)
    if start + count > whole.count:
        raise UnsafeFileError("it has a view that reaches beyond its storage")
    return Storage(whole.key, whole.dtype, count, whole.start + start)


def raw_storage(reader: Unpickler, count: int, dtype: np.dtype) -> memoryview:
    """Returns the bytes of `count` numbers at the reader's position, without copying."""
    start = reader.position
    reader.position += count * dtype.itemsize
    if reader.position > len(reader.view):
        raise UnsafeFileError(
            f"it has a storage of {count * dtype.itemsize} bytes that ends after the end of the "
            "file"
        )
    return reader.view[start : reader.position]


@dataclasses.dataclass(frozen=True)
class StorageType:
    """Replacement of a storage class, `torch.FloatStorage` for example; never called."""

    dtype: np.dtype | None


def rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Any:
    """Replacement of `_rebuild_tensor` and `_rebuild_tensor_v2`."""
    if isinstance(storage, Opaque):
        return storage
    if not isinstance(storage, Storage) or storage.dtype is None:
        raise UnsafeFileError("it has a tensor without a typed storage")
    return make_tensor(storage, storage.dtype, offset, shape, strides)


def rebuild_tensor_v3(
    storage: Any,
    offset: Any,
    shape: Any,
    strides: Any,
    _grad: Any,
    _hooks: Any,
    dtype: Any,
    *_: Any,
) -> Any:
    """Replacement of `_rebuild_tensor_v3`, whose storages are untyped."""
    if isinstance(storage, Opaque) or isinstance(dtype, Opaque):
        return storage if isinstance(storage, Opaque) else dtype
    if not isinstance(storage, Storage) or not isinstance(dtype, StorageType) or not dtype.dtype:
        raise UnsafeFileError("it has a tensor without a storage or a dtype")
    return make_tensor(storage, dtype.dtype, offset, shape, strides)


def make_tensor(storage: Storage, dtype: np.dtype, offset: Any, shape: Any, strides: Any) -> Tensor:
    """Returns the tensor if its offset, shape and strides are within its storage."""
    if not isinstance(shape, tuple) or not isinstance(strides, tuple):
        raise UnsafeFileError("it has a tensor whose shape is not a tuple")
    if len(shape) != len(strides) or len(shape) > MAX_DIMENSIONS:
        raise UnsafeFileError(
            f"it has a tensor of {len(shape)} dimensions with {len(strides)} strides; at most "
            f"{MAX_DIMENSIONS} of each are allowed"
        )
    shape, strides = tuple(map(checked_count, shape)), tuple(map(checked_count, strides))
    offset = checked_count(offset)
    held = storage.count
    if storage.dtype is None:
        held //= dtype.itemsize
    if 0 in shape:
        return Tensor(storage, dtype, 0, shape, (0,) * len(shape))
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    if last >= held:
        raise UnsafeFileError(
            f"it has a tensor of shape {shape} and strides {strides} from element {offset} on "
            f"that reaches beyond its storage of {held} elements"
        )
    if math.prod(shape) > held:
        raise UnsafeFileError(
            f"it has a tensor of shape {shape}, more elements than the {held} of its storage"
        )
    return Tensor(storage, dtype, offset, shape, strides)


def checked_count(value: Any) -> int:
    """Returns `value` if it is a valid size; raises an UnsafeFileError otherwise."""
    if isinstance(value, bool) or not isinstance(value, int):
        # Without the value, as a nested tuple may take forever to format.
        raise UnsafeFileError(f"it has a {type(value).__name__} where a size should be")
    if not 0 <= value < 2**62:
        raise UnsafeFileError("it has a size that is negative or too large")
    return value


def as_array(tensor: Tensor, buffer: memoryview | np.ndarray) -> np.ndarray:
    """Returns the tensor as a view of `buffer`, its storage's bytes in native byte order."""
    storage, itemsize = tensor.storage, tensor.dtype.itemsize
    unit = 1 if storage.dtype is None else itemsize
    held = buffer[storage.start * unit : (storage.start + storage.count) * unit]
    if len(held) < storage.count * unit:
        raise UnsafeFileError(
            f"its storage {storage.key[:60]!r} should have {storage.count * unit} bytes but has "
            f"{len(held)}"
        )
    if 0 in tensor.shape:
        return np.empty(tensor.shape, tensor.dtype)
    return np.ndarray(
        tensor.shape,
        tensor.dtype,
        held,
        tensor.offset * itemsize,
        [stride * itemsize for stride in tensor.strides],
    )


def byte_swapped(buffer: memoryview, dtype: np.dtype) -> np.ndarray:
    """Copies `buffer`, numbers of `dtype`, with their bytes swapped."""
    size = dtype.itemsize // (2 if dtype.kind == "c" else 1)  # a complex number has two parts
    return np.frombuffer(buffer, f"u{size}").byteswap().view(np.uint8)
