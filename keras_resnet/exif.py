"""The EXIF orientation of JPEGs, in TensorFlow graphs."""

import tensorflow as tf


def orientation(image_bytes):
    """Reads the EXIF orientation of a JPEG, 1 to 8; 1 if there is none.

    Source: TIFF 6.0, section 2; EXIF 2.32, 4.5.2 and 4.6.4 (tag 0x0112).
    """
    mark = b"Exif\0\0"
    head = tf.strings.substr(image_bytes, 0, 65536 + 4096) + b"\0" * 16
    data = tf.cast(tf.io.decode_raw(head, tf.uint8), tf.int32)
    length = tf.size(data)
    places = tf.range(length - len(mark))
    found = tf.reduce_all([data[k : k - len(mark)] == mark[k] for k in range(len(mark))], axis=0)
    base = tf.reduce_min(tf.where(found, places, length)) + len(mark)

    def byte(place):
        return tf.gather(data, tf.clip_by_value(place, 0, length - 1))

    little = byte(base) == ord("I")

    def number(place, size):
        digits = [byte(place + k) for k in range(size)]
        low, high = digits[::-1], digits
        first, second = (
            sum(digit * 256 ** (size - 1 - k) for k, digit in enumerate(order))
            for order in (low, high)
        )
        return tf.where(little, first, second)

    directory = base + tf.clip_by_value(number(base + 4, 4), 0, length)
    entries = directory + 2 + 12 * tf.range(tf.minimum(number(directory, 2), 100))
    ours = (number(entries, 2) == 0x0112) & (entries + 12 <= length)
    turn = tf.reduce_max(tf.where(ours, number(entries + 8, 2), 0))
    return tf.where((base < length) & (turn >= 1) & (turn <= 8), turn, 1)


def turned_upright(image, orientation):
    """Rotates and flips an image with an EXIF orientation to make it upright."""
    image = tf.cond(orientation >= 5, lambda: tf.transpose(image, (1, 0, 2)), lambda: image)
    mirrored = tf.reduce_any(orientation == [2, 3, 6, 7])
    upside_down = tf.reduce_any(orientation == [3, 4, 7, 8])
    image = tf.cond(mirrored, lambda: tf.reverse(image, [1]), lambda: image)
    return tf.cond(upside_down, lambda: tf.reverse(image, [0]), lambda: image)
