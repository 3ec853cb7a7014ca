"""Dataclass fields with type, default, validation rule and help text in one place."""

import dataclasses
import difflib
import textwrap
import typing
from collections.abc import Callable
from typing import Any, NamedTuple


class Rule(NamedTuple):
    """A rule for the values of a field.

    Args:
        fits: Function that returns whether a value is valid.
        expected: Description of valid values.
    """

    fits: Callable[[Any], bool]
    expected: str


MOST = 30  # maximum number of names in an error message


def row_of(table, name, what):
    """Returns the row of a table with this name.

    Raises:
        ValueError: if there is none; the message suggests a similar name, or lists all.
    """
    if name not in table:
        raise ValueError(f"There is no {what} {name!r}. {suggestion(name, table)}")
    return table[name]


def suggestion(name, known, prefix="") -> str:
    """Returns a sentence that suggests a similar name, or lists all names."""
    near = difflib.get_close_matches(str(name).lower(), known, n=1)
    if near:
        return f"Did you mean {prefix}{near[0]}?"
    more = f", and {len(known) - MOST} more" if len(known) > MOST else ""
    return f"There are: {', '.join([*known][:MOST])}{more}."


def field(default, rule: Rule, about: str, **arguments):
    """Makes a dataclass field, which may also be None if its type is optional.

    Args:
        default: The default value, or a factory for it.
        rule: The rule for its values.
        about: The help text, one or two sentences.
        **arguments: Other arguments of `dataclasses.field`.
    """
    kind = "default_factory" if callable(default) else "default"
    metadata = {"rule": rule, "about": about}
    return dataclasses.field(**{kind: default}, metadata=metadata, **arguments)


def is_optional(entry) -> bool:
    """Whether a field may be None."""
    return type(None) in typing.get_args(entry.type)


def check(owner):
    """Validates the fields of an object.

    Raises:
        ValueError: if a field has an invalid value.
    """
    for entry in dataclasses.fields(owner):
        value, rule = getattr(owner, entry.name), entry.metadata["rule"]
        if not (value is None and is_optional(entry)) and not rule.fits(value):
            raise ValueError(
                f"{entry.name} should be {rule.expected}. Received: {entry.name}={value!r}"
            )


def documented(owner):
    """Adds the fields' help texts to the docstring of a dataclass."""
    lines = ["", "", "Args:"]
    for entry in dataclasses.fields(owner):
        text = f"{entry.name}: {entry.metadata['about']}"
        lines += textwrap.wrap(text, 92, initial_indent="    ", subsequent_indent="        ")
    owner.__doc__ = owner.__doc__.rstrip() + textwrap.indent("\n".join(lines), "    ")
    return owner


def is_number(value) -> bool:
    """Whether a value is a finite number, but not a bool."""
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")
    )


def a(kind) -> Rule:
    """Rule for values of a type."""
    return Rule(lambda value: isinstance(value, kind), f"a {kind.__name__}")


def one_of(*names) -> Rule:
    """Rule for one of several names."""
    return Rule(lambda value: value in names, f"one of {', '.join(names)}")


def whole(least) -> Rule:
    """Rule for an integer."""

    def fits(value):
        return is_number(value) and isinstance(value, int) and value >= least

    return Rule(fits, f"an integer, {least} or more")


def numbers(count, fits, expected) -> Rule:
    """Rule for a tuple of numbers with a condition."""

    def fit(values):
        is_tuple = isinstance(values, tuple) and len(values) == count
        return is_tuple and all(map(is_number, values)) and fits(*values)

    return Rule(fit, f"{count} numbers, {expected}")


def _number(fits, expected):
    return Rule(lambda value: is_number(value) and fits(value), f"a number, {expected}")


POSITIVE = _number(lambda value: value > 0, "more than 0")
NOT_NEGATIVE = _number(lambda value: value >= 0, "0 or more")
FRACTION = _number(lambda value: 0 <= value <= 1, "0 to 1")
RATE = _number(lambda value: 0 <= value < 1, "0 or more and less than 1")
