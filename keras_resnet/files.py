"""Files that are there whole or not at all."""

import contextlib
import errno
import os
import re
from pathlib import Path

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


@contextlib.contextmanager
def disk_errors(path):
    """Has a full or broken disk raise an OSError that names `path`, whichever library writes.

    safetensors, TensorFlow and OpenVINO have exceptions of their own for it. They quote the
    system's words, but for OpenVINO, which only knows that a stream of C++ failed.
    """
    try:
        yield
    except Exception as error:
        if getattr(error, "filename", None):
            raise
        said = str(error)
        for number in DISK_ERRORS:
            if os.strerror(number) in said:
                raise OSError(number, os.strerror(number), str(path)) from error
        if "iostream error" in said:
            raise OSError(errno.EIO, f"{said}; the disk may be full", str(path)) from error
        raise


@contextlib.contextmanager
def replacing(path):
    """Gives a name beside `path` to write to; afterwards the file is renamed to `path`.

    If writing fails, what was at `path` stays, and nothing else is left behind; a full disk is an
    OSError. The name keeps the suffix, by which many writers choose the format.
    """
    path = Path(path)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        with disk_errors(path):
            yield temporary
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder):
    """Removes what killed processes left half-written beside its targets."""
    for file in Path(folder).iterdir():
        if re.fullmatch(r"\.[0-9]+\..+", file.name) and file.is_file():
            file.unlink()


def write_text(path, text):
    """Writes a text file beside its target and renames it; what is no unicode is escaped."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
