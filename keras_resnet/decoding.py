"""Decodes image files in TensorFlow graphs, in tf.data pipelines and in exported models."""

import functools
import re

import tensorflow as tf

from keras_resnet.exif import orientation, turned_upright

MAX_PIXELS = 178_956_970  # as Pillow: larger images are considered decompression bombs
# Pixels times scans of a JPEG: each scan visits all pixels, even if it has only a few bytes.
# Progressive files of libjpeg have 10 scans, CMYK ones 18.
MAX_SCANNED = 20 * MAX_PIXELS
SCAN = b"\xff\xda\0"  # start of a scan: its marker and the high byte of its header's length
SCAN_BYTES = 10  # size of the smallest scan
TEXTS = (b"zTXt", b"iTXt")  # PNG chunks that may be compressed; libpng expands 8 kB to 8 MB
MAX_TEXTS = 16
# Pillow decodes JPEGs with the accurate DCT; TensorFlow's default is the fast one.
JPEG = {"channels": 3, "dct_method": "INTEGER_ACCURATE"}
MAX_BLOCKS = 50_000  # of up to 255 bytes, up to the end of a GIF's first frame
REDUCTIONS = (1, 2, 4, 8)  # scale denominators of libjpeg


# There is no Python control flow to convert, and AutoGraph would take seconds.
plainly = tf.autograph.experimental.do_not_convert


def _rarely(function):
    """Makes a function that few images need a single node of the graph.

    The nodes of a branch cost time even if it is not taken, and are optimized again in each epoch.
    """
    return tf.function(function, autograph=False, experimental_attributes={"_noinline": True})


def decode(image_bytes, *, exif=False):
    """Decodes an image to RGB, the first frame if there are several.

    Args:
        image_bytes: Scalar string tensor: a JPEG, PNG, GIF, BMP or WebP file. Alpha is dropped,
            grayscale repeated, and of 16 bits the high byte is used. WebP with animation or alpha
            is an error, as TensorFlow cannot decode it to three channels.
        exif: Whether to apply the EXIF orientation of JPEGs. PIL and torchvision do not.

    Returns:
        uint8 tensor (height, width, 3).

    Raises:
        tf.errors.InvalidArgumentError: at run time, if the bytes are not such an image, if it
            declares more than 178,956,970 pixels (not checked for a simple WebP, whose sides are
            at most 16,383), or 20 times as many in all scans of a JPEG, or if a PNG has more than
            16 text chunks that may be compressed.
    """
    pixels, _, _ = decode_window(image_bytes, lambda size: tf.pad(size, [[2, 0]]), exif=exif)
    return pixels


def reason(error) -> str:
    """Returns the reason why an image cannot be decoded, from the error of `decode`."""
    said = str(error)
    many = re.search("it has [0-9]+ (scans of [0-9]+ pixels|texts)", said)
    if many:
        return f"{many[0]}, more than the limit"
    if "claims more than" in said or "too large" in said:
        return "its size is above the limit"
    if "Unknown image file format" in said:
        return "it is not an image"
    if "Animation" in said:
        return "it is an animated WebP, which TensorFlow does not read"
    return "it is damaged"


def decode_window(image_bytes, choose_window, *, exif=False, target=None):
    """Decodes a window of an image; for a JPEG, only this part is decoded.

    Args:
        image_bytes: As for `decode`.
        choose_window: Function from the image's (height, width) to the window's (top, left,
            height, width), int32 tensors.
        exif: As for `decode`.
        target: If given, a JPEG may be decoded at a half, a quarter or an eighth of its size, as
            long as each side of the window keeps this many pixels.

    Returns:
        uint8 tensor (height, width, 3), smaller than the window if the scale was reduced; the
        image's (height, width) and the window, int32.
    """
    # With bytes as an argument, the function would be traced again for each image.
    image_bytes = tf.convert_to_tensor(image_bytes, tf.string)

    def jpeg():
        size = tf.image.extract_jpeg_shape(image_bytes)[:2]
        refused = [_refuse_bombs(size), _refuse_scans(image_bytes, size)]
        content = _after(
            refused, image_bytes
        )  # decoding has to wait for the checks, in all branches
        if not exif:
            return upright(content, size)
        turn = orientation(content)
        return tf.cond(turn == 1, lambda: upright(content, size), lambda: turned(content, turn))

    def upright(content, size):
        window = choose_window(size)
        # The decoder stops after the window, so it would not notice a file truncated after it.
        complete = tf.strings.substr(content, -2, 2) == b"\xff\xd9"
        return tf.cond(
            complete,
            lambda: (_decode_jpeg_window(content, window, target), size, window),
            lambda: part(tf.io.decode_jpeg(content, **JPEG)),
        )

    @_rarely
    def turned(content, turn):
        return part(turned_upright(tf.io.decode_jpeg(content, **JPEG), turn))

    def part(image):
        size = tf.shape(image)[:2]
        window = choose_window(size)
        top, left, height, width = tf.unstack(window)
        return image[top : top + height, left : left + width], size, window

    pixels, size, window = tf.cond(
        tf.io.is_jpeg(image_bytes), jpeg, lambda: part(_decode_other(image_bytes))
    )
    return tf.ensure_shape(pixels, (None, None, 3)), size, window


def _decode_jpeg_window(image_bytes, window, target):
    """Decodes a window of a JPEG, at a reduced scale if it keeps `target` pixels per side."""
    if target is None:
        return tf.image.decode_and_crop_jpeg(image_bytes, window, **JPEG)

    def reduced(ratio):
        part = window if ratio == 1 else tf.maximum(window // ratio, [0, 0, 1, 1])
        return tf.image.decode_and_crop_jpeg(image_bytes, part, ratio=ratio, **JPEG)

    spare = tf.reduce_min(window[2:]) // target
    step = tf.reduce_sum(tf.cast(spare >= REDUCTIONS[1:], tf.int32))
    return tf.switch_case(step, [functools.partial(reduced, ratio) for ratio in REDUCTIONS])


@_rarely
def _decode_other(image_bytes):
    """Decodes a whole image in a format other than JPEG."""

    def plain(content, size):
        content = _after([_refuse_bombs(size), _refuse_texts(content)], content)
        # Not with channels=0, with which an animated WebP crashes TensorFlow 2.21.
        return tf.io.decode_image(content, channels=3, expand_animations=False)

    def gif():
        content, size = _first_frame(image_bytes)
        return plain(content, tf.maximum(size, _claimed_size(image_bytes)))

    return tf.case(
        [
            (tf.strings.substr(image_bytes, 0, 2) == b"BM", lambda: _decode_bmp(image_bytes)),
            (tf.strings.substr(image_bytes, 0, 4) == b"GIF8", gif),
        ],
        default=lambda: plain(image_bytes, _claimed_size(image_bytes)),
    )


def _after(operations, value):
    """Returns the value, with control dependencies on the operations."""
    with tf.control_dependencies(operations):
        return tf.identity(value)


def _refuse_bombs(size):
    pixels = tf.reduce_prod(tf.cast(size, tf.int64))
    return tf.debugging.assert_less_equal(
        pixels,
        tf.constant(MAX_PIXELS, tf.int64),
        f"the image claims more than {MAX_PIXELS:,} pixels",
    )


def _refuse_scans(image_bytes, size):
    """Raises an error for a JPEG with too many scans."""
    pixels = tf.reduce_prod(tf.cast(size, tf.int64))

    @_rarely
    def counted():
        scans = _count(image_bytes, SCAN)
        said = tf.strings.format("it has {} scans of {} pixels", (scans, pixels))
        return _after([tf.debugging.Assert(scans * pixels <= MAX_SCANNED, [said])], True)

    # Most files are too short to have too many, and are not searched.
    most = tf.cast(tf.strings.length(image_bytes) // SCAN_BYTES, tf.int64)
    return tf.cond(most * pixels <= MAX_SCANNED, lambda: tf.constant(True), counted)


def _refuse_texts(image_bytes):
    """Raises an error for a PNG with too many text chunks, all of which libpng keeps."""

    def counted():
        texts = tf.add_n([_count(image_bytes, mark) for mark in TEXTS])
        said = tf.strings.format("it has {} texts", (texts,))
        return tf.debugging.Assert(texts <= MAX_TEXTS, [said])

    is_png = tf.strings.substr(image_bytes, 0, 4) == b"\x89PNG"
    return tf.cond(is_png, counted, tf.no_op)


def _count(image_bytes, mark):
    """Counts the occurrences of some bytes."""
    return tf.size(tf.strings.split(image_bytes, mark), tf.int64) - 1


def _head(image_bytes):
    """Returns the first 70 bytes, padded with zeros."""
    return tf.strings.substr(tf.strings.substr(image_bytes, 0, 70) + b"\0" * 70, 0, 70)


def _integer(head, place, size, big_endian=False):
    """Reads an unsigned integer of `size` bytes at `place`."""
    field = tf.strings.substr(head, place, size)
    digits = tf.cast(tf.io.decode_raw(field, tf.uint8, fixed_length=size), tf.int64)
    powers = [256**power for power in range(size)]
    return tf.reduce_sum(digits * tf.constant(powers[::-1] if big_endian else powers, tf.int64))


def _claimed_size(image_bytes):
    """Returns (height, width) in the header of a PNG, GIF or WebP; 0 for anything else.

    The two fields precede the pixels, and differ only in position, size and byte order.
    """
    head = _head(image_bytes)

    def pair(places, size, big_endian=False, extra=0):
        return lambda: tf.stack(
            [_integer(head, place, size, big_endian) + extra for place in places]
        )

    def starts(text, place=0):
        return tf.strings.substr(head, place, len(text)) == text

    return tf.case(
        [
            (starts(b"\x89PNG"), pair((20, 16), 4, big_endian=True)),
            (starts(b"GIF8"), pair((8, 6), 2)),
            (starts(b"WEBPVP8X", 8), pair((27, 24), 3, extra=1)),
        ],
        default=lambda: tf.zeros(2, tf.int64),
        exclusive=False,
    )


def _first_frame(gif):
    """Truncates a GIF after its first frame; also returns that frame's (height, width).

    TensorFlow would decode all frames and allocate memory for the largest.

    Source: GIF89a, sections 18 to 25.
    """
    data = tf.io.decode_raw(
        gif + b"\0" * 2048, tf.uint8
    )  # padding, so that no index below is out of range

    def byte(place):
        return tf.cast(tf.gather(data, place), tf.int32)

    def colours(packed):
        return tf.where(packed >= 128, 3 * 2 ** (packed % 8 + 1), 0)

    def after_blocks(place, steps):
        place, steps = tf.while_loop(
            lambda place, steps: (byte(place) > 0) & (steps < MAX_BLOCKS),
            lambda place, steps: (place + byte(place) + 1, steps + 1),
            (place, steps),
        )
        return place + 1, steps

    place, steps = tf.while_loop(
        lambda place, steps: (byte(place) == ord("!")) & (steps < MAX_BLOCKS),
        lambda place, steps: after_blocks(place + 2, steps + 1),
        (13 + colours(byte(10)), 0),
    )
    size = tf.stack([byte(place + k) + 256 * byte(place + k + 1) for k in (7, 5)])
    end, _ = after_blocks(place + 11 + colours(byte(place + 9)), steps)
    return tf.strings.substr(gif, 0, end) + b";", tf.cast(size, tf.int64)


def _decode_bmp(image_bytes):
    """Decodes a BMP file, also with a palette or 32 bits, which decode_image does not support."""
    head = _head(image_bytes)
    sides = tf.stack([_integer(head, place, 4) for place in (22, 18)])
    # The height is negative if rows are stored from top to bottom.
    sides = tf.minimum(sides, 2**32 - sides)
    compression, red = _integer(head, 30, 4), _integer(head, 54, 4)
    honest = tf.debugging.Assert(
        (compression == 0) | ((compression == 3) & (red == 0xFF0000)),
        ["the BMP file is compressed, or its colors are in an unsupported order"],
    )
    with tf.control_dependencies([_refuse_bombs(sides), honest]):
        image = tf.io.decode_bmp(image_bytes)

    def palette():
        start = 14 + _integer(head, 14, 4)
        length = _integer(head, 10, 4) - start
        table = tf.io.decode_raw(tf.strings.substr(image_bytes, start, length), tf.uint8)
        return tf.gather(tf.reshape(table, (-1, 4))[:, 2::-1], tf.cast(image[..., 0], tf.int32))

    return tf.cond(tf.shape(image)[2] == 1, palette, lambda: image[..., :3])
