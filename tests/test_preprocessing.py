"""The evaluation transform compared with PIL, whose resizing torchvision calls."""

import functools
import io
import time

import numpy as np
import pytest
import tensorflow as tf
from hostile_images import gif_frame, gif_with_a_large_frame, many_scans, many_texts
from PIL import Image, ImageOps

import keras_resnet
from keras_resnet.data.source import why_bad_image
from keras_resnet.decoding import decode, decode_window, reason


def encoded(image, kind="PNG"):
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


def noise(height, width, mode="RGB"):
    pixels = np.random.default_rng(height * width).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels).convert(mode)


def pil_transform(image, resize, crop, interpolation="bilinear"):
    """torchvision's Resize and CenterCrop, implemented with PIL only."""
    width, height = image.size
    shorter = min(width, height)
    size = (width * resize // shorter, height * resize // shorter)
    image = image.convert("RGB").resize(size, Image.Resampling[interpolation.upper()])
    left, top = (
        round((side - crop) / 2) if side >= crop else -((crop - side) // 2) for side in size
    )
    return np.asarray(image.crop((left, top, left + crop, top + crop)), np.float32)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("resize, crop", [(73, 64), (64, 64), (37, 48)])
@pytest.mark.parametrize(
    "height, width", [(120, 90), (91, 121), (1, 1), (1, 500), (500, 1), (20, 1500), (30, 31)]
)
def test_pixels_are_pils(height, width, resize, crop, interpolation):
    image = noise(height, width)
    preprocessing = keras_resnet.Preprocessing(resize, crop, interpolation=interpolation)
    pixels = preprocessing.pixels(encoded(image)).numpy().astype(int)
    difference = np.abs(pixels - pil_transform(image, resize, crop, interpolation))
    assert difference.max() <= 1
    assert difference.mean() <= 0.3


@pytest.mark.parametrize("height, width", [(120, 90), (91, 121), (9, 500)])
def test_the_other_crop_modes(height, width):
    """squash: to (60, 50); border: the longer side to 60, padded with the mean; then cropped."""
    image, options = noise(height, width), {"interpolation": "bicubic", "mean": (0.5, 0.4, 0.3)}
    squashed = image.resize((50, 60), Image.Resampling.BICUBIC).crop((5, 6, 45, 54))
    found = keras_resnet.Preprocessing((60, 50), (48, 40), crop_mode="squash", **options)
    difference = found.pixels(encoded(image)).numpy() - np.asarray(squashed, np.float32)
    assert np.abs(difference).max() <= 1

    share = 60 / max(height, width)
    size = (round(width * share), round(height * share))
    bordered = Image.new("RGB", (64, 64), (128, 102, 76))
    place = [(64 - side) // 2 for side in size]
    bordered.paste(image.resize(size, Image.Resampling.BICUBIC), place)
    found = keras_resnet.Preprocessing(60, 64, crop_mode="border", **options)
    difference = found.pixels(encoded(image)).numpy() - np.asarray(bordered, np.float32)
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize(
    "kind, mode",
    [
        *(("JPEG", mode) for mode in ("RGB", "L")),
        *(("PNG", mode) for mode in ("RGB", "L", "P", "LA", "1")),
        *(("BMP", mode) for mode in ("RGB", "L", "P", "RGBA")),
        *(("GIF", "P"), ("GIF", "L"), ("WEBP", "RGB"), ("WEBP", "RGBA")),
    ],
)
def test_decoding_is_pils(kind, mode):
    content = encoded(noise(40, 31, mode), kind)
    expected = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    assert np.abs(decode(content).numpy().astype(int) - expected).max() <= 1


def test_cmyk_is_near_pils():
    content = encoded(noise(40, 31).resize((80, 90), 3).convert("CMYK"), "JPEG")
    expected = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    assert np.abs(decode(content).numpy().astype(int) - expected).max() <= 8


def test_the_high_byte_of_16_bits():
    values = np.random.default_rng(0).integers(0, 65536, (20, 30), np.uint16)
    pixels = decode(encoded(Image.fromarray(values))).numpy()
    np.testing.assert_array_equal(pixels, np.repeat((values >> 8)[..., np.newaxis], 3, -1))


def test_the_first_frame():
    first, second = noise(30, 20).quantize(), noise(30, 20).rotate(180).quantize()
    stream = io.BytesIO()
    first.save(stream, "GIF", save_all=True, append_images=[second])
    expected = np.asarray(Image.open(io.BytesIO(stream.getvalue())).convert("RGB"))
    np.testing.assert_array_equal(decode(stream.getvalue()), expected)


def test_what_comes_after_the_first_frame_costs_nothing():
    content = gif_with_a_large_frame(60000)  # 3.6 GB, and an allocation for three channels
    expected = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    np.testing.assert_array_equal(decode(content), expected)


def test_scans_of_a_jpeg_are_bounded():
    """Each scan visits all pixels: 500 scans of 49 million took 42 seconds."""
    small = many_scans(noise(30, 40), 60)
    expected = np.asarray(Image.open(io.BytesIO(small)).convert("RGB"))
    np.testing.assert_array_equal(decode(small), expected)
    large = many_scans(Image.new("L", (3000, 3000)), 500)
    assert Image.open(io.BytesIO(large)).size == (3000, 3000) and len(large) < 50_000
    said = "it has 500 scans of 9000000 pixels"
    for content in (large, large[:-2], large + b"\0"):
        with pytest.raises(tf.errors.InvalidArgumentError, match=said):
            decode(content)
    assert said in why_bad_image(large)
    with pytest.raises(ValueError, match=f"a.jpg cannot be decoded: (.|\n)*{said}"):
        keras_resnet.Preprocessing().batch({"a.jpg": large})


SCANS = "it has 2000 scans of 36000000 pixels"


@pytest.mark.parametrize(
    "change, exif, said",
    [  # each is decoded by a different operation of the graph
        (lambda jpeg: jpeg, False, SCANS),
        (lambda jpeg: jpeg[:-2], False, SCANS),
        (lambda jpeg: turned(jpeg), True, SCANS),
        (lambda jpeg: many_texts(Image.new("L", (40, 40)), 150), False, "it has 151 texts"),
    ],
    ids=["whole", "cut", "turned", "texts"],
)
def test_what_is_refused_in_a_graph_is_not_decoded(change, exif, said):
    """Decoding took 7 seconds for the JPEGs, and 10 seconds and 900 MB for the texts."""
    content = change(many_scans(Image.new("L", (6000, 6000)), 2000))
    graph = tf.function(
        functools.partial(decode, exif=exif), input_signature=[tf.TensorSpec((), tf.string)]
    )
    graph(encoded(noise(30, 40)))
    before = time.process_time()
    with pytest.raises(tf.errors.InvalidArgumentError, match=said) as found:
        graph(content)
    assert time.process_time() - before < 1
    assert said in reason(found.value)


def turned(jpeg):
    """Adds an EXIF orientation to a JPEG."""
    exif = Image.Exif()
    exif[0x0112] = 6
    held = exif.tobytes()
    return jpeg[:2] + b"\xff\xe1" + (len(held) + 2).to_bytes(2, "big") + held + jpeg[2:]


def test_a_few_texts_are_no_harm():
    content = many_texts(noise(30, 40), 2)
    expected = np.asarray(Image.open(io.BytesIO(encoded(noise(30, 40)))).convert("RGB"))
    np.testing.assert_array_equal(decode(content), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_is_pils_exif_transpose(orientation):
    image = noise(48, 64).resize((64, 48), 2)
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "a camera"
    stream = io.BytesIO()
    image.save(stream, "JPEG", exif=exif, quality=95)
    content = stream.getvalue()
    plain = Image.open(io.BytesIO(content))
    for turned, expected in ((False, plain), (True, ImageOps.exif_transpose(plain))):
        pixels = decode(content, exif=turned).numpy().astype(int)
        assert np.abs(pixels - np.asarray(expected)).max() <= 1
        preprocessing = keras_resnet.Preprocessing(40, 32, exif=turned)
        difference = preprocessing.pixels(content).numpy() - pil_transform(expected, 40, 32)
        assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("order", ["big", "little"])
def test_both_orders_of_exif(order):
    head = b"MM\0*\0\0\0\x08" if order == "big" else b"II*\0\x08\0\0\0"
    entry = [(1, 2), (0x0112, 2), (3, 2), (1, 4), (6, 2), (0, 2), (0, 4)]
    body = b"".join(number.to_bytes(size, order) for number, size in entry)
    content = encoded(noise(16, 32), "JPEG")
    exif = b"Exif\0\0" + head + body
    segment = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    assert decode(content[:2] + segment + content[2:], exif=True).shape == (32, 16, 3)
    # Truncation at any position is not an error.
    for end in range(6, len(exif)):
        segment = b"\xff\xe1" + (end + 2).to_bytes(2, "big") + exif[:end]
        assert decode(content[:2] + segment + content[2:], exif=True).shape[2] == 3


def bombs():
    """Yields files that claim a hundred times their actual pixels."""

    def changed(kind, place, size, order="little", side=60000):
        content = bytearray(encoded(noise(20, 20), kind))
        content[place : place + 2 * size] = side.to_bytes(size, order) * 2
        return bytes(content)

    yield "PNG", changed("PNG", 16, 4, "big")
    yield "PNG", changed("PNG", 16, 4, "big", 13400)  # 180 million pixels
    yield "GIF", changed("GIF", 6, 2)
    yield "GIF", b"GIF89a" + (20).to_bytes(2, "little") * 2 + bytes(3) + gif_frame(60000, 60000)
    yield "BMP", changed("BMP", 18, 4)
    jpeg = bytearray(encoded(noise(20, 20), "JPEG"))
    place = jpeg.index(b"\xff\xc0") + 5
    jpeg[place : place + 4] = (60000).to_bytes(2, "big") * 2
    yield "JPEG", bytes(jpeg)
    extended = b"VP8X" + (10).to_bytes(4, "little") + bytes(4) + (60000).to_bytes(3, "little") * 2
    yield "WEBP", b"RIFF" + (100).to_bytes(4, "little") + b"WEBP" + extended + bytes(80)


@pytest.mark.parametrize("kind, content", list(bombs()))
def test_decompression_bombs_are_refused(kind, content):
    with pytest.raises(tf.errors.InvalidArgumentError, match="claims more than 178,956,970"):
        decode(content)
    with pytest.raises(tf.errors.InvalidArgumentError, match="claims more than 178,956,970"):
        tf.function(keras_resnet.Preprocessing().pixels)(tf.constant(content))


def test_formats_that_tensorflow_does_not_support():
    stream = io.BytesIO()
    noise(20, 20).save(stream, "WEBP", save_all=True, append_images=[noise(20, 20).rotate(90)])
    with pytest.raises(tf.errors.InvalidArgumentError, match="Animation"):
        decode(stream.getvalue())
    content = bytearray(encoded(noise(20, 20, "P"), "BMP"))
    content[30] = 1
    with pytest.raises(tf.errors.InvalidArgumentError, match="the BMP file is compressed"):
        decode(bytes(content))


@pytest.mark.parametrize("ratio", [1, 2, 4, 8])
def test_a_jpeg_is_reduced_while_it_is_decoded(ratio):
    """To no less than the target size; the result is close to downscaling afterwards."""
    content = encoded(noise(24, 32).resize((1024, 768), 3), "JPEG")
    target = 600 // ratio
    reduced, size, _ = decode_window(
        content, lambda size: tf.constant([0, 0, 600, 640]), target=target
    )
    assert size.numpy().tolist() == [768, 1024]
    assert reduced.shape == (600 // ratio, 640 // ratio, 3)
    whole = Image.fromarray(decode(content).numpy()[:600, :640])
    small = whole.resize((640 // ratio, 600 // ratio), Image.Resampling.BOX)
    assert np.abs(reduced.numpy().astype(int) - np.asarray(small)).mean() < 2


def test_alpha_is_dropped():
    image = noise(20, 20)
    image.putalpha(Image.fromarray(np.arange(400, dtype=np.uint8).reshape(20, 20)))
    expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(decode(encoded(image)), expected)
    with pytest.raises(tf.errors.InvalidArgumentError, match="Number of channels"):
        decode(encoded(image, "WEBP"))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_window_is_a_part_of_the_whole(kind):
    content = encoded(noise(64, 80), kind)
    window, _, _ = decode_window(content, lambda size: tf.constant([8, 16, 32, 24]))
    # A JPEG's chroma upsampling uses pixels beyond the edge of the window.
    inner = np.s_[2:-2, 2:-2]
    np.testing.assert_array_equal(window[inner], decode(content)[8:40, 16:40][inner])


@pytest.mark.parametrize(
    "arguments",
    [
        {"crop": 0},
        {"resize": 2**40},
        {"crop": 224.5},
        {"crop": "224"},
        {"std": (0.2, 0.0, 0.2)},
        {"std": (0.2, float("nan"), 0.2)},
        {"std": (0.2, 0.2)},
        {"std": (-0.2, 0.2, 0.2)},
        {"mean": (0.5, float("inf"), 0.5)},
        {"mean": ("0.5", 0.5, 0.5)},
        {"interpolation": "nearest"},
        {"crop_mode": None},
        {"crop": (64, 64, 3)},
        {"exif": 1},
    ],
    ids=str,
)
def test_invalid_arguments(arguments):
    """Such values may be in a damaged recipe.json."""
    with pytest.raises(ValueError, match="|".join(f"{name}=" for name in arguments)):
        keras_resnet.Preprocessing(**arguments)
