"""Terminal output: progress, log lines and error messages."""

import contextlib
import importlib.metadata
import logging
import os
import sys

import typer

debug = False


def set_debug(value: bool):
    """Makes errors show their traceback, if `value`; never switches it off again."""
    global debug
    debug = debug or value


def show_version(value: bool):
    """Prints the version and ends the command, if `value`."""
    if value:
        print("keras-resnet", importlib.metadata.version("keras3-resnet"))
        raise typer.Exit


def open_closed_streams():
    """Puts the null device where the caller closed a standard stream (2>&-).

    Otherwise the next file that is opened, a weights file perhaps, gets the stream's number, and
    the output written to the stream.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
        if getattr(sys, name) is None:
            mode = "w" if number else "r"
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))


@contextlib.contextmanager
def quiet():
    """Suppresses standard error, for TensorFlow's messages at import; errors are still raised."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for name in ("tensorflow", "absl"):  # tensorflow-datasets logs through absl
        logging.getLogger(name).setLevel(logging.ERROR)
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def subpackage(name):
    """Imports a subpackage or module of keras_resnet, without TensorFlow's messages."""
    with quiet():
        return importlib.import_module(f"keras_resnet.{name}")


def printable(text):
    """Replaces characters that would control the terminal; untrusted files may contain them."""
    return "".join(character if character.isprintable() else "?" for character in text)


def in_words(error):
    """Returns an error's message in one line, without the system's error number."""
    said = str(error)
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        file = error.filename
        said = f"{os.fsdecode(file) if isinstance(file, bytes) else file}: {error.strerror}."
    return printable(" ".join(said.split()))


@contextlib.contextmanager
def progress(what, unit=None):
    """Shows a progress bar on standard error, if that is a terminal; yields f(done, total).

    The bar stays visible once the function was called; an error before that replaces it. With a
    unit, it says how many of them are done a second.
    """
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    rate = [TextColumn("{task.fields[rate]}")] if unit else []
    columns = (
        *(*Progress.get_default_columns()[:-1], MofNCompleteColumn()),
        *(*rate, TimeRemainingColumn()),
    )
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bars:
        task = bars.add_task(what, total=None, rate="")

        def move(done, total):
            bars.live.transient = False
            speed = bars.tasks[0].speed
            rate = f"{speed:,.0f} {unit}/s" if speed else ""
            bars.update(task, completed=done, total=total, rate=rate)

        yield move


class _Lines(logging.Handler):
    """Prints through the current sys.stdout, which a progress bar may have replaced."""

    def __init__(self, stream):
        super().__init__()
        self.stream = stream

    def emit(self, record):
        lines = map(printable, self.format(record).splitlines())
        # The reader of the output may have exited; the command continues.
        with contextlib.suppress(BrokenPipeError):
            print("\n".join(lines), file=getattr(sys, self.stream))


def log_to_stdout():
    """Prints the package's log to standard output."""
    _log_to("stdout")


def log_to_stderr():
    """Prints the package's log to standard error, apart from the result."""
    _log_to("stderr")


def _log_to(stream):
    logger = logging.getLogger("keras_resnet")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.handlers = [_Lines(stream)]
