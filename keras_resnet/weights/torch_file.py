"""Reads the files of `torch.save` into numpy arrays, safely and without PyTorch.

Three containers: the zip of torch >= 1.6, the legacy one of torch 0.2 to 1.5, a row of pickles and
then the raw storages, and the tar of torch 0.1. Nothing that a file names is imported or called,
and every size that a file claims is compared with the file's own before it is used.

Source: torch/serialization.py of PyTorch, `_load` and `_legacy_load`.
"""

import mmap
import struct
from pathlib import Path

import numpy as np

from keras_resnet.weights.archives import TAR_BLOCK, is_tar_header, tar_members, zip_members
from keras_resnet.weights.errors import CheckpointError, UnknownNameError, UnsafeFileError
from keras_resnet.weights.safe_pickle import Unpickler
from keras_resnet.weights.torch_objects import (
    MAX_DIMENSIONS,
    NATIVE_ORDER,
    SAVE_A_STATE_DICT,
    Parameter,
    Storage,
    StorageType,
    Tensor,
    array,
    byte_swapped,
    checked_count,
    find_global,
    find_storage,
    make_tensor,
)

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_VERSION = 1001
INT64 = struct.Struct("<q")
SAVE_A_SCRIPT = (
    "Save its weights in PyTorch, with torch.save(torch.jit.load(path).state_dict(), "
    "'weights.pth'), and load that."
)
IF_DAMAGED = (
    "If the file was cut short, copy or download it again; otherwise save the state_dict alone "
    "with torch.save(model.state_dict(), path)."
)


def read(path):
    """Reads a file of `torch.save`.

    Args:
        path: The file.

    Returns:
        The container, "zip", "legacy" or "tar", and what was saved, with numpy arrays (read-only
        views of the file, mapped into memory) for the tensors of its dicts and lists.

    Raises:
        CheckpointError: if the file is not of this kind, is damaged, or holds what it should not.
    """
    path = Path(path)
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path} is empty. Copy or download it again.")
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    start = mapped[:TAR_BLOCK]
    if start.startswith(b"PK\x03\x04"):
        container, reader = "zip", _read_zip
    elif is_tar_header(start):
        container, reader = "tar", _read_tar
    elif start.startswith(b"\x80"):
        container, reader = "legacy", _read_legacy
    elif start.startswith(b"\x89HDF\r\n"):
        raise CheckpointError(f"{path} is an HDF5 file. Let its name end in .h5.")
    else:
        raise CheckpointError(
            f"{path} is not a PyTorch file, nor of safetensors: it starts with {start[:16]!r}. "
            "Expected a zip, legacy or tar file of torch.save. If it was downloaded, open it as "
            "text to see what came instead, and download it again."
        )
    try:
        return container, reader(mapped)
    except (ValueError, OverflowError, struct.error) as error:
        said, advice = str(error), getattr(error, "advice", None) or IF_DAMAGED
        # What the state of every module has; the class may be one of the author's own.
        if isinstance(error, UnknownNameError) and mapped.find(b"_parameters") >= 0:
            said = f"it holds a whole pickled nn.Module: {said}"
        raise CheckpointError(
            f"{path} cannot be read as a {container} file of torch.save: {said}. {advice}"
        ) from error


def _read_zip(mapped):
    members, compressed = zip_members(mapped)
    names = [*members, *compressed]
    if any(name.count("/") == 1 and name.endswith("/constants.pkl") for name in names):
        raise UnsafeFileError("it is a TorchScript archive, of torch.jit.save", SAVE_A_SCRIPT)
    if compressed:
        raise UnsafeFileError(
            f"its entry {min(compressed)[:60]!r} is compressed or encrypted",
            "Save it anew with torch.save, which compresses nothing.",
        )
    pickles = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
    if "config.json" in members and "model.weights.h5" in members:
        raise UnsafeFileError("it is a file of Keras", "Let its name end in .keras.")
    if len(pickles) != 1:
        raise UnsafeFileError("it is a zip, but has no data.pkl in its top folder")
    top = pickles[0].removesuffix("data.pkl")
    order = {b"little": "<", b"big": ">"}.get(bytes(members.get(f"{top}byteorder", b"little")[:8]))
    if order is None:
        raise UnsafeFileError("its byteorder is neither little nor big")
    saved = Unpickler(members[pickles[0]], find_global, find_storage).load()
    storages = {
        name.removeprefix(f"{top}data/"): content
        for name, content in members.items()
        if name.startswith(f"{top}data/")
    }
    return _with_arrays(saved, storages, order)


def _read_legacy(mapped):
    found: dict[str, Storage] = {}  # one for each key, for its dtype and count

    def storage_of(pid):
        storage = find_storage(pid)
        # Untyped ones are counted in bytes.
        whole = Storage(storage.key, storage.dtype or np.dtype(np.uint8), pid[4])
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
        storages[key] = _raw(reader, expected, found[key].dtype)
    return _with_arrays(saved, storages, order)


def _read_tar(mapped):
    members = tar_members(mapped)
    missing = {"storages", "tensors", "pickle"} - members.keys()
    if missing:
        raise UnsafeFileError(f"it is a tar, but has no member {', '.join(sorted(missing))}")
    numbered = _Numbered()
    contents = _read_tar_storages(members["storages"], numbered)
    _read_tar_tensors(members["tensors"], numbered)
    saved = Unpickler(members["pickle"], find_global, numbered.find).load()
    return _with_arrays(saved, contents, "<")


class _Numbered:
    """The storages and tensors that a tar file describes, each under a number of its own."""

    def __init__(self):
        self.objects: dict[str, Storage | Tensor] = {}

    def find(self, pid):
        if isinstance(pid, tuple):
            raise UnsafeFileError("it holds a whole pickled nn.Module", SAVE_A_STATE_DICT)
        found = self.objects.get(str(pid)) if isinstance(pid, str | int) else None
        if found is None:
            raise UnsafeFileError("it refers to something other than a tensor or a storage")
        return found

    def find_storage(self, pid):
        found = self.find(pid)
        if not isinstance(found, Storage):
            raise UnsafeFileError("it uses a tensor as a storage")
        return found


def _read_tar_storages(member, numbered):
    """Notes the storages that a member holds, and the views of them; returns their contents."""
    contents = {}
    reader = Unpickler(member, find_global, numbered.find)
    for _ in range(checked_count(reader.load())):
        key, _, storage_type = _described(reader.load(), 3)
        if not isinstance(storage_type, StorageType) or storage_type.dtype is None:
            raise UnsafeFileError("it has a storage without a type")
        count = checked_count(_int64(reader))
        contents[key] = _raw(reader, count, storage_type.dtype)
        numbered.objects[key] = Storage(key, storage_type.dtype, count)
    for view in _list(reader.load()):
        key, root, start, count = _described(view, 4)
        start, count = checked_count(start), checked_count(count)
        whole = numbered.find_storage(root)
        if start + count > whole.count:
            raise UnsafeFileError("it has a view that reaches beyond its storage")
        numbered.objects[key] = Storage(whole.key, whole.dtype, count, whole.start + start)
    return contents


def _read_tar_tensors(member, numbered):
    """Notes the tensors that a member describes."""
    reader = Unpickler(member, find_global, numbered.find)
    for _ in range(checked_count(reader.load())):
        key, storage, _ = _described(reader.load(), 3)
        dimensions = _int64(reader) & 0xFFFFFFFF  # four bytes and four of padding
        if dimensions > MAX_DIMENSIONS:
            raise UnsafeFileError(f"it has a tensor of {dimensions} dimensions")
        shape, strides = (
            tuple(_int64(reader) for _ in range(dimensions)) for _ in ("shape", "strides")
        )
        storage = numbered.find_storage(storage)
        offset = _int64(reader)
        numbered.objects[key] = make_tensor(storage, storage.dtype, offset, shape, strides)


def _described(value, size):
    """The `size` parts of a description in a tar file, the first of them, a number, as its key."""
    if not isinstance(value, tuple) or len(value) != size or not isinstance(value[0], int):
        raise UnsafeFileError("it describes a storage or a tensor in a way of its own")
    return str(value[0]), *value[1:]


def _list(value):
    if not isinstance(value, list):
        raise UnsafeFileError("it has no list of views")
    return value


def _int64(reader):
    return INT64.unpack(reader.read(INT64.size))[0]


def _raw(reader, count, dtype):
    """The bytes of `count` numbers, where the reader stands; not copied."""
    start = reader.position
    reader.position += count * dtype.itemsize
    if reader.position > len(reader.view):
        raise UnsafeFileError(
            f"it has a storage of {count * dtype.itemsize} bytes that ends behind its own end"
        )
    return reader.view[start : reader.position]


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
            arrays[value] = array(value, bytes_of(value))
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
