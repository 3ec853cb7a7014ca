"""Loading in parallel, each example into its place."""

import math

import numpy as np
import tensorflow as tf

from keras_resnet.data.errors import DataError
from keras_resnet.data.skipped import PARALLEL, Skipped
from keras_resnet.data.source import Source

ATTEMPTS = 100  # Images that are tried for one place before training gives up.


def steps_per_epoch(source: Source, batch_size):
    """How many batches an epoch has; bad images do not change it."""
    return math.ceil(source.count / batch_size)


def in_places(epochs, order, load, *, fill, endless, source, batch_size, seed, skipped):
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
    skipped = Skipped() if skipped is None else skipped
    count, steps = source.count, steps_per_epoch(source, batch_size)
    image, empty, end = range(3)  # what an element is

    def elements_of(epoch, first):
        """Every place of an epoch from `first` on; those that fill up its last batch are empty."""
        first, base = tf.cast(first, tf.int64), epoch * steps * batch_size
        stop = base + steps * batch_size
        kinds = constant(image).repeat(count - first).concatenate(constant(empty).repeat())
        examples = order(epoch, first).concatenate(constant(nothing).repeat())
        elements = tf.data.Dataset.zip(kinds, tf.data.Dataset.range(base + first, stop), examples)
        # The last element is no image: it shows whether places are missing before it.
        return elements if endless else elements.concatenate(constant((end, stop, nothing)))

    def constant(value):
        return tf.data.Dataset.from_tensors(value)

    nothing = tf.constant(""), tf.constant(""), tf.constant(0, tf.int64)
    elements = epochs.flat_map(elements_of)

    loaded = load.get_concrete_function(*elements.element_spec[1:])
    specs = [tf.TensorSpec(part.shape, part.dtype) for part in loaded.structured_outputs]
    blank = tuple(tf.zeros(part.shape, part.dtype) for part in specs)

    def loaded_element(number, element):
        kind, place, example = element
        columns = tf.cond(kind == image, lambda: load(place, example), lambda: blank)
        return number, kind, place, columns

    def settled(expected, numbers, kinds, places, columns):
        """The rows of all that is numbered from `expected` to a batch's last element."""
        before = tf.concat([[expected], numbers[:-1] + 1], 0)
        own = [kinds == image, places, *columns]
        regular = tf.reduce_all((kinds != end) & (before == numbers))
        return _rows(regular, own, mended, before, numbers, kinds != end)

    def mended(before, numbers, kept, *own):
        """The same where something is missing: rows in the order of their places."""
        rows = [[part[index] for part in own] for index in np.flatnonzero(kept)]
        for first, number, place in zip(
            before.numpy(), numbers.numpy(), own[1].numpy(), strict=True
        ):
            rows += [mend(place - number + missing) for missing in range(first, number)]
        if not rows:
            return [part[:0] for part in own]
        rows.sort(key=lambda row: int(row[1]))
        return [tf.stack(column) for column in zip(*rows, strict=True)]

    def mend(place):
        """The row of a place whose image is bad."""
        place = tf.constant(place, tf.int64)
        epoch, position = place // (steps * batch_size), place % (steps * batch_size)
        try:
            name = next(iter(order(epoch, position)))[0].numpy()
        except (tf.errors.OpError, StopIteration):
            name = f"record {position} of epoch {epoch}, which cannot be read".encode()
        skipped.note(source, name)
        return [True, place, *stand_in(place)] if fill else [False, place, *blank]

    def stand_in(place):
        """The first good one of the images that may take a place."""
        key = source.key(seed, 1, place)
        for number in range(ATTEMPTS):
            try:
                return load(place, source.replacement(tf.random.fold_in(key, number)))
            except tf.errors.OpError as error:
                said = error.message
        raise DataError(
            f"{ATTEMPTS} images in a row cannot be decoded. Is the disk still there? The last "
            f"error was: {said}"
        )

    def only_filled(filled, *columns):
        return _rows(tf.reduce_all(filled), columns, filled_rows, filled)

    def filled_rows(filled, places, *columns):
        if not filled.numpy().any():
            return [places[:1], *(part[tf.newaxis] for part in stand_in(places[0]))]
        return [tf.boolean_mask(column, filled) for column in (places, *columns)]

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
