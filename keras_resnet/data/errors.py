"""The error of this room."""


class DataError(ValueError):
    """A data set that cannot be trained on."""
