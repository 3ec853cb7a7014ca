"""Files that are there whole or not at all."""

import contextlib
import os
import re
from pathlib import Path


@contextlib.contextmanager
def replacing(path):
    """Gives a name beside `path` to write to; afterwards the file is renamed to `path`.

    If writing fails, what was at `path` stays, and nothing else is left behind. The name keeps the
    suffix, by which many writers choose the format.
    """
    path = Path(path)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
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
