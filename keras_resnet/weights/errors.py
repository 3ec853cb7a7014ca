"""What goes wrong with a weights file."""

from collections.abc import Iterable

SAVE_A_STATE_DICT = (
    "Save its weights in PyTorch, with torch.save(model.state_dict(), 'weights.pth'), and load "
    "that."
)


class CheckpointError(ValueError):
    """A weights file that cannot be downloaded or read, or does not fit the model."""


class UnsafeFileError(ValueError):
    """Why a reader of containers refuses a file.

    Args:
        what: In words that follow "the file cannot be read: ".
        advice: A sentence on what to do; None where the file may be damaged.
    """

    def __init__(self, what: str, advice: str | None = None) -> None:
        super().__init__(what)
        self.advice = advice


def listed(keys: Iterable[str], most: int = 6) -> str:
    """The first of some keys, shortened, for a message; and how many more there are."""
    keys = list(keys)
    shown = ", ".join(key if len(key) <= 80 else f"{key[:77]}..." for key in keys[:most])
    return f"{shown}, and {len(keys) - most} more" if len(keys) > most else shown
