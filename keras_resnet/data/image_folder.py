"""Folders of images, one folder a class."""

import collections
import dataclasses
import logging
import os
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import tensorflow as tf

from keras_resnet.data.pipeline import evaluation_batches, training_batches, without_indices
from keras_resnet.data.source import Source
from keras_resnet.preprocessing import Preprocessing, decode

logger = logging.getLogger("keras_resnet")

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp")
CHECKED = 10_000  # Files that are decoded once before training starts; of more, a sample.
VALIDATION_NAMES = ("val", "validation", "valid", "test")


class DataError(ValueError):
    """A data set that cannot be trained on."""


@dataclasses.dataclass(frozen=True)
class Images:
    """Image files with their labels."""

    class_names: tuple[str, ...]
    files: tuple[str, ...]
    labels: tuple[int, ...]

    def __len__(self):
        """How many images there are."""
        return len(self.files)

    def subset(self, indices):
        """The images at `indices`, with the same classes."""
        return Images(
            self.class_names,
            tuple(self.files[index] for index in indices),
            tuple(self.labels[index] for index in indices),
        )

    def source(self) -> Source:
        """The images as a source of batches."""

        def items():
            indices = tf.data.Dataset.range(len(self))
            files, labels = tf.constant(self.files), tf.constant(self.labels, tf.int64)
            return indices.map(lambda index: (index, files[index], labels[index]))

        return Source(self.class_names, self.files, items, tf.io.read_file, len(self))


def list_images(directory) -> Images:
    """Lists a folder of class folders.

    Args:
        directory: The folder. Each folder in it is a class, in alphabetical order; images may lie
            deeper. Hidden files and files of other kinds are passed over.

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
    files, labels = [], []
    for label, name in enumerate(classes):
        found = sorted(_images_below(directory / name))
        files.extend(found)
        labels.extend([label] * len(found))
    counts = collections.Counter(labels)
    empty = [name for label, name in enumerate(classes) if not counts[label]]
    if empty:
        raise DataError(
            f"{len(empty)} of the {len(classes)} class folders in {directory} have no image: "
            f"{', '.join(empty[:10])}. Put images ({', '.join(SUFFIXES)}) there or remove the "
            "folder."
        )
    return Images(tuple(classes), tuple(files), tuple(labels))


def _images_below(folder):
    for path, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if name[0] != "."]
        for name in files:
            if name[0] != "." and name.lower().endswith(SUFFIXES):
                yield os.path.join(path, name)


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
    validation = [name for name in VALIDATION_NAMES if (directory / name).is_dir()]
    if (directory / "train").is_dir() and validation:
        if validation_split is not None:
            raise DataError(
                f"{directory} has its own validation images, in {validation[0]}. Leave "
                f"validation_split out. Received: validation_split={validation_split}"
            )
        train, val = list_images(directory / "train"), list_images(directory / validation[0])
        if train.class_names != val.class_names:
            raise DataError(
                f"train and {validation[0]} in {directory} have different classes. Only in one of "
                f"them: {', '.join(sorted(set(train.class_names) ^ set(val.class_names)))}."
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
    return _stratified(images, validation_split, seed)


def _stratified(images, share, seed):
    by_class = collections.defaultdict(list)
    for index, label in enumerate(images.labels):
        by_class[label].append(index)
    chosen = set()
    for label, indices in by_class.items():
        if len(indices) < 2:
            raise DataError(
                f"The class {images.class_names[label]!r} has one image, which cannot both train "
                "and validate. Add images or remove the class."
            )
        count = min(max(round(share * len(indices)), 1), len(indices) - 1)
        rng = random.Random(f"{seed}/{label}")  # noqa: S311 (a split, not a secret)
        chosen.update(rng.sample(indices, count))
    everything = range(len(images))
    return (
        images.subset([index for index in everything if index not in chosen]),
        images.subset([index for index in everything if index in chosen]),
    )


def without_bad_files(images: Images, *, max_bad=0.1, seed=0) -> tuple[Images, dict[str, str]]:
    """Leaves out the files that cannot be decoded.

    Up to 10,000 files are all decoded once; of more, a sample of as many is.

    Args:
        images: The images.
        max_bad: The share of bad files, 0 to 1, above which there is an error.
        seed: Fixes the sample.

    Returns:
        The good images, and the bad files with the reason for each.

    Raises:
        DataError: if more than `max_bad` of the files are bad, or a class has none left.
    """
    indices = range(len(images))
    if len(images) > CHECKED:
        indices = random.Random(seed).sample(indices, CHECKED)  # noqa: S311
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        reasons = pool.map(why_bad, [images.files[index] for index in indices])
        bad = {index: reason for index, reason in zip(indices, reasons, strict=True) if reason}
    named = {images.files[index]: reason for index, reason in sorted(bad.items())}
    listed = "\n".join(f"  {file}: {reason}" for file, reason in list(named.items())[:5])
    if len(bad) > max_bad * len(indices):
        raise DataError(
            f"{len(bad)} of {len(indices)} image files cannot be read, more than the share "
            f"max_bad={max_bad} allows. The first are:\n{listed}\nMend or remove them, or raise "
            "max_bad to leave them out."
        )
    good = images.subset([index for index in range(len(images)) if index not in bad])
    gone = set(images.labels) - set(good.labels)
    if gone:
        raise DataError(
            f"No image of the class {images.class_names[min(gone)]!r} can be read:\n{listed}"
        )
    return good, named


def why_bad(file) -> str | None:
    """Why an image file cannot be decoded; None if it can."""
    try:
        with open(file, "rb") as stream:
            content = stream.read()
        if not content:
            return "it is empty"
        decode(content)
    except OSError as error:
        return error.strerror or str(error)
    except (tf.errors.OpError, ValueError) as error:
        kind = "it is no image" if "Unknown image file format" in str(error) else "it is damaged"
        return f"{kind} (it starts with {content[:8]!r})"
    return None


def image_folder(
    directory,
    *,
    training=False,
    image_size=224,
    resize=None,
    batch_size=16,
    seed=0,
    max_bad=0.1,
):
    """Batches of images from a folder of class folders.

    Args:
        directory: The folder; each folder in it is a class.
        training: True for random crops, mirrored or not, in random order; False for the
            evaluation transform, in order of the names.
        image_size: Side of the images, in pixels.
        resize: Length of the shorter side before the centre crop of the evaluation transform.
            Default: 256 / 224 of `image_size`.
        batch_size: Images of a batch; the last one may have fewer.
        seed: Fixes the order and the crops.
        max_bad: The share of undecodable files above which there is an error; below, they are
            left out and logged.

    Returns:
        (`tf.data.Dataset` of (images, labels), class names): float32 (batch, image_size,
        image_size, 3), normalised RGB; int64 (batch,).

    Raises:
        DataError: if the folder, or too much of what is in it, is not as it should be.
    """
    images, bad = without_bad_files(list_images(directory), max_bad=max_bad, seed=seed)
    for file, reason in bad.items():
        logger.warning("Left out %s: %s.", file, reason)
    preprocessing = Preprocessing.for_crop(image_size, resize)
    source = images.source()
    if training:
        batches = training_batches(
            source,
            image_size=image_size,
            batch_size=batch_size,
            seed=seed,
            preprocessing=preprocessing,
        )
    else:
        batches = without_indices(evaluation_batches(source, preprocessing, batch_size=batch_size))
    return batches, list(images.class_names)
