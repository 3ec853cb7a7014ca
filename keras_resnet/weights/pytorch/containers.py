"""Reads the files of `torch.save` into numpy arrays, safely and without PyTorch.

Three containers: the zip of torch >= 1.6, the legacy one of torch 0.2 to 1.5, a row of pickles and
then the raw storages, and the tar of torch 0.1. Nothing that a file names is imported or called,
and every size that a file claims is compared with the file's own before it is used.

Source: torch/serialization.py of PyTorch, `_load` and `_legacy_load`.
"""

import mmap
import struct
from typing import Any

import numpy as np

from keras_resnet.weights import zip_file
from keras_resnet.weights.errors import SAVE_A_STATE_DICT, UnknownNameError, UnsafeFileError
from keras_resnet.weights.pytorch.tar import BLOCK, is_tar_header, read_tar
from keras_resnet.weights.pytorch.tensors import (
    INT64,
    NATIVE_ORDER,
    Parameter,
    Storage,
    Tensor,
    as_array,
    byte_swapped,
    find_global,
    find_storage,
    raw_storage,
)
from keras_resnet.weights.pytorch.unpickler import Unpickler

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_VERSION = 1001
BYTES = np.dtype(np.uint8)
SAVE_A_SCRIPT = SAVE_A_STATE_DICT.replace("model.", "torch.jit.load(path).")


def read(mapped: mmap.mmap) -> tuple[str, Any]:
    """Reads a file of `torch.save`.

    Args:
        mapped: The file.

    Returns:
        The container, "zip", "legacy" or "tar", and what was saved, with numpy arrays (read-only
        views of the file) for the tensors of its dicts and lists.

    Raises:
        UnsafeFileError: if the file is not of this kind, is damaged, or holds what it should not.
    """
    start = mapped[:BLOCK]
    container, read_storages = "legacy", _read_legacy
    if start.startswith(zip_file.START):
        container, read_storages = "zip", _read_zip
    elif is_tar_header(start):
        container, read_storages = "tar", lambda mapped: (*read_tar(memoryview(mapped)), "<")
    elif not start.startswith(b"\x80"):
        raise UnsafeFileError(
            "it is not a PyTorch file, nor one of safetensors or Keras: it starts with "
            f"{start[:16]!r}",
            "If it was downloaded, open it as text to see what came instead, and download it "
            "again.",
        )
    try:
        return container, _with_arrays(*read_storages(mapped))
    except UnknownNameError as error:
        # What the state of every module has; the class may be one of the author's own.
        if mapped.find(b"_parameters") < 0:
            raise
        raise UnsafeFileError(
            f"it holds a whole pickled nn.Module: {error}", SAVE_A_STATE_DICT
        ) from error
    except UnsafeFileError:
        raise
    except (ValueError, OverflowError, struct.error) as error:
        raise UnsafeFileError(f"its {container} container is damaged ({error})") from error


def _read_zip(mapped):
    members, compressed = zip_file.zip_members(mapped)
    names = [*members, *compressed]
    if any(name.count("/") == 1 and name.endswith("/constants.pkl") for name in names):
        raise UnsafeFileError("it is a TorchScript archive, of torch.jit.save", SAVE_A_SCRIPT)
    if compressed:
        raise UnsafeFileError(
            f"its entry {min(compressed)[:60]!r} is compressed or encrypted",
            "Save it anew with torch.save, which compresses nothing.",
        )
    pickles = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise UnsafeFileError("it is a zip, but has no data.pkl in its top folder")
    top = pickles[0].removesuffix("data.pkl")
    order = {b"little": "<", b"big": ">"}.get(bytes(members.get(f"{top}byteorder", b"little")[:8]))
    if order is None:
        raise UnsafeFileError("its byteorder is neither little nor big")
    saved = Unpickler(members[pickles[0]], find_global, find_storage).load()
    data = f"{top}data/"
    storages = {
        name.removeprefix(data): content
        for name, content in members.items()
        if name.startswith(data)
    }
    return saved, storages, order


def _read_legacy(mapped):
    found: dict[str, Storage] = {}  # one for each key, for its dtype and count

    def storage_of(pid):
        storage = find_storage(pid)
        # Untyped ones are counted in bytes.
        whole = Storage(storage.key, storage.dtype or BYTES, pid[4])
        if found.setdefault(storage.key, whole) != whole:
            raise UnsafeFileError(f"it describes its storage {storage.key[:60]!r} in two ways")
        return storage

    reader = Unpickler(memoryview(mapped), find_global, storage_of)
    if reader.load() != LEGACY_MAGIC:
        raise UnsafeFileError("it is a pickle, but not one of torch.save")
    if reader.load() != LEGACY_VERSION:
        raise UnsafeFileError(f"its version is not {LEGACY_VERSION}")
    reader.load()  # How the machine that wrote it stores numbers; the counts say it better.
    saved, keys = reader.load(), reader.load()
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise UnsafeFileError("it has no list of storages")
    storages, order = {}, "<"
    for key in keys:
        if key not in found:
            raise UnsafeFileError(f"it has a storage {key[:60]!r} that no tensor uses")
        counted, expected = reader.read(INT64.size), found[key].count
        # torch writes its numbers with the low byte first, on any machine; other writers may not.
        if expected and counted == struct.pack(">q", expected):
            order = ">"
        elif INT64.unpack(counted)[0] != expected:
            raise UnsafeFileError(
                f"its storage {key[:60]!r} should have {expected} elements and says "
                f"{INT64.unpack(counted)[0]}"
            )
        storages[key] = raw_storage(reader, expected, found[key].dtype or BYTES)
    return saved, storages, order


def _with_arrays(saved, storages, order):
    """Puts an array in the place of each tensor in the nested dicts and lists of `saved`.

    Args:
        saved: What was pickled, with Tensors in it.
        storages: Key to bytes.
        order: "<" or ">": which byte of their numbers comes first.
    """
    swapped, arrays = {}, {}

    def bytes_of(tensor):
        key, dtype = tensor.storage.key, tensor.dtype
        if key not in storages:
            raise UnsafeFileError(f"its storage {key[:60]!r} is missing")
        if order == NATIVE_ORDER or dtype.itemsize == 1:
            return storages[key]
        kind = (key, dtype.itemsize, dtype.kind == "c")
        if kind not in swapped:  # once: many tensors may share it
            swapped[kind] = byte_swapped(storages[key], dtype)
        return swapped[kind]

    def made(value):
        value = value.tensor if isinstance(value, Parameter) else value
        if not isinstance(value, Tensor):
            return value
        if value not in arrays:  # once: it may be named many times
            arrays[value] = as_array(value, bytes_of(value))
        return arrays[value]

    saved = made(saved)
    _replace_values(saved, made)
    return saved


def _replace_values(saved, replacement):
    """Replaces each value in nested dicts and lists, which may hold one another in circles."""
    seen, waiting = set(), [saved]
    while waiting:
        container = waiting.pop()
        if id(container) in seen or not isinstance(container, dict | list):
            continue
        seen.add(id(container))
        items = container.items() if isinstance(container, dict) else enumerate(container)
        for key, value in list(items):
            container[key] = replacement(value)
            waiting.append(container[key])
