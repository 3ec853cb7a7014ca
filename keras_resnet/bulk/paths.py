"""Image files by their paths, or by URLs of other file systems."""

import dataclasses
import functools
import itertools
import os
import stat
from typing import Any

from keras_resnet.bulk.rows import Row


@dataclasses.dataclass(frozen=True)
class Files:
    """Image files; of each, the path is kept, and nothing else.

    Args:
        names: A pyarrow array of bytes: paths or URLs.
        reasons: {path: why} of entries of a folder that are known to be no image files.
        query: What follows each URL: "?endpoint_override=...".
    """

    names: Any
    reasons: dict[str, str] = dataclasses.field(default_factory=dict)
    query: str = ""

    @property
    def count(self):
        """As of `Rows`."""
        return len(self.names)

    def rows(self, start, stop):
        """As of `Rows`."""
        for scalar in self.names[start:stop]:
            name = os.fsdecode(scalar.as_py() or b"")  # an empty row of a table
            yield Row(name, functools.partial(self._read, name))

    def said(self):
        """As of `Rows`."""
        return (scalar.as_py() or b"" for scalar in self.names)

    def _read(self, name):
        if name in self.reasons:
            raise ValueError(self.reasons[name])
        return read_file(name, self.query)


def listed(names, reasons=None, query="") -> Files:
    """Files of these names, bytes; empty ones are left out. Other arguments as of `Files`."""
    import pyarrow as pa

    wanted = (name for name in names if name.strip())
    # In pieces: a list of all of them would take more memory than they do.
    pieces = iter(lambda: pa.array(list(itertools.islice(wanted, 2**16)), pa.large_binary()), [])
    some = list(itertools.takewhile(len, pieces))
    return Files(pa.chunked_array(some, pa.large_binary()), reasons or {}, query)


def read_file(name, query="") -> bytes:
    """The content of a file, by its path or URL."""
    if is_url(name):
        system, path = located(name, query)
        with system.open_input_stream(path) as stream:
            return stream.read()
    if not stat.S_ISREG(os.stat(name).st_mode):  # a pipe would never end
        raise ValueError("it is not a regular file")
    with open(name, "rb") as file:
        return file.read()


def is_url(name) -> bool:
    """Whether a name is not a path of this machine."""
    return "://" in name


def located(url, query=""):
    """The pyarrow file system of a URL, and the path there."""
    scheme, _, rest = url.partition("://")
    system, prefix = _file_system(f"{scheme}://{rest.partition('/')[0]}", query)
    return system, url.removeprefix(prefix)


@functools.cache
def _file_system(root, query):
    """The file system, and what of its URLs is not part of a path."""
    from pyarrow import fs

    system, base = fs.FileSystem.from_uri(root + query)
    return system, root.removesuffix(base)
