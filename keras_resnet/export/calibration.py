"""Calibration data for quantization: images to measure the ranges of activations on."""

import logging
import os
import random
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_resnet.data.images import SUFFIXES
from keras_resnet.export.network import laid_out, transform
from keras_resnet.preprocessing import Preprocessing

logger = logging.getLogger("keras_resnet")

NUMBER = 200
# With this many images or more, a fifth is held out to compare the file with the model. With fewer,
# all are used, and a warning is logged.
FEW = 50


def calibration_images(
    model: keras.Model,
    directory: str | os.PathLike[str],
    preprocessing: Preprocessing,
    *,
    number: int = NUMBER,
    pixels: bool = False,
) -> np.ndarray:
    """Loads a random but reproducible choice of images from a folder, preprocessed for a network.

    Args:
        model: The network; it determines the normalisation and the data format.
        directory: The folder; subfolders are included.
        preprocessing: The evaluation transform.
        number: Maximum number of images. Unreadable ones are skipped.
        pixels: Whether to return pixel values, not normalised, for `with_preprocessing`.

    Returns:
        float32 (number, height, width, 3), or uint8 with `pixels`; channels first if the model is.

    Raises:
        ValueError: if the folder does not exist or has no readable images.
    """
    if not Path(directory).is_dir():
        raise ValueError(f"The folder {directory} does not exist. Pass a folder of images.")
    files = sorted(
        file
        for file in Path(directory).rglob("*")
        if file.name.lower().endswith(SUFFIXES) and file.is_file()
    )
    random.Random(0).shuffle(files)  # noqa: S311 (not for cryptography)
    prepare = preprocessing.pixels if pixels else transform(model, preprocessing)
    images: list[Any] = []
    for file in files:
        try:
            images.append(prepare(file.read_bytes()))
        except tf.errors.InvalidArgumentError:
            continue
        if len(images) == number:
            break
    if not images:
        raise ValueError(
            f"{directory} has no images ({', '.join(SUFFIXES)}) that can be decoded, which int8 "
            "calibration needs. Pass a folder of images like those that the network will see."
        )
    return np.asarray(laid_out(model, np.stack(images).astype("uint8" if pixels else "float32")))


def split(data: Any, images: Any) -> tuple[np.ndarray, np.ndarray]:
    """Validates calibration data; returns the images for calibration and the held-out ones.

    Raises:
        ValueError: if they are not inputs of the network.
    """
    shape, dtype = tuple(images.shape[1:]), np.dtype(images.dtype)
    received = "none"
    if data is not None:
        data = np.asarray(data)
        received = f"an array of {data.dtype}, {data.shape}"
    if data is None or data.dtype.kind != dtype.kind or not _fits(data.shape, shape):
        raise ValueError(
            "quantize='int8' measures the range of each activation on calibration_data: an array "
            f"of inputs of the exported network,  {dtype}, of shape (number, "
            f"{', '.join(map(str, shape))}). Received: {received}"
        )
    if not np.isfinite(data).all() or (data == data[:1, :1, :1]).all():
        raise ValueError(
            "calibration_data should be images like those that the network will see. Received: "
            "constant images, or values that are NaN or infinite"
        )
    data = data.astype(dtype)
    if len(data) < FEW:
        logger.warning(
            "Only %d calibration images: use a hundred or more, like those that the network will "
            "see, for better accuracy.",
            len(data),
        )
        return data, data
    held_back = np.arange(len(data)) % 5 == 4
    return data[~held_back], data[held_back]


def _fits(given, shape):
    """Whether a shape matches that of the images, where None matches any size."""
    if len(given) != 4 or not given[0]:
        return False
    return all(side in (None, other) for side, other in zip(shape, given[1:], strict=True))
