"""From labelled images to batches."""

import math

import numpy as np
import tensorflow as tf

from keras_resnet.data.augmentation import Augmentation
from keras_resnet.data.errors import DataError
from keras_resnet.data.skipped import PARALLEL, Skipped, check_sample
from keras_resnet.data.source import Source
from keras_resnet.preprocessing import Preprocessing

PREFETCHED = 2
ATTEMPTS = 100  # Images that are tried for one place before training gives up.


def steps_per_epoch(source: Source, batch_size):
    """How many batches an epoch has; bad images do not change it."""
    return math.ceil(source.count / batch_size)


def training_batches(
    source: Source,
    *,
    preprocessing: Preprocessing,
    batch_size,
    seed,
    augmentation=None,
    first_step=None,
    skipped=None,
):
    """Shuffled and augmented batches.

    What is in batch k is a function of the source, `seed` and k alone. Each image comes once an
    epoch; with `augmentation.repeats`, a share of them does, so many times in a row. The place of
    an image that cannot be decoded is taken by another one, in a fixed order: it changes no other
    place, nor the number of batches.

    Args:
        source: The images.
        preprocessing: Whose crop is the images' side, and whose mean and deviation are used.
        batch_size: Images of a batch; the last one of an epoch may have fewer.
        seed: Fixes the order and the augmentation.
        augmentation: What is done to images at random.
        first_step: None for one epoch, each time that the result is iterated the next one. Or a
            number of batches: endless, as an uninterrupted training goes on after so many.
        skipped: Is told of the images that cannot be decoded.

    Returns:
        `tf.data.Dataset` of (images, labels): float32 (batch, crop, crop, 3), normalised; int64
        (batch,), or float32 (batch, classes) if `augmentation.mixes_labels`.
    """
    augmentation = augmentation or Augmentation()
    size, classes = preprocessing.crop, len(source.class_names)
    steps = steps_per_epoch(source, batch_size)

    def order(epoch, first):
        """The examples of an epoch from number `first` on."""
        key, repeats = tf.stack([tf.cast(seed, tf.int64), epoch]), augmentation.repeats
        examples = source.examples(key, first // repeats)
        if repeats > 1:
            examples = examples.flat_map(
                lambda *example: tf.data.Dataset.from_tensors(example).repeat(repeats)
            ).skip(first % repeats)
        return examples.take(source.count - first)

    @tf.function(autograph=False)  # traced once, where it is called four times
    def load(place, example):
        _, item, label = example
        key = tf.random.fold_in(tf.constant([seed, 0], tf.int64), place)
        image_bytes = source.read(item)
        return *augmentation.image(image_bytes, size, key, preprocessing.exif), label

    @tf.autograph.experimental.do_not_convert
    def finish(place, pixels, erasures, labels):
        key = tf.random.fold_in(tf.constant([seed, 2], tf.int64), place[0])
        images = preprocessing.normalise(pixels)
        return augmentation.batch(images, labels, erasures, key, classes)

    if first_step is None:
        # Another epoch each time that somebody starts to iterate.
        counter = tf.Variable(0, dtype=tf.int64, trainable=False)
        epochs = tf.data.Dataset.range(1).map(lambda _: (counter.assign_add(1) - 1, 0))
    else:
        epochs = tf.data.Dataset.range(first_step // steps, tf.int64.max).map(
            lambda epoch: (
                epoch,
                tf.where(epoch == first_step // steps, first_step % steps * batch_size, 0),
            )
        )
    batched = _in_places(
        epochs,
        order,
        load,
        fill=True,
        endless=first_step is not None,
        seed=seed,
        batch_size=batch_size,
        skipped=skipped,
        source=source,
    ).map(finish)
    if first_step is None:
        batched = batched.apply(tf.data.experimental.assert_cardinality(steps))
    return _prefetched(batched)


def _in_places(epochs, order, load, *, fill, endless, source, batch_size, seed, skipped):
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
        # Python, and not a graph: a branch as large as that slows down those who do not take it.
        rows = tf.cond(
            regular,
            lambda: own,
            lambda: tf.py_function(
                mended, [before, numbers, kinds != end, *own], [part.dtype for part in own]
            ),
        )
        return tuple(
            tf.ensure_shape(row, (None, *part.shape[1:]))
            for row, part in zip(rows, own, strict=True)
        )

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
        key = tf.random.fold_in(tf.constant([seed, 1], tf.int64), place)
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
        kept = tf.cond(
            tf.reduce_all(filled),
            lambda: columns,
            lambda: tuple(
                tf.py_function(filled_rows, [filled, *columns], [part.dtype for part in columns])
            ),
        )
        return tuple(
            tf.ensure_shape(row, (None, *part.shape[1:]))
            for row, part in zip(kept, columns, strict=True)
        )

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


def _prefetched(batched):
    # Without autotuning: its thread made Keras wait some 9 s for many an epoch to end.
    options = tf.data.Options()
    options.autotune.enabled = False
    # Who trains on several machines says which part is whose.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return batched.prefetch(PREFETCHED).with_options(options)


def evaluation_batches(source: Source, preprocessing: Preprocessing, *, batch_size, skipped=None):
    """Batches in the source's order under the evaluation transform.

    Args:
        source: The images; one that cannot be decoded is missing from its batch. (Of a batch
            that has no other, an image takes the place that comes elsewhere too.)
        preprocessing: The evaluation transform.
        batch_size: Images of a batch; the last one may have fewer.
        skipped: Is told of the images that cannot be decoded.

    Returns:
        `tf.data.Dataset` of (images, labels, names): float32 (batch, crop, crop, 3), int64
        (batch,), string (batch,): what the source calls the image.
    """

    @tf.function(autograph=False)
    def load(place, example):
        name, item, label = example
        return preprocessing.pixels(source.read(item)), label, name

    batched = _in_places(
        tf.data.Dataset.from_tensors((tf.constant(0, tf.int64), tf.constant(0, tf.int64))),
        lambda _, first: source.examples(None, first),
        load,
        fill=False,
        endless=False,
        seed=0,
        source=source,
        batch_size=batch_size,
        skipped=skipped,
    ).map(lambda _, pixels, labels, names: (preprocessing.normalise(pixels), labels, names))
    cardinality = tf.data.experimental.assert_cardinality(steps_per_epoch(source, batch_size))
    return _prefetched(batched.apply(cardinality))


def without_names(batches):
    """(images, labels) of evaluation batches, as Keras takes them."""
    return batches.map(lambda images, labels, _: (images, labels))


def batches(
    source: Source,
    *,
    training=False,
    image_size=224,
    resize=None,
    exif=False,
    batch_size=16,
    seed=0,
    augmentation=None,
    first_step=None,
    worker=(0, 1),
    max_bad=0.1,
    skipped=None,
    listed=0,
):
    """What the functions of this room return, from a source.

    Args:
        source: The images.
        training: True for random order and augmentation, False for the evaluation transform in
            the source's order.
        image_size: Side of the images, in pixels.
        resize: Length of the shorter side before the centre crop of the evaluation transform.
            Default: 256 / 224 of `image_size`.
        exif: True to turn JPEGs as their EXIF orientation says; torchvision does not.
        batch_size: Images of a batch; the last one may have fewer.
        seed: Fixes the order and the augmentation.
        augmentation: A `data.Augmentation`; by default crops and mirroring.
        first_step: While training, go on after so many batches, endlessly. Default: an epoch each
            time.
        worker: While training, (which, of how many) machines this is; each gets its share.
        max_bad: The share of undecodable images above which there is an error; up to it they
            are left out and logged. Judged on a sample of 1,000.
        skipped: A `data.Skipped` that is told of them.
        listed: How many more were unusable when the source was made.

    Returns:
        (`tf.data.Dataset` of (images, labels), class names): float32 (batch, image_size,
        image_size, 3), normalised RGB; int64 (batch,), or float32 (batch, classes) if the
        augmentation mixes labels.

    Raises:
        DataError: if too much of the data is bad, or an argument is out of range.
    """
    if batch_size < 1 or not 0 <= worker[0] < worker[1] <= source.count:
        raise DataError(
            "batch_size should be 1 or more, worker (which, of how many), from (0, 1) on. "
            f"Received: batch_size={batch_size}, worker={worker} for {source.count} images"
        )
    if not training and (augmentation or first_step is not None):
        raise DataError("augmentation and first_step are for training=True.")
    skipped = Skipped() if skipped is None else skipped
    check_sample(source, skipped, max_bad=max_bad, seed=seed, listed=listed)
    preprocessing = Preprocessing.for_crop(image_size, resize, exif=exif)
    if training:
        dataset = training_batches(
            source.part(*worker),
            preprocessing=preprocessing,
            batch_size=batch_size,
            seed=seed,
            augmentation=augmentation,
            first_step=first_step,
            skipped=skipped,
        )
    else:
        dataset = without_names(
            evaluation_batches(source, preprocessing, batch_size=batch_size, skipped=skipped)
        )
    return dataset, list(source.class_names)
