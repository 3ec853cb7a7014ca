"""Batches of labelled images."""

import tensorflow as tf

from keras_resnet.data.augmentation import Augmentation
from keras_resnet.data.ordered_map import ordered_map, steps_per_epoch
from keras_resnet.data.skipped import Skipped, check_sample
from keras_resnet.data.source import DataError, Source
from keras_resnet.decoding import plainly
from keras_resnet.preprocessing import Preprocessing

PREFETCHED = 2


@plainly
def training_batches(source: Source, *, preprocessing: Preprocessing, augmentation=None, **options):
    """Makes shuffled and augmented batches.

    Args:
        source: As for `drawn_batches`, like the other arguments.
        preprocessing: Gives the crop, the interpolation, the mean and the standard deviation.
        augmentation: The random augmentation.
        **options: batch_size, seed, first_step and skipped.

    Returns:
        `tf.data.Dataset` of (images, labels): float32 (batch, height, width, 3), normalised; int64
        (batch,), or float32 (batch, classes) if `augmentation.mixes_labels` or the source is
        multi-label. With weights, of (images, labels, weights), float32 (batch,).
    """
    augmentation = augmentation or Augmentation()
    batches = drawn_batches(
        source, preprocessing=preprocessing, augmentation=augmentation, **options
    )
    return prefetched(
        batches.map(lambda batch, *labels: (augmentation.apply(batch, preprocessing), *labels))
    )


@plainly
def drawn_batches(
    source: Source,
    *,
    preprocessing: Preprocessing,
    augmentation: Augmentation,
    batch_size,
    seed,
    first_step=None,
    skipped=None,
):
    """Makes shuffled batches of augmented pixels, and the random numbers for `augmentation.apply`.

    Batch k depends on the source, `seed` and k only. Each image occurs once per epoch; with
    `augmentation.repeats`, a part of the images occurs that many times in a row. An unreadable
    image is replaced by another one, chosen by the seed, which changes neither the other images nor
    the number of batches.

    Args:
        source: The images.
        preprocessing: Gives the crop and the interpolation.
        augmentation: The random augmentation.
        batch_size: Number of images per batch; the last one of an epoch may have fewer.
        seed: Random seed of the order and the augmentation.
        first_step: Number of batches to skip in an endless sequence, to resume a training; or None
            for one epoch, the next one each time that the result is iterated.
        skipped: Collects unreadable images.

    Returns:
        `tf.data.Dataset` of what `augmentation.drawn` returns.

    Raises:
        DataError: if the augmentation does not go with the source's labels.
    """
    check_labels(source, augmentation)
    classes = len(source.class_names)
    steps = steps_per_epoch(source, batch_size)

    def order(epoch, first):
        """Returns the examples of an epoch from number `first` on."""
        key, repeats = tf.stack([tf.cast(seed, tf.int64), epoch]), augmentation.repeats
        examples = source.examples(key, first // repeats)
        if repeats > 1:
            examples = examples.flat_map(
                lambda *example: tf.data.Dataset.from_tensors(example).repeat(repeats)
            ).skip(first % repeats)
        return examples.take(source.count - first)

    @tf.function(autograph=False)  # traced once, called four times
    def load(place, example):
        _, item, *labels = example
        key = source.key(seed, 0, place)
        return *augmentation.image(source.read(item), preprocessing, key), *labels

    def finish(place, pixels, erasures, labels, *weights):
        key = source.key(seed, 2, place[0])
        return augmentation.drawn(pixels, labels, erasures, key, classes, *weights)

    if first_step is None:
        # Each iteration of the dataset is another epoch.
        counter = tf.Variable(0, dtype=tf.int64, trainable=False)
        epochs = tf.data.Dataset.range(1).map(lambda _: (counter.assign_add(1) - 1, 0))
    else:
        epochs = tf.data.Dataset.range(first_step // steps, tf.int64.max).map(
            lambda epoch: (
                epoch,
                tf.where(epoch == first_step // steps, first_step % steps * batch_size, 0),
            )
        )
    batched = ordered_map(
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
    return batched


def check_labels(source: Source, augmentation: Augmentation):
    """Refuses label smoothing where there is no one label to take it from."""
    if source.multi_label and augmentation.label_smoothing:
        raise DataError(
            "label_smoothing spreads the one label of an image over all classes; multi-label "
            "images have none to spread. Set label_smoothing to 0. Received: "
            f"label_smoothing={augmentation.label_smoothing}"
        )


def prefetched(batched):
    """Loads the next batches in the background."""
    # Without autotuning, whose thread often delayed the end of an epoch by 9 s in Keras.
    options = tf.data.Options()
    options.autotune.enabled = False
    # With several machines, the caller passes `worker`.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return batched.prefetch(PREFETCHED).with_options(options)


@plainly
def evaluation_batches(source: Source, preprocessing: Preprocessing, **options):
    """Makes batches with the evaluation transform, in the order of the source.

    Args:
        source: As for `pixel_batches`, like the other arguments.
        preprocessing: The evaluation transform.
        **options: batch_size and skipped.

    Returns:
        `tf.data.Dataset` of (images, labels, names, *weights): float32 (batch, height, width, 3),
        int64 (batch,) or float32 (batch, classes), string (batch,), the image's name in the
        source; float32 (batch,), if the source has weights.
    """
    batches = pixel_batches(source, preprocessing, **options)
    return prefetched(
        batches.map(lambda pixels, *others: (preprocessing.normalise(pixels), *others))
    )


@plainly
def pixel_batches(source: Source, preprocessing: Preprocessing, *, batch_size, skipped=None):
    """Makes the batches of `evaluation_batches` without normalising them.

    Args:
        source: The images. Unreadable ones are missing from their batch; if a whole batch is
            unreadable, it has one image that also occurs elsewhere.
        preprocessing: The evaluation transform.
        batch_size: Number of images per batch; the last batch may have fewer.
        skipped: Collects unreadable images.

    Returns:
        `tf.data.Dataset` of (pixels, labels, names, *weights), as `evaluation_batches`, but
        uint8.
    """

    @tf.function(autograph=False)
    def load(place, example):
        name, item, label, *weights = example
        return preprocessing.pixels(source.read(item)), label, name, *weights

    batched = ordered_map(
        tf.data.Dataset.from_tensors((tf.constant(0, tf.int64), tf.constant(0, tf.int64))),
        lambda _, first: source.examples(None, first),
        load,
        fill=False,
        endless=False,
        seed=0,
        source=source,
        batch_size=batch_size,
        skipped=skipped,
    ).map(lambda _, *columns: columns)
    steps = steps_per_epoch(source, batch_size)
    return batched.apply(tf.data.experimental.assert_cardinality(steps))


@plainly
def without_names(batches):
    """Removes the names from evaluation batches: (images, labels), as Keras expects."""
    return batches.map(lambda images, labels, _, *weights: (images, labels, *weights))


def batches(
    source: Source,
    *,
    training: bool = False,
    image_size: int = 224,
    resize: int | None = None,
    exif: bool = False,
    preprocessing: Preprocessing | None = None,
    batch_size: int = 16,
    seed: int = 0,
    augmentation: Augmentation | None = None,
    first_step: int | None = None,
    worker: tuple[int, int] = (0, 1),
    max_bad: float = 0.1,
    skipped: Skipped | None = None,
) -> tuple[tf.data.Dataset, list[str]]:
    """Makes batches from a source; the other functions of this subpackage return the same.

    Args:
        source: The images.
        training: True for random order and augmentation; False for the evaluation transform, in the
            order of the source.
        image_size: Image size, height and width in pixels.
        resize: Length of the shorter side before the centre crop, in the evaluation transform.
            Default: 256 / 224 of `image_size`.
        exif: Whether to apply the EXIF orientation of JPEG files; torchvision does not.
        preprocessing: A `Preprocessing`, which replaces these three arguments.
        batch_size: Number of images per batch; the last batch may have fewer.
        seed: Random seed of the order and the augmentation.
        augmentation: A `data.Augmentation`; by default random crops and flips.
        first_step: For training, start after this number of batches and repeat endlessly. Default:
            one epoch for each iteration.
        worker: For training, (index of this machine, number of machines); each gets a part of the
            images.
        max_bad: Maximum fraction of unreadable images, which are skipped and logged; above it, an
            error is raised. Estimated on a sample of 1,000 images.
        skipped: A `data.Skipped`, which collects them.

    Returns:
        (`tf.data.Dataset` of (images, labels), class names): float32 (batch, image_size,
        image_size, 3), normalised RGB; int64 (batch,), or float32 (batch, classes) if the
        augmentation mixes labels or images show several classes. With a table that has weights, of
        (images, labels, weights), float32 (batch,), which `model.fit` takes.

    Raises:
        DataError: if too many images are unreadable, or an argument is out of range.
    """
    if batch_size < 1:
        raise DataError(f"batch_size should be 1 or more. Received: batch_size={batch_size}")
    if not 0 <= worker[0] < worker[1] <= source.count:
        raise DataError(
            "worker should be (index, number of workers), with an index from 0 and at least one "
            f"image per worker. Received: worker={worker} for {source.count} images"
        )
    if not training and (augmentation or first_step is not None or worker != (0, 1)):
        raise DataError("augmentation, first_step and worker need training=True.")
    skipped = Skipped() if skipped is None else skipped
    check_sample(source, skipped, max_bad=max_bad, seed=seed)
    preprocessing = preprocessing or Preprocessing.for_crop(image_size, resize, exif=exif)
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
