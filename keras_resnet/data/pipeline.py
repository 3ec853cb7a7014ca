"""From a source to batches: the training and the evaluation pipeline."""

import os

import tensorflow as tf

from keras_resnet.data.source import Source
from keras_resnet.data.transforms import random_flip, random_resized_crop
from keras_resnet.preprocessing import Preprocessing

PARALLEL = os.cpu_count()
PREFETCHED = 2


def _batched(images, batch_size):
    # Without autotuning: its thread made Keras wait some 9 s for many an epoch to end.
    options = tf.data.Options()
    options.autotune.enabled = False
    return images.batch(batch_size).prefetch(PREFETCHED).with_options(options)


def training_batches(
    source: Source, *, image_size, batch_size, seed, preprocessing, crop_scale=(0.08, 1.0)
):
    """Shuffled batches of random crops, mirrored or not.

    Each epoch has `len(source)` images in an order and with crops of its own, all fixed by `seed`.
    An image that cannot be decoded gives its place to the next of the following order.

    Args:
        source: The images.
        image_size: Side of the crops, in pixels.
        batch_size: Images of a batch; the last one may have fewer.
        seed: Fixes the order and the crops.
        preprocessing: Whose mean and standard deviation are used.
        crop_scale: Range of the crop's share of the image's area.

    Returns:
        `tf.data.Dataset` of (images, labels): float32 (batch, image_size, image_size, 3),
        normalised, and int64 (batch,).
    """

    def load(example, number):
        _, item, label = example
        seeds = tf.random.split(tf.stack([number, seed]), 2)
        image = random_resized_crop(source.read(item), image_size, seeds[0], crop_scale)
        return preprocessing.normalise(random_flip(image, seeds[1])), label

    examples = source.items().shuffle(source.shuffle_buffer, seed).repeat(2)
    numbers = tf.data.Dataset.random(seed, rerandomize_each_iteration=True)
    images = tf.data.Dataset.zip(examples, numbers).map(load, PARALLEL).ignore_errors()
    images = images.take(len(source)).apply(tf.data.experimental.assert_cardinality(len(source)))
    return _batched(images, batch_size)


def evaluation_batches(source: Source, preprocessing: Preprocessing, *, batch_size):
    """Batches in the source's order under the evaluation transform.

    Args:
        source: The images; one that cannot be decoded is left out.
        preprocessing: The evaluation transform.
        batch_size: Images of a batch; the last one may have fewer.

    Returns:
        `tf.data.Dataset` of (images, labels, indices): float32 (batch, crop, crop, 3), int64
        (batch,), int64 (batch,): the place of the image in `source.names`.
    """

    def load(index, item, label):
        return preprocessing(source.read(item)), label, index

    images = source.items().map(load, PARALLEL).ignore_errors()
    return _batched(images, batch_size)


def without_indices(batches):
    """(images, labels) of evaluation batches, as Keras takes them."""
    return batches.map(lambda images, labels, _: (images, labels))
