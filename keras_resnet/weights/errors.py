"""What goes wrong with a weights file."""


class CheckpointError(ValueError):
    """A weights file that cannot be had, cannot be read, or does not fit the model."""


class UnsafeFileError(ValueError):
    """Why a file is refused, in words that follow "the file cannot be read: "."""
