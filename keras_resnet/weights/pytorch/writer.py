"""Writes a state_dict in the format of torch.save, without PyTorch.

The pickle is written opcode by opcode, since Python's pickler would import the classes.

Source: torch/serialization.py of PyTorch, `_save`; Python's pickletools for the opcodes.
"""

import pickle
import struct
import sys
import zipfile
from pathlib import Path

import numpy as np

from keras_resnet.weights.pytorch.tensors import DTYPES

ALIGNMENT = 64  # of the data within the file, for torch.load(mmap=True)
EMPTY_ORDERED_DICT = b"ccollections\nOrderedDict\n" + pickle.EMPTY_TUPLE + pickle.REDUCE
STORAGE_NAMES = {dtype: f"{name}Storage" for name, dtype in DTYPES.items()}


def write(state: dict[str, np.ndarray], path: Path) -> None:
    """Writes arrays by name, with dtypes in `DTYPES`, to a zip file of torch.save."""
    with (
        path.open("wb") as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive,
    ):

        def add(name, content):
            entry = zipfile.ZipInfo(f"archive/{name}")
            # An extra field "FB", as in PyTorch, pads up to the start of the content.
            start = file.tell() + 30 + len(entry.filename) + 4
            padding = -start % ALIGNMENT
            entry.extra = struct.pack("<2sH", b"FB", padding) + b"Z" * padding
            archive.writestr(entry, content)

        add("data.pkl", _pickle(state))
        add("byteorder", sys.byteorder.encode())
        for number, array in enumerate(state.values()):
            add(f"data/{number}", array.tobytes())
        add("version", b"3\n")


def _pickle(state):
    parts = [pickle.PROTO, b"\x02", EMPTY_ORDERED_DICT, pickle.MARK]
    for number, (key, array) in enumerate(state.items()):
        strides = np.cumprod((1, *array.shape[:0:-1]))[::-1] if array.ndim else ()
        parts += [
            _text(key),
            _global("torch._utils", "_rebuild_tensor_v2"),
            pickle.MARK,
            pickle.MARK,
            _text("storage"),
            _global("torch", STORAGE_NAMES[array.dtype]),
            _text(str(number)),
            _text("cpu"),
            _integer(array.size),
            pickle.TUPLE,
            pickle.BINPERSID,
            _integer(0),
            _integers(array.shape),
            _integers(strides),
            pickle.NEWFALSE,  # requires_grad
            EMPTY_ORDERED_DICT,  # the hooks
            pickle.TUPLE,
            pickle.REDUCE,
        ]
    return b"".join([*parts, pickle.SETITEMS, pickle.STOP])


def _global(module, name):
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


def _text(value):
    content = value.encode()
    return pickle.BINUNICODE + struct.pack("<I", len(content)) + content


def _integer(value):
    value = int(value)
    content = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return pickle.LONG1 + bytes([len(content)]) + content


def _integers(values):
    return pickle.MARK + b"".join(map(_integer, values)) + pickle.TUPLE
