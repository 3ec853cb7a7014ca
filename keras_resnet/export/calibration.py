"""Images that stand for those that a quantised network will see."""

import random
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_resnet.data.images import SUFFIXES
from keras_resnet.export.network import laid_out, transform

NUMBER = 200


def representative_images(
    model, directory, preprocessing, *, number=NUMBER, pixels=False
) -> np.ndarray:
    """Images of a folder, as a network takes them: a random choice, the same each time.

    Args:
        model: The network, which says whether it normalises, and what its axes are.
        directory: The folder; its subfolders are searched too.
        preprocessing: The evaluation transform.
        number: How many images at most. Those that cannot be decoded are left out.
        pixels: Whether to leave out the normalisation, for `with_preprocessing`.

    Returns:
        float32 (number, crop, crop, 3), or with `pixels` uint8; channels first as the model.

    Raises:
        ValueError: if there is no such folder, or no image in it.
    """
    if not Path(directory).is_dir():
        raise ValueError(f"There is no folder {directory}. Pass one of images.")
    files = sorted(
        file
        for file in Path(directory).rglob("*")
        if file.name.lower().endswith(SUFFIXES) and file.is_file()
    )
    random.Random(0).shuffle(files)  # noqa: S311 (no secret)
    prepare = preprocessing.pixels if pixels else transform(model, preprocessing)
    images = []
    for file in files:
        try:
            images.append(prepare(file.read_bytes()))
        except tf.errors.InvalidArgumentError:
            continue
        if len(images) == number:
            break
    if not images:
        raise ValueError(
            f"{directory} has no images ({', '.join(SUFFIXES)}) that can be decoded, to measure "
            "the range of the activations on. Pass a folder of such as the network will see."
        )
    return np.asarray(laid_out(model, np.stack(images).astype("uint8" if pixels else "float32")))
