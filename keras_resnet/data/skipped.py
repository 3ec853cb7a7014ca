"""What could not be used of a data set, and why."""

import logging
import os
import threading

import tensorflow as tf

from keras_resnet.data.errors import DataError
from keras_resnet.data.source import Source
from keras_resnet.decoding import decode

logger = logging.getLogger("keras_resnet")

PARALLEL = 2 * os.cpu_count()  # images at a time; more than cores, since some wait for a disk
SAMPLE = 1000  # Images that are decoded once before training starts.


class Skipped:
    """The images of one source that were left out, in the order they were met.

    `reasons` is {name: why it cannot be decoded}.
    """

    def __init__(self):
        self.reasons = {}
        self._lock = threading.Lock()

    def __len__(self):
        """How many images were left out."""
        return len(self.reasons)

    def add(self, name, reason):
        """Notes an image once, and says so."""
        with self._lock:
            if name in self.reasons:
                return
            self.reasons[name] = reason
        logger.warning("Left out %s: %s.", name, reason)

    def add_all(self, reasons):
        """Notes {name: reason}."""
        for name, reason in reasons.items():
            self.add(name, reason)

    def noting(self, source: Source):
        """Function that notes a bad example of `source` by name, in a graph; returns True."""

        def note(name):
            name = name.decode(errors="surrogateescape")
            self.add(name, source.why_bad(name) or "it could not be read, but now it can")
            return True

        return lambda name: tf.ensure_shape(tf.numpy_function(note, [name], tf.bool), ())

    def judge(self, count, max_bad):
        """Refuses a data set of which too much is bad.

        Raises:
            DataError: if more than the share `max_bad` of `count` images was left out.
        """
        if len(self) > max_bad * count:
            first = "\n".join(
                f"  {name}: {reason}" for name, reason in list(self.reasons.items())[:5]
            )
            raise DataError(
                f"{len(self)} of {count} image files cannot be read, more than the share "
                f"max_bad={max_bad} allows. The first are:\n{first}\nMend or remove them "
                "(keras-resnet check-data lists them all), or raise max_bad to leave them out."
            )


def check_sample(source: Source, skipped: Skipped, *, max_bad, seed):
    """Decodes up to 1,000 images of a source once, to fail early where too many are bad.

    Args:
        source: The images.
        skipped: Takes the bad ones; those that listing the files put there count too.
        max_bad: The share of bad images, 0 to 1, above which there is an error.
        seed: Fixes which images are tried.

    Raises:
        DataError: if too many are bad, or if all were tried and a class has none left.
    """
    note, listed = skipped.noting(source), len(skipped)

    def good(name, item, label):
        def attempt(_):
            with tf.control_dependencies([decode(source.read(item))]):
                return tf.constant(True)

        tried = tf.data.Dataset.range(1).map(attempt).ignore_errors()
        tried = tried.concatenate(tf.data.Dataset.from_tensors(False)).take(1)
        fine = tried.get_single_element()
        return tf.cond(fine, lambda: fine, lambda: ~note(name)), label

    key = tf.constant([seed, -1], tf.int64)
    sample = source.examples(key, 0).take(SAMPLE).map(good, PARALLEL)
    labels = {False: [], True: []}
    for fine, label in sample.as_numpy_iterator():
        labels[bool(fine)].append(int(label))
    tried = len(labels[False]) + len(labels[True])
    skipped.judge(tried + listed, max_bad)
    gone = set(labels[False]) - set(labels[True])
    if gone and tried == source.count:
        raise DataError(
            f"No image of the class {source.class_names[min(gone)]!r} can be read. "
            "keras-resnet check-data says why."
        )
