"""Where labelled images come from, before anything is decoded."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable

import tensorflow as tf

from keras_resnet.data.unreadable import why_bad_image

SPARES = 8  # Good records that stand in for bad ones, where records can only be read in turn.


class DataError(ValueError):
    """A data set that cannot be used."""


@dataclasses.dataclass(frozen=True)
class Source:
    """Encoded images with their labels.

    An example is (name, item, label): the name for reports, scalar string; what `read` takes,
    scalar string; the index into `class_names`, int64.

    Args:
        class_names: Names of the classes.
        count: How many examples there are.
        examples: Function from a key and a number to a `tf.data.Dataset` of `count` examples less
            that number at the start: in an order that the key fixes, int64 (2,), or in the
            source's own if it is None.
        read: Function from an item to the encoded image, a scalar string tensor.
        replacement: Function from a key, int64 (2,), to an example that takes a bad one's place.
        why_bad: Function from a name to why its image cannot be decoded, in words; None if it can.
        unusable: What is named as an image but is no file, {name: why}; not among the examples.
        unread: Images of kinds that TensorFlow does not read, {name: why}; not among the examples.
        worker: (which, of how many): these are the examples which, which + how many, ... of a
            whole.
        counts: How many examples each class has; None where only reading them all would say.
        listed: Function to (name, bytes, images in it) of each file that the whole is in, by
            looking at no file's content; nothing where there are no files to look at.
        folder: What those names are below, where each file is an image; "" elsewhere.
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

    def part(self, worker: int, workers: int, *, equal: bool = True) -> "Source":
        """The examples of one of several workers.

        Args:
            worker: Which, from 0.
            workers: Of how many.
            equal: Whether all get as many, and a few examples go to nobody.
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
        """As many examples as fill batches; which are left out, an epoch's order says.

        Raises:
            DataError: if there is no whole batch.
        """
        if self.count < batch_size:
            raise DataError(
                f"{self.count} images are fewer than batch_size={batch_size}. Choose a smaller "
                "batch_size."
            )
        return dataclasses.replace(self, count=self.count // batch_size * batch_size)

    def key(self, seed: int, purpose: int, place: tf.Tensor) -> tf.Tensor:
        """What fixes the draws for a place of the training order; the same whoever loads it.

        Args:
            seed: The training's.
            purpose: A number for each kind of draw.
            place: int64 tensor: the place in this part.
        """
        which, workers = self.worker
        return tf.random.fold_in(tf.constant([seed, purpose], tf.int64), place * workers + which)


def check_split(validation_split: float) -> None:
    """Refuses what is no share of the images."""
    if not 0 < validation_split < 1:
        raise DataError(
            "validation_split should be a fraction of the images, more than 0 and less than 1. "
            f"Received: validation_split={validation_split}"
        )


def stream_source(class_names, count, examples) -> Source:
    """A source of records that can only be read one after the other; their items are the images.

    Args:
        class_names: As of `Source`.
        count: As of `Source`.
        examples: As of `Source`.
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
