"""Reads the members of a zip file as slices of the memory-mapped file.

Python's zipfile allocates as much as a file declares, and its checks differ between releases. Here,
a member is a slice of the file, or an error: it has to be uncompressed, inside the file, and must
not overlap others.

Source: APPNOTE.TXT 6.3.10 of PKWARE, sections 4.3 and 4.5.3.
"""

import itertools
import mmap
import struct

from keras_resnet.weights.errors import UnsafeFileError

MAX_MEMBERS = 50_000  # The deepest network with its optimizer has some 10,000.
MAX_NAME = 1024  # bytes

START = b"PK\x03\x04"  # start of a zip file, and of each member
END = struct.Struct("<4s4H2LH")
ZIP64_LOCATOR = struct.Struct("<4sLQL")
ZIP64_END = struct.Struct("<4sQ2H2L4Q")
ENTRY = struct.Struct("<4s6H3L5H2L")
LOCAL = struct.Struct("<4s22x2H")
IN_ZIP64 = 0xFFFFFFFF  # the actual number is in the entry's zip64 field
ENCRYPTED = 1


def zip_members(mapped: mmap.mmap) -> tuple[dict[str, memoryview], set[str]]:
    """Returns the content of each member by name, and the names of compressed or encrypted ones.

    Raises:
        UnsafeFileError: if the file is truncated, or uses features that torch.save does not use.
    """
    try:
        return _members(mapped)
    except (struct.error, OverflowError) as error:
        raise UnsafeFileError(
            "a record of its zip directory ends after the end of the directory"
        ) from error


def _members(mapped):
    view = memoryview(mapped)
    count, position, directory_end = _directory(mapped)
    if count > MAX_MEMBERS:
        raise UnsafeFileError(f"it declares {count} zip entries; {MAX_MEMBERS} are allowed")
    spans = [(position, directory_end)]
    members: dict[str, memoryview] = {}
    packed_members = set()
    for _ in range(count):
        (magic, _, _, flags, method, _, _, _, packed, size, *lengths, _, _, _, header) = (
            ENTRY.unpack_from(view, position)
        )
        if magic != b"PK\x01\x02":
            raise UnsafeFileError("its zip directory is damaged")
        name_length, extra_length, comment_length = lengths
        if name_length > MAX_NAME:
            raise UnsafeFileError(f"it has an entry with a name of {name_length} bytes")
        start = position + ENTRY.size
        name = bytes(view[start : start + name_length]).decode("utf-8", "replace")
        extra = bytes(view[start + name_length : start + name_length + extra_length])
        position = start + name_length + extra_length + comment_length
        size, packed, header = _in_zip64(extra, size, packed, header)
        if method or packed != size or flags & ENCRYPTED:
            packed_members.add(name)
            continue
        magic, *lengths = LOCAL.unpack_from(view, header)
        start = header + LOCAL.size + sum(lengths)
        if magic != START or start + size > len(view):
            raise UnsafeFileError(f"its entry {name[:60]!r} is not at the offset in its directory")
        if name in members:
            raise UnsafeFileError(f"it contains {name[:60]!r} twice")
        spans.append((header, start + size))
        members[name] = view[start : start + size]
    spans.sort()
    if any(end > start for (_, end), (start, _) in itertools.pairwise(spans)):
        raise UnsafeFileError("two of its zip entries overlap")
    return members, packed_members


def _directory(mapped):
    """Returns (number of entries, start, end) of the central directory."""
    longest = END.size + 0xFFFF  # with the longest comment
    end = mapped.rfind(b"PK\x05\x06", max(len(mapped) - longest, 0))
    if end < 0:
        raise UnsafeFileError("it has no zip directory at its end; it is probably truncated")
    _, _, _, _, count, size, start, _ = END.unpack_from(mapped, end)
    locator = end - ZIP64_LOCATOR.size
    if locator >= 0 and mapped[locator : locator + 4] == b"PK\x06\x07":
        _, _, record, _ = ZIP64_LOCATOR.unpack_from(mapped, locator)
        magic, _, _, _, _, _, _, count, size, start = ZIP64_END.unpack_from(mapped, record)
        if magic != b"PK\x06\x06":
            raise UnsafeFileError("its zip64 directory is not at its declared offset")
    if start + size > end:
        raise UnsafeFileError("its zip directory extends beyond the end of the file")
    return count, start, start + size


def _in_zip64(extra, *numbers):
    """Returns size, compressed size and offset of an entry, from its zip64 field if necessary."""
    large, position = b"", 0
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, position)
        position += 4 + length
        if kind == 1:
            large = extra[position - length : position]
    replaced = []
    for number in numbers:
        if number == IN_ZIP64:
            (number,), large = struct.unpack_from("<Q", large), large[8:]
        replaced.append(number)
    return replaced
