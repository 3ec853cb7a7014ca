"""Random color and geometric transforms: color jitter, and torchvision's policies."""

from typing import NamedTuple

import tensorflow as tf

from keras_resnet.data.augmentation import operations

GEOMETRY = {
    **{"shear_x": "shear", "shear_y": "shear", "translate_x": "shift", "translate_y": "shift"},
    "rotate": "angle",
}
ENHANCEMENTS = ("brightness", "saturation", "contrast", "sharpness")  # the identity is 1, not 0
SIGNED = (*GEOMETRY, *ENHANCEMENTS)  # operations with a direction
UNSIGNED = ("posterize", "solarize", "autocontrast", "equalize", "identity")
OPERATIONS = (*SIGNED, *UNSIGNED)


IDENTITY = OPERATIONS.index("identity")
CHAINS, DEPTH, SEVERITY = 3, 3, 3  # AugMix: chains, operations per chain, magnitudes


class Ranges(NamedTuple):
    """The ranges of a policy's operations.

    Args:
        bins: Number of magnitudes.
        shear: Maximum shear.
        shift: Maximum translation, in pixels, or below 1 as a fraction of the image's side.
        angle: Maximum rotation, in degrees.
        enhancement: Maximum change of an enhancement's factor.
        bits: Bits that "posterize" keeps at magnitude 0.
        lost: Maximum number of bits that it removes.
        interpolation: Interpolation of shears, translations and rotations.
    """

    bins: int
    shear: float
    shift: float
    angle: float
    enhancement: float
    bits: int
    lost: int
    interpolation: str = "nearest"


RAND = Ranges(31, 0.3, 150 / 331, 30.0, 0.9, 8, 4)
WIDE = Ranges(31, 0.99, 32.0, 135.0, 0.99, 8, 6)
AUGMIX = Ranges(10, 0.3, 1 / 3, 30.0, 0.9, 4, 4, "bilinear")


def apply(image, operation, level, sign, ranges):
    """Applies one operation of a policy.

    Args:
        image: uint8 tensor (height, width, 3).
        operation: Scalar int32 tensor: an index into OPERATIONS.
        level: Scalar int32 tensor: the magnitude, from 0.
        sign: Scalar float32 tensor, 1 or -1: the direction, for operations that have one.
        ranges: The policy's `Ranges`.

    Source: torchvision.transforms.RandAugment, TrivialAugmentWide and AugMix, their
    _augmentation_space.
    """
    share = tf.cast(level, tf.float32) / (ranges.bins - 1)

    def moved(name):
        largest = getattr(ranges, GEOMETRY[name])
        if GEOMETRY[name] == "shift" and largest < 1:
            largest *= tf.cast(tf.shape(image)[1 if name == "translate_x" else 0], tf.float32)
        function, amount = getattr(operations, name), sign * share * largest
        return lambda: function(image, amount, interpolation=ranges.interpolation)

    def enhanced(name):
        return lambda: getattr(operations, name)(image, 1 + sign * share * ranges.enhancement)

    lost = tf.cast(
        tf.round(tf.cast(level, tf.float32) / ((ranges.bins - 1) / ranges.lost)), "int32"
    )
    branches = [
        *map(moved, GEOMETRY),
        *map(enhanced, ENHANCEMENTS),
        lambda: operations.posterize(image, ranges.bits - lost),
        lambda: operations.solarize(image, 255 * (1 - share)),
        lambda: operations.autocontrast(image),
        lambda: operations.equalize(image),
        lambda: image,
    ]
    return tf.ensure_shape(tf.switch_case(operation, branches), image.shape)


def draw(key, number, high):
    """Draws an integer below `high`."""
    return tf.random.stateless_uniform((), tf.add(key, [0, number]), 0, high, tf.int32)


def draw_sign(key, number):
    """Draws 1 or -1."""
    return tf.cast(2 * draw(key, number, 2) - 1, tf.float32)


def rand_augment(image, key, operations_each=2, magnitude=9):
    """Applies RandAugment: random operations, all with the same magnitude.

    Args:
        image: uint8 tensor (height, width, 3).
        key: int64 tensor (2,), the random seed.
        operations_each: Number of operations, applied one after another.
        magnitude: 0 to 30.

    Source: https://arxiv.org/abs/1909.13719; torchvision.transforms.RandAugment.
    """
    for number in range(operations_each):
        operation = draw(key, 2 * number, len(OPERATIONS))
        sign = draw_sign(key, 2 * number + 1)
        image = apply(image, operation, tf.constant(magnitude), sign, RAND)
    return image


def trivial_augment_wide(image, key):
    """Applies TrivialAugmentWide: one random operation with a random magnitude.

    Source: https://arxiv.org/abs/2103.10158; torchvision.transforms.TrivialAugmentWide.
    """
    operation, level = draw(key, 0, len(OPERATIONS)), draw(key, 1, WIDE.bins)
    return apply(image, operation, level, draw_sign(key, 2), WIDE)


def augmix(image, key):
    """AugMix: mixes an image with three randomly augmented copies. Without the consistency loss.

    Args:
        image: uint8 tensor (height, width, 3).
        key: int64 tensor (2,): equal keys give equal results.

    Source: https://arxiv.org/abs/1912.02781; torchvision.transforms.AugMix.
    """
    share, weights, depths, operations, levels, signs = augmix_draws(key)
    mixed = (1 - share) * tf.cast(image, tf.float32)
    for chain in range(CHAINS):
        changed = image
        for place in range(DEPTH):
            operation = tf.where(place < depths[chain], operations[chain, place], IDENTITY)
            level, sign = levels[chain, place], signs[chain, place]
            changed = apply(changed, operation, level, sign, AUGMIX)
        mixed += share * weights[chain] * tf.cast(changed, tf.float32)
    return tf.cast(tf.clip_by_value(mixed, 0.0, 255.0), tf.uint8)


def augmix_draws(key):
    """Draws the random numbers of `augmix`.

    Returns:
        The share of the augmented copies in the result, float32 (); the weight of each of them,
        float32 (chains,); their numbers of operations, int32 (chains,); and the index, magnitude
        and direction of each operation, (chains, length).
    """
    keys = tf.unstack(tf.random.split(key, 6))
    shape = (CHAINS, DEPTH)
    share = tf.random.stateless_uniform((), keys[0])  # Beta(1, 1)
    weights = -tf.math.log(1 - tf.random.stateless_uniform((CHAINS,), keys[1]))  # Dirichlet(1, ..)
    weights /= tf.reduce_sum(weights)

    def whole(key, shape, low, high):
        return tf.random.stateless_uniform(shape, key, low, high, tf.int32)

    depths = whole(keys[2], (CHAINS,), 1, DEPTH + 1)
    signs = tf.cast(2 * whole(keys[5], shape, 0, 2) - 1, tf.float32)
    return (
        *(share, weights, depths),
        *(whole(keys[3], shape, 0, IDENTITY), whole(keys[4], shape, 0, SEVERITY), signs),
    )


def color_jitter(image, key, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0):
    """Changes brightness, contrast, saturation and hue at random, in random order.

    Args:
        image: uint8 tensor (height, width, 3).
        key: int64 tensor (2,), the random seed.
        brightness: The factor is uniform in [1 - brightness, 1 + brightness], but not below 0.
        contrast: Likewise.
        saturation: Likewise.
        hue: The shift is uniform in [-hue, hue], at most 0.5 of the color circle.

    Source: torchvision.transforms.ColorJitter.
    """
    strengths = (brightness, contrast, saturation)

    def factor(number, strength):
        low, high = max(0.0, 1 - strength), 1 + strength
        return tf.random.stateless_uniform((), tf.add(key, [0, number]), low, high)

    def change(image, number):
        shift = tf.random.stateless_uniform((), tf.add(key, [0, 3]), -hue, hue)
        names = ("brightness", "contrast", "saturation")
        branches = [
            lambda index=index, name=name: (
                getattr(operations, name)(image, factor(index, strengths[index]))
                if strengths[index]
                else image
            )
            for index, name in enumerate(names)
        ]
        return tf.switch_case(
            number, [*branches, lambda: operations.hue(image, shift) if hue else image]
        )

    order = tf.argsort(tf.random.stateless_uniform((4,), tf.add(key, [0, 4])))
    for place in range(4):
        image = tf.ensure_shape(change(image, order[place]), image.shape)
    return image
