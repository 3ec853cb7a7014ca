"""Encoded images made smaller, to be stored."""

import io

import numpy as np
import tensorflow as tf
from PIL import Image

from keras_resnet.decoding import decode, orientation

QUALITY = 90  # of JPEGs
ORIENTATION = 0x0112  # EXIF's tag


@tf.function(input_signature=[tf.TensorSpec((), tf.string)], autograph=False)
def _decoded(image_bytes):
    """An image's pixels as they are stored, and the orientation that `exif=True` would apply."""
    turn = tf.cond(
        tf.io.is_jpeg(image_bytes), lambda: orientation(image_bytes), lambda: tf.constant(1)
    )
    return decode(image_bytes), turn


def smaller(content, max_side, quality) -> bytes:
    """An encoded image, re-encoded as JPEG if its longer side exceeds `max_side`.

    The pixels are those of `decode`, resized by Pillow's antialiased Lanczos filter. Of the
    metadata, a JPEG's orientation is kept, which `exif=True` asks for.

    Args:
        content: The image's bytes, which `decode` can decode.
        max_side: Pixels that the longer side has at most.
        quality: Of the JPEG, 1 to 100.
    """
    tensor, turn = _decoded(content)
    height, width = tensor.shape[:2]
    longer = max(height, width)
    if longer <= max_side:
        return content
    pixels = tensor.numpy()
    if np.ptp(pixels, axis=2).max() == 0:
        pixels = pixels[..., 0]  # a grey JPEG
    size = tuple(max(1, round(side * max_side / longer)) for side in (width, height))
    exif = Image.Exif()
    if turn != 1:
        exif[ORIENTATION] = int(turn)
    stream = io.BytesIO()
    image = Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)
    image.save(stream, "JPEG", quality=quality, exif=exif if exif else b"")
    return stream.getvalue()
