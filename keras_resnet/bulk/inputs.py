"""Opens the inputs of a job: folders, files, lists, tables and data sets, as ordered rows."""

import glob
import hashlib
import itertools
import os
from collections.abc import Iterable
from pathlib import Path

from keras_resnet.bulk.containers import Arrays, Shards, open_splits, open_tables
from keras_resnet.bulk.paths import is_url, listed, located, read_file
from keras_resnet.bulk.rows import Rows, Several
from keras_resnet.data.images import SUFFIXES, walk_images
from keras_resnet.data.locations import TFDS_NAME
from keras_resnet.data.source import DataError

PathLike = str | os.PathLike[str]


def open_inputs(inputs: PathLike | Iterable[PathLike], column: str | None = None) -> Rows:
    """Lists images without decoding them.

    Args:
        inputs: As for `embed`.
        column: As for `embed`.

    Raises:
        DataError: if an input does not exist, or there are no images.
    """
    several = [inputs] if isinstance(inputs, (str, os.PathLike)) else inputs
    words = [os.fspath(word) for word in several]
    found: list[Rows] = []
    # Consecutive image files, from a shell's glob for example, become one list.
    for images, group in itertools.groupby(words, _is_image):
        some = list(group)
        found += [listed(map(os.fsencode, some))] if images else [_open(w, column) for w in some]
    found = [one for one in found if one.count]
    if not found:
        raise DataError(f"There are no images in {', '.join(words[:5]) or 'an empty list'}.")
    return found[0] if len(found) == 1 else Several(tuple(found))


def fingerprint(rows: Rows) -> str:
    """Computes a hash of the names of images, in order; the content of files is not included."""
    digest = hashlib.blake2b(digest_size=16)
    for part in rows.said():
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def _is_image(word):
    return word.lower().endswith(SUFFIXES) and not is_url(word) and os.path.isfile(word)


def _open(word, column) -> Rows:
    """Opens one input."""
    if word.startswith("file://"):
        word = word.removeprefix("file://")
    if is_url(word):
        return _remote(word, column)
    path = Path(word)
    if path.is_dir():
        for suffix in (".tfrecord", ".parquet"):
            if files := sorted(map(str, path.glob(f"[!._]*{suffix}"))):
                return _container(suffix, files, column)
        return _folder(path)
    if path.is_file():
        return _container(path.suffix, [word], column)
    if glob.has_magic(word) and (found := sorted(glob.glob(word, recursive=True))):
        return open_inputs(found, column)
    if TFDS_NAME.fullmatch(word):
        return open_splits(word)
    raise DataError(
        f"There is no file or folder {word}, nor a pattern of files or a data set of that name. "
        f"The current folder is {Path.cwd()}."
    )


def _container(suffix, files, column) -> Rows:
    """Opens files with a suffix."""
    if suffix == ".parquet":
        return open_tables(files, column)
    if suffix == ".tfrecord":
        return Shards.open(files)
    if suffix == ".npz":
        return Arrays.open(files[0])
    if suffix == ".txt":
        return listed(Path(files[0]).read_bytes().splitlines())
    return listed(map(os.fsencode, files))


def _folder(path):
    """Lists the images of a folder, then entries that are named like images but are not files."""
    unusable: dict[str, str] = {}
    found = itertools.chain.from_iterable(walk_images(path, unusable))
    return listed(itertools.chain(found, map(os.fsencode, _keys(unusable))), unusable)


def _keys(reasons):
    """Yields the keys of a dictionary that is filled later."""
    yield from reasons


def _remote(url, column) -> Rows:
    """Opens a URL: a file, or a folder of Parquet or image files."""
    from pyarrow import fs

    url, mark, rest = url.partition("?")
    query = mark + rest
    system, path = located(url, query)
    info = system.get_file_info(path)
    if info.type == fs.FileType.NotFound:
        raise DataError(f"There is no file or folder {url}.")
    if info.type == fs.FileType.File:
        names = [url]
    else:
        found = system.get_file_info(fs.FileSelector(path, recursive=True))
        paths = sorted(one.path for one in found if one.type == fs.FileType.File)
        names = [f"{url.removesuffix(path)}{one}" for one in paths]
    visible = [name for name in names if name.rpartition("/")[2][0] not in "._"]
    if tables := [name for name in visible if name.endswith(".parquet")]:
        return open_tables(tables, column, query)
    if url.endswith(".txt"):
        return listed(read_file(url, query).splitlines(), query=query)
    images = (name for name in names if name == url or name.lower().endswith(SUFFIXES))
    return listed(map(os.fsencode, images), query=query)
