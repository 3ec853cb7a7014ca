"""Random color and geometric transforms: color jitter, RandAugment, TrivialAugmentWide."""

import tensorflow as tf

from keras_resnet.data.augmentation import operations

BINS = 31  # number of magnitudes, as in torchvision
TRANSLATED = 150 / 331  # RandAugment's maximum translation, as a fraction of the image's side
# Operations with a direction: their maxima in RandAugment and in TrivialAugmentWide.
SIGNED = {
    "shear_x": (0.3, 0.99),
    "shear_y": (0.3, 0.99),
    "translate_x": (None, 32.0),
    "translate_y": (None, 32.0),
    "rotate": (30.0, 135.0),
    "brightness": (0.9, 0.99),
    "saturation": (0.9, 0.99),
    "contrast": (0.9, 0.99),
    "sharpness": (0.9, 0.99),
}
ENHANCEMENTS = ("brightness", "saturation", "contrast", "sharpness")  # the identity is 1, not 0
UNSIGNED = ("posterize", "solarize", "autocontrast", "equalize", "identity")
OPERATIONS = (*SIGNED, *UNSIGNED)


def apply(image, operation, level, sign, *, wide):
    """Applies one operation of the two policies.

    Args:
        image: uint8 tensor (height, width, 3).
        operation: Scalar int32 tensor: an index into OPERATIONS.
        level: Scalar int32 tensor: the magnitude, 0 to 30.
        sign: Scalar float32 tensor, 1 or -1: the direction, for operations that have one.
        wide: True for the ranges of TrivialAugmentWide, False for those of RandAugment.

    Source: torchvision.transforms.RandAugment and TrivialAugmentWide, their _augmentation_space.
    """
    share = tf.cast(level, tf.float32) / (BINS - 1)

    def signed(name):
        function, largest = getattr(operations, name), SIGNED[name][wide]
        if largest is None:
            axis = 1 if name == "translate_x" else 0
            largest = TRANSLATED * tf.cast(tf.shape(image)[axis], tf.float32)
        amount = sign * share * largest
        return lambda: function(image, 1 + amount if name in ENHANCEMENTS else amount)

    lost_bits = tf.cast(
        tf.round(tf.cast(level, tf.float32) / ((BINS - 1) / (6 if wide else 4))), "int32"
    )
    branches = [
        *map(signed, SIGNED),
        lambda: operations.posterize(image, 8 - lost_bits),
        lambda: operations.solarize(image, 255 * (1 - share)),
        lambda: operations.autocontrast(image),
        lambda: operations.equalize(image),
        lambda: image,
    ]
    return tf.ensure_shape(tf.switch_case(operation, branches), image.shape)


def _draw(key, number, high):
    return tf.random.stateless_uniform((), tf.add(key, [0, number]), 0, high, tf.int32)


def _sign(key, number):
    return tf.cast(2 * _draw(key, number, 2) - 1, tf.float32)


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
        operation = _draw(key, 2 * number, len(OPERATIONS))
        sign = _sign(key, 2 * number + 1)
        image = apply(image, operation, tf.constant(magnitude), sign, wide=False)
    return image


def trivial_augment_wide(image, key):
    """Applies TrivialAugmentWide: one random operation with a random magnitude.

    Source: https://arxiv.org/abs/2103.10158; torchvision.transforms.TrivialAugmentWide.
    """
    operation, level = _draw(key, 0, len(OPERATIONS)), _draw(key, 1, BINS)
    return apply(image, operation, level, _sign(key, 2), wide=True)


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
