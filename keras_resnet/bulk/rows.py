"""Images as numbered rows, which are read one by one."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Protocol


class Row(NamedTuple):
    """An image.

    Args:
        name: Path of the image, or its file and index: "photos.parquet/17".
        read: Function that returns the encoded image, bytes, or raises a ValueError or OSError.
    """

    name: str
    read: Callable[[], bytes]


class Rows(Protocol):
    """Images in a fixed order. They can be pickled."""

    @property
    def count(self) -> int:
        """Number of rows."""

    def rows(self, start: int, stop: int) -> Iterator[Row]:
        """Yields the rows from `start` up to `stop`, in order."""

    def said(self) -> Iterable[bytes]:
        """Yields bytes that differ for other images or another order, for a hash."""


@dataclasses.dataclass(frozen=True)
class Several:
    """A concatenation of rows."""

    parts: tuple[Rows, ...]

    @property
    def count(self):
        """As for `Rows`."""
        return sum(part.count for part in self.parts)

    def rows(self, start, stop):
        """As for `Rows`."""
        for part in self.parts:
            if start < part.count and stop > 0:
                yield from part.rows(max(start, 0), min(stop, part.count))
            start, stop = start - part.count, stop - part.count

    def said(self):
        """As for `Rows`."""
        return itertools.chain.from_iterable(part.said() for part in self.parts)
