"""Atomic writing of files, locks, and reading of JSON and safetensors."""

import contextlib
import csv
import errno
import itertools
import json
import os
import re
import secrets
from pathlib import Path

import filelock
import safetensors

LOCK = ".lock"
# Processes in different containers may have the same ID.
_TOKEN, _numbers = secrets.token_hex(4), itertools.count()
_NAME = re.compile(r"\.([0-9]+)\.(?:([0-9a-f]{8})-[0-9]+\.)?.+", re.DOTALL)
_KEPT = 64  # bytes of the name to keep, with the suffix

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
LARGEST_JSON = 2**26  # bytes: names of a million classes
LONGEST = 500  # characters of an error's reason, which may quote the file


def temporary_path(path):
    """Returns a new name next to `path`, which `remove_leftovers` recognizes."""
    path = Path(path)
    # Not within a UTF-8 character.
    end = os.fsencode(path.name)[-_KEPT:].lstrip(bytes(range(0x80, 0xC0)))
    return path.with_name(f".{os.getpid()}.{_TOKEN}-{next(_numbers)}.{os.fsdecode(end)}")


def in_words(error):
    """Returns an error's message without the system's error number."""
    said = getattr(error, "strerror", None)
    return f"{error.filename}: {said}" if said and error.filename else said or str(error)


@contextlib.contextmanager
def disk_errors(path):
    """Converts the exceptions of libraries for a full or broken disk to an OSError with `path`.

    The exceptions of safetensors and TensorFlow quote the system's message; OpenVINO only reports
    that a C++ stream failed.
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
    """Yields a temporary name next to `path`; afterwards the file is renamed to `path`.

    If writing fails, the existing file is kept and the temporary one removed; a full disk is an
    OSError. The name keeps the suffix, by which many writers choose the format. With concurrent
    threads and processes, the last one's file remains.
    """
    temporary = temporary_path(path)
    try:
        with disk_errors(path):
            yield temporary
            with temporary.open("r+b") as file:  # otherwise a power failure may leave an empty file
                os.fsync(file.fileno())
            temporary.replace(path)
    except OSError as error:  # with the final name instead of the temporary one
        if temporary.name not in str(error):
            raise
        if error.filename:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise OSError(str(error).replace(str(temporary), str(path))) from error
    finally:
        with contextlib.suppress(OSError):  # if it was never created
            temporary.unlink()


@contextlib.contextmanager
def locked(folder, busy, name=LOCK):
    """Locks a folder against other writers, processes and threads.

    Args:
        folder: An existing folder.
        busy: The error to raise if it is locked already.
        name: Name of the lock file; writers with different names do not lock each other.
    """
    path = Path(folder) / name
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise busy from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # before another writer locks it
        lock.release()


def remove_leftovers(folder):
    """Removes temporary files of killed processes."""
    for file in Path(folder).iterdir():
        named = _NAME.fullmatch(file.name)
        if named and file.is_file() and not _at_work(int(named[1]), named[2]):
            file.unlink(missing_ok=True)


def _at_work(process, token):
    """Whether the process that made a temporary name is still running."""
    if token is None or process == os.getpid():
        return token == _TOKEN
    if os.name != "posix":  # elsewhere, os.kill would end it
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # a process of another user
        return True
    return True


def write_text(path, text):
    """Writes a text file atomically; invalid Unicode is escaped."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_csv(path, header, rows):
    """Writes a CSV file atomically."""
    with (
        replacing(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def read_json(path, understand=lambda values: values, *, advice, error=ValueError):
    """Reads a file with a JSON object, which may be damaged or have other content.

    Args:
        path: The file.
        understand: Function from the dictionary to the result. Its KeyError, TypeError and
            ValueError become an error with the file's name.
        advice: A sentence that says what to do.
        error: Class of the error.

    Raises:
        ValueError: if the file is damaged, with the position, or has invalid content.
        OSError: if it cannot be read.
    """
    with Path(path).open("rb") as file:
        content = file.read(LARGEST_JSON + 1)
    try:
        if len(content) > LARGEST_JSON:
            raise ValueError(f"it is larger than {LARGEST_JSON:,} bytes")
        values = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as found:
        raise error(f"{path} is damaged: {_place(found)}. {advice}") from found
    try:
        if not isinstance(values, dict):
            raise TypeError("expected an object, {...}, received " + json.dumps(values)[:40])
        return understand(values)
    except KeyError as found:
        raise error(f"{path} is invalid: {found} is missing. {advice}") from found
    except (TypeError, ValueError, AttributeError, ArithmeticError) as found:
        said = str(found)[:LONGEST].removesuffix(".")
        raise error(f"{path} is invalid: {said}. {advice}") from found


def _place(error):
    """Describes why and where a file is not valid JSON."""
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is not UTF-8"
    if isinstance(error, json.JSONDecodeError):
        return f"line {error.lineno}, column {error.colno}: {error.msg}"
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)


def read_safetensors(path, understand, *, advice, error=ValueError):
    """Reads a safetensors file, which may be damaged or have other content; None if it is missing.

    Args:
        path: The file.
        understand: Function from its metadata and {name: array} to the result. Its exceptions
            become an error with the file's name.
        advice: A sentence that says what to do.
        error: Class of the error.

    Raises:
        ValueError: if the file is damaged or has invalid content.
        OSError: if it cannot be read.
    """
    if not path.exists():
        return None
    try:
        with safetensors.safe_open(path, "numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}
            return understand(file.metadata(), arrays)
    except (
        *(safetensors.SafetensorError, TypeError, KeyError, ValueError),
        *(AttributeError, OverflowError, RecursionError),
    ) as found:
        raise error(f"{path} cannot be read: {found}. {advice}") from found
