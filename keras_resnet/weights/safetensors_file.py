"""Reads `.safetensors` files as views of the file, with all dtypes of NumPy and ml_dtypes.

The safetensors library validates the file; its own NumPy reader holds the file twice in memory, and
does not support 8-bit floats.

Source: the format's description in the safetensors library's README.
"""

import json
import mmap
from pathlib import Path

import ml_dtypes
import numpy as np

from keras_resnet.weights.errors import UnsafeFileError

MAX_HEADER = 4 * 2**20  # bytes; about 100 are usual for a tensor
DTYPES = {
    **{f"F{8 * size}": np.dtype(f"f{size}") for size in (2, 4, 8)},
    **{f"I{8 * size}": np.dtype(f"i{size}") for size in (1, 2, 4, 8)},
    **{f"U{8 * size}": np.dtype(f"u{size}") for size in (1, 2, 4, 8)},
    "BOOL": np.dtype("bool"),
    "C64": np.dtype("complex64"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
}


def read(path: Path, mapped: mmap.mmap) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Returns all tensors by name, as read-only views of the mapped file, and the metadata.

    Raises:
        UnsafeFileError: if the file is damaged.
    """
    import safetensors

    length = int.from_bytes(mapped[:8], "little")
    if length > MAX_HEADER:
        raise UnsafeFileError(f"it declares a header of {length} bytes")
    try:
        # Only reads the header, and checks that the tensors are contiguous.
        with safetensors.safe_open(path, framework="numpy"):
            header = json.loads(mapped[8 : 8 + length])
        said = header.pop("__metadata__", None) or {}
        unknown = [name for name, tensor in header.items() if tensor["dtype"] not in DTYPES]
        if unknown:
            raise ValueError(
                f"{unknown[0][:60]!r} is of type {header[unknown[0]]['dtype']}, which is not "
                "supported"
            )
        arrays = {
            name: np.ndarray(
                tensor["shape"],
                DTYPES[tensor["dtype"]],
                mapped,
                8 + length + tensor["data_offsets"][0],
            )
            for name, tensor in header.items()
        }
        return arrays, said
    # NumPy raises a TypeError for a buffer that is too small.
    except (safetensors.SafetensorError, ValueError, TypeError, KeyError, OSError) as error:
        raise UnsafeFileError(str(error)) from error
