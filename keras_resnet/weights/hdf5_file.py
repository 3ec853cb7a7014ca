"""Reads the arrays of an HDF5 file, limited to the features that Keras uses.

HDF5 files can refer to other files, contain data twice, compress it, and declare more data than
there is. Here an array is a contiguous range of the file, or an error, and all arrays together are
at most as large as the file. Attributes are not read.

Source: HDF5 File Format Specification 3.0, sections IV.A.1 and IV.A.2.
"""

import math
from pathlib import Path
from typing import BinaryIO

import h5py
import ml_dtypes
import numpy as np

from keras_resnet.weights.errors import UnsafeFileError
from keras_resnet.weights.zip_file import MAX_NAME

MAX_OBJECTS = 50_000  # ResNet-1202 has some 12,000, with an optimizer 20,000.
MAX_DEPTH = 16
BFLOAT16 = np.dtype("V2")  # as written by h5py
IN_FILE = (h5py.h5d.CONTIGUOUS, h5py.h5d.COMPACT)


def read(file: Path | BinaryIO, size: int) -> dict[str, np.ndarray]:
    """Reads all numeric data sets, {path: array}; `size` is that of the file in bytes.

    Raises:
        UnsafeFileError: if the file is damaged, or uses other features.
    """
    try:
        return _arrays(file, size)
    except UnsafeFileError:
        raise
    except (OSError, ValueError, TypeError, RuntimeError, KeyError) as error:  # h5py's
        raise UnsafeFileError(str(error).partition("\n")[0][:200]) from error


def _arrays(file, size):
    arrays: dict[str, np.ndarray] = {}
    claimed = 0
    # h5py's low-level functions open a name within its group, not a path from the root.
    with h5py.File(file, "r") as opened:
        for name, data in _data_sets(opened.id):
            plist, dtype = data.get_create_plist(), data.dtype
            if dtype.kind not in "biufc" and dtype != BFLOAT16:
                continue
            if plist.get_layout() not in IN_FILE or plist.get_external_count():
                raise UnsafeFileError(
                    f"its array {name[-60:]!r} is compressed, chunked, or in another file"
                )
            claimed += math.prod(data.shape) * dtype.itemsize
            if claimed > size:
                raise UnsafeFileError(f"it declares {claimed} bytes of data, but has {size} in all")
            array = np.empty(data.shape, dtype)
            data.read(h5py.h5s.ALL, h5py.h5s.ALL, array)
            arrays[name] = array.view(ml_dtypes.bfloat16) if dtype == BFLOAT16 else array
    return arrays


def _data_sets(root):
    """Yields (path, data set)."""
    waiting, seen = [("", root)], {h5py.h5o.get_info(root).addr}
    while waiting:
        path, group = waiting.pop()
        if len(seen) + len(group) > MAX_OBJECTS or path.count("/") > MAX_DEPTH:
            raise UnsafeFileError(f"it has over {MAX_OBJECTS} objects, or groups {MAX_DEPTH} deep")
        for key in group:
            name = f"{path}{key.decode('utf-8', 'replace')}"
            if len(name) > MAX_NAME:
                raise UnsafeFileError(f"it has a path of {len(name)} characters")
            if group.links.get_info(key).type != h5py.h5l.TYPE_HARD:
                raise UnsafeFileError(f"its {name[-60:]!r} is a link")
            item = h5py.h5o.open(group, key)
            place = h5py.h5o.get_info(item).addr
            if place in seen:
                raise UnsafeFileError(f"its {name[-60:]!r} has two names")
            seen.add(place)
            if isinstance(item, h5py.h5d.DatasetID):
                yield name, item
            elif isinstance(item, h5py.h5g.GroupID):
                waiting.append((f"{name}/", item))
