"""Rules that the attributes of an object keep."""


def check(owner, rules, optional):
    """Checks an object's attributes.

    Args:
        owner: The object.
        rules: Rows of the names of attributes, a function of a value that says whether it fits, and
            what was expected, in words.
        optional: Names of attributes that may be None.

    Raises:
        ValueError: says what came and what was expected.
    """
    for names, fits, expected in rules:
        for name in names.split():
            value = getattr(owner, name)
            left_out = value is None and name in optional
            if not left_out and not fits(value):
                raise ValueError(f"{name} should be {expected}. Received: {name}={value!r}")


def is_number(value):
    """Whether a value is a number; True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_whole(least):
    """Makes a test: whether a value is a whole number, `least` or more."""
    return lambda value: is_number(value) and isinstance(value, int) and value >= least
