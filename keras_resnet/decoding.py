"""From the bytes of an image file to pixels, in TensorFlow's graphs: in tf.data and when served."""

import functools
import re

import tensorflow as tf

from keras_resnet.exif import orientation, turned_upright

MAX_PIXELS = 178_956_970  # as Pillow: what claims more is taken for a decompression bomb
# Pixels times scans of a JPEG, each of which goes over all pixels again, however few bytes it has.
# A progressive file of libjpeg has 10, of CMYK 18.
MAX_SCANNED = 20 * MAX_PIXELS
SCAN = b"\xff\xda\0"  # how a scan starts: its marker and the upper half of its header's length
SCAN_BYTES = 10  # of the smallest scan
TEXTS = (b"zTXt", b"iTXt")  # chunks of a PNG that may be compressed; libpng makes 8 MB of 8 kB
MAX_TEXTS = 16
# Pillow decodes JPEGs with the accurate DCT; TensorFlow's default is the fast one.
JPEG = {"channels": 3, "dct_method": "INTEGER_ACCURATE"}
MAX_BLOCKS = 50_000  # of 255 bytes, before a GIF's first frame and in it
REDUCTIONS = (1, 2, 4, 8)  # by which libjpeg can reduce while it decodes


# Nothing here is Python that would have to become TensorFlow, and to look for it takes seconds.
plainly = tf.autograph.experimental.do_not_convert


def _rarely(function):
    """Keeps what few images need out of the graph of the others, as one node that calls it.

    Whoever takes another branch still passes all nodes of this one, and each epoch optimizes them.
    """
    return tf.function(function, autograph=False, experimental_attributes={"_noinline": True})


def decode(image_bytes, *, exif=False):
    """Decodes an image to RGB, the first frame if there are several.

    Args:
        image_bytes: Scalar string tensor: a JPEG, PNG, GIF, BMP or WebP file. Alpha is dropped,
            grey is repeated, of 16 bits the high byte is taken. WebP that is animated or has
            alpha is an error, which TensorFlow does not give in three channels.
        exif: True to turn a JPEG as its EXIF orientation says. PIL and torchvision do not.

    Returns:
        uint8 tensor (height, width, 3).

    Raises:
        tf.errors.InvalidArgumentError: when it runs, if the bytes are no such image, or claim
            more than 178,956,970 pixels (of a simple WebP, nothing is asked, whose sides
            are at most 16,383), or 20 times as many in all scans of a JPEG, or a PNG has more than
            16 chunks of text that may be compressed.
    """
    pixels, _, _ = decode_window(image_bytes, lambda size: tf.pad(size, [[2, 0]]), exif=exif)
    return pixels


def reason(error) -> str:
    """Why an image cannot be decoded, in words, of the error that `decode` gave."""
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
    """Decodes a part of an image; of a JPEG, nothing else.

    Args:
        image_bytes: As in `decode`.
        choose_window: Function from the image's (height, width) to the window's (top, left,
            height, width), int32 tensors.
        exif: As in `decode`.
        target: If given, a JPEG may be decoded at a half, a quarter or an eighth of its size, as
            long as the window keeps this many pixels a side.

    Returns:
        uint8 tensor (height, width, 3), the image's (height, width) and the window, int32. The
        part is smaller than the window where it was reduced.
    """
    # A function that is given bytes would be traced for each image, with these as a constant.
    image_bytes = tf.convert_to_tensor(image_bytes, tf.string)

    def jpeg():
        size = tf.image.extract_jpeg_shape(image_bytes)[:2]
        refused = [_refuse_bombs(size), _refuse_scans(image_bytes, size)]
        content = _after(refused, image_bytes)  # all that decodes waits for it, in branches too
        if not exif:
            return upright(content, size)
        turn = orientation(content)
        return tf.cond(turn == 1, lambda: upright(content, size), lambda: turned(content, turn))

    def upright(content, size):
        window = choose_window(size)
        # The decoder stops after the window: it would not see that a file is cut off after it.
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
    """A window of a JPEG, reduced while it keeps `target` pixels a side; whole if that is None."""
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
    """All of an image that is no JPEG."""

    def plain(content, size):
        content = _after([_refuse_bombs(size), _refuse_texts(content)], content)
        # Never with channels=0: an animated WebP then crashes TensorFlow 2.21.
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
    """The value, once these are done."""
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
    """Refuses a JPEG that would be decoded again and again."""
    pixels = tf.reduce_prod(tf.cast(size, tf.int64))

    @_rarely
    def counted():
        scans = _count(image_bytes, SCAN)
        said = tf.strings.format("it has {} scans of {} pixels", (scans, pixels))
        return _after([tf.debugging.Assert(scans * pixels <= MAX_SCANNED, [said])], True)

    # Most files are too short for too many, and are not looked through.
    most = tf.cast(tf.strings.length(image_bytes) // SCAN_BYTES, tf.int64)
    return tf.cond(most * pixels <= MAX_SCANNED, lambda: tf.constant(True), counted)


def _refuse_texts(image_bytes):
    """Refuses a PNG that has texts without end, each of which is kept."""

    def counted():
        texts = tf.add_n([_count(image_bytes, mark) for mark in TEXTS])
        said = tf.strings.format("it has {} texts", (texts,))
        return tf.debugging.Assert(texts <= MAX_TEXTS, [said])

    is_png = tf.strings.substr(image_bytes, 0, 4) == b"\x89PNG"
    return tf.cond(is_png, counted, tf.no_op)


def _count(image_bytes, mark):
    """How often some bytes are there."""
    return tf.size(tf.strings.split(image_bytes, mark), tf.int64) - 1


def _head(image_bytes):
    """The first 70 bytes, with zeros behind a shorter file."""
    return tf.strings.substr(tf.strings.substr(image_bytes, 0, 70) + b"\0" * 70, 0, 70)


def _integer(head, place, size, big_endian=False):
    """The unsigned number of `size` bytes at `place`."""
    field = tf.strings.substr(head, place, size)
    digits = tf.cast(tf.io.decode_raw(field, tf.uint8, fixed_length=size), tf.int64)
    powers = [256**power for power in range(size)]
    return tf.reduce_sum(digits * tf.constant(powers[::-1] if big_endian else powers, tf.int64))


def _claimed_size(image_bytes):
    """(height, width) that the header of a PNG, GIF or WebP claims; 0 for anything else.

    The two fields stand before the pixels, and differ only in place, size and order of bytes.
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
    """A GIF that ends after its first frame, and that frame's (height, width).

    TensorFlow decodes all frames, to take the first, and makes room for the largest.

    Source: GIF89a, sections 18 to 25.
    """
    data = tf.io.decode_raw(gif + b"\0" * 2048, tf.uint8)  # nothing below reaches further

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
    """A BMP file, also with a palette or 32 bits, which decode_image gets wrong or refuses."""
    head = _head(image_bytes)
    sides = tf.stack([_integer(head, place, 4) for place in (22, 18)])
    # The height is negative where the rows go from top to bottom.
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
