"""Resizes encoded images for storage."""

import io

import numpy as np
import tensorflow as tf
from PIL import Image

from keras_resnet.decoding import decode
from keras_resnet.exif import orientation
from keras_resnet.fields import whole

QUALITY = 90  # of JPEGs
ORIENTATION = 0x0112  # EXIF tag


@tf.function(input_signature=[tf.TensorSpec((), tf.string)], autograph=False)
def _decoded(image_bytes):
    """Returns the stored pixels, and the orientation that `exif=True` would apply."""
    turn = tf.cond(
        tf.io.is_jpeg(image_bytes), lambda: orientation(image_bytes), lambda: tf.constant(1)
    )
    return decode(image_bytes), turn


def smaller_options(max_side, quality) -> dict:
    """Validates `max_side` and `quality` for `smaller`; None to store images unchanged.

    Raises:
        ValueError: if one is out of range, or `quality` is given without `max_side`.
    """
    if max_side is not None and not whole(1).fits(max_side):
        raise ValueError(
            "max_side should be an integer in pixels, 1 or more, or None to store images as "
            f"they are. Received: max_side={max_side!r}"
        )
    if quality is not None and not (whole(1).fits(quality) and quality <= 100):
        raise ValueError(f"quality should be an integer, 1 to 100. Received: quality={quality!r}")
    if quality is not None and max_side is None:
        raise ValueError(
            "quality applies to images resized because of max_side. Pass max_side too, or remove "
            f"quality. Received: quality={quality}, max_side=None"
        )
    return {"max_side": max_side, "quality": QUALITY if max_side and quality is None else quality}


def smaller(content, max_side, quality) -> bytes:
    """Re-encodes an image as JPEG if its longer side exceeds `max_side`.

    The pixels are those of `decode`, resized with Pillow's antialiased Lanczos filter. Of the
    metadata, only the EXIF orientation of a JPEG is kept.

    Args:
        content: The content of an image file that `decode` supports.
        max_side: Maximum length of the longer side, in pixels.
        quality: JPEG quality, 1 to 100.
    """
    tensor, turn = _decoded(content)
    height, width = tensor.shape[:2]
    longer = max(height, width)
    if longer <= max_side:
        return content
    pixels = tensor.numpy()
    if np.ptp(pixels, axis=2).max() == 0:
        pixels = pixels[..., 0]  # a grayscale JPEG
    size = tuple(max(1, round(side * max_side / longer)) for side in (width, height))
    exif = Image.Exif()
    if turn != 1:
        exif[ORIENTATION] = int(turn)
    stream = io.BytesIO()
    image = Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)
    image.save(stream, "JPEG", quality=quality, exif=exif if exif else b"")
    return stream.getvalue()
