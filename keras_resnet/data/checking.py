"""Checks the images in a folder."""

import collections
import dataclasses
import hashlib
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from keras_resnet.data.image_folder import list_parts
from keras_resnet.data.source import Source
from keras_resnet.data.unreadable import why_bad_image

LOOKED_AT = 20_000  # maximum number of files to compare before each training


@dataclasses.dataclass(frozen=True)
class Check:
    """The result of `check_data`.

    Args:
        counts: {part: {class: number of images}}, including unreadable ones; the part is "train",
            "val" or "".
        bad: {file: reason} of unreadable images.
        duplicates: Groups of identical files that are in both train and val.
        unread: {file: reason} of images in formats that TensorFlow does not read; not counted.
        ignored: Number of files that are not images.
        total: How many images there are, the bad ones too; several classes may count one.
    """

    counts: dict[str, dict[str, int]]
    bad: dict[str, str]
    duplicates: list[tuple[str, ...]]
    unread: dict[str, str] = dataclasses.field(default_factory=dict)
    ignored: int = 0
    total: int = 0


def check_data(
    directory: str | os.PathLike, *, on_progress: Callable[[int, int], object] | None = None
) -> Check:
    """Finds unreadable and duplicate images in a folder; decodes all images in parallel.

    Args:
        directory: A folder of class folders, a table, or a folder with `train` and `val` parts of
            these kinds; as for `data.image_folder`.
        on_progress: Function of (number of images done, total number), called repeatedly.

    Raises:
        DataError: if the folder does not have this structure.
    """
    parts = list_parts(directory)
    total = sum(map(len, parts.values()))
    bad: dict[str, str] = {}
    hashes: dict[str, np.ndarray] = {}
    done = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for part, images in parts.items():
            bad |= images.unusable
            hashes[part] = np.zeros(len(images), np.uint64)
            files = map(images.file, range(len(images)))
            found = in_turn(pool, _examine, files, 8 * (os.cpu_count() or 1))
            for index, (file, digest, reason) in enumerate(found):
                hashes[part][index] = digest
                if reason:
                    bad[file] = reason
                done += 1
                if on_progress and (done % 50 == 0 or done == total):
                    on_progress(done, total)
    counts = {
        part: dict(zip(images.class_names, map(int, images.counts), strict=True))
        for part, images in parts.items()
    }
    unread = {file: why for images in parts.values() for file, why in images.unread.items()}
    ignored = sum(images.ignored for images in parts.values())
    return Check(counts, bad, _duplicates(parts, hashes, bad), unread, ignored, total)


def in_turn(pool, function, items, most):
    """Yields the results for the items in order, with at most `most` pending tasks."""
    waiting: collections.deque[Future] = collections.deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) > most:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _examine(file):
    try:
        content = Path(file).read_bytes()
    except OSError as error:
        return file, 0, error.strerror or str(error)
    digest = hashlib.blake2b(content, digest_size=8).digest()
    return file, int.from_bytes(digest, "little"), why_bad_image(content)


def _duplicates(parts, hashes, bad):
    if len(parts) < 2:
        return []
    train, val = hashes.values()
    shared = np.intersect1d(train, val)
    groups = collections.defaultdict(list)
    for part, images in parts.items():
        for index in np.flatnonzero(np.isin(hashes[part], shared)):
            file = images.file(index)
            if file not in bad:
                # Among millions of files, 8-byte hashes may collide; sha256 does not.
                groups[hashlib.sha256(Path(file).read_bytes()).digest()].append((part, file))
    return [
        tuple(file for _, file in group)
        for group in groups.values()
        if len({part for part, _ in group}) > 1
    ]


def files_in_both(train: Source, val: Source) -> list[tuple[str, str]]:
    """Lists (training file, validation file) with identical content.

    Only files of equal size are read; with more than 20,000 files, none are.
    """
    if not (train.folder and val.folder) or train.count + val.count > LOOKED_AT:
        return []
    sizes: dict[int, tuple[list[str], list[str]]] = collections.defaultdict(lambda: ([], []))
    for part, source in enumerate((train, val)):
        for name, size, _ in source.listed():
            if size > 0:
                sizes[size][part].append(source.folder + name)
    pairs = []
    for trains, validates in sizes.values():
        if trains and validates:
            known = {_digest(file): file for file in reversed(trains)}
            known.pop(None, None)
            found = ((known.get(_digest(file)), file) for file in validates)
            pairs += [(same, file) for same, file in found if same is not None]
    return pairs


def _digest(file):
    """Returns the hash of a file; None if it cannot be read."""
    try:
        with open(file, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").digest()
    except OSError:
        return None
