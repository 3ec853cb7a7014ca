"""Folders of images: one folder a class, or a table of files and labels."""

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
from keras_resnet.data.label_sets import LabelSets
from keras_resnet.data.pipeline import batches
from keras_resnet.data.source import DataError, check_split
from keras_resnet.data.tables import is_table, list_table, table_of
from keras_resnet.files import write_text

TRAINS = ("train", "training")
VALIDATES = (
    ("val", "valid", "validation", "validate", "dev", "eval", "evaluation"),
    ("test", "testing"),
)


def part_folders(directory) -> dict[str, Path]:
    """Finds the training and validation parts, {"train": ..., "val": ...}; {} without them.

    They are tables, train.csv and val.csv for example, or folders. Their names may be train,
    Training or train_set, val, Validation, Test and so on; a test part is used if there is no
    validation part.

    Raises:
        DataError: if two tables or folders have names of the same part.
    """
    directory = Path(directory)
    if not directory.is_dir() or table_of(directory):
        return {}
    entries = sorted(directory.glob("[!.]*"))
    tables = [entry for entry in entries if is_table(entry) and entry.is_file()]
    folders = [entry for entry in entries if entry.is_dir()]
    return _parts(directory, tables) or _parts(directory, folders)


def _parts(directory, entries):
    found: dict[str, list[Path]] = {}
    for entry in entries:
        stem = entry.name if entry.is_dir() else entry.stem
        name = re.sub("[-_ ]?set$", "", stem.casefold())
        found.setdefault(name, []).append(entry)
    train, val, test = (
        [entry for name in names for entry in found.get(name, [])] for names in (TRAINS, *VALIDATES)
    )
    val = val or test
    if not (train and val):
        return {}
    for entries in (train, val):
        if len(entries) > 1:
            raise DataError(
                f"{' and '.join(entry.name for entry in entries)} in {directory} are names of "
                "the same part of the data. Keep only one of them."
            )
    return {"train": train[0], "val": val[0]}


def list_labelled(path, *, least=2, class_names=None) -> Images:
    """The images of a table, of a folder with a labels.csv or labels.parquet, or of class folders.

    Args:
        path: The table or the folder.
        least: As for `list_images`, which reads class folders.
        class_names: As for `list_table`, which reads tables.
    """
    table = table_of(path)
    if table is not None:
        return list_table(table, class_names)
    if is_table(Path(path)) and not Path(path).exists():
        raise DataError(f"The file {path} does not exist. The current folder is {Path.cwd()}.")
    return list_images(path, least=least)


def list_parts(directory) -> dict[str, Images]:
    """Lists all images of a folder: {"train": ..., "val": ...}, or {"": ...} without parts."""
    if part_folders(directory):
        return dict(zip(("train", "val"), split_images(directory), strict=True))
    return {"": list_labelled(directory)}


def split_images(directory, *, validation_split=None, seed=0) -> tuple[Images, Images]:
    """Returns the training and the validation images of a folder.

    Args:
        directory: A folder with `train` and `val` folders of class folders, or with `train` and
            `val` tables; or one folder of class folders, or one table.
        validation_split: In the second case, the fraction of each class to set aside for
            validation, 0 to 1; for multi-label images, the fraction of all images.
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
        train = list_labelled(parts["train"])
        val = list_labelled(parts["val"], least=1, class_names=train.class_names)
        if isinstance(train.labels, LabelSets) != isinstance(val.labels, LabelSets):
            raise DataError(
                f"{training} and {validation} in {directory} should both have one label for each "
                "image, or both several."
            )
        if train.class_names != val.class_names:
            raise DataError(
                f"{training} and {validation} in {directory} should have the same classes. These "
                "are in only one of them: "
                f"{', '.join(sorted(set(train.class_names) ^ set(val.class_names)))}."
            )
        return train, val
    images = list_labelled(directory)
    if validation_split is None:
        raise DataError(
            f"{directory} has no train and val folders. Create them, or pass validation_split, "
            f"for example 0.2, to set aside a part of its {len(images)} images."
        )
    check_split(validation_split)
    validates = np.zeros(len(images), bool)
    for label, (name, indices) in enumerate(_groups(images)):
        count = len(indices)
        if count < 2:
            raise DataError(
                f"{name} has only one image; training and validation need one each. Add images or "
                "remove the class."
            )
        share = min(max(round(validation_split * count), 1), count - 1)
        validates[np.random.default_rng((seed, label)).permutation(indices)[:share]] = True
    train, val = images.subset(np.flatnonzero(~validates)), images.subset(np.flatnonzero(validates))
    return train, dataclasses.replace(val, unusable={}, unread={}, ignored=0)


def _groups(images):
    """(name, indices) of the images of each class; of all, where they may show several."""
    if isinstance(images.labels, LabelSets):
        return [(os.fsdecode(images.folder), np.arange(len(images)))]
    order = np.argsort(images.labels, kind="stable")
    parts = np.split(order, np.cumsum(images.counts)[:-1])
    return [(f"The class {n!r}", part) for n, part in zip(images.class_names, parts, strict=True)]


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
    """Makes batches of images from a folder of class folders, or from a table.

    Args:
        directory: A folder with one subfolder per class; a .csv or .parquet file with the columns
            `file` and `label`, or `labels`, or a column of 0 and 1 for each class; a folder with
            such a labels.csv; or a folder with `train` and `val` parts of these kinds.
        split: "train" or "val" for one of the two parts, None for all images in the folder.
        validation_split: Fraction of each class to set aside for validation, 0 to 1, if there are
            no `train` and `val` parts; of multi-label images, fraction of all.
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
        images = list_labelled(directory)
    elif split in ("train", "val"):
        parts = split_images(directory, validation_split=validation_split, seed=seed)
        images = parts[split == "val"]
    else:
        raise DataError(f"split should be 'train', 'val' or None. Received: split={split!r}")
    return batches(images.source(), seed=seed, **options)
