"""Folders of images, one folder a class."""

import dataclasses
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_resnet.data.images import Images, list_images
from keras_resnet.data.pipeline import batches
from keras_resnet.data.source import DataError, check_split
from keras_resnet.files import write_text

TRAINS = ("train", "training")
VALIDATES = (
    ("val", "valid", "validation", "validate", "dev", "eval", "evaluation"),
    ("test", "testing"),
)


def part_folders(directory) -> dict[str, Path]:
    """Finds the training and validation folders, {"train": ..., "val": ...}; {} without them.

    Their names may be train, Training or train_set, val, Validation, Test and so on; a test folder
    is used if there is no validation folder.

    Raises:
        DataError: if two folders have names of the same part.
    """
    found: dict[str, list[Path]] = {}
    for entry in sorted(Path(directory).glob("[!.]*")):
        if entry.is_dir():
            name = re.sub("[-_ ]?set$", "", entry.name.casefold())
            found.setdefault(name, []).append(entry)
    train, val, test = (
        [folder for name in names for folder in found.get(name, [])]
        for names in (TRAINS, *VALIDATES)
    )
    val = val or test
    if not (train and val):
        return {}
    for folders in (train, val):
        if len(folders) > 1:
            raise DataError(
                f"{' and '.join(folder.name for folder in folders)} in {directory} are names of "
                "the same part of the data. Keep only one of them."
            )
    return {"train": train[0], "val": val[0]}


def list_parts(directory) -> dict[str, Images]:
    """Lists all images of a folder: {"train": ..., "val": ...}, or {"": ...} without parts."""
    if part_folders(directory):
        return dict(zip(("train", "val"), split_images(directory), strict=True))
    return {"": list_images(directory)}


def split_images(directory, *, validation_split=None, seed=0) -> tuple[Images, Images]:
    """Returns the training and the validation images of a folder.

    Args:
        directory: A folder with `train` and `val` folders of class folders, or one folder of
            class folders.
        validation_split: In the second case, the fraction of each class to set aside for
            validation, 0 to 1.
        seed: Random seed of the split.

    Raises:
        DataError: if the folder has neither structure, the parts have different classes, or a class
            is too small to be split.
    """
    directory = Path(directory)
    parts = part_folders(directory)
    if parts:
        training, validation = parts["train"].name, parts["val"].name
        if validation_split is not None:
            raise DataError(
                f"{directory} already has validation images, in {validation}. Remove "
                f"validation_split. Received: validation_split={validation_split}"
            )
        train, val = list_images(parts["train"]), list_images(parts["val"], least=1)
        if train.class_names != val.class_names:
            raise DataError(
                f"{training} and {validation} in {directory} should have the same classes. These "
                "are in only one of them: "
                f"{', '.join(sorted(set(train.class_names) ^ set(val.class_names)))}."
            )
        return train, val
    images = list_images(directory)
    if validation_split is None:
        raise DataError(
            f"{directory} has no train and val folders. Create them, or pass validation_split, "
            f"for example 0.2, to set aside a part of its {len(images)} images."
        )
    check_split(validation_split)
    validates = np.zeros(len(images), bool)
    ends = np.cumsum(images.counts)
    for label, count in enumerate(images.counts):
        if count < 2:
            raise DataError(
                f"The class {images.class_names[label]!r} has only one image; training and "
                "validation need one each. Add images or remove the class."
            )
        share = min(max(round(validation_split * count), 1), count - 1)
        indices = np.arange(ends[label] - count, ends[label])
        validates[np.random.default_rng((seed, label)).permutation(indices)[:share]] = True
    train, val = images.subset(np.flatnonzero(~validates)), images.subset(np.flatnonzero(validates))
    return train, dataclasses.replace(val, unusable={}, unread={}, ignored=0)


def save_class_indices(class_names: Sequence[str], path: str | os.PathLike) -> None:
    """Writes {"0": "daisy", ...} as JSON."""
    indices = {str(number): name for number, name in enumerate(class_names)}
    # Names that are not valid Unicode are escaped, which is valid JSON.
    write_text(path, json.dumps(indices, indent=4, ensure_ascii=False))


def image_folder(
    directory: str | os.PathLike,
    *,
    split: str | None = None,
    validation_split: float | None = None,
    seed: int = 0,
    **options: Any,
) -> tuple[tf.data.Dataset, list[str]]:
    """Makes batches of images from a folder of class folders.

    Args:
        directory: A folder with one subfolder per class, or with `train` and `val` folders of class
            folders.
        split: "train" or "val" for one of the two parts, None for all images in the folder.
        validation_split: Fraction of each class to set aside for validation, 0 to 1, if there are
            no `train` and `val` folders.
        seed: Random seed of the split, the order and the augmentation.
        **options: Arguments of `data.batches`: training, image_size, batch_size, augmentation,
            skipped, ....

    Returns:
        (`tf.data.Dataset` of (images, labels), class names): float32 (batch, image_size,
        image_size, 3), normalised RGB; int64 (batch,).

    Raises:
        DataError: if the folder does not have this structure, or too many images are unreadable.

    Example:
    >>> train, classes = keras_resnet.data.image_folder(
    ...     "photos", split="train", validation_split=0.2, training=True)  # doctest: +SKIP
    """
    if split is None and part_folders(directory):
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
