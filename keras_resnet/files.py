"""Files that are there whole or not at all."""

import contextlib
import os
import re
import secrets
import time
from pathlib import Path

KEPT = 100  # bytes of a name's end: with what is put before it, every file system takes that
STARTED = time.time()


@contextlib.contextmanager
def replacing(path):
    """Gives a name beside `path` to write to; afterwards the file is renamed to `path`.

    It is on the disk before it gets the name. If writing fails, what was at `path` stays, and
    nothing else is left behind. The name keeps the suffix, by which many writers choose the format.
    """
    path = Path(path)
    end = os.fsdecode(os.fsencode(path.name)[-KEPT:])
    temporary = path.with_name(f".{os.getpid()}.{secrets.token_hex(4)}.{end}")
    try:
        yield temporary
        with temporary.open("r+b") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder):
    """Has the disk know the names in a folder, where the system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_leftovers(folder):
    """Removes what killed processes left half-written beside its targets."""
    for file in Path(folder).iterdir():
        match = re.fullmatch(r"\.([0-9]+)\..+", file.name, re.DOTALL)
        if match and file.is_file() and not _is_written(file, int(match[1])):
            file.unlink(missing_ok=True)


def _is_written(file, process):
    """Whether a process that lives may be writing a file of its name."""
    if process == os.getpid():
        return file.stat().st_mtime >= STARTED  # else one with the same number did, before
    try:
        os.kill(process, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


def write_text(path, text):
    """Writes a text file beside its target and renames it; what is no unicode is escaped."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
