"""Reads files of `torch.save` as NumPy arrays, safely and without PyTorch.

There are three containers: the zip file of torch >= 1.6; the legacy format of torch 0.2 to 1.5, a
sequence of pickles followed by raw storages; and the tar file of torch 0.1. Two other formats are
supported: TorchScript archives, with tensors as in the zip file, and pickles of NumPy arrays. No
object that a file refers to is imported or called, and every declared size is checked against that
of the file before it is used.

Source: torch/serialization.py of PyTorch, `_load` and `_legacy_load`.
"""

import mmap
import struct
from typing import Any

import numpy as np

from keras_resnet.weights import zip_file
from keras_resnet.weights.errors import SAVE_A_STATE_DICT, UnsafeFileError
from keras_resnet.weights.pytorch.known_names import ScriptObject, find_global
from keras_resnet.weights.pytorch.numpy_arrays import Array
from keras_resnet.weights.pytorch.tar import BLOCK, is_tar_header, read_tar
from keras_resnet.weights.pytorch.tensors import (
    INT64,
    NATIVE_ORDER,
    Parameter,
    Storage,
    Tensor,
    as_array,
    byte_swapped,
    find_storage,
    raw_storage,
)
from keras_resnet.weights.pytorch.unpickler import Opaque, Unpickler

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_START = LEGACY_MAGIC.to_bytes(10, "little")
LEGACY_VERSION = 1001
BYTES = np.dtype(np.uint8)
SAVE_A_SCRIPT = SAVE_A_STATE_DICT.replace("model.", "torch.jit.load(path).")


def read(mapped: mmap.mmap) -> tuple[str, Any, list[Opaque]]:
    """Reads a file of `torch.save`, of TorchScript, or a pickle of numpy arrays.

    Args:
        mapped: The file.

    Returns:
        The container, "zip", "legacy", "tar", "torchscript" or "pickle"; the saved object, with
        NumPy arrays (read-only views of the file, except for pickles) instead of the tensors in its
        dicts and lists; and the objects that were ignored.

    Raises:
        UnsafeFileError: if the file has another format, is damaged, or has unexpected content.
    """
    start = mapped[:BLOCK]
    container = "legacy"
    if start.startswith(zip_file.START):
        container = "zip"
    elif is_tar_header(start):
        container = "tar"
    elif not start.startswith(b"\x80"):
        raise UnsafeFileError(
            f"it is not a PyTorch, safetensors or Keras file: it starts with {start[:16]!r}",
            "If it was downloaded, open it as text to see what it is, and download it again.",
        )
    elif LEGACY_START not in start[:32]:
        container = "pickle"
    try:
        if container == "zip":
            container, *read = _read_zip(mapped)
        elif container == "tar":
            saved, storages, passed_over = read_tar(memoryview(mapped))
            read = [saved, storages, "<", passed_over]
        else:
            read = [*(_read_legacy if container == "legacy" else _read_pickle)(mapped)]
        saved, storages, order, passed_over = read
        return container, _with_arrays(saved, storages, order), [*passed_over.values()]
    except UnsafeFileError:
        raise
    except (ValueError, OverflowError, struct.error) as error:
        raise UnsafeFileError(f"its {container} container is damaged ({error})") from error


def _read_zip(mapped):
    members, compressed = zip_file.zip_members(mapped)
    in_top = [name for name in members if name.count("/") == 1]
    scripted = any(name.endswith("/constants.pkl") for name in in_top)
    pickles = [name for name in in_top if name.endswith("/data.pkl")]
    needed = pickles and pickles[0].removesuffix("data.pkl") + "data/"
    if compressed and (not scripted or any(name.startswith(needed or "") for name in compressed)):
        raise UnsafeFileError(
            f"its entry {min(compressed)[:60]!r} is compressed or encrypted",
            SAVE_A_SCRIPT
            if scripted
            else "Save it again with torch.save, which does not compress.",
        )
    if len(pickles) != 1:
        raise UnsafeFileError("it is a zip file without data.pkl in its top folder")
    top = pickles[0].removesuffix("data.pkl")
    order = {b"little": "<", b"big": ">"}.get(bytes(members.get(f"{top}byteorder", b"little")[:8]))
    if order is None:
        raise UnsafeFileError("its byteorder is neither little nor big")
    reader = Unpickler(members[pickles[0]], find_global, find_storage)
    saved = reader.load()
    data = f"{top}data/"
    storages = {
        name.removeprefix(data): content
        for name, content in members.items()
        if name.startswith(data)
    }
    return "torchscript" if scripted else "zip", saved, storages, order, reader.passed_over


def _read_pickle(mapped):
    """Reads a pickle of NumPy arrays, which contains their data, so it is as long as the file."""

    def no_storage(_):
        raise UnsafeFileError("it refers to data outside the file")

    reader = Unpickler(memoryview(mapped), find_global, no_storage, max_bytes=len(mapped))
    saved = reader.load()
    if mapped.find(b"numpy") < 0:
        named = "".join(f", refers to {name[:100]!r}" for name in [*reader.passed_over][:1])
        raise UnsafeFileError(
            f"it is a pickle, but not of torch.save or of NumPy arrays{named}; it was not executed",
            SAVE_A_STATE_DICT,
        )
    return saved, {}, "<", reader.passed_over


def _read_legacy(mapped):
    found: dict[str, Storage] = {}  # the first one with each key, for its dtype and count

    def storage_of(pid):
        storage = find_storage(pid)
        if isinstance(storage, Storage):
            # Untyped storages are counted in bytes.
            whole = Storage(storage.key, storage.dtype or BYTES, pid[4])
            if found.setdefault(storage.key, whole) != whole:
                raise UnsafeFileError(
                    f"it has two different descriptions of its storage {storage.key[:60]!r}"
                )
        return storage

    reader = Unpickler(memoryview(mapped), find_global, storage_of)
    if reader.load() != LEGACY_MAGIC:
        raise UnsafeFileError("it is a pickle, but not of torch.save")
    if reader.load() != LEGACY_VERSION:
        raise UnsafeFileError(f"its version is not {LEGACY_VERSION}")
    reader.load()  # The writer's number format; counts show the byte order.
    saved, keys = reader.load(), reader.load()
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise UnsafeFileError("it has no list of storages")
    return saved, *_legacy_storages(reader, keys, found), reader.passed_over


def _legacy_storages(reader, keys, found):
    """Reads the storages after the pickles; returns bytes by key, and the byte order."""
    storages, order = {}, "<"
    for key in keys:
        if key not in found:
            raise UnsafeFileError(f"it has a storage {key[:60]!r} that no tensor uses")
        counted, expected = reader.read(INT64.size), found[key].count
        # torch always writes little-endian numbers; other writers may not.
        if expected and counted == struct.pack(">q", expected):
            order = ">"
        elif INT64.unpack(counted)[0] != expected:
            raise UnsafeFileError(
                f"its storage {key[:60]!r} should have {expected} elements, but declares "
                f"{INT64.unpack(counted)[0]}"
            )
        storages[key] = raw_storage(reader, expected, found[key].dtype or BYTES)
    return storages, order


def _with_arrays(saved, storages, order):
    """Replaces each tensor in the nested dicts and lists of `saved` by an array.

    Args:
        saved: The pickled object, with Tensors.
        storages: Bytes by key.
        order: Byte order, "<" or ">".
    """
    swapped: dict[tuple, np.ndarray] = {}
    arrays: dict[Tensor | Array, Any] = {}
    encoded: dict[int, bytes] = {}

    def bytes_of(tensor):
        key, dtype = tensor.storage.key, tensor.dtype
        if key not in storages:
            raise UnsafeFileError(f"its storage {key[:60]!r} is missing")
        if order == NATIVE_ORDER or dtype.itemsize == 1:
            return storages[key]
        kind = (key, dtype.itemsize, dtype.kind == "c")
        if kind not in swapped:  # once, since many tensors may share it
            swapped[kind] = byte_swapped(storages[key], dtype)
        return swapped[kind]

    def made(value):
        value = value.tensor if isinstance(value, Parameter) else value
        value = value.state if isinstance(value, ScriptObject) else value
        if not isinstance(value, Tensor | Array):
            return value
        if value not in arrays:  # once, since it may occur many times
            if isinstance(value, Array):
                arrays[value] = value.made(encoded)
            else:
                arrays[value] = as_array(value, bytes_of(value))
        return arrays[value]

    saved = made(saved)
    _replace_values(saved, made)
    return saved


def _replace_values(saved, replacement):
    """Replaces each value in nested dicts and lists, which may contain cycles."""
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
