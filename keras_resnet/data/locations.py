"""Finds the data of a path or name: a folder, a table, shards, an array file or a data set."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_resnet.data import datasets
from keras_resnet.data.image_folder import list_labelled, part_folders, split_images
from keras_resnet.data.shards import shards_source
from keras_resnet.data.source import DataError, Source

TFDS_NAME = re.compile(r"[a-z][a-z0-9_]*(/[a-z0-9_.-]+)?(:[0-9.*]+)?")


def training_sources(
    data: str | os.PathLike,
    *,
    validation_split: float | None = None,
    seed: int = 0,
    worker: tuple[int, int] = (0, 1),
) -> tuple[Source, Source]:
    """Finds the training and the validation images.

    Args:
        data: A folder with `train` and `val` parts: folders of class folders or of shards, or
            tables; a single folder of class folders, or table; or the name of a tensorflow-datasets
            data set. Tables are as for `data.image_folder`.
        validation_split: Fraction of the images to set aside for validation, 0 to 1, if the images
            are in one folder.
        seed: Random seed of this split.
        worker: (index of this machine, number of machines); each gets a part of both.

    Returns:
        (training images, validation images), for `data.batches` and `training.evaluate`.

    Raises:
        DataError: if the data does not exist or cannot be split.
    """
    folder = _folder_or_builder(data)
    if not isinstance(folder, Path):
        sources = datasets.tfds_sources(folder, validation_split=validation_split)
    elif (parts := part_folders(folder)) and any(map(_has_shards, parts.values())):
        if validation_split is not None:
            raise DataError(
                f"{folder} already has validation images. Remove validation_split. Received: "
                f"validation_split={validation_split}"
            )
        train, val = (shards_source(part, worker=worker) for part in parts.values())
        return train, val
    elif _has_shards(folder):
        raise DataError(
            f"{folder} has shards, but no train and val folders of shards. Write them with "
            "keras-resnet shards, from a folder that has train and val folders."
        )
    else:
        training, validation = split_images(folder, validation_split=validation_split, seed=seed)
        sources = training.source(), validation.source()
    return sources[0].part(*worker), sources[1].part(*worker, equal=False)


def evaluation_source(
    data: str | os.PathLike,
    *,
    validation_split: float | None = None,
    seed: int = 0,
    class_names: Sequence[str] | None = None,
) -> Source:
    """Finds the images to evaluate a network on.

    Args:
        data: As for `training_sources`; the validation part is used if there is one. Or a `.npz`
            file with the arrays x, uint8 (images, height, width, 3), y, class indices (images,),
            and optionally classes, the class names.
        validation_split: As for `training_sources`. By default, all images of a folder without
            parts are used.
        seed: As for `training_sources`.
        class_names: The classes of a table, some of which it may lack. Default: those that it has.

    Returns:
        The images, for `data.batches` and `training.evaluate`.

    Raises:
        DataError: if the data does not exist.
    """
    if Path(data).suffix == ".npz":
        return _arrays(Path(data))
    folder = _folder_or_builder(data)
    if not isinstance(folder, Path):
        return datasets.tfds_sources(folder, validation_split=validation_split)[1]
    if parts := part_folders(folder):
        folder = parts["val"]
    elif validation_split is not None:
        return split_images(folder, validation_split=validation_split, seed=seed)[1].source()
    if _has_shards(folder):
        return shards_source(folder)
    return list_labelled(folder, class_names=class_names).source()


def _folder_or_builder(data):
    """Returns the folder, or the builder of the data set with this name."""
    folder = Path(data)
    if folder.exists() or not TFDS_NAME.fullmatch(str(data)):
        return folder
    try:
        return datasets.tfds_builder(str(data))
    except DataError as error:
        raise DataError(
            f"There is no folder {folder} in {Path.cwd()}, and no data set of tensorflow-datasets "
            f"is called {str(data)!r}."
        ) from error


def _has_shards(folder):
    return folder.is_dir() and any(folder.glob("*.tfrecord"))


def _arrays(file) -> Source:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            x, y = arrays["x"], arrays["y"]
            classes = arrays["classes"] if "classes" in arrays else range(int(y.max(initial=0)) + 1)
            names = tuple(map(str, classes))
    except FileNotFoundError as error:
        raise DataError(
            f"The file {file} does not exist. The current folder is {Path.cwd()}."
        ) from error
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"{file} cannot be read: expected the arrays x and y. The error was: {error}"
        ) from error
    if x.dtype != np.uint8 or x.ndim != 4 or x.shape[3] != 3 or y.shape != x.shape[:1]:
        raise DataError(
            f"{file} should contain x, uint8 (images, height, width, 3), and y, integers "
            f"(images,). Received: x {x.dtype} {x.shape}, y {y.dtype} {y.shape}"
        )
    if y.dtype.kind not in "iu" or not len(y) or y.min() < 0 or y.max() >= len(names):
        raise DataError(
            f"y in {file} should be class indices from 0 to {len(names) - 1}. Received: {y.dtype} "
            f"{y[:10]}"
        )
    images, labels = tf.constant(x), tf.constant(y, tf.int64)

    def example(index):
        name = tf.strings.join([f"{file}/", tf.strings.as_string(index)])
        return name, tf.strings.as_string(index), labels[index]

    return Source(
        names,
        len(x),
        lambda key, start: (
            datasets.shuffled(tf.data.Dataset.range(len(x)), key)
            .skip(tf.cast(start, tf.int64))
            .map(example)
        ),
        # Losslessly encoded, as sources return encoded images.
        lambda item: tf.io.encode_png(images[tf.strings.to_number(item, tf.int64)]),
        lambda key: example(tf.random.stateless_uniform((), key, 0, len(x), tf.int64)),
        lambda name: "it cannot be decoded",
    )
