"""Lists the images of a folder of class folders or of a table, and reads them."""

import collections
import dataclasses
import os
import stat
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_resnet.data.label_sets import LabelSets
from keras_resnet.data.source import DataError, Source
from keras_resnet.data.unreadable import HEAD, READ, kind_of, why_bad_file, why_unread
from keras_resnet.decoding import plainly

LOOKED_UP = 256  # names per step
SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp")


@dataclasses.dataclass(frozen=True)
class Images:
    """Image files with their labels, which take 12 bytes per file in addition to TensorFlow's.

    Args:
        class_names: Names of the classes.
        names: All paths relative to the folder, as a string tensor, since TensorFlow needs one and
            a second copy would double the memory.
        labels: Index of each file's class, int32; or the classes that each shows.
        chosen: Indices of the selected files, int64, in order.
        folder: The folder, with a slash at the end.
        unusable: Entries that are named like images but are not files, {path: reason}.
        unread: Images in formats that TensorFlow does not read, {path: reason}.
        ignored: Number of files that are not images.
        weights: Weight of each file's loss in training, a float32 tensor; None if all weigh the
            same.
        digest: A hash of the labels, which the paths of a table's files do not tell.
    """

    class_names: tuple[str, ...]
    names: tf.Tensor
    labels: np.ndarray | LabelSets
    chosen: np.ndarray
    folder: bytes
    unusable: dict[str, str]
    unread: dict[str, str] = dataclasses.field(default_factory=dict)
    ignored: int = 0
    weights: tf.Tensor | None = None
    digest: str = ""

    def __len__(self):
        """Number of images."""
        return len(self.chosen)

    def subset(self, indices):
        """Returns the images at `indices`, with the same classes."""
        return dataclasses.replace(self, chosen=self.chosen[indices])

    def file(self, index) -> str:
        """Returns the path of an image."""
        return os.fsdecode(self.folder + self.names[self.chosen[index]].numpy())

    @property
    def counts(self):
        """Number of images of each class."""
        if isinstance(self.labels, LabelSets):
            return self.labels.counts(self.chosen)
        return np.bincount(self.labels[self.chosen], minlength=len(self.class_names))

    def listed(self):
        """Yields (relative path, size, 1) of each image file; see `Source`."""
        if self.digest:
            yield f"labels {self.digest}", 0, 0
        for start in range(0, len(self), LOOKED_UP):
            for name in tf.gather(self.names, self.chosen[start : start + LOOKED_UP]).numpy():
                try:
                    size = os.stat(self.folder + name).st_size
                except OSError:  # removed in the meantime
                    size = -1
                yield os.fsdecode(name), size, 1

    def source(self) -> Source:
        """Returns the images as a `Source`."""
        chosen, count = tf.constant(self.chosen), len(self)
        label_sets = self.labels if isinstance(self.labels, LabelSets) else None
        labels = None if label_sets else tf.constant(self.labels)
        weights = [] if self.weights is None else [self.weights]

        def examples_at(indices):
            places = tf.gather(chosen, indices)
            paths = self.folder + tf.gather(self.names, places)
            if label_sets:
                shown = label_sets.multi_hot(places)
            else:
                shown = tf.cast(tf.gather(labels, places), tf.int64)
            return paths, paths, shown, *(tf.gather(column, places) for column in weights)

        @plainly
        def examples(key, start):
            def many(indices):
                if key is not None:
                    # index_shuffle uses only the low bits of its seed, which hold the epoch.
                    mixed = tf.random.stateless_uniform((2,), key, None, None, tf.int64)
                    indices = tf.random.experimental.index_shuffle(indices, mixed, count - 1)
                return examples_at(indices)

            return tf.data.Dataset.range(start, count).batch(LOOKED_UP).map(many).unbatch()

        def replacement(key):
            drawn = tf.random.stateless_uniform((), key, 0, count, tf.int64)
            return tuple(column[0] for column in examples_at(drawn[tf.newaxis]))

        return Source(
            self.class_names,
            count,
            examples,
            tf.io.read_file,
            replacement,
            why_bad_file,
            self.unusable,
            unread=self.unread,
            counts=tuple(map(int, self.counts)),
            listed=self.listed,
            folder=os.fsdecode(self.folder),
            multi_label=label_sets is not None,
        )


def list_images(directory, *, least=2) -> Images:
    """Lists a folder of class folders, as torchvision's ImageFolder does.

    Args:
        directory: The folder. Each folder in it is a class, in alphabetical order; its subfolders
            are included. Links are followed, hidden files ignored. Files without the suffix of an
            image are recognized by their first bytes.
        least: Minimum number of classes.

    Raises:
        DataError: if there are fewer class folders, or one of them has no images, or has them in
            subfolders only, as these may be the classes.
    """
    directory = Path(directory)
    if not directory.is_dir():
        what = "is a file" if directory.exists() else "does not exist"
        raise DataError(
            f"The data folder {directory} {what}. Expected a folder with one folder of images per "
            f"class. The current folder is {Path.cwd()}."
        )
    classes = sorted(
        entry.name for entry in os.scandir(directory) if entry.is_dir() and entry.name[0] != "."
    )
    if not classes:
        raise DataError(
            f"The data folder {directory} has no folders in it. Expected one folder per class, "
            f"{directory}/daisy/1.jpg for example."
        )
    folder = os.fsencode(directory) + b"/"
    names, counts = bytearray(), []
    unusable: dict[str, str] = {}
    unread: dict[str, str] = {}
    ignored: collections.Counter[str] = collections.Counter()
    deeper = []
    for name in classes:
        found = []  # in the class folder itself, and in its subfolders
        for files in _walk(folder + os.fsencode(name), (), unusable, unread, ignored):
            names += b"".join(file[len(folder) :] + b"\0" for file in files)
            found.append(len(files))
        counts.append(sum(found))
        if counts[-1] and not found[0]:
            deeper.append(name)
    if deeper:
        raise DataError(_said_of_folders(directory, classes, deeper))
    empty = [name for name, count in zip(classes, counts, strict=True) if not count]
    if empty:
        raise DataError(
            f"{len(empty)} of the {len(classes)} class folders in {directory} contain no images: "
            f"{', '.join(empty[:10])}. Put images ({', '.join(READ)}) there or remove the folder."
            + "".join(
                f"\n{len(unread)} images there are in formats that TensorFlow does not read; "
                f"convert them. The first: {file}: {why}."
                for file, why in list(unread.items())[:1]
            )
        )
    if len(classes) < least:
        raise DataError(
            f"{directory} has only one folder of images, {classes[0]!r} with {counts[0]} images. "
            "Expected two or more classes, one folder per class."
        )
    return Images(
        tuple(classes),
        tf.strings.split(bytes(names[:-1]), "\0"),
        np.repeat(np.arange(len(classes), dtype=np.int32), counts),
        np.arange(sum(counts)),
        folder,
        unusable,
        unread,
        ignored.total(),
    )


def image_files(path) -> tuple[list[Path], dict[str, str]]:
    """Lists all images in a folder, sorted by name, and {file: reason} of unusable ones.

    Any other path is returned as it is.
    """
    path = Path(path)
    if not path.is_dir():
        return [path], {}
    unusable: dict[str, str] = {}
    found = [Path(os.fsdecode(file)) for files in walk_images(path, unusable) for file in files]
    if not found:
        why = "".join(f" {file}: {why}." for file, why in list(unusable.items())[:1])
        raise DataError(f"There are no images ({', '.join(READ)}) in the folder {path}.{why}")
    return found, unusable


def walk_images(folder, unusable):
    """The images of a folder, bytes, and of each below it; adds {entry: why} of unusable ones."""
    return _walk(os.fsencode(folder), (), unusable, unusable, collections.Counter())


def _said_of_folders(directory, classes, deeper):
    """Returns the error message for images of a class in subfolders, which may be the classes."""
    inside = {
        name: sorted(path.name for path in (directory / name).glob("[!.]*") if path.is_dir())
        for name in deeper[:3]
    }
    found = "; ".join(f"{name} has {', '.join(below[:5])}" for name, below in inside.items())
    return (
        f"{len(deeper)} of the {len(classes)} class folders in {directory} contain folders of "
        f"images instead of images ({found}).\nIf these are the classes, pass "
        f"{' or '.join(str(directory / name) for name in inside)}; if they are the training and "
        "validation parts, rename them to train and val. Otherwise put the images of each class "
        "directly into the class's folder."
    )


def _walk(folder, above, unusable, unread, ignored):
    """Yields the image files of each folder below `folder`; bytes, sorted."""
    try:
        status = os.stat(folder)
        here = (status.st_dev, status.st_ino)
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        unusable[os.fsdecode(folder)] = error.strerror
        return
    if here in above:  # a link to one of its parent folders
        return
    files, folders = [], []
    for entry in entries:
        if entry.name.startswith(b"."):
            continue
        image = entry.name.lower().endswith(tuple(map(str.encode, SUFFIXES)))
        what = _what(entry)
        if what == "a folder":
            folders.append(entry.path)
        if image and what != "a file":
            unusable[os.fsdecode(entry.path)] = f"it is {what}"
        elif what == "a file" and (image or _is_read(entry.path, unread, ignored)):
            files.append(entry.path)
    yield files
    for path in folders:
        yield from _walk(path, (*above, here), unusable, unread, ignored)


def _is_read(path, unread, ignored):
    """Whether a file's content is an image that TensorFlow reads; records it if it is not."""
    try:
        with open(path, "rb") as file:
            kind = kind_of(file.read(HEAD))
    except OSError:  # not known to be an image
        kind = None
    if kind is None:
        ignored["files"] += 1
    elif kind not in READ:
        unread[os.fsdecode(path)] = why_unread(kind)
    return kind in READ


def _what(entry):
    """Describes a directory entry; links are followed."""
    try:
        if entry.is_file():
            return "a file"
        if entry.is_dir():
            return "a folder"
        mode = entry.stat().st_mode
    except OSError as error:
        return f"a broken link ({error.strerror})"
    return "a pipe" if stat.S_ISFIFO(mode) else "not a regular file"
