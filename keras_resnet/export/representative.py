"""Images that stand for those that a quantised network will see."""

import random
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_resnet.data.image_folder import SUFFIXES

NUMBER = 200


def representative_images(directory, preprocessing, *, number=NUMBER, pixels=False) -> np.ndarray:
    """Images of a folder, as a network takes them: an even choice, the same each time.

    Args:
        directory: The folder; its subfolders are searched too.
        preprocessing: The evaluation transform.
        number: How many images at most. Those that cannot be decoded are left out.
        pixels: Whether to leave out the normalisation.

    Returns:
        float32 (number, crop, crop, 3), or with `pixels` uint8.

    Raises:
        ValueError: if there is no image.
    """
    files = sorted(
        file for file in Path(directory).rglob("*") if file.name.lower().endswith(SUFFIXES)
    )
    random.Random(0).shuffle(files)  # noqa: S311 (no secret)
    images = []
    for file in files:
        try:
            images.append((preprocessing.pixels if pixels else preprocessing)(file.read_bytes()))
        except tf.errors.InvalidArgumentError:
            continue
        if len(images) == number:
            break
    if not images:
        raise ValueError(
            f"{directory} has no images ({', '.join(SUFFIXES)}) that can be decoded, to measure "
            "the range of the activations on. Pass a folder of such as the network will see."
        )
    return np.stack(images)
