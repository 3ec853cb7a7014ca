"""Files that are there whole or not at all: text, tables, JSON that is read back."""

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
# Processes of two containers may have the same number, one after the other.
_TOKEN, _numbers = secrets.token_hex(4), itertools.count()
_NAME = re.compile(r"\.([0-9]+)\.(?:([0-9a-f]{8})-[0-9]+\.)?.+", re.DOTALL)
_KEPT = 64  # bytes of the name: the suffix, and what makes it known to a reader

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
LARGEST_JSON = 2**26  # bytes: names of a million classes
LONGEST = 500  # letters of what is said to be wrong, which may quote the file


def temporary_path(path):
    """A new name beside `path`, which `remove_leftovers` knows if this process is killed."""
    path = Path(path)
    # Cut at a whole letter of UTF-8.
    end = os.fsencode(path.name)[-_KEPT:].lstrip(bytes(range(0x80, 0xC0)))
    return path.with_name(f".{os.getpid()}.{_TOKEN}-{next(_numbers)}.{os.fsdecode(end)}")


def in_words(error):
    """What an error says, without the number that the system has for it."""
    said = getattr(error, "strerror", None)
    return f"{error.filename}: {said}" if said and error.filename else said or str(error)


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
    OSError. The name keeps the suffix, by which many writers choose the format. Threads and
    processes may do it at once: the last one's file stays.
    """
    temporary = temporary_path(path)
    try:
        with disk_errors(path):
            yield temporary
            with temporary.open("r+b") as file:  # else a power cut may leave a name without content
                os.fsync(file.fileno())
            temporary.replace(path)
    except OSError as error:  # of the name that was meant, not of this one
        if temporary.name not in str(error):
            raise
        if error.filename:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise OSError(str(error).replace(str(temporary), str(path))) from error
    finally:
        with contextlib.suppress(OSError):  # where there was no place for it
            temporary.unlink()


@contextlib.contextmanager
def locked(folder, busy, name=LOCK):
    """Keeps other writers out of a folder, processes and threads, while it is written.

    Args:
        folder: The folder, which is there.
        busy: The error to raise if another one has it.
        name: The file that says so, for writers that keep out only those of the same name.
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
        path.unlink(missing_ok=True)  # before another one has it
        lock.release()


def remove_leftovers(folder):
    """Removes what killed processes left half-written beside its targets."""
    for file in Path(folder).iterdir():
        named = _NAME.fullmatch(file.name)
        if named and file.is_file() and not _at_work(int(named[1]), named[2]):
            file.unlink(missing_ok=True)


def _at_work(process, token):
    """Whether the process that made a name still runs; without a token, it is an old one."""
    if token is None or process == os.getpid():
        return token == _TOKEN
    if os.name != "posix":  # elsewhere, to ask is to kill
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    return True


def write_text(path, text):
    """Writes a text file beside its target and renames it; what is no unicode is escaped."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_csv(path, header, rows):
    """Writes a table beside its target and renames it."""
    with (
        replacing(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def read_json(path, understand=lambda values: values, *, advice, error=ValueError):
    """What is made of a file with a JSON object, which may be damaged or another one.

    Args:
        path: The file.
        understand: Function from the dictionary to the result. Whatever it lacks or cannot use is
            an error that names the file.
        advice: A sentence: what to do about it.
        error: The kind of error.

    Raises:
        ValueError: if the file is damaged, with the place, or is not what is needed.
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
        raise error(f"{path} is not as it should be: {found} is missing. {advice}") from found
    except (TypeError, ValueError, AttributeError, ArithmeticError) as found:
        said = str(found)[:LONGEST].removesuffix(".")
        raise error(f"{path} is not as it should be: {said}. {advice}") from found


def _place(error):
    """Where a file is no JSON, and why."""
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is not UTF-8"
    if isinstance(error, json.JSONDecodeError):
        return f"line {error.lineno}, column {error.colno}: {error.msg}"
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)


def read_safetensors(path, understand, *, advice, error=ValueError):
    """What is made of a safetensors file, which may be damaged or another one; None without one.

    Args:
        path: The file.
        understand: Function from its metadata and {name: array} to the result. Whatever they lack
            or cannot be used for is an error that names the file.
        advice: A sentence: what to do about it.
        error: The kind of error.

    Raises:
        ValueError: if the file is damaged, or is not what is needed.
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
