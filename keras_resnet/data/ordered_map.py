"""Loads examples in parallel, in a fixed order even if some cannot be loaded."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from keras_resnet.data.skipped import PARALLEL, Skipped
from keras_resnet.data.source import DataError, Source
from keras_resnet.decoding import plainly

ATTEMPTS = 100  # number of replacements to try for one unreadable image
IMAGE, EMPTY, END = range(3)  # kinds of elements


def steps_per_epoch(source: Source, batch_size):
    """Returns the number of batches per epoch, which unreadable images do not change."""
    return math.ceil(source.count / batch_size)


@plainly
def ordered_map(epochs, order, load, *, fill, endless, source, batch_size, seed, skipped):
    """Loads examples in parallel; each keeps its position even if others cannot be loaded.

    An error in `load` drops the element, which is cheap; to catch errors with a data set per image
    took a third of the time. So elements are numbered, a gap in the numbers is an unreadable image,
    and it is filled after the parallel part.

    Args:
        epochs: Dataset of (epoch, number of the first example to load), int64.
        order: Function from such a pair to the dataset of its examples.
        load: `tf.function` from a position, int64, and its example to columns.
        fill: Whether unreadable images are replaced. Otherwise they are omitted, but a batch has
            at least one image, since models do not accept empty ones.
        endless: Whether there is an endless number of epochs; otherwise there is one.
        source: The images.
        batch_size: Number of images per batch.
        seed: Random seed of the replacements.
        skipped: Collects unreadable images.

    Returns:
        Batches of (position, *columns); the last one of an epoch may be smaller.
    """
    slots = steps_per_epoch(source, batch_size) * batch_size
    elements = _elements(epochs, order, source.count, slots, endless)
    loaded = load.get_concrete_function(*elements.element_spec[1:])
    specs = [tf.TensorSpec(part.shape, part.dtype) for part in loaded.structured_outputs]
    blank = tuple(tf.zeros(part.shape, part.dtype) for part in specs)
    skipped = Skipped() if skipped is None else skipped
    gaps = _Gaps(source, order, load, slots, None if fill else blank, seed, skipped)

    def loaded_element(number, element):
        kind, place, example = element
        columns = tf.cond(kind == IMAGE, lambda: load(place, example), lambda: blank)
        return number, kind, place, columns

    def settled(expected, numbers, kinds, places, columns):
        """Returns rows for all numbers from `expected` to the last one of a batch."""
        before = tf.concat([[expected], numbers[:-1] + 1], 0)
        own = [kinds == IMAGE, places, *columns]
        regular = tf.reduce_all((kinds != END) & (before == numbers))
        return _rows(regular, own, gaps.mended, before, numbers, kinds != END)

    def only_filled(filled, *columns):
        return _rows(tf.reduce_all(filled), columns, gaps.left_out, filled)

    return (
        elements.enumerate()
        .map(loaded_element, PARALLEL)
        .ignore_errors()
        .batch(batch_size)
        .scan(tf.constant(0, tf.int64), lambda last, batch: (batch[0][-1] + 1, (last, *batch)))
        .map(settled, 2)  # so that copying and filling overlap
        .rebatch(batch_size)
        .map(only_filled)
    )


def _elements(epochs, order, count, slots, endless):
    """Returns a dataset of (kind, position, example): `slots` per epoch, `count` with images."""

    def constant(value):
        return tf.data.Dataset.from_tensors(value)

    def elements_of(epoch, first):
        """Returns the positions of an epoch from `first` on; the last batch is padded."""
        first, base = tf.cast(first, tf.int64), epoch * slots
        stop = base + slots
        kinds = constant(IMAGE).repeat(count - first).concatenate(constant(EMPTY).repeat())
        examples = order(epoch, first)
        nothing = tuple(tf.zeros(spec.shape, spec.dtype) for spec in examples.element_spec)
        examples = examples.concatenate(constant(nothing).repeat())
        elements = tf.data.Dataset.zip(kinds, tf.data.Dataset.range(base + first, stop), examples)
        # The last element is not an image, but shows whether positions before it are missing.
        return elements if endless else elements.concatenate(constant((END, stop, nothing)))

    return epochs.flat_map(elements_of)


@dataclasses.dataclass(frozen=True)
class _Gaps:
    """Fills the positions of unreadable images; runs in Python, only for batches with any.

    A row is (whether the position has an image, the position, *columns).

    Args:
        source: The images.
        order: As for `ordered_map`.
        load: As for `ordered_map`.
        slots: Number of positions per epoch.
        blank: The columns of an empty position; None if unreadable images are replaced.
        seed: Random seed of the replacements.
        skipped: Collects unreadable images.
    """

    source: Source
    order: Callable
    load: Callable
    slots: int
    blank: tuple | None
    seed: int
    skipped: Skipped

    def mended(self, before, numbers, kept, *own):
        """Returns the rows of a batch in order, with the missing ones inserted."""
        rows = [[part[index] for part in own] for index in np.flatnonzero(kept)]
        for first, number, place in zip(
            before.numpy(), numbers.numpy(), own[1].numpy(), strict=True
        ):
            rows += [self._row(place - number + missing) for missing in range(first, number)]
        if not rows:
            return [part[:0] for part in own]
        rows.sort(key=lambda row: int(row[1]))
        return [tf.stack(column) for column in zip(*rows, strict=True)]

    def left_out(self, filled, places, *columns):
        """Removes empty positions from a batch; if all are empty, returns one other image."""
        if not filled.numpy().any():
            return [places[:1], *(part[tf.newaxis] for part in self._stand_in(places[0]))]
        return [tf.boolean_mask(column, filled) for column in (places, *columns)]

    def _row(self, place):
        """Returns the row for a position whose image is unreadable."""
        place = tf.constant(place, tf.int64)
        epoch, position = place // self.slots, place % self.slots
        try:
            name = next(iter(self.order(epoch, position)))[0].numpy()
        except (tf.errors.OpError, StopIteration):
            name = f"record {position} of epoch {epoch}, which cannot be read".encode()
        self.skipped.note(self.source, name)
        if self.blank is not None:
            return [False, place, *self.blank]
        return [True, place, *self._stand_in(place)]

    def _stand_in(self, place):
        """Returns the first readable replacement for a position."""
        key = self.source.key(self.seed, 1, place)
        for number in range(ATTEMPTS):
            try:
                return self.load(place, self.source.replacement(tf.random.fold_in(key, number)))
            except tf.errors.OpError as error:
                said = error.message
        raise DataError(
            f"{ATTEMPTS} consecutive images cannot be decoded. Check that the disk is still "
            f"available. The last error was: {said}"
        )


def _rows(regular, columns, otherwise, *arguments):
    """Returns the columns if `regular`, else the result of a Python function of them.

    In Python, because a large graph branch slows down even the batches that do not take it.
    """
    rows = tf.cond(
        regular,
        lambda: list(columns),
        lambda: tf.py_function(
            otherwise, [*arguments, *columns], [column.dtype for column in columns]
        ),
    )
    return tuple(
        tf.ensure_shape(row, (None, *column.shape[1:]))
        for row, column in zip(rows, columns, strict=True)
    )
