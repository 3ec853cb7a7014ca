"""Random crops, erasing, MixUp and CutMix: their distributions and arguments."""

import io
import math

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_resnet import Preprocessing, data
from keras_resnet.data.augmentation import crops, mixing

COUNT = 4000


def draws(function, count=COUNT, dtype=tf.int32):
    numbers = tf.range(count, dtype=tf.int64)
    keys = tf.stack([numbers * 0 + 5, numbers * 1000], 1)
    return tf.vectorized_map(function, keys, fallback_to_while_loop=True).numpy().astype(float)


@tf.function
def mapped(function, numbers, dtype=tf.float32):
    """Runs tf.map_fn in a graph; eagerly it would run operation by operation."""
    return tf.map_fn(function, numbers, fn_output_signature=dtype)


def chi_square(values, low, high, bins=10):
    """Compares with the uniform distribution; for 9 degrees of freedom, P(> 27.9) is 0.001."""
    counts, _ = np.histogram(values, bins, (low, high))
    assert counts.sum() == len(values)
    expected = len(values) / bins
    return ((counts - expected) ** 2 / expected).sum()


def test_crops_are_distributed_as_torchvisions():
    """Where every first try fits, the scale, the log ratio and the corner are uniform."""
    side = 1000
    windows = draws(lambda key: crops.random_window(tf.constant([side, side]), key, (0.1, 0.7)))
    top, left, height, width = windows.T
    assert chi_square(height * width / side**2, 0.0995, 0.7005) < 27.9
    assert chi_square(np.log(width / height), math.log(0.7475), math.log(1.3375)) < 27.9
    for start, length in ((top, height), (left, width)):
        assert chi_square((start + 0.5) / (side - length + 1), 0, 1) < 27.9


def test_crops_fall_back_to_the_middle():
    windows = draws(lambda key: crops.random_window(tf.constant([10, 1000]), key, (0.9, 1.0)), 20)
    assert (windows == [0, 493, 10, 13]).all()
    windows = draws(lambda key: crops.random_window(tf.constant([1000, 10]), key, (0.9, 1.0)), 20)
    assert (windows == [493, 0, 13, 10]).all()
    windows = draws(lambda key: crops.random_window(tf.constant([1, 1]), key), 20)
    assert (windows == [0, 0, 1, 1]).all()


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_crops_are_resized_like_pillow(interpolation):
    """The whole of a square image is resized to height and width, with Pillow's pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (30, 30, 3), np.uint8)
    image = Image.fromarray(pixels).resize((90, 90), Image.Resampling.BICUBIC)
    image.save(stream := io.BytesIO(), "PNG")
    augmentation = data.Augmentation(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=0.0)
    preprocessing = Preprocessing(64, (48, 40), interpolation=interpolation)
    key = tf.constant([0, 1], tf.int64)
    found, _ = augmentation.image(tf.constant(stream.getvalue()), preprocessing, key)
    expected = image.resize((40, 48), Image.Resampling[interpolation.upper()])
    assert np.abs(found.numpy().astype(int) - np.asarray(expected)).max() <= 1


def test_erasing():
    boxes = draws(lambda key: crops.random_erasure(100, key, 0.25))
    top, left, height, width = boxes.T
    chosen = height > 0
    assert 0.22 < chosen.mean() < 0.28
    share = (height * width / 1e4)[chosen]
    assert 0.015 < share.min() and share.max() < 0.345
    assert ((top + height)[chosen] <= 100).all() and ((left + width)[chosen] <= 100).all()
    images = crops.erase(tf.ones((2, 10, 10, 3)), tf.constant([[1, 2, 3, 4], [0, 0, 0, 0]]))
    expected = np.ones((2, 10, 10, 3))
    expected[0, 1:4, 2:6] = 0
    np.testing.assert_array_equal(images, expected)


def encoded(pixels, kind="PNG"):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def test_padded_crops():
    """CIFAR's augmentation: all 9 x 9 offsets are equally likely, and the padding is black."""
    pixels = np.full((32, 32, 3), 200, np.uint8)
    pixels[:, :, 0] = np.arange(32)[:, np.newaxis] + 1
    content = encoded(pixels)
    numbers = tf.range(600, dtype=tf.int64)
    images = mapped(
        lambda number: crops.random_padded_crop(content, 32, tf.stack([number, 1]), 4),
        numbers,
        tf.uint8,
    ).numpy()
    # The center is never padding: its red value is the vertical offset of the crop.
    shifts = images[:, 16, 16, 0].astype(int) - 17
    counts = np.bincount(shifts + 4, minlength=9)
    assert len(counts) == 9
    assert ((counts - 600 / 9) ** 2 / (600 / 9)).sum() < 26.1  # 8 degrees of freedom
    down = images[shifts == 4][0]
    assert (down[-4:] == 0).all() and (down[:28, 16, 1] == 200).all()


def test_flips_happen_as_often_as_asked():
    image = tf.reshape(tf.range(6.0), (1, 2, 3))
    numbers = tf.range(1000, dtype=tf.int64)
    flipped = mapped(
        lambda n: crops.random_flip(image, tf.stack([n, 3]), 0.3)[0, 0, 0], numbers
    ).numpy()
    assert set(flipped) == {0.0, 3.0}
    assert 250 < (flipped == 3).sum() < 350


def test_labels_are_smoothed_as_torchs():
    """0.9 + 0.1 / 4 for the label, 0.1 / 4 for the others: torch.nn.CrossEntropyLoss's rule."""
    smooth = mixing.smooth_labels(tf.constant([2]), 4, 0.1).numpy()
    np.testing.assert_allclose(smooth, [[0.025, 0.025, 0.925, 0.025]], rtol=1e-6)


def test_mixup_is_linear_and_beta_distributed():
    images = tf.reshape(tf.constant([0.0, 1.0]), (2, 1, 1, 1))
    labels = tf.one_hot([0, 1], 2)

    def share(key):
        mixed, mixed_labels = mixing.mix(images, labels, key, 0.4, 0.0)
        return tf.stack([1 - mixed[0, 0, 0, 0], mixed_labels[0, 0], mixed_labels[1, 1]])

    numbers = tf.range(1500, dtype=tf.int64)
    shares = mapped(lambda n: share(tf.stack([n, 9])), numbers)
    first, second, third = shares.numpy().T
    np.testing.assert_allclose(first, second, atol=1e-6)
    np.testing.assert_allclose(first, third, atol=1e-6)
    # Beta(a, a): mean 1/2, variance 1 / (4 (2a + 1)).
    assert first.mean() == pytest.approx(0.5, abs=0.03)
    assert first.var() == pytest.approx(1 / (4 * 1.8), rel=0.1)


def test_cutmix_shares_are_areas():
    images = tf.stack([tf.zeros((20, 30, 3)), tf.ones((20, 30, 3))])
    labels = tf.one_hot([0, 1], 2)
    shares = []
    for number in range(40):
        mixed, mixed_labels = mixing.mix(
            images, labels, tf.constant([number, 1], tf.int64), 0.0, 1.0
        )
        cut = mixed[0, :, :, 0].numpy()
        assert float(mixed_labels[0, 1]) == pytest.approx(cut.mean(), abs=1e-6)
        rows, columns = np.flatnonzero(cut.any(1)), np.flatnonzero(cut.any(0))
        assert cut.sum() == len(rows) * len(columns)  # a rectangle
        shares.append(cut.mean())
    assert min(shares) < 0.1 and max(shares) > 0.5


def test_one_batch_gets_one_of_the_two_mixtures():
    rng = np.random.default_rng(0)
    images = tf.constant(rng.normal(size=(2, 16, 16, 3)), tf.float32)
    labels = tf.one_hot([0, 1], 2)
    kinds = []
    for number in range(40):
        mixed, _ = mixing.mix(images, labels, tf.constant([number, 1], tf.int64), 1.0, 1.0)
        kinds.append(np.isin(mixed.numpy(), images.numpy()).all())
    assert 8 < sum(kinds) < 32


@pytest.mark.parametrize(
    "arguments, said",
    [
        ({"flip": 1.5}, "flip=1.5"),
        ({"mixup": -1}, "mixup=-1"),
        ({"crop_scale": (0.5, 2.0)}, r"at most 1.*crop_scale=\(0.5, 2.0\)"),
        ({"crop_ratio": (2.0, 1.0)}, "crop_ratio"),
        ({"policy": "auto"}, "policy='auto'"),
        ({"color_jitter": (0.1, 0.1, 0.1, 0.7)}, "hue at most 0.5"),
        ({"repeats": 0}, "repeats=0"),
    ],
)
def test_bad_augmentations(arguments, said):
    with pytest.raises(ValueError, match=said):
        data.Augmentation(**arguments)
