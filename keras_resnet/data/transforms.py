"""What training does to an image at random, each draw fixed by a seed."""

import math

import tensorflow as tf

from keras_resnet.preprocessing import decode, image_size, resample

ATTEMPTS = 10  # torchvision's: then it falls back to the largest window in the middle


def random_resized_crop(image_bytes, size, seed, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3)):
    """Decodes a random window of an image and resizes it to a square.

    Args:
        image_bytes: Scalar string tensor: an encoded image.
        size: Side of the result, in pixels.
        seed: int tensor (2,): equal seeds give equal windows.
        scale: Range of the window's share of the image's area.
        ratio: Range of the window's width over its height; its logarithm is uniform.

    Returns:
        float32 tensor (size, size, 3), whole numbers 0..255.

    Source: torchvision.transforms.RandomResizedCrop (Szegedy et al.,
    https://arxiv.org/abs/1409.4842, section 6).
    """
    window = random_window(image_size(image_bytes), seed, scale, ratio)
    return resample(decode(image_bytes, window), (size, size), (0, 0), size)


def random_window(height_width, seed, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3)):
    """(top, left, height, width) of a random window; int32, arguments as random_resized_crop."""
    height, width = tf.unstack(tf.cast(height_width, tf.float32))
    seeds = tf.random.split(seed, 4)

    def draw(index, shape, low, high):
        return tf.random.stateless_uniform(shape, seeds[index], low, high)

    areas = height * width * draw(0, (ATTEMPTS,), *scale)
    ratios = tf.exp(draw(1, (ATTEMPTS,), *(math.log(value) for value in ratio)))
    widths, heights = tf.round(tf.sqrt(areas * ratios)), tf.round(tf.sqrt(areas / ratios))
    fits = (widths >= 1) & (widths <= width) & (heights >= 1) & (heights <= height)

    def first_fit():
        first = tf.argmax(tf.cast(fits, tf.int32))
        h, w = heights[first], widths[first]
        top = tf.floor(draw(2, (), 0.0, 1.0) * (height - h + 1))
        left = tf.floor(draw(3, (), 0.0, 1.0) * (width - w + 1))
        return tf.stack([top, left, h, w])

    def middle():
        h = tf.minimum(height, tf.round(width / ratio[0]))
        w = tf.minimum(width, tf.round(height * ratio[1]))
        return tf.stack([(height - h) // 2, (width - w) // 2, h, w])

    return tf.cast(tf.cond(tf.reduce_any(fits), first_fit, middle), tf.int32)


def random_flip(image, seed):
    """Mirrors an image left to right, or not; `seed` is an int tensor (2,)."""
    return tf.cond(
        tf.random.stateless_uniform((), seed) < 0.5, lambda: tf.reverse(image, [1]), lambda: image
    )
