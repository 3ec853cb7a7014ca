"""Reads the files of `torch.save` into numpy arrays, safely and without PyTorch.

Two containers: the zip of torch >= 1.6, and the legacy one of torch 0.2 to 1.5, a row of pickles
and then the raw storages. Nothing that a file names is imported or called, and every size that a
file claims is compared with the file's own before it is used.

Source: torch/serialization.py of PyTorch.
"""

import mmap
import struct
import zipfile
from pathlib import Path

import numpy as np

from keras_resnet.weights import safe_pickle
from keras_resnet.weights.safe_pickle import UnsafePickle
from keras_resnet.weights.torch_objects import (
    SAVE_A_STATE_DICT,
    Tensor,
    array,
    checked_count,
    find_global,
    find_storage,
)

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_VERSION = 1001


class CheckpointError(ValueError):
    """A weights file that cannot be read, or does not fit the model."""


def read(path):
    """Reads a file of `torch.save`.

    Args:
        path: The file.

    Returns:
        What was saved, with numpy arrays (read-only views of the file, mapped into memory) for the
        tensors of its dicts and lists.

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
            return reader(file, buffer)
        # RuntimeError, NotImplementedError and struct.error are zipfile's.
        except (ValueError, zipfile.BadZipFile, EOFError, RuntimeError, struct.error) as error:
            raise CheckpointError(
                f"{path} cannot be read as a {container} file of torch.save: {error}. "
                "If the file was cut short, copy or download it again; otherwise save the "
                "state_dict alone with torch.save(model.state_dict(), path)."
            ) from error


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
            saved = safe_pickle.load(stream, find_global, find_storage)

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
        storage = find_storage(pid)
        if storage.dtype is None:
            raise UnsafePickle("it has a storage without a type")
        itemsizes[storage.key] = storage.dtype.itemsize
        return storage

    def load():
        return safe_pickle.load(file, find_global, storage_of)

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
        position = start + checked_count(struct.unpack(f"{order}q", counted)[0]) * itemsizes[key]
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
        return array(saved, *find(saved.storage))
    seen, waiting = set(), [saved]
    while waiting:
        container = waiting.pop()
        if id(container) in seen or not isinstance(container, dict | list):
            continue
        seen.add(id(container))
        items = container.items() if isinstance(container, dict) else enumerate(container)
        for key, value in list(items):
            if isinstance(value, Tensor):
                container[key] = array(value, *find(value.storage))
            else:
                waiting.append(value)
    return saved
