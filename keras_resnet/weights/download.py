"""Downloads published weights to a cache, and verifies them: `download`.

For torchvision's weights, the environment variable KERAS_RESNET_HOME sets the cache folder
(default: that of Keras), and KERAS_RESNET_WEIGHTS_URL a mirror. Weights on the Hugging Face hub are
downloaded by huggingface_hub, which has its own variables (HF_HOME, HF_ENDPOINT, HF_HUB_OFFLINE).
"""

import contextlib
import hashlib
import logging
import os
import stat
import time
from pathlib import Path

from keras_resnet.files import in_words
from keras_resnet.weights import hub
from keras_resnet.weights.errors import CheckpointError
from keras_resnet.weights.registry import PretrainedWeights

logger = logging.getLogger("keras_resnet")

URL = "https://download.pytorch.org/models/"
ATTEMPTS = 6
FIRST_PAUSE = 0.5  # seconds; doubled after each failure
TIMEOUT = (10, 30)  # seconds, to connect and between two chunks
SLOWEST = 1000  # minimum speed in bytes per second, averaged over WHILE
WHILE = 60  # seconds
PIECE = 2**18  # maximum size of a chunk, in bytes
TEMPORARY = {408, 425, 429, 500, 502, 503, 504}  # status codes after which to retry


def folder() -> Path:
    """Returns the cache folder."""
    home = os.environ.get("KERAS_RESNET_HOME")
    if home:
        return Path(home).expanduser()
    return Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "models"


def url_of(row: PretrainedWeights) -> str:
    """Returns the URL of a file."""
    return f"{os.environ.get('KERAS_RESNET_WEIGHTS_URL', URL).rstrip('/')}/{row.file}"


def download(row: PretrainedWeights) -> Path:
    """Downloads the file of published weights, if it is not in the cache.

    It is downloaded to a temporary file, resumed after a lost connection, and renamed once its hash
    is verified. Concurrent processes download it only once. Files on the Hugging Face hub are
    downloaded by huggingface_hub, which verifies the hub's etag, as their hashes are not known to
    this package.

    Args:
        row: A row of `list_weights()`.

    Returns:
        The path of the file, or of an older file with the same weights in the cache.

    Raises:
        CheckpointError: if it cannot be downloaded; the message has the URL, and the path to save
            it to by other means.
        ImportError: if it is on the hub, and the hub extra is not installed.
    """
    import filelock

    if row.repository:
        return hub.weights_file(row.file)
    target = folder() / row.file
    found = _present(row)  # first, since the folder may be read-only
    if found is not None:
        return found
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = target.with_name(f".{row.file}.lock")
        if lock.is_symlink():  # older versions of filelock truncate its target
            lock.unlink()
        with filelock.FileLock(lock):
            found = _present(row)
            if found is None:
                _fetch(row, target)
                found = target
            return found
    except OSError as error:  # a full disk, or a read-only folder
        raise CheckpointError(
            f"{row.file} cannot be saved: {in_words(error)}. {_by_hand(row)}"
        ) from error


def sha256(path: Path) -> str:
    """Returns the hash of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _present(row):
    """Returns the cached file, or an older file of the same weights; verifies its hash."""
    for name, prefix in row.files.items():
        path = folder() / name
        if path.is_file():
            digest = sha256(path)
            if not digest.startswith(prefix):
                raise CheckpointError(
                    f"{path} is damaged: its sha256 starts with {digest[: len(prefix)]}, not "
                    f"{prefix}. Remove it to download it again."
                )
            return path
    return None


def _fetch(row, target):
    """Downloads to `<name>.part`, verifies the hash, and renames the file."""
    import requests

    part = target.with_name(f"{row.file}.part")
    reason = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            logger.info("%s: %s; retrying.", row.file, reason)
            time.sleep(FIRST_PAUSE * 2 ** (attempt - 1))
        held = _held(part)
        resumed = held > 0
        try:
            _continue(row, part, held)
        except requests.RequestException as error:
            status = getattr(error.response, "status_code", None)
            # urllib3 has the reason of a failed connection, within a long message.
            cause = getattr(error.args[0], "reason", error) if error.args else error
            reason = f"status {status}" if status else f"{type(error).__name__}: {cause}"
            # The ValueErrors of requests are about invalid URLs.
            if status in TEMPORARY or (status is None and not isinstance(error, ValueError)):
                continue
            break
        except _WrongAnswerError as error:
            part.unlink(missing_ok=True)
            reason = str(error)
            if resumed:
                continue
            break
        digest = sha256(part)[: len(row.sha256)]
        if digest == row.sha256:
            part.replace(target)
            return
        part.unlink()
        reason = f"the sha256 of the download starts with {digest}, not {row.sha256}"
        if not resumed:  # otherwise the partial file may be the cause
            break
    raise CheckpointError(
        f"{row.file} could not be downloaded from {url_of(row)} ({reason}). {_by_hand(row)}"
    )


class _WrongAnswerError(Exception):
    """The server's response cannot be the file."""


def _held(part):
    """Returns the size of a partial file; removes links and anything else that is not a file."""
    try:
        found = part.lstat()
    except FileNotFoundError:
        return 0
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        part.unlink()
        return 0
    return found.st_size


def _open_no_link(path, flags):
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def _continue(row, part, held):
    """Downloads the rest of `part`, which has `held` bytes."""
    import requests

    headers = {"Range": f"bytes={held}-"} if held else {}
    headers["Accept-Encoding"] = "identity"
    with requests.get(url_of(row), headers=headers, stream=True, timeout=TIMEOUT) as answer:
        if held and answer.status_code == 416:
            return  # complete; the hash will be verified
        answer.raise_for_status()
        ranged = answer.headers.get("Content-Range", "")
        if held and not (answer.status_code == 206 and ranged.startswith(f"bytes {held}-")):
            held = 0  # the server starts from the beginning
        # With compression, which was not requested, neither ranges nor lengths are meaningful.
        encoded = answer.headers.get("Content-Encoding", "identity") != "identity"
        if encoded and held:
            raise _WrongAnswerError("the server compressed a part of it")
        length = answer.headers.get("Content-Length", "")
        total = held + int(length) if length.isdigit() and not encoded else None
        with (
            open(part, "ab" if held else "wb", opener=_open_no_link) as file,
            _progress(row.file, total) as advance,
        ):
            advance(held)
            for piece in _pieces(answer):
                held += len(piece)
                if held > row.max_bytes:
                    raise _WrongAnswerError(f"the server sent more than {row.max_bytes} bytes")
                file.write(piece)
                advance(len(piece))
    if total is not None and held < total:
        raise requests.ConnectionError(f"it ended after {held} of {total} bytes")


def _pieces(answer):
    """Yields chunks as they arrive; raises an error if the connection is too slow."""
    import requests
    import urllib3

    read = getattr(answer.raw, "read1", answer.raw.read)  # which waits for a complete chunk
    start, came = time.monotonic(), 0
    try:
        while piece := read(PIECE, decode_content=True):
            yield piece
            came += len(piece)
            seconds = time.monotonic() - start
            if seconds > WHILE:
                if came < SLOWEST * seconds:
                    raise requests.ConnectionError(
                        f"{came} bytes received in {seconds:.0f} seconds"
                    )
                start, came = time.monotonic(), 0
    except urllib3.exceptions.HTTPError as error:
        raise requests.ConnectionError(error) from error


def _by_hand(row):
    return (
        f"Download it by other means and save it as {folder() / row.file}, or set "
        "KERAS_RESNET_WEIGHTS_URL to a mirror."
    )


@contextlib.contextmanager
def _progress(name, total):
    """Yields a function that advances a progress bar, which is only shown on a terminal."""
    from rich.console import Console
    from rich.progress import DownloadColumn, Progress, TransferSpeedColumn

    console = Console(stderr=True)
    columns = (*Progress.get_default_columns(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(name, total=total)
        yield lambda count: progress.advance(task, count)
