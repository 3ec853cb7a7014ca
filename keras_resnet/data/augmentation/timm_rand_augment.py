"""RandAugment as in timm, with timm's configuration strings: "rand-m7-mstd0.5-inc1"."""

import re
from typing import NamedTuple

import tensorflow as tf

from keras_resnet.data.augmentation import operations
from keras_resnet.data.augmentation.policies import ENHANCEMENTS, draw, draw_sign

HIGHEST = 10.0  # maximum magnitude
HAPPENS = 0.5  # probability of each selected operation
SHEAR, SHIFT, ANGLE, ENHANCEMENT = 0.3, 0.45, 30.0, 0.9  # maxima; of translations, as a fraction
PLAIN = ("autocontrast", "equalize", "invert")
GEOMETRY = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
OPERATIONS = (*PLAIN, "posterize", "solarize", "solarize_add", *ENHANCEMENTS, *GEOMETRY)


class Policy(NamedTuple):
    """A configuration of RandAugment.

    Args:
        magnitude: Mean magnitude, 0 to 10.
        deviation: Standard deviation of the magnitude.
        operations: Number of operations for each image.
    """

    magnitude: float
    deviation: float = 0.0
    operations: int = 2


def parsed(name) -> Policy | None:
    """Parses a string like "rand-m7-mstd0.5-inc1"; returns None for anything else.

    m is the magnitude, mstd its standard deviation and n the number of operations, 2 by default.
    inc1 is required: the other scale, with less effect at higher magnitudes, is not supported.
    """
    first, *parts = str(name).split("-")
    found = [re.fullmatch(r"(mstd|m|n|inc)(\d{1,2}(?:\.\d{1,3})?)", part) for part in parts]
    values = {match[1]: float(match[2]) for match in found if match}
    whole = all(value.is_integer() for key, value in values.items() if key != "mstd")
    if first != "rand" or len(values) < len(parts) or not whole or values.get("inc") != 1:
        return None
    policy = Policy(values.get("m", HIGHEST), values.get("mstd", 0.0), int(values.get("n", 2)))
    return policy if policy.magnitude <= HIGHEST and policy.operations > 0 else None


def rand_augment(image, key, policy, *, interpolation, fill):
    """Applies random operations, each with a random magnitude.

    Args:
        image: uint8 tensor (height, width, 3).
        key: int64 tensor (2,): equal keys give equal results.
        policy: A `Policy`.
        interpolation: "bilinear" or "bicubic", for shears, translations and rotations.
        fill: RGB color outside the image, 0 to 255.

    Source: timm.data.auto_augment.rand_augment_transform (https://arxiv.org/abs/1909.13719).
    """
    for number in range(policy.operations):
        at = tf.add(key, [0, 4 * number])
        drawn = (
            draw(at, 0, len(OPERATIONS)),
            draw_level(tf.add(at, [0, 1]), policy),
            draw_sign(at, 2),
        )
        image = tf.cond(
            tf.random.stateless_uniform((), tf.add(at, [0, 3])) < HAPPENS,
            lambda image=image, drawn=drawn: apply(
                image, *drawn, interpolation=interpolation, fill=fill
            ),
            lambda image=image: image,
        )
    return image


def draw_level(key, policy):
    """Draws a magnitude, 0 to 10, from a normal distribution."""
    level = policy.magnitude + policy.deviation * tf.random.stateless_normal((), key)
    return tf.clip_by_value(level, 0.0, HIGHEST)


def apply(image, operation, level, sign, *, interpolation, fill):
    """Applies one operation.

    Args:
        image: As for `rand_augment`.
        operation: Scalar int32 tensor: an index into OPERATIONS.
        level: Scalar float32 tensor: the magnitude, 0 to 10.
        sign: Scalar float32 tensor, 1 or -1: the direction, for operations that have one.
        interpolation: As for `rand_augment`.
        fill: As for `rand_augment`.
    """
    share = level / HIGHEST
    height, width = tf.unstack(tf.cast(tf.shape(image)[:2], tf.float32))
    x, y = sign * share * SHIFT * width, sign * share * SHIFT * height
    matrices = {  # translations can be fractions of pixels
        "shear_x": (1, sign * share * SHEAR, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, sign * share * SHEAR, 1, 0),
        "translate_x": (1, 0, x, 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, y),
    }
    sampling = {"interpolation": interpolation, "fill": fill}

    def steps(count):
        return tf.cast(tf.floor(share * count), tf.int32)

    def enhanced(name):
        factor = tf.maximum(1 + sign * share * ENHANCEMENT, 0.1)
        return lambda: getattr(operations, name)(image, factor)

    branches = [
        *(lambda name=name: getattr(operations, name)(image) for name in PLAIN),
        lambda: operations.posterize(image, 4 - steps(4)),
        lambda: operations.solarize(image, 256 - steps(256)),
        lambda: operations.solarize_add(image, steps(110)),
        *map(enhanced, ENHANCEMENTS),
        lambda: operations.rotate(image, sign * share * ANGLE, **sampling),
        *(
            lambda matrix=matrix: operations.affine(image, matrix, **sampling)
            for matrix in matrices.values()
        ),
    ]
    return tf.ensure_shape(tf.switch_case(operation, branches), image.shape)
