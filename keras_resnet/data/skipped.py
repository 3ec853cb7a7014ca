"""The images of a data set that were skipped, and why."""

import logging
import os
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tensorflow as tf

from keras_resnet.data.source import DataError, Source
from keras_resnet.data.unreadable import why_bad_image

logger = logging.getLogger("keras_resnet")

PARALLEL = 2 * (
    os.cpu_count() or 1
)  # images decoded in parallel; more than cores, since some wait for the disk
SAMPLE = 1000  # number of images to decode before training starts


class Skipped:
    """The images of a source that were skipped, in the order in which they were read.

    `reasons` is {name: why it cannot be decoded}. `unread` is the same for images in formats that
    TensorFlow does not read, which do not count as unreadable.
    """

    def __init__(self) -> None:
        self.reasons: dict[str, str] = {}
        self.unread: dict[str, str] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """How many images were skipped."""
        return len(self.reasons)

    def add(self, name: str, reason: str) -> None:
        """Records an image, once, and logs it."""
        with self._lock:
            if name in self.reasons:
                return
            self.reasons[name] = reason
        logger.warning("Skipped %s: %s.", name, reason)

    def add_all(self, reasons: Mapping[str, str]) -> None:
        """Records several images, {name: reason}."""
        for name, reason in reasons.items():
            self.add(name, reason)

    def add_unread(self, unread: Mapping[str, str]) -> None:
        """Records images in formats that TensorFlow does not read, {name: reason}; logs once."""
        new = {name: reason for name, reason in unread.items() if name not in self.unread}
        self.unread.update(new)
        if new:
            first = "; ".join(f"{name}: {reason}" for name, reason in list(new.items())[:3])
            logger.warning(
                "%d images are skipped: TensorFlow does not read their format. The first: %s. "
                "Convert them to PNG or JPEG; keras-resnet check-data lists them all.",
                len(new),
                first,
            )

    def note(self, source: Source, name: bytes) -> None:
        """Records an unreadable example of a source, by its name."""
        text = name.decode(errors="surrogateescape")
        self.add(text, source.why_bad(text) or "it was unreadable, but is readable now")

    def judge(self, share: float, max_bad: float, said: str) -> None:
        """Raises an error if too many images are unreadable.

        Args:
            share: Fraction of unreadable images, 0 to 1.
            max_bad: Maximum fraction.
            said: The fraction for the message: "3 of 20".

        Raises:
            DataError: if the fraction is above the maximum.
        """
        if share > max_bad:
            first = "\n".join(
                f"  {name}: {reason}" for name, reason in list(self.reasons.items())[:5]
            )
            raise DataError(
                f"{said} image files cannot be read, more than the fraction max_bad={max_bad} "
                f"allows. The first ones:\n{first}\nRepair or remove them (keras-resnet "
                "check-data lists them all), or increase max_bad to skip them."
            )


def check_sample(source: Source, skipped: Skipped, *, max_bad, seed):
    """Decodes up to 1,000 images of a source, to fail early if too many are unreadable.

    Args:
        source: The images.
        skipped: Collects unreadable images, and those already known to be unusable.
        max_bad: Maximum fraction of unreadable images, 0 to 1.
        seed: Random seed of the sample.

    Raises:
        DataError: if too many are unreadable, or if all were decoded and a class has none left.
    """

    def good(item):
        try:
            return why_bad_image(source.read(tf.constant(item)).numpy()) is None
        except tf.errors.OpError:  # the file was removed
            return False

    skipped.add_all(source.unusable)
    skipped.add_unread(source.unread)
    listed = len(source.unusable)
    key = tf.constant([seed, -1], tf.int64)
    # In threads, since tf.data needs a separate data set to catch the error of an image.
    sample = source.examples(key, 0).take(SAMPLE).batch(4 * PARALLEL)
    labels: dict[bool, list[int]] = {False: [], True: []}
    tried = bad = 0
    try:
        with ThreadPoolExecutor(PARALLEL) as pool:
            for names, items, numbers, *_ in sample.as_numpy_iterator():
                found = pool.map(good, items)
                tried += len(names)
                for fine, name, label in zip(found, names, numbers, strict=True):
                    labels[fine] += np.flatnonzero(label).tolist() if label.ndim else [int(label)]
                    if not fine:
                        bad += 1
                        skipped.note(source, name)
    except tf.errors.OpError as error:
        raise DataError(f"The data cannot be read: {error.message}") from error
    if not tried:
        raise DataError(f"None of the {source.count} images can be found. Write the shards again.")
    share = listed / (source.count + listed) + bad / tried
    skipped.judge(share, max_bad, f"{bad + listed} of {tried + listed}")
    strange = {label for part in labels.values() for label in part} - set(
        range(len(source.class_names))
    )
    if strange:
        raise DataError(
            f"The label {min(strange)} is out of range: expected 0 to "
            f"{len(source.class_names) - 1}."
        )
    gone = set(labels[False]) - set(labels[True])
    if gone and tried == source.count:
        raise DataError(
            f"No image of the class {source.class_names[min(gone)]!r} can be read. "
            "keras-resnet check-data says why."
        )
