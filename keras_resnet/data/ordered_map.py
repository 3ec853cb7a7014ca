"""Loading in parallel, each example into its place."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from keras_resnet.data.skipped import PARALLEL, Skipped
from keras_resnet.data.source import DataError, Source
from keras_resnet.decoding import plainly

ATTEMPTS = 100  # Images that are tried for one place before training gives up.
IMAGE, EMPTY, END = range(3)  # what an element is


def steps_per_epoch(source: Source, batch_size):
    """How many batches an epoch has; bad images do not change it."""
    return math.ceil(source.count / batch_size)


@plainly
def ordered_map(epochs, order, load, *, fill, endless, source, batch_size, seed, skipped):
    """Loads examples in parallel, each into its place whatever becomes of the others.

    An error in `load` drops its element, which is cheap; an error that is caught beside each image,
    by a data set of its own, took a third of the time. So each element knows its place, a gap in
    the places is a bad image, and what fills it is made after the parallel part.

    Args:
        epochs: Dataset of (epoch, first example of it that is needed), int64.
        order: Function from such a pair to the dataset of its examples.
        load: `tf.function` from a place, int64, and its example to columns.
        fill: Whether another image takes a bad one's place; else the place stays empty, unless
            its whole batch is bad: models do not take empty ones.
        endless: Whether there are ever more epochs; else there is one.
        source: The images.
        batch_size: Images of a batch.
        seed: Fixes which images take the places of bad ones.
        skipped: Is told of the bad ones.

    Returns:
        Batches of (place, *columns); the last one of an epoch has what is left.
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
        """The rows of all that is numbered from `expected` to a batch's last element."""
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
        .map(settled, 2)  # while one is copied, another is put together
        .rebatch(batch_size)
        .map(only_filled)
    )


def _elements(epochs, order, count, slots, endless):
    """Dataset of (kind, place, example): `slots` places an epoch, of which `count` have images."""

    def constant(value):
        return tf.data.Dataset.from_tensors(value)

    def elements_of(epoch, first):
        """Every place of an epoch from `first` on; those that fill up its last batch are empty."""
        first, base = tf.cast(first, tf.int64), epoch * slots
        stop = base + slots
        kinds = constant(IMAGE).repeat(count - first).concatenate(constant(EMPTY).repeat())
        examples = order(epoch, first)
        nothing = tuple(tf.zeros(spec.shape, spec.dtype) for spec in examples.element_spec)
        examples = examples.concatenate(constant(nothing).repeat())
        elements = tf.data.Dataset.zip(kinds, tf.data.Dataset.range(base + first, stop), examples)
        # The last element is no image: it shows whether places are missing before it.
        return elements if endless else elements.concatenate(constant((END, stop, nothing)))

    return epochs.flat_map(elements_of)


@dataclasses.dataclass(frozen=True)
class _Gaps:
    """What becomes of the places whose images are bad; in Python, for the few batches with any.

    A row is (whether the place is filled, the place, *columns).

    Args:
        source: The images.
        order: As of `ordered_map`.
        load: As of `ordered_map`.
        slots: How many places an epoch has.
        blank: The columns of a place that stays empty; None if another image takes it.
        seed: Fixes which one.
        skipped: Is told of the bad ones.
    """

    source: Source
    order: Callable
    load: Callable
    slots: int
    blank: tuple | None
    seed: int
    skipped: Skipped

    def mended(self, before, numbers, kept, *own):
        """The rows of a batch in the order of their places, with those that are missing from it."""
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
        """A batch's places and columns without the empty ones; if all are, one other image."""
        if not filled.numpy().any():
            return [places[:1], *(part[tf.newaxis] for part in self._stand_in(places[0]))]
        return [tf.boolean_mask(column, filled) for column in (places, *columns)]

    def _row(self, place):
        """The row of a place whose image is bad."""
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
        """The first good one of the images that may take a place."""
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
    """The columns of a batch, or what a Python function makes of the arguments and them.

    Python, and not a graph: a branch as large as that slows down those who do not take it.
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
