"""Errors of training."""


class TrainingError(ValueError):
    """An error that stops the training."""


class WritingError(OSError):
    """A run folder that cannot be written; files saved before are intact."""
