"""The errors of this room."""

import contextlib

import safetensors


class TrainingError(ValueError):
    """A training that cannot go on."""


class WritingError(OSError):
    """A run folder that cannot be written; what was saved before is intact."""


@contextlib.contextmanager
def readable(path, advice):
    """Names the safetensors file that is read inside, if it is damaged, and says what to do."""
    try:
        yield
    except (
        *(safetensors.SafetensorError, TypeError, KeyError, ValueError),
        *(AttributeError, OverflowError, RecursionError),
    ) as error:
        raise TrainingError(f"{path} cannot be read: {error}. {advice}") from error
