"""Image operations compared with PIL, which torchvision's policies call."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

from keras_resnet.data.augmentation import operations, policies


def pictures():
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (9, 12, 3), np.uint8))
    yield small.resize((48, 37), Image.Resampling.BICUBIC)
    yield Image.fromarray(rng.integers(90, 140, (20, 31, 3), np.uint8))
    yield Image.new("RGB", (16, 16), (10, 200, 77))


def sheared(image, matrix):
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST)


ENHANCERS = {
    "brightness": ImageEnhance.Brightness,
    "saturation": ImageEnhance.Color,
    "contrast": ImageEnhance.Contrast,
    "sharpness": ImageEnhance.Sharpness,
}
SHEARS = (0.31, -0.87)
SHIFTS = (5.7, -3.2)


@pytest.mark.parametrize("image", list(pictures()), ids=["smooth", "noise", "plain"])
@pytest.mark.parametrize(
    "name, amount, oracle",
    [
        *(
            (name, factor, lambda i, factor, enhancer=enhancer: enhancer(i).enhance(factor))
            for name, enhancer in ENHANCERS.items()
            for factor in (0.3, 1.7)
        ),
        *(("posterize", bits, ImageOps.posterize) for bits in (2, 5, 8)),
        *(("solarize", threshold, ImageOps.solarize) for threshold in (0, 100, 255)),
        ("autocontrast", None, ImageOps.autocontrast),
        ("equalize", None, ImageOps.equalize),
        *(("shear_x", s, lambda i, s: sheared(i, (1, s, 0, 0, 1, 0))) for s in SHEARS),
        *(("shear_y", s, lambda i, s: sheared(i, (1, 0, 0, s, 1, 0))) for s in SHEARS),
        *(("translate_x", t, lambda i, t: sheared(i, (1, 0, -int(t), 0, 1, 0))) for t in SHIFTS),
        *(("translate_y", t, lambda i, t: sheared(i, (1, 0, 0, 0, 1, -int(t)))) for t in SHIFTS),
        *(("rotate", degrees, Image.Image.rotate) for degrees in (13.7, -101.3)),
    ],
)
def test_operations_are_pils(image, name, amount, oracle):
    function = getattr(operations, name)
    amounts = [] if amount is None else [amount]
    ours = function(tf.constant(np.asarray(image)), *map(tf.constant, amounts))
    difference = np.abs(ours.numpy().astype(int) - np.asarray(oracle(image, *amounts)))
    if name in ("shear_x", "shear_y", "rotate"):
        # A pixel position on an edge may be rounded to either side.
        assert (difference.max(-1) > 0).mean() < 0.01
    else:
        assert difference.max() <= 1
        assert (difference > 0).mean() < 0.01


def test_hue_turns_colours():
    red = tf.constant([[[255, 0, 0]]], tf.uint8)
    assert operations.hue(red, 1 / 3).numpy().ravel().tolist() == [0, 255, 0]
    assert operations.hue(red, -1 / 3).numpy().ravel().tolist() == [0, 0, 255]


def keys(count):
    numbers = tf.range(count, dtype=tf.int64)
    return tf.stack([numbers, numbers * 0 + 7], 1)


def test_policies_use_all_operations_and_directions():
    """Results depend only on keys; many different results show that the operations vary."""
    image = tf.constant(np.asarray(next(pictures())))
    for policy in (policies.rand_augment, policies.trivial_augment_wide):

        @tf.function  # eagerly it would run operation by operation
        def draws(keys, policy=policy):
            return tf.map_fn(lambda key: policy(image, key), keys, fn_output_signature=tf.uint8)

        results, again = draws(keys(150)).numpy(), draws(keys(150)).numpy()
        np.testing.assert_array_equal(results, again)
        assert len({result.tobytes() for result in results}) > 60


def test_magnitudes():
    """The papers' tables: identity at magnitude 0, the stated range at the maximum."""
    image = tf.constant(np.asarray(next(pictures())))
    names = policies.OPERATIONS

    def apply(name, level, sign, wide):
        operation = tf.constant(names.index(name))
        return policies.apply(
            image,
            operation,
            tf.constant(level),
            tf.constant(sign),
            policies.WIDE if wide else policies.RAND,
        )

    for name in (*policies.SIGNED, "posterize", "identity"):
        for wide in (False, True):
            np.testing.assert_array_equal(apply(name, 0, 1.0, wide), image)
    np.testing.assert_array_equal(apply("rotate", 30, -1.0, True), operations.rotate(image, -135.0))
    np.testing.assert_array_equal(
        apply("translate_x", 30, 1.0, False), operations.translate_x(image, 48 * 150 / 331)
    )
    np.testing.assert_array_equal(
        apply("translate_y", 30, 1.0, True), operations.translate_y(image, 32.0)
    )
    np.testing.assert_array_equal(
        apply("posterize", 30, 1.0, False), operations.posterize(image, 4)
    )
    np.testing.assert_array_equal(apply("posterize", 30, 1.0, True), operations.posterize(image, 2))
    np.testing.assert_allclose(
        apply("brightness", 30, -1.0, True), operations.brightness(image, 0.01), atol=1
    )
    np.testing.assert_array_equal(apply("solarize", 30, 1.0, True), 255 - image)


def test_color_jitter_stays_in_its_range():
    image = tf.constant(np.full((4, 4, 3), 100, np.uint8))
    values = tf.function(tf.map_fn)(
        lambda key: policies.color_jitter(image, key, brightness=0.4)[0, 0, 0],
        keys(300),
        fn_output_signature=tf.uint8,
    ).numpy()
    assert 60 <= values.min() < 65
    assert 135 < values.max() <= 140
    assert 95 < values.mean() < 105
