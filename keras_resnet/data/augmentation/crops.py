"""Random crops, flips and erasing; the same key gives the same result."""

import math

import numpy as np
import tensorflow as tf

from keras_resnet.decoding import decode, decode_window
from keras_resnet.preprocessing import pair, resample

ATTEMPTS = 10  # as torchvision, before the fallback to a centre crop
ERASED_SCALE, ERASED_RATIO = (0.02, 0.33), (0.3, 3.3)  # of random erasing, as in torchvision


def random_resized_crop(
    image_bytes,
    size,
    key,
    scale=(0.08, 1.0),
    ratio=(3 / 4, 4 / 3),
    *,
    exif=False,
    interpolation="bilinear",
):
    """Decodes a random window of an image and resizes it.

    Args:
        image_bytes: Scalar string tensor: an encoded image.
        size: Side of the result, in pixels, or (height, width).
        key: int64 tensor (2,): the random seed.
        scale: Range of the window's area, as a fraction of the image's.
        ratio: Range of the window's aspect ratio, width / height; its logarithm is uniform.
        exif: Whether to apply the EXIF orientation of JPEGs.
        interpolation: "bilinear" or "bicubic".

    Returns:
        uint8 tensor (height, width, 3).

    Source: torchvision.transforms.RandomResizedCrop (Szegedy et al.,
    https://arxiv.org/abs/1409.4842, section 6).
    """
    pixels, _, _ = decode_window(
        image_bytes,
        lambda height_width: random_window(height_width, key, scale, ratio),
        exif=exif,
        target=max(pair(size)),
    )
    sides, found = pair(size), tf.shape(pixels)[:2]
    return resample(pixels, sides, size=found, resized=sides, interpolation=interpolation)


def random_window(height_width, key, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3)):
    """Returns (top, left, height, width) of a random window, int32; see random_resized_crop."""
    sides = tf.cast(height_width, tf.float32)
    fits, windows = _draw_sides(sides, key, scale, ratio)
    height, width = tf.unstack(sides)
    middle = tf.minimum(sides, tf.round(tf.stack([width / ratio[0], height * ratio[1]])))
    found = tf.reduce_any(fits)
    window = tf.where(found, windows[tf.argmax(tf.cast(fits, tf.int32))], middle)
    spare = sides - window
    random_corner = tf.floor(_uniform((2,), key, 2) * (spare + 1))
    corner = tf.where(found, tf.minimum(random_corner, spare), tf.floor(spare / 2))
    return tf.cast(tf.concat([corner, window], 0), tf.int32)


def _uniform(shape, key, number, low=0.0, high=1.0):
    return tf.random.stateless_uniform(shape, tf.add(key, [0, number]), low, high)


def _draw_sides(sides, key, scale, ratio):
    """Draws ten windows' (height, width), float32 (10, 2); also returns which of them fit."""
    areas = tf.reduce_prod(sides) * _uniform((ATTEMPTS,), key, 0, *scale)
    ratios = tf.exp(_uniform((ATTEMPTS,), key, 1, *map(math.log, ratio)))
    windows = tf.round(tf.sqrt(tf.stack([areas / ratios, areas * ratios], 1)))
    return tf.reduce_all((windows >= 1) & (windows <= sides), 1), windows


def random_padded_crop(image_bytes, size, key, padding, *, exif=False):
    """Pads an image with black pixels and crops it at random.

    Args:
        image_bytes: As for random_resized_crop.
        size: As for random_resized_crop.
        key: As for random_resized_crop.
        exif: As for random_resized_crop.
        padding: Number of black pixels on each side; more if the image is smaller than `size`.

    Source: He et al., https://arxiv.org/abs/1512.03385, section 4.2.
    """
    image = decode(image_bytes, exif=exif)
    height, width = pair(size)
    missing = tf.maximum((height, width) - tf.shape(image)[:2] - 2 * padding, 0)
    pads = padding + tf.stack([missing // 2, (missing + 1) // 2], 1)
    image = tf.pad(image, tf.concat([pads, tf.zeros((1, 2), tf.int32)], 0))
    spare = tf.shape(image)[:2] - (height, width)
    corner = tf.cast(_uniform((2,), key, 0) * tf.cast(spare + 1, tf.float32), tf.int32)
    top, left = tf.unstack(tf.minimum(corner, spare))
    return tf.ensure_shape(image[top : top + height, left : left + width], (height, width, 3))


def random_flip(image, key, share=0.5):
    """Flips an image horizontally with a probability of `share`."""
    chosen = _uniform((), key, 0) < share
    return tf.cond(chosen, lambda: tf.reverse(image, [1]), lambda: image)


def random_erasure(size, key, share):
    """Draws a rectangle to erase, (top, left, height, width), int32; all 0 for none.

    Args:
        size: Side of the image, in pixels, or (height, width).
        key: As for random_resized_crop.
        share: Probability of a rectangle, 0 to 1.

    Source: torchvision.transforms.RandomErasing (https://arxiv.org/abs/1708.04896).
    """
    sides = tf.constant(pair(size), tf.float32)
    fits, windows = _draw_sides(sides, key, ERASED_SCALE, ERASED_RATIO)
    fits &= tf.reduce_all(windows < sides, 1)
    window = windows[tf.argmax(tf.cast(fits, tf.int32))]
    corner = tf.minimum(tf.floor(_uniform((2,), key, 2) * (sides - window + 1)), sides - window)
    chosen = tf.reduce_any(fits) & (_uniform((), key, 3) < share)
    return tf.cast(tf.where(chosen, tf.concat([corner, window], 0), 0.0), tf.int32)


def erase(images, erasures, ops=tf):
    """Sets a rectangle of each image in a batch to 0, the mean of normalised images.

    Args:
        images: float32 (batch, height, width, channels).
        erasures: int32 (batch, 4), from `random_erasure`.
        ops: `tf`, or `keras.ops` inside a step of Keras' backend.
    """
    corner, sides = ops.cast(erasures[:, :2], "float32"), ops.cast(erasures[:, 2:], "float32")
    return ops.where(inside(images.shape[1:3], corner, corner + sides, ops), 0.0, images)


def inside(sides, low, high, ops=tf):
    """Returns a mask of the pixels inside each image's box, bool (batch, height, width, 1).

    Args:
        sides: The images' height and width.
        low: (top, left) of each box in pixels, float32 (batch, 2).
        high: (bottom, right), exclusive.
        ops: As for `erase`.
    """
    rows, columns = (
        (low[:, axis, None] <= places) & (places < high[:, axis, None])
        for axis, places in enumerate(ops.cast(np.arange(side), "float32") for side in sides)
    )
    return rows[:, :, None, None] & columns[:, None, :, None]
