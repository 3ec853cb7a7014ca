"""Folders of images, one folder a class."""

import dataclasses
import json
import os
import stat
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_resnet.data.errors import DataError
from keras_resnet.data.pipeline import batches
from keras_resnet.data.source import Source, why_bad_image
from keras_resnet.files import write_text

LOOKED_UP = 256  # names at a time
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp")
VALIDATION_NAMES = ("val", "validation", "valid", "test")


@dataclasses.dataclass(frozen=True)
class Images:
    """Image files with their labels, in some 12 bytes a file beside what TensorFlow holds.

    Args:
        class_names: Names of the classes.
        names: All paths below the folder, as the file system has them: a string tensor, since
            TensorFlow needs one and a second copy would double the memory.
        labels: Index of each file's class, int32, ascending.
        chosen: Which of them are meant, int64, in order.
        folder: What the paths are below, with a slash at the end.
        unusable: Entries named as images that are no files, {path: why}.
    """

    class_names: tuple[str, ...]
    names: tf.Tensor
    labels: np.ndarray
    chosen: np.ndarray
    folder: bytes
    unusable: dict[str, str]

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
        return np.bincount(self.labels[self.chosen], minlength=len(self.class_names))

    def source(self) -> Source:
        """The images as a source of batches."""
        labels, chosen = tf.constant(self.labels), tf.constant(self.chosen)
        count = len(self)

        def example(index):
            place = tf.gather(chosen, index)
            path = self.folder + tf.gather(self.names, place)
            return path, path, tf.cast(tf.gather(labels, place), tf.int64)

        def examples(key, start):
            def many(indices):
                if key is not None:
                    # Of its key the shuffle takes the low bits only, where epochs are counted.
                    mixed = tf.random.stateless_uniform((2,), key, None, None, tf.int64)
                    indices = tf.random.experimental.index_shuffle(indices, mixed, count - 1)
                return example(indices)

            return tf.data.Dataset.range(start, count).batch(LOOKED_UP).map(many).unbatch()

        def replacement(key):
            return example(tf.random.stateless_uniform((), key, 0, count, tf.int64))

        return Source(
            self.class_names,
            count,
            examples,
            tf.io.read_file,
            replacement,
            why_bad,
            self.unusable,
        )


def list_images(directory) -> Images:
    """Lists a folder of class folders, as torchvision's ImageFolder does.

    Args:
        directory: The folder. Each folder in it is a class, in alphabetical order; images may lie
            deeper. Links are followed. Hidden files and files of other kinds are passed over.

    Raises:
        DataError: if there are no class folders, or one of them has no image.
    """
    directory = Path(directory)
    if not directory.is_dir():
        what = "is a file" if directory.exists() else "does not exist"
        raise DataError(
            f"The data folder {directory} {what}. Expected a folder with one folder of images a "
            f"class. The current folder is {Path.cwd()}."
        )
    classes = sorted(
        entry.name for entry in os.scandir(directory) if entry.is_dir() and entry.name[0] != "."
    )
    if not classes:
        raise DataError(
            f"The data folder {directory} has no folders in it. Expected one folder a class, "
            f"{directory}/daisy/1.jpg for example."
        )
    folder = os.fsencode(directory) + b"/"
    names, counts = bytearray(), []
    unusable: dict[str, str] = {}
    for name in classes:
        found = 0
        for files in _walk(folder + os.fsencode(name), (), unusable):
            names += b"".join(file[len(folder) :] + b"\0" for file in files)
            found += len(files)
        counts.append(found)
    empty = [name for name, count in zip(classes, counts, strict=True) if not count]
    if empty:
        raise DataError(
            f"{len(empty)} of the {len(classes)} class folders in {directory} have no image: "
            f"{', '.join(empty[:10])}. Put images ({', '.join(SUFFIXES)}) there or remove the "
            "folder."
        )
    return Images(
        tuple(classes),
        tf.strings.split(bytes(names[:-1]), "\0"),
        np.repeat(np.arange(len(classes), dtype=np.int32), counts),
        np.arange(sum(counts)),
        folder,
        unusable,
    )


def _walk(folder, above, unusable):
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
        if image and what == "a file":
            files.append(entry.path)
        elif image:
            unusable[os.fsdecode(entry.path)] = f"it is {what}"
    yield files
    for path in folders:
        yield from _walk(path, (*above, here), unusable)


def _what(entry):
    """What a directory's entry is, links followed."""
    try:
        if entry.is_file():
            return "a file"
        if entry.is_dir():
            return "a folder"
        mode = entry.stat().st_mode
    except OSError as error:
        return f"a link that leads nowhere ({error.strerror})"
    return "a pipe" if stat.S_ISFIFO(mode) else "no regular file"


def has_parts(directory):
    """Whether a folder has training and validation images in folders of their own."""
    return (Path(directory) / "train").is_dir() and validation_folder(directory) is not None


def validation_folder(directory) -> Path | None:
    """The folder of a folder's validation images, if it has one."""
    folders = (Path(directory) / name for name in VALIDATION_NAMES)
    return next((folder for folder in folders if folder.is_dir()), None)


def list_parts(directory) -> dict[str, Images]:
    """All images of a folder: {"train": ..., "val": ...}, or {"": ...} if it is not parted."""
    if has_parts(directory):
        return dict(zip(("train", "val"), split_images(directory), strict=True))
    return {"": list_images(directory)}


def split_images(directory, *, validation_split=None, seed=0) -> tuple[Images, Images]:
    """The training and the validation images of a folder.

    Args:
        directory: A folder with `train` and `val` folders of class folders, or one folder of
            class folders.
        validation_split: In the second case, the share of each class that validates, 0 to 1.
        seed: Fixes which images validate.

    Raises:
        DataError: if the folder is of neither kind, the two parts have different classes, or a
            class is too small to be split.
    """
    directory = Path(directory)
    validation = validation_folder(directory)
    if validation is not None and has_parts(directory):
        if validation_split is not None:
            raise DataError(
                f"{directory} has its own validation images, in {validation.name}. Leave "
                f"validation_split out. Received: validation_split={validation_split}"
            )
        train, val = list_images(directory / "train"), list_images(validation)
        if train.class_names != val.class_names:
            raise DataError(
                f"train and {validation.name} in {directory} have different classes. Only in one "
                f"of them: {', '.join(sorted(set(train.class_names) ^ set(val.class_names)))}."
            )
        return train, val
    images = list_images(directory)
    if validation_split is None:
        raise DataError(
            f"{directory} has no train and val folders. Make them, or pass validation_split "
            f"(0.2, say) to set aside a part of its {len(images)} images."
        )
    if not 0 < validation_split < 1:
        raise DataError(
            "validation_split is the share of images that validate, more than 0 and less than 1. "
            f"Received: validation_split={validation_split}"
        )
    validates = np.zeros(len(images), bool)
    ends = np.cumsum(images.counts)
    for label, count in enumerate(images.counts):
        if count < 2:
            raise DataError(
                f"The class {images.class_names[label]!r} has one image, which cannot both train "
                "and validate. Add images or remove the class."
            )
        share = min(max(round(validation_split * count), 1), count - 1)
        indices = np.arange(ends[label] - count, ends[label])
        validates[np.random.default_rng((seed, label)).permutation(indices)[:share]] = True
    train, val = images.subset(np.flatnonzero(~validates)), images.subset(np.flatnonzero(validates))
    return train, dataclasses.replace(val, unusable={})


def why_bad(file) -> str | None:
    """Why an image file cannot be decoded; None if it can."""
    try:
        with open(file, "rb") as stream:
            return why_bad_image(stream.read())
    except OSError as error:
        return error.strerror or str(error)


def save_class_indices(class_names, path):
    """Writes {"0": "daisy", ...} as JSON."""
    indices = {str(number): name for number, name in enumerate(class_names)}
    # A name that is no unicode becomes an escape, which JSON understands.
    write_text(path, json.dumps(indices, indent=4, ensure_ascii=False))


def image_folder(directory, *, split=None, validation_split=None, seed=0, **options):
    """Batches of images from a folder of class folders.

    Args:
        directory: The folder; each folder in it is a class. Or it has `train` and `val` folders.
        split: "train" or "val" for one of the two parts, None for all that is in the folder.
        validation_split: The share of each class that validates, 0 to 1, if the parts have no
            folders of their own.
        seed: Fixes the split, the order and the augmentation.
        **options: As of `data.batches`: training, image_size, batch_size, augmentation, skipped,
            ....

    Returns:
        (`tf.data.Dataset` of (images, labels), class names): float32 (batch, image_size,
        image_size, 3), normalised RGB; int64 (batch,).

    Raises:
        DataError: if the folder, or too much of what is in it, is not as it should be.

    Example:
    >>> train, classes = keras_resnet.data.image_folder(
    ...     "photos", split="train", validation_split=0.2, training=True)  # doctest: +SKIP
    """
    if split is None and has_parts(directory):
        raise DataError(
            f"{directory} has training and validation images. Pass split='train' or split='val'."
        )
    if split is None:
        images = list_images(directory)
    elif split in ("train", "val"):
        parts = split_images(directory, validation_split=validation_split, seed=seed)
        images = parts[split == "val"]
    else:
        raise DataError(f"split should be 'train', 'val' or None. Received: split={split!r}")
    return batches(images.source(), seed=seed, **options)
