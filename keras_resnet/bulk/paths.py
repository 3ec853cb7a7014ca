"""Image files, given by paths or by URLs of other file systems."""

import dataclasses
import functools
import itertools
import os
import stat
from typing import Any

from keras_resnet.bulk.rows import Row


@dataclasses.dataclass(frozen=True)
class Files:
    """Image files, of which only the paths are kept in memory.

    Args:
        names: A pyarrow array of bytes: paths or URLs.
        reasons: {path: reason} of entries that are known not to be image files.
        query: Query to append to each URL, "?endpoint_override=..." for example.
    """

    names: Any
    reasons: dict[str, str] = dataclasses.field(default_factory=dict)
    query: str = ""

    @property
    def count(self):
        """As for `Rows`."""
        return len(self.names)

    def rows(self, start, stop):
        """As for `Rows`."""
        for scalar in self.names[start:stop]:
            name = os.fsdecode(scalar.as_py() or b"")  # null
            yield Row(name, functools.partial(self._read, name))

    def said(self):
        """As for `Rows`."""
        return (scalar.as_py() or b"" for scalar in self.names)

    def _read(self, name):
        if name in self.reasons:
            raise ValueError(self.reasons[name])
        return read_file(name, self.query)


def listed(names, reasons=None, query="") -> Files:
    """Makes `Files` from names, bytes, without empty ones; other arguments as for `Files`."""
    import pyarrow as pa

    wanted = (name for name in names if name.strip())
    # In chunks, since a list of all names would need more memory than the names.
    pieces = iter(lambda: pa.array(list(itertools.islice(wanted, 2**16)), pa.large_binary()), [])
    some = list(itertools.takewhile(len, pieces))
    return Files(pa.chunked_array(some, pa.large_binary()), reasons or {}, query)


def read_file(name, query="") -> bytes:
    """Reads a file, given by a path or URL."""
    if is_url(name):
        system, path = located(name, query)
        with system.open_input_stream(path) as stream:
            return stream.read()
    if not stat.S_ISREG(os.stat(name).st_mode):  # reading a pipe would never end
        raise ValueError("it is not a regular file")
    with open(name, "rb") as file:
        return file.read()


def is_url(name) -> bool:
    """Whether a name is a URL of another file system."""
    return "://" in name


def located(url, query=""):
    """Returns the pyarrow file system of a URL, and the path in it."""
    scheme, _, rest = url.partition("://")
    system, prefix = _file_system(f"{scheme}://{rest.partition('/')[0]}", query)
    return system, url.removeprefix(prefix)


@functools.cache
def _file_system(root, query):
    """Returns the file system, and the part of its URLs that is not in its paths."""
    from pyarrow import fs

    system, base = fs.FileSystem.from_uri(root + query)
    return system, root.removesuffix(base)
