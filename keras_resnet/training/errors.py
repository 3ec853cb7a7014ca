"""The error of this room."""


class TrainingError(ValueError):
    """A training that cannot go on."""
