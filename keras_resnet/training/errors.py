"""The errors of this room."""


class TrainingError(ValueError):
    """A training that cannot go on."""


class WritingError(OSError):
    """A run folder that cannot be written; what was saved before is intact."""
