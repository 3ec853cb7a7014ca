"""The tar container of torch 0.1: its members, storages and tensors.

Python's tarfile allocates as much as a file declares. Here, a member is a slice of the file, or an
error.

Sources: POSIX.1-2017, pax, "ustar Interchange Format"; torch/serialization.py of PyTorch 0.1.
"""

import re
from typing import Any

from keras_resnet.weights.errors import UnsafeFileError
from keras_resnet.weights.pytorch.known_names import find_global
from keras_resnet.weights.pytorch.tensors import (
    INT64,
    MAX_DIMENSIONS,
    Storage,
    StorageType,
    Tensor,
    checked_count,
    make_tensor,
    raw_storage,
    view_of,
)
from keras_resnet.weights.pytorch.unpickler import Opaque, Unpickler
from keras_resnet.weights.zip_file import MAX_MEMBERS

BLOCK = 512
REGULAR = (b"0", b"\0")


def is_tar_header(header: bytes) -> bool:
    """Whether 512 bytes are the header of a tar member, by the checksum."""
    if len(header) < BLOCK:
        return False
    blanked = header[:148] + b" " * 8 + header[156:BLOCK]
    try:
        return _octal(header[148:156]) == sum(blanked)
    except UnsafeFileError:
        return False


def read_tar(view: memoryview) -> tuple[Any, dict[str, memoryview], dict[str, Opaque]]:
    """Returns the saved object, with Tensors; the storages by key; and ignored objects."""
    members = _members(view)
    missing = {"storages", "tensors", "pickle"} - members.keys()
    if missing:
        raise UnsafeFileError(f"it is a tar file without {', '.join(sorted(missing))}")
    numbered = _Numbered()
    contents = _read_storages(members["storages"], numbered)
    _read_tensors(members["tensors"], numbered)
    reader = Unpickler(members["pickle"], find_global, numbered.find)
    return reader.load(), contents, reader.passed_over


def _members(view):
    """Returns the content of each regular file by name."""
    members: dict[str, memoryview] = {}
    position = 0
    while position + BLOCK <= len(view):
        header = bytes(view[position : position + BLOCK])
        if not any(header):
            break
        if len(members) > MAX_MEMBERS or not is_tar_header(header):
            raise UnsafeFileError("it has a damaged tar header")
        start = position + BLOCK
        size = _octal(header[124:136])
        if start + size > len(view):
            raise UnsafeFileError("it ends within one of its tar members")
        if header[156:157] in REGULAR:
            name = header[:100].split(b"\0")[0].decode("utf-8", "replace").removeprefix("./")
            if name in members:
                raise UnsafeFileError(f"it contains {name[:60]!r} twice")
            members[name] = view[start : start + size]
        position = start + -(-size // BLOCK) * BLOCK
    return members


def _octal(digits):
    digits = digits.strip(b" \0")
    if not re.fullmatch(rb"[0-7]*", digits):
        raise UnsafeFileError("it has a tar header with an invalid size")
    return int(digits or b"0", 8)


class _Numbered:
    """The storages and tensors of a file, by their numbers."""

    def __init__(self):
        self.objects: dict[str, Storage | Tensor] = {}

    def find(self, pid):
        if isinstance(pid, tuple) and len(pid) > 1 and isinstance(pid[1], Opaque):
            return pid[1]  # ("module", class, file, text)
        found = self.objects.get(str(pid)) if isinstance(pid, str | int) else None
        if found is None:
            raise UnsafeFileError("it refers to something other than a tensor or a storage")
        return found

    def find_storage(self, pid):
        found = self.find(pid)
        if not isinstance(found, Storage):
            raise UnsafeFileError("it uses a tensor as a storage")
        return found


def _read_storages(member, numbered):
    """Registers the storages in a member, and views of them; returns their contents."""
    contents = {}
    reader = Unpickler(member, find_global, numbered.find)
    for _ in range(checked_count(reader.load())):
        key, _, storage_type = _described(reader.load(), 3)
        if not isinstance(storage_type, StorageType) or storage_type.dtype is None:
            raise UnsafeFileError("it has a storage without a type")
        count = checked_count(_int64(reader))
        contents[key] = raw_storage(reader, count, storage_type.dtype)
        numbered.objects[key] = Storage(key, storage_type.dtype, count)
    views = reader.load()
    if not isinstance(views, list):
        raise UnsafeFileError("it has no list of views")
    for view in views:
        key, root, start, count = _described(view, 4)
        numbered.objects[key] = view_of(numbered.find_storage(root), start, count)
    return contents


def _read_tensors(member, numbered):
    """Registers the tensors in a member."""
    reader = Unpickler(member, find_global, numbered.find)
    for _ in range(checked_count(reader.load())):
        key, storage, _ = _described(reader.load(), 3)
        dimensions = _int64(reader) & 0xFFFFFFFF  # four bytes, and four of padding
        if dimensions > MAX_DIMENSIONS:
            raise UnsafeFileError(f"it has a tensor of {dimensions} dimensions")
        shape, strides = (
            tuple(_int64(reader) for _ in range(dimensions)) for _ in ("shape", "strides")
        )
        storage = numbered.find_storage(storage)
        offset = _int64(reader)
        numbered.objects[key] = make_tensor(storage, storage.dtype, offset, shape, strides)


def _described(value, size):
    """Returns the `size` parts of a description; the first one, a number, is its key."""
    if not isinstance(value, tuple) or len(value) != size or not isinstance(value[0], int):
        raise UnsafeFileError("it describes a storage or a tensor in an unknown way")
    return str(value[0]), *value[1:]


def _int64(reader):
    return INT64.unpack(reader.read(INT64.size))[0]
