"""Finds out why an image cannot be read, and recognizes image formats by their first bytes."""

import re

import tensorflow as tf

from keras_resnet.decoding import decode, reason

HEAD = 32  # number of bytes to look at
READ = ("JPEG", "PNG", "GIF", "BMP", "WebP")  # by TensorFlow
_STARTS = {
    "JPEG": rb"\xff\xd8\xff",
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "GIF": rb"GIF8[79]a",
    "BMP": rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0",
    "WebP": rb"RIFF.{4}WEBP",
    "TIFF": rb"II[*+]\0|MM\0[*+]",
    "PNM": rb"P[1-6]\s+[#0-9]|P7\nWIDTH|P[Ff]\n",
    "AVIF": rb".{4}ftypavi[fs]",
    "HEIC": rb".{4}ftyp(hei[cxms]|hev[cx]|mif1|msf1)",
    "CR3": rb".{4}ftypcrx ",
    "JPEG 2000": rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51",
    "JPEG XL": rb"\0\0\0\x0cJXL \r\n\x87\n|\xff\x0a",
    "PSD": rb"8BPS\0[\x01\x02]",
    "ICO": rb"\0\0[\x01\x02]\0[^\0]\0",
    "OpenEXR": rb"v/1\x01",
    "Radiance": rb"#\?R(ADIANCE|GBE)\n",
    "DDS": rb"DDS \x7c\0\0\0",
    "XCF": rb"gimp xcf",
}


def kind_of(head) -> str | None:
    """Returns the image format of a file with these first bytes; None if unknown."""
    return next((kind for kind, start in _STARTS.items() if re.match(start, head, re.DOTALL)), None)


def why_unread(kind):
    """Returns the reason for a format that TensorFlow does not read."""
    return f"it is in the format {kind}, which TensorFlow does not read"


@tf.function(input_signature=[tf.TensorSpec((), tf.string)], autograph=False)
def _decode(image_bytes):
    return tf.shape(decode(image_bytes))


def why_bad_image(content) -> str | None:
    """Returns the reason why an encoded image cannot be decoded; None if it can."""
    if not content:
        return "it is empty"
    try:
        _decode(content)
    except (tf.errors.OpError, ValueError) as error:
        said = reason(error)
        known = kind_of(content[:HEAD]) if said == "it is not an image" else None
        if known and known not in READ:
            said = why_unread(known)
        return f"{said} (it starts with {content[:8]!r})"
    return None


def why_bad_file(file) -> str | None:
    """Returns the reason why an image file cannot be decoded; None if it can."""
    try:
        with open(file, "rb") as stream:
            return why_bad_image(stream.read())
    except OSError as error:
        return error.strerror or str(error)
