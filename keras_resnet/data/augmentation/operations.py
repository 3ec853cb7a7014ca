"""PIL's image operations in TensorFlow, on uint8 (height, width, 3).

Keras' own layers differ from PIL in their pixels, and their random state depends on the order of
calls.
"""

import math

import tensorflow as tf


def _float(image):
    return tf.cast(image, tf.float32)


def _blend(degenerate, image, factor):
    """Interpolates from `degenerate` (factor 0) to `image` (1); truncates as PIL does."""
    low, high = _float(degenerate), _float(image)
    return tf.cast(tf.clip_by_value(low + factor * (high - low), 0.0, 255.0), tf.uint8)


def grey(image):
    """Converts to luminance by ITU-R 601-2, uint8 (height, width, 1)."""
    weighted = tf.cast(image, tf.int32) * tf.constant([19595, 38470, 7471])
    return tf.cast((tf.reduce_sum(weighted, -1, keepdims=True) + 0x8000) // 65536, tf.uint8)


def brightness(image, factor):
    """Changes the brightness: 0 is black, 1 unchanged, more is brighter."""
    return _blend(tf.zeros_like(image), image, factor)


def saturation(image, factor):
    """Changes the saturation: 0 is grey, 1 unchanged (PIL's ImageEnhance.Color)."""
    return _blend(grey(image), image, factor)


def contrast(image, factor):
    """Changes the contrast: 0 is the mean luminance, 1 unchanged, more has more contrast."""
    mean = tf.floor(tf.reduce_mean(_float(grey(image))) + 0.5)
    return _blend(mean, image, factor)


def sharpness(image, factor):
    """Changes the sharpness: 0 is smoothed, 1 unchanged; border pixels do not change."""
    kernel = tf.constant([[1.0, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13
    kernel = tf.tile(kernel[:, :, tf.newaxis, tf.newaxis], (1, 1, 3, 1))
    smooth = tf.nn.depthwise_conv2d(_float(image)[tf.newaxis], kernel, (1, 1, 1, 1), "VALID")[0]
    smooth = tf.cast(tf.clip_by_value(smooth + 0.5, 0.0, 255.0), tf.uint8)
    inner = tf.pad(tf.ones_like(smooth, tf.bool), [[1, 1], [1, 1], [0, 0]])
    smooth = tf.where(inner, tf.pad(smooth, [[1, 1], [1, 1], [0, 0]]), image)
    return _blend(smooth, image, factor)


def hue(image, shift):
    """Rotates the hue by `shift`, -0.5 to 0.5 of the color circle."""
    turned = tf.image.adjust_hue(_float(image) / 255, shift)
    return tf.cast(tf.clip_by_value(turned * 255 + 0.5, 0.0, 255.0), tf.uint8)


def posterize(image, bits):
    """Keeps the high `bits` of each value, 1 to 8."""
    mask = 256 - 2 ** (8 - tf.cast(bits, tf.int32))
    return tf.bitwise.bitwise_and(image, tf.cast(mask, tf.uint8))


def solarize(image, threshold):
    """Inverts the values that are not below `threshold`."""
    return tf.where(_float(image) < tf.cast(threshold, tf.float32), image, 255 - image)


def autocontrast(image):
    """Stretches each channel to 0..255."""
    values = tf.cast(image, tf.float64)
    low = tf.reduce_min(values, (0, 1))
    high = tf.reduce_max(values, (0, 1))
    scale = 255 / tf.maximum(high - low, 1)
    stretched = tf.clip_by_value(values * scale - low * scale, 0, 255)
    return tf.where(high > low, tf.cast(stretched, tf.uint8), image)


def equalize(image):
    """Makes each channel's values about equally frequent."""

    def channel(values):
        histogram = tf.math.bincount(tf.cast(values, tf.int32), minlength=256, maxlength=256)
        last = histogram[tf.reduce_max(tf.cast(values, tf.int32))]
        step = (tf.reduce_sum(histogram) - last) // 255
        before = tf.cumsum(histogram, exclusive=True)
        table = tf.minimum((step // 2 + before) // tf.maximum(step, 1), 255)
        table = tf.where(step > 0, table, tf.range(256))
        return tf.gather(tf.cast(table, tf.uint8), tf.cast(values, tf.int32))

    return tf.stack(
        [
            tf.reshape(channel(tf.reshape(image[..., index], [-1])), tf.shape(image)[:2])
            for index in range(3)
        ],
        -1,
    )


def invert(image):
    """Inverts the image: 255 minus each value."""
    return 255 - image


def solarize_add(image, amount):
    """Adds `amount` to the values below 128, up to 255."""
    added = tf.minimum(tf.cast(image, tf.int32) + amount, 255)
    return tf.where(image < 128, tf.cast(added, tf.uint8), image)


def affine(image, matrix, *, interpolation="nearest", fill=(0, 0, 0)):
    """Applies an affine transform.

    Args:
        image: The image.
        matrix: (a, b, c, d, e, f): output pixel (x, y) is input pixel (ax + by + c, dx + ey + f),
            where the centre of the first pixel is (0.5, 0.5), as in PIL.
        interpolation: "nearest", "bilinear" or "bicubic".
        fill: RGB color outside the image, 0 to 255; always black with "nearest".
    """
    if interpolation != "nearest":
        return _interpolated(image, matrix, KERNELS[interpolation], fill)
    a, b, c, d, e, f = (tf.cast(number, tf.float32) for number in matrix)
    # In TensorFlow, the centre of the first pixel is (0, 0).
    c, f = c + (a + b - 1) / 2, f + (d + e - 1) / 2
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=image[tf.newaxis],
        transforms=tf.stack([a, b, c, d, e, f, 0.0, 0.0])[tf.newaxis],
        output_shape=tf.shape(image)[:2],
        fill_value=0.0,
        interpolation="NEAREST",
        fill_mode="CONSTANT",
    )[0]


def _bilinear(part):
    return 1 - part, part


def _bicubic(part):
    """The kernel of PIL's Image.transform, which differs from that of Image.resize."""
    square, cube = part**2, part**3
    return (
        2 * square - part - cube,
        1 - 2 * square + cube,
        part + square - cube,
        cube - square,
    )


# Weights of the neighboring pixels, from the distance to the previous one, 0 to 1.
KERNELS = {"bilinear": _bilinear, "bicubic": _bicubic}


def _interpolated(image, matrix, kernel, fill):
    """`affine` with interpolation, as in PIL's Geometry.c: pixels repeat at the edges."""
    height, width = tf.unstack(tf.shape(image)[:2])
    a, b, c, d, e, f = (tf.cast(number, tf.float64) for number in matrix)
    x = tf.cast(tf.range(width), tf.float64)[tf.newaxis, :] + 0.5
    y = tf.cast(tf.range(height), tf.float64)[:, tf.newaxis] + 0.5

    def around(place, count):
        """Returns indices of the neighbors, int32 (height, width, taps), weights, and a mask."""
        before = tf.floor(place - 0.5)
        weights = tf.stack(kernel(tf.cast(place - 0.5 - before, tf.float32)), -1)
        taps = weights.shape[-1]
        pixels = tf.cast(before, tf.int32)[..., tf.newaxis] + tf.range(taps) + 1 - taps // 2
        inside = (place >= 0) & (place < tf.cast(count, tf.float64))
        return tf.clip_by_value(pixels, 0, count - 1), weights, inside

    columns, of_columns, in_width = around(a * x + b * y + c, width)
    rows, of_rows, in_height = around(d * x + e * y + f, height)
    places = rows[..., tf.newaxis] * width + columns[..., tf.newaxis, :]
    values = tf.gather(tf.reshape(_float(image), (-1, 3)), places)
    values = tf.reduce_sum(values * of_columns[..., tf.newaxis, :, tf.newaxis], 3)
    values = tf.reduce_sum(values * of_rows[..., tf.newaxis], 2)
    # PIL truncates, and a sum of weights may be slightly below 1.
    values = tf.cast(tf.clip_by_value(values + 1e-3, 0.0, 255.0), tf.uint8)
    return tf.where((in_width & in_height)[..., tf.newaxis], values, tf.constant(fill, tf.uint8))


def shear_x(image, amount, **sampling):
    """Shears horizontally: shifts each row by `amount` times its y, to the left if positive."""
    return affine(image, (1, amount, 0, 0, 1, 0), **sampling)


def shear_y(image, amount, **sampling):
    """Shears vertically: shifts each column by `amount` times its x, upwards if positive."""
    return affine(image, (1, 0, 0, amount, 1, 0), **sampling)


def translate_x(image, pixels, **sampling):
    """Shifts the image to the right by whole pixels."""
    return affine(image, (1, 0, -_whole(pixels), 0, 1, 0), **sampling)


def translate_y(image, pixels, **sampling):
    """Shifts the image down by whole pixels."""
    return affine(image, (1, 0, 0, 0, 1, -_whole(pixels)), **sampling)


def _whole(number):
    return tf.sign(number) * tf.floor(tf.abs(number))


def rotate(image, degrees, **sampling):
    """Rotates counter-clockwise around the centre."""
    angle = -degrees * math.pi / 180
    cosine, sine = tf.cos(angle), tf.sin(angle)
    height, width = tf.unstack(tf.cast(tf.shape(image)[:2], tf.float32) / 2)
    left = width - cosine * width - sine * height
    top = height + sine * width - cosine * height
    return affine(image, (cosine, sine, left, -sine, cosine, top), **sampling)
