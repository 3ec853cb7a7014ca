"""Numeric NumPy arrays in pickles, created from the pickle's own bytes.

Source: numpy/_core/src/multiarray/methods.c, `array_reduce` and `array_setstate`.
"""

import math
import re
from typing import Any

import numpy as np

from keras_resnet.weights.errors import UnsafeFileError
from keras_resnet.weights.pytorch.tensors import MAX_DIMENSIONS, checked_count
from keras_resnet.weights.pytorch.unpickler import Opaque

PLAIN = re.compile(r"[iuf][1248]|b1|c8|c16")


class Dtype:
    """A dtype during unpickling: first its kind and size, then its byte order."""

    def __init__(self, kind: Any = None, *_: Any) -> None:
        plain = isinstance(kind, str) and PLAIN.fullmatch(kind) and kind != "f1"
        self.dtype = np.dtype(kind) if plain else None

    def set_state(self, state: Any) -> None:
        """Sets the byte order, the second item."""
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if self.dtype is not None and isinstance(order, str) and order in ("<", ">"):
            self.dtype = self.dtype.newbyteorder("<" if order == "<" else ">")


class Array:
    """An array during unpickling: first empty, then with its state."""

    dtype: np.dtype | None = None
    shape: tuple[int, ...] = ()
    fortran = False
    data: str | bytes | bytearray = b""  # a string has a byte in each character

    def set_state(self, state: Any) -> None:
        """Sets (version, shape, dtype, whether in Fortran order, data)."""
        if not isinstance(state, tuple) or len(state) != 5:
            raise UnsafeFileError("it has a NumPy array in an unknown encoding")
        self.fill(state[4], state[2], state[1], state[3] is True)

    def fill(self, data: Any, dtype: Any, shape: Any, fortran: bool) -> None:
        """Sets its parts, if they are consistent; dtypes other than numbers are ignored."""
        plain = dtype.dtype if isinstance(dtype, Dtype) else None
        if plain is None and isinstance(dtype, Opaque | Dtype):
            return
        if plain is None or not isinstance(data, str | bytes | bytearray):
            raise UnsafeFileError("it has a NumPy array without a dtype, or without data")
        if not isinstance(shape, tuple) or len(shape) > MAX_DIMENSIONS:
            raise UnsafeFileError("it has a NumPy array with an invalid shape")
        self.shape, self.dtype = tuple(map(checked_count, shape)), plain
        self.fortran, self.data = fortran, data
        if math.prod(self.shape) * plain.itemsize != len(data):
            raise UnsafeFileError(
                f"it has a NumPy array of shape {self.shape} with {len(data)} bytes"
            )

    def made(self, encoded: dict[int, bytes]) -> "np.ndarray | Opaque":
        """Returns the array, a view of its data.

        Args:
            encoded: Bytes of strings by their ids, since many arrays may share one.
        """
        if self.dtype is None:
            return Opaque("numpy.ndarray of objects")
        data = self.data
        if isinstance(data, str):
            if id(data) not in encoded:
                encoded[id(data)] = data.encode("latin1")
            data = encoded[id(data)]
        flat = np.frombuffer(data, self.dtype)
        return flat.reshape(self.shape, order="F") if self.fortran else flat.reshape(self.shape)


def _from_buffer(data=None, dtype=None, shape=None, order=None, *_):
    array = Array()
    array.fill(data, dtype, shape, order == "F")
    return array


GLOBALS: dict[str, Any] = {
    "numpy.dtype": Dtype,
    "numpy.ndarray": Array,
    "_codecs.encode": lambda text="", *_: text,  # bytes are strings in protocol 2
    **{
        f"numpy.{core}.{name}": function
        for core in ("core", "_core")
        for name, function in {
            "multiarray._reconstruct": lambda *_: Array(),
            "multiarray.scalar": lambda *_: Opaque("numpy scalar"),
            "numeric._frombuffer": _from_buffer,
        }.items()
    },
}
