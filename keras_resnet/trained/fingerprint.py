"""Fingerprints of training data: file names, sizes and classes, independent of the location."""

import array
import dataclasses
import hashlib
import itertools
import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import safetensors.numpy

from keras_resnet.data.source import DataError
from keras_resnet.files import read_safetensors, replacing

NAME = "data.safetensors"
PARTS = ("train", "val")
NAMED = 3  # number of files or classes in an error message


def _look(source):
    """Returns for each file of a source a hash of its name and size, and its number of images.

    Also returns [(folder, number of files), ...] in the same order.
    """
    files, images = bytearray(), array.array("q")
    folders: list[tuple[str, int]] = []
    for name, size, count in source.listed():
        files += hashlib.blake2b(os.fsencode(f"{size}/{name}"), digest_size=8).digest()
        images.append(count)
        folder, same = name.partition("/")[0] if "/" in name or count != 1 else "the folder", 0
        if folders and folders[-1][0] == folder:
            same = folders.pop()[1]
        folders.append((folder, same + 1))
    return np.frombuffer(bytes(files), np.uint64), np.array(images, np.int64), folders


@dataclasses.dataclass(frozen=True)
class Fingerprint:
    """The fingerprint of a training's data.

    Args:
        class_names: Class names.
        train: Hash of the name and size of each training file, uint64.
        val: The same for validation files.
        groups: Number of these files in each folder, [(name, files), ...], in order.
    """

    class_names: tuple[str, ...]
    train: np.ndarray
    val: np.ndarray
    groups: list[tuple[str, int]]

    @classmethod
    def of(cls, sources):
        """Computes the fingerprint of the training and validation images."""
        (train, _, before), (val, _, after) = map(_look, sources)
        return cls(tuple(sources[0].class_names), train, val, before + after)

    def write(self, folder):
        """Writes the fingerprint to a run folder."""
        said = json.dumps({"classes": self.class_names, "groups": self.groups})
        arrays = {part: getattr(self, part) for part in PARTS}
        with replacing(Path(folder) / NAME) as temporary:
            temporary.write_bytes(safetensors.numpy.save(arrays, {"listed": said}))

    @classmethod
    def read(cls, folder):
        """Reads the fingerprint of a run folder; None if an older release created it.

        Raises:
            DataError: if the file is damaged.
        """
        path = Path(folder) / NAME
        advice = (
            "It lists the training images. Without it, evaluate cannot tell them from other "
            "images; remove it to accept that."
        )
        return read_safetensors(path, cls._understood, advice=advice, error=DataError)

    @classmethod
    def _understood(cls, metadata, arrays):
        said = json.loads(metadata["listed"])
        train, val = (np.ravel(arrays[part]).astype(np.uint64) for part in PARTS)
        groups = [(str(name), abs(int(files))) for name, files in said["groups"]]
        if sum(files for _, files in groups) != len(train) + len(val):
            raise ValueError("its counts of files and folders differ")
        return cls(tuple(said["classes"]), train, val, groups)

    def find(self, source) -> tuple[bool, int | None]:
        """Looks up a source's images among the training and validation images.

        Returns:
            Whether they are exactly the validation images; and the number of images in training
            files, None if the source has no files.
        """
        files, images, _ = _look(source)
        if not len(files):
            return False, None
        aside = np.array_equal(np.sort(files), np.sort(self.val))
        return aside, int(images[np.isin(files, self.train)].sum())

    def check(self, sources, folder):
        """Checks that the data has not changed since the training in a folder began.

        Raises:
            DataError: if it has; the message describes the changes.
        """
        now = Fingerprint.of(sources)
        changed = self._classes_changed(now) or self._files_changed(now, sources)
        if changed:
            raise DataError(
                f"The data has changed since the training in {folder} began: {changed}. Labels "
                "would no longer match what the network has learnt. Restore the data, or choose "
                "another output."
            )

    def _classes_changed(self, now):
        before, names = set(self.class_names), set(now.class_names)
        if before != names:
            gone, new = (some(sorted(part)) for part in (before - names, names - before))
            return f"removed classes: {gone}; new classes: {new}"
        if self.class_names != now.class_names:
            pairs = enumerate(zip(self.class_names, now.class_names, strict=True))
            number, (old, new) = next((n, pair) for n, pair in pairs if pair[0] != pair[1])
            return f"class {number} was {old!r} and is {new!r}"
        return ""

    def _files_changed(self, now, sources):
        before = np.concatenate([self.train, self.val])
        files = np.concatenate([now.train, now.val])
        if np.array_equal(np.sort(before), np.sort(files)):
            same = np.array_equal(self.train, now.train)
            return (
                "" if same else ("the training and validation images differ, or their order does")
            )
        folders = np.repeat([name for name, _ in self.groups], [n for _, n in self.groups])
        gone = Counter(map(str, folders[~np.isin(before, files)]))
        names = (name for source in sources for name, *_ in source.listed())
        new = list(itertools.compress(names, ~np.isin(files, before)))
        return (
            f"{len(before)} files before, {len(files)} now; removed, or with another size: "
            f"{some([f'{count} of {name}' for name, count in gone.items()])}; added, or with "
            f"another size: {some(new)}"
        )


def some(names, most=NAMED):
    """Joins the first of some names, and the number of others, for a message."""
    more = len(names) - most
    return ", ".join(map(str, names[:most])) + (f" and {more} more" if more > 0 else "") or "none"
