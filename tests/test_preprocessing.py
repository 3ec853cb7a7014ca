"""The evaluation transform against PIL, whose resizing torchvision calls."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import keras_resnet
from keras_resnet.decoding import decode, decode_window


def encoded(image, kind="PNG"):
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


def noise(height, width, mode="RGB"):
    pixels = np.random.default_rng(height * width).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels).convert(mode)


def pil_transform(image, resize, crop):
    """torchvision's Resize and CenterCrop, written with PIL alone."""
    width, height = image.size
    shorter = min(width, height)
    size = (width * resize // shorter, height * resize // shorter)
    image = image.convert("RGB").resize(size, Image.Resampling.BILINEAR)
    left, top = (
        round((side - crop) / 2) if side >= crop else -((crop - side) // 2) for side in size
    )
    return np.asarray(image.crop((left, top, left + crop, top + crop)), np.float32)


@pytest.mark.parametrize("resize, crop", [(73, 64), (64, 64), (37, 48)])
@pytest.mark.parametrize(
    "height, width", [(120, 90), (91, 121), (1, 1), (1, 500), (500, 1), (20, 1500), (30, 31)]
)
def test_pixels_are_pils(height, width, resize, crop):
    image = noise(height, width)
    pixels = keras_resnet.Preprocessing(resize, crop).pixels(encoded(image)).numpy().astype(int)
    difference = np.abs(pixels - pil_transform(image, resize, crop))
    assert difference.max() <= 1
    assert difference.mean() <= 0.3


@pytest.mark.parametrize(
    "kind, mode",
    [
        ("JPEG", "RGB"),
        ("JPEG", "L"),
        ("PNG", "L"),
        ("PNG", "P"),
        ("BMP", "RGB"),
        ("GIF", "P"),
    ],
)
def test_decoding_is_pils(kind, mode):
    content = encoded(noise(40, 31, mode), kind)
    expected = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    assert np.abs(decode(content).numpy().astype(int) - expected).max() <= 1


def test_alpha_is_dropped():
    image = noise(20, 20)
    image.putalpha(Image.fromarray(np.arange(400, dtype=np.uint8).reshape(20, 20)))
    expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(decode(encoded(image)), expected)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_window_is_a_part_of_the_whole(kind):
    content = encoded(noise(64, 80), kind)
    window, _, _ = decode_window(content, lambda size: tf.constant([8, 16, 32, 24]))
    # A JPEG's chroma is smoothed across the window's edge.
    inner = np.s_[2:-2, 2:-2]
    np.testing.assert_array_equal(window[inner], decode(content)[8:40, 16:40][inner])


def test_bad_sides():
    with pytest.raises(ValueError, match="crop=0"):
        keras_resnet.Preprocessing(256, 0)
