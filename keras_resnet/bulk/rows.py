"""Pictures as rows with numbers, read one by one."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Protocol


class Row(NamedTuple):
    """A picture.

    Args:
        name: Its path, or the file and the place in it: "photos.parquet/17".
        read: Function that returns the encoded image, bytes; ValueError or OSError if there is
            none.
    """

    name: str
    read: Callable[[], bytes]


class Rows(Protocol):
    """Pictures in a fixed order. They can be pickled."""

    @property
    def count(self) -> int:
        """How many there are."""

    def rows(self, start: int, stop: int) -> Iterator[Row]:
        """Those from number `start` up to `stop`, in order."""

    def said(self) -> Iterable[bytes]:
        """What would differ for other pictures, or another order."""


@dataclasses.dataclass(frozen=True)
class Several:
    """Rows one after the other."""

    parts: tuple[Rows, ...]

    @property
    def count(self):
        """As of `Rows`."""
        return sum(part.count for part in self.parts)

    def rows(self, start, stop):
        """As of `Rows`."""
        for part in self.parts:
            if start < part.count and stop > 0:
                yield from part.rows(max(start, 0), min(stop, part.count))
            start, stop = start - part.count, stop - part.count

    def said(self):
        """As of `Rows`."""
        return itertools.chain.from_iterable(part.said() for part in self.parts)
