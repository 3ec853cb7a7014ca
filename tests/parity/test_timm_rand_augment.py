"""RandAugment compared with timm's: pixels of each operation, magnitudes and probabilities."""

import random

import numpy as np
import pytest
import torch  # noqa: F401 (before keras)
from oracles import compared
from PIL import Image
from timm.data import auto_augment

import tensorflow as tf  # isort: skip (torch comes first)
from keras_resnet.data.augmentation import timm_rand_augment as ours

pytestmark = pytest.mark.parity

NAMES = {
    **{"autocontrast": "AutoContrast", "posterize": "PosterizeIncreasing"},
    **{"solarize": "SolarizeIncreasing", "solarize_add": "SolarizeAdd"},
    **{"saturation": "ColorIncreasing", "shear_x": "ShearX", "shear_y": "ShearY"},
    **{"translate_x": "TranslateXRel", "translate_y": "TranslateYRel"},
    **{name: f"{name.capitalize()}Increasing" for name in ("brightness", "contrast", "sharpness")},
}
FILL = (124, 116, 104)
RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def picture():
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8))
    return small.resize((96, 72), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("interpolation", RESAMPLING)
def test_operations(interpolation):
    """Several magnitudes, in both directions."""
    image = picture()
    theirs = {NAMES.get(name, name.capitalize()): name for name in ours.OPERATIONS}
    assert {*theirs} == {*auto_augment._RAND_INCREASING_TRANSFORMS}
    apply = tf.function(
        lambda operation, level, sign: ours.apply(
            tf.constant(np.asarray(image)),
            *(operation, level, sign),
            **{"interpolation": interpolation, "fill": FILL},
        )
    )
    hparams = {"translate_const": 100, "img_mean": FILL}
    hparams["interpolation"] = RESAMPLING[interpolation]
    shares = []
    for name, our_name in theirs.items():
        operation = auto_augment.AugmentOp(name, 1.0, hparams=hparams)
        number = tf.constant(ours.OPERATIONS.index(our_name))
        for level in (0.0, 3.3, 7.0, 9.9):  # timm fails at 10 with Pillow 13
            found = []
            for seed in range(6):  # both directions
                operation.magnitude = level
                random.seed(seed)
                expected = np.asarray(operation(image)).astype(int)
                random.seed(seed)
                sign = -1.0 if random.random() > 0.5 else 1.0  # noqa: S311 (as timm)
                pixels = apply(number, tf.constant(level), tf.constant(sign)).numpy()
                wrong = np.abs(pixels.astype(int) - expected).max(-1)
                # Values may be rounded differently, and positions on edges to either side.
                assert (wrong > 0).mean() < 0.05, (name, level, sign)
                shares.append((wrong > 1).mean())
                found.append(sign)
            assert {*found} == {-1.0, 1.0}
    compared(
        f"`augmentation.policy`, RandAugment with {interpolation} interpolation: share of pixels "
        "that differ by more than 1 of 255",
        "`timm.data.auto_augment` with Pillow",
        *(max(shares), 0.01),
    )


def test_names():
    found = ours.parsed("rand-m7-mstd0.5-inc1")
    theirs = auto_augment.rand_augment_transform("rand-m7-mstd0.5-inc1")
    assert found == (7, 0.5, 2)
    assert (theirs.ops[0].magnitude, theirs.ops[0].magnitude_std, theirs.num_layers) == found
    assert {operation.prob for operation in theirs.ops} == {ours.HAPPENS}
    assert ours.parsed("rand-n3-m9-inc1") == (9, 0.0, 3)
    for name in ("rand-m7", "rand-m11-inc1", "rand-m7-x2-inc1", "augmix-m3", "rand-m7-inc0", 5):
        assert ours.parsed(name) is None


def test_magnitudes_are_distributed_as_timms():
    count, policy = 4000, ours.parsed("rand-m9-mstd1.0-inc1")
    numbers = tf.range(count, dtype=tf.int64)
    keys = tf.stack([numbers, numbers * 0 + 1], 1)
    levels = tf.vectorized_map(lambda key: ours.draw_level(key, policy), keys).numpy()
    random.seed(0)
    theirs = np.clip([random.gauss(9, 1.0) for _ in range(count)], 0, 10)
    assert (levels == 10).mean() == pytest.approx((theirs == 10).mean(), abs=0.03)
    for share in (0.1, 0.3, 0.5, 0.7):
        assert np.quantile(levels, share) == pytest.approx(np.quantile(theirs, share), abs=0.08)


def test_half_of_the_operations_happen():
    """With two operations, a picture is unchanged at least a quarter of the time."""
    image, policy = tf.constant(np.asarray(picture())[:24, :24]), ours.parsed("rand-m7-inc1")
    numbers = tf.range(400, dtype=tf.int64)
    keys = tf.stack([numbers, numbers * 0 + 5], 1)
    sampling = {"interpolation": "bilinear", "fill": FILL}
    images = tf.function(
        lambda keys: tf.map_fn(
            lambda key: ours.rand_augment(image, key, policy, **sampling),
            keys,
            fn_output_signature=tf.uint8,
        )
    )(keys).numpy()
    same = (images == image.numpy()).all((1, 2, 3)).mean()
    assert 0.25 - 0.07 < same < 0.25 + 0.1
    assert len({pixels.tobytes() for pixels in images}) > 100
