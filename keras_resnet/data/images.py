"""The images of a folder, of class folders or as a table has them, and how they are read."""

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

LOOKED_UP = 256  # names at a time
SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp")


@dataclasses.dataclass(frozen=True)
class Images:
    """Image files with their labels, in some 12 bytes a file beside what TensorFlow holds.

    Args:
        class_names: Names of the classes.
        names: All paths below the folder, as the file system has them: a string tensor, since
            TensorFlow needs one and a second copy would double the memory.
        labels: Index of each file's class, int32; or the classes that each shows.
        chosen: Which of them are meant, int64, in order.
        folder: What the paths are below, with a slash at the end.
        unusable: Entries named as images that are no files, {path: why}.
        unread: Images of kinds that TensorFlow does not read, {path: why}.
        ignored: How many files are no images.
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
        """How many images there are."""
        return len(self.chosen)

    def subset(self, indices):
        """The images at `indices`, with the same classes."""
        return dataclasses.replace(self, chosen=self.chosen[indices])

    def file(self, index) -> str:
        """The path of an image."""
        return os.fsdecode(self.folder + self.names[self.chosen[index]].numpy())

    @property
    def counts(self):
        """How many images each class has."""
        if isinstance(self.labels, LabelSets):
            return self.labels.counts(self.chosen)
        return np.bincount(self.labels[self.chosen], minlength=len(self.class_names))

    def listed(self):
        """(path below the folder, its size, 1) of each image file; as of `Source`."""
        if self.digest:
            yield f"labels {self.digest}", 0, 0
        for start in range(0, len(self), LOOKED_UP):
            for name in tf.gather(self.names, self.chosen[start : start + LOOKED_UP]).numpy():
                try:
                    size = os.stat(self.folder + name).st_size
                except OSError:  # it goes, or has gone
                    size = -1
                yield os.fsdecode(name), size, 1

    def source(self) -> Source:
        """The images as a source of batches."""
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
                    # index_shuffle takes only the low bits of its seed, which hold the epoch.
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
        directory: The folder. Each folder in it is a class, in alphabetical order; further images
            of a class may lie deeper. Links are followed, hidden files passed over. Where the
            suffix does not say that a file is an image, its first bytes do.
        least: How many classes there have to be.

    Raises:
        DataError: if there are fewer class folders, or one of them has no image, or has
            them in folders only: then these may be the classes.
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
        found = []  # in the class's own folder, and in those below
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
    """The images anywhere in a folder, by their names, and {file: why} of those that are unusable.

    What is no folder is itself.
    """
    path = Path(path)
    if not path.is_dir():
        return [path], {}
    unusable: dict[str, str] = {}
    folders = _walk(os.fsencode(path), (), unusable, unusable, collections.Counter())
    found = [Path(os.fsdecode(file)) for files in folders for file in files]
    if not found:
        why = "".join(f" {file}: {why}." for file, why in list(unusable.items())[:1])
        raise DataError(f"There are no images ({', '.join(READ)}) in the folder {path}.{why}")
    return found, unusable


def _said_of_folders(directory, classes, deeper):
    """What to do where the images of a class lie in further folders: these may be the classes."""
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
    """The image files of each folder below `folder`, in turn; bytes, sorted."""
    try:
        status = os.stat(folder)
        here = (status.st_dev, status.st_ino)
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        unusable[os.fsdecode(folder)] = error.strerror
        return
    if here in above:  # a link to a folder that it lies in
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
    """Whether a file is an image that TensorFlow reads, by its content; notes it if it is not."""
    try:
        with open(path, "rb") as file:
            kind = kind_of(file.read(HEAD))
    except OSError:  # nothing says that it is an image
        kind = None
    if kind is None:
        ignored["files"] += 1
    elif kind not in READ:
        unread[os.fsdecode(path)] = why_unread(kind)
    return kind in READ


def _what(entry):
    """What a directory's entry is, links followed."""
    try:
        if entry.is_file():
            return "a file"
        if entry.is_dir():
            return "a folder"
        mode = entry.stat().st_mode
    except OSError as error:
        return f"a broken link ({error.strerror})"
    return "a pipe" if stat.S_ISFIFO(mode) else "not a regular file"
