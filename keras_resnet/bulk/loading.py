"""Loads and decodes images in threads."""

import dataclasses
import errno
import functools
import hashlib
import os

import numpy as np
import tensorflow as tf

from keras_resnet.data.unreadable import why_bad_image

# Errors of single files. Others, of a disk or a network, stop the job.
OF_A_FILE = (
    *(errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR),
    *(errno.ELOOP, errno.ENAMETOOLONG),
)


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A loaded image, or the reason why it cannot be read.

    Args:
        name: Name of the row, valid Unicode.
        pixels: uint8 (height, width, 3); None if it cannot be decoded.
        sha256: Hash of the encoded image, hexadecimal; None if not requested, or not readable.
        error: Reason why it cannot be read or decoded; None if it can.
    """

    name: str
    pixels: np.ndarray | None = None
    sha256: str | None = None
    error: str | None = None


@functools.lru_cache(1)
def _decoder(preprocessing):
    """Makes a graph from an encoded image to pixels, which takes seconds."""
    signature = [tf.TensorSpec((), tf.string)]
    return tf.function(preprocessing.pixels, signature, autograph=False)


class Loader:
    """A thread-safe function from a `Row` to a `Loaded`.

    Args:
        preprocessing: The evaluation transform.
        sha256: Whether to compute hashes.
    """

    def __init__(self, preprocessing, sha256):
        self.pixels, self.sha256 = _decoder(preprocessing), sha256

    def __call__(self, row):
        """Reads and decodes an image."""
        name = os.fsencode(row.name).decode("utf-8", "backslashreplace")
        digest = None
        try:
            content = row.read()
            digest = hashlib.sha256(content).hexdigest() if self.sha256 else None
            return Loaded(name, self.pixels(tf.constant(content)).numpy(), digest)
        except tf.errors.OpError:
            return Loaded(name, None, digest, why_bad_image(content) or "it cannot be decoded")
        except OSError as error:
            if error.errno not in OF_A_FILE:
                raise
            return Loaded(name, error=os.strerror(error.errno))
        except ValueError as error:
            return Loaded(name, error=str(error))
