"""Errors about weights files."""

from collections.abc import Iterable

SAVE_A_STATE_DICT = (
    "Save its weights in PyTorch, with torch.save(model.state_dict(), 'weights.pth'), and load "
    "that."
)


class CheckpointError(ValueError):
    """A weights file that cannot be downloaded or read, or does not fit the model."""


class UnsafeFileError(ValueError):
    """A file that a reader rejects.

    Args:
        what: The reason, to follow "the file cannot be read: ".
        advice: A sentence that says what to do; None if the file may be damaged.
    """

    def __init__(self, what: str, advice: str | None = None) -> None:
        super().__init__(what)
        self.advice = advice


def listed(keys: Iterable[str], most: int = 6) -> str:
    """Joins the first of some keys, shortened, and the number of others, for a message."""
    keys = list(keys)
    shown = ", ".join(key if len(key) <= 80 else f"{key[:77]}..." for key in keys[:most])
    return f"{shown}, and {len(keys) - most} more" if len(keys) > most else shown
