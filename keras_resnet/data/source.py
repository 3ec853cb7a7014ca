"""Sources of encoded, labelled images."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Sequence

import tensorflow as tf

from keras_resnet.data.unreadable import why_bad_image

SPARES = 8  # number of replacements for unreadable records, if there is no random access


class DataError(ValueError):
    """A data set that cannot be used."""


@dataclasses.dataclass(frozen=True)
class Source:
    """Encoded images with their labels.

    An example is (name, item, label): a name for reports, scalar string; the argument of `read`,
    scalar string; the index into `class_names`, int64, or if `multi_label` float32 (classes,), 1
    for each class that the image shows and 0 for others. A fourth part, if there is one, is the
    weight of the image's loss in training, float32.

    Args:
        class_names: Names of the classes.
        count: Number of examples.
        examples: Function of a key, int64 (2,), and a number to a `tf.data.Dataset` of the examples
            without that number of first ones: in a random order with the key as its seed, or in the
            source's order if the key is None.
        read: Function of an item to the encoded image, a scalar string tensor.
        replacement: Function of a key, int64 (2,), to an example that replaces an unreadable one.
        why_bad: Function of a name to the reason why the image cannot be decoded; None if it can.
        unusable: Entries that are named like images but are not files, {name: reason}; not among
            the examples.
        unread: Images in formats that TensorFlow does not read, {name: reason}; not among the
            examples.
        worker: (index, number of workers): this source has every such example, starting at the
            index.
        counts: Number of examples that show each class; None if it is unknown without reading them
            all.
        listed: Function that lists (name, size in bytes, number of images) of each data file,
            without reading its content; empty if there are no files.
        folder: Folder that these names are relative to, if each file is an image; else "".
        multi_label: Whether an image may show several classes, or none.
    """

    class_names: tuple[str, ...]
    count: int
    examples: Callable[[tf.Tensor | None, tf.Tensor | int], tf.data.Dataset]
    read: Callable[[tf.Tensor], tf.Tensor]
    replacement: Callable[[tf.Tensor], tuple]
    why_bad: Callable[[str], str | None]
    unusable: dict[str, str] = dataclasses.field(default_factory=dict)
    unread: dict[str, str] = dataclasses.field(default_factory=dict)
    worker: tuple[int, int] = (0, 1)
    counts: tuple[int, ...] | None = None
    listed: Callable[[], Iterable[tuple[str, int, int]]] = tuple
    folder: str = ""
    multi_label: bool = False

    def part(self, worker: int, workers: int, *, equal: bool = True) -> "Source":
        """Returns the examples of one of several workers.

        Args:
            worker: Index of the worker, from 0.
            workers: Number of workers.
            equal: Whether all workers get the same number, so that a few examples may be unused.
        """
        if workers == 1:
            return self
        count = self.count // workers if equal else len(range(worker, self.count, workers))
        return dataclasses.replace(
            self,
            worker=(worker, workers),
            count=count,
            counts=None,
            examples=lambda key, start: (
                self.examples(key, 0)
                .shard(workers, worker)
                .take(count)
                .skip(tf.cast(start, tf.int64))
            ),
        )

    def whole_batches(self, batch_size: int) -> "Source":
        """Returns the source with only whole batches; other examples are left out in each epoch.

        Raises:
            DataError: if there are fewer examples than a batch.
        """
        if self.count < batch_size:
            raise DataError(
                f"{self.count} images are fewer than batch_size={batch_size}. Choose a smaller "
                "batch_size."
            )
        return dataclasses.replace(self, count=self.count // batch_size * batch_size)

    def weighted(self, class_weights: Sequence[float]) -> "Source":
        """Returns the source with the weight of each image multiplied by that of its class.

        Args:
            class_weights: A number for each class.
        """
        table = tf.constant(class_weights, tf.float32)

        def weigh(name, item, label, *weights):
            return name, item, label, tf.reduce_prod([tf.gather(table, label), *weights])

        return dataclasses.replace(
            self,
            examples=lambda key, start: self.examples(key, start).map(weigh),
            replacement=lambda key: weigh(*self.replacement(key)),
        )

    def key(self, seed: int, purpose: int, place: tf.Tensor) -> tf.Tensor:
        """Returns the random seed for a position of the training order, the same on every worker.

        Args:
            seed: Random seed of the training.
            purpose: A number for each kind of random draw.
            place: int64 tensor: the position in this part.
        """
        which, workers = self.worker
        return tf.random.fold_in(tf.constant([seed, purpose], tf.int64), place * workers + which)


def check_split(validation_split: float) -> None:
    """Validates `validation_split`."""
    if not 0 < validation_split < 1:
        raise DataError(
            "validation_split should be a fraction of the images, more than 0 and less than 1. "
            f"Received: validation_split={validation_split}"
        )


def stream_source(class_names, count, examples) -> Source:
    """Makes a source of records that can only be read in sequence; items are encoded images.

    Args:
        class_names: As for `Source`.
        count: As for `Source`.
        examples: As for `Source`.
    """
    try:
        candidates = list(examples(None, 0).take(4 * SPARES))
    except tf.errors.OpError as error:
        raise DataError(f"The data cannot be read: {error.message}") from error
    decodable = (example for example in candidates if why_bad_image(example[1].numpy()) is None)
    good = list(itertools.islice(decodable, SPARES))
    spares = [tf.stack(column) for column in zip(*good, strict=True)]

    def replacement(key):
        chosen = tf.random.stateless_uniform((), key, 0, len(good), tf.int32)
        return tuple(column[chosen] for column in spares)

    return Source(
        tuple(class_names),
        count,
        examples,
        lambda item: item,
        replacement if good else lambda key: candidates[0],
        lambda name: "it cannot be decoded",
    )
