"""What a command shows on the terminal, and what it keeps from it."""

import contextlib
import importlib.metadata
import logging
import os
import sys

import typer

debug = False


def set_debug(value: bool):
    """Has errors show where in the code they came from, if `value`; never takes it back."""
    global debug
    debug = debug or value


def show_version(value: bool):
    """Prints the version and ends the command, if `value`."""
    if value:
        print("keras-resnet", importlib.metadata.version("keras3-resnet"))
        raise typer.Exit


def open_closed_streams():
    """Puts the null device where the caller closed a standard stream (2>&-).

    Else the next file that is opened, one of weights perhaps, gets its number, and what is written
    to the stream.
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
    """Drops what is meanwhile written to standard error, by C++ too; errors still raise.

    TensorFlow greets at its first import.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for name in ("tensorflow", "absl"):  # tensorflow-datasets speaks through absl
        logging.getLogger(name).setLevel(logging.ERROR)
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def room(name):
    """A module of keras_resnet; importing it brings TensorFlow, without its greeting."""
    with quiet():
        return importlib.import_module(f"keras_resnet.{name}")


def printable(text):
    """Without what would steer the terminal; a file may have chosen it."""
    return "".join(character if character.isprintable() else "?" for character in text)


def in_words(error):
    """What an error says, in one line and without the system's number for it."""
    said = str(error)
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        file = error.filename
        said = f"{os.fsdecode(file) if isinstance(file, bytes) else file}: {error.strerror}."
    return printable(" ".join(said.split()))


@contextlib.contextmanager
def progress(what):
    """A progress bar on standard error, if that is a terminal: function of (done, total).

    It stays once that was called; an error before, about the arguments perhaps, takes its place.
    """
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (*Progress.get_default_columns()[:-1], MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bars:
        task = bars.add_task(what, total=None)

        def move(done, total):
            bars.live.transient = False
            bars.update(task, completed=done, total=total)

        yield move


class _Lines(logging.Handler):
    """Prints through sys.stdout as it is then: a progress bar puts itself in its place."""

    def __init__(self, stream):
        super().__init__()
        self.stream = stream

    def emit(self, record):
        lines = map(printable, self.format(record).splitlines())
        # Whoever read the lines may have left: what is at work goes on.
        with contextlib.suppress(BrokenPipeError):
            print("\n".join(lines), file=getattr(sys, self.stream))


def log_to_stdout():
    """Prints what the package logs."""
    _log_to("stdout")


def log_to_stderr():
    """Prints what the package logs beside an answer."""
    _log_to("stderr")


def _log_to(stream):
    logger = logging.getLogger("keras_resnet")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.handlers = [_Lines(stream)]
