"""What a training device is fed, small: pixels as uint8, and what was drawn for them.

Normalising, erasing and mixing are part of the compiled step. All batches have one shape, so that a
step is compiled once.
"""

import keras
import tensorflow as tf
from keras import ops

from keras_resnet.data.pipeline import drawn_batches, pixel_batches, prefetched
from keras_resnet.decoding import plainly


class FedNetwork(keras.Model):
    """A network that takes the batches of this file; it is trained, never saved.

    Args:
        network: From normalised images to logits.
        augmentation: The `Augmentation` of the training batches.
        preprocessing: A `Preprocessing` with the mean and the deviation.
        distillation: A `Distillation`, whose loss is added; None without a teacher.
    """

    def __init__(self, network, augmentation, preprocessing, distillation=None):
        super().__init__(name=network.name)
        self.network, self.augmentation, self.preprocessing = network, augmentation, preprocessing
        self.distillation = distillation
        self.built = True  # as the network is

    def call(self, batch, training=None):
        """What the network makes of a batch."""
        images = self.augmentation.apply(batch, self.preprocessing, ops)
        logits = self.network(images, training=training)
        if training and self.distillation is not None:
            self.add_loss(self.distillation(images, logits))
        return logits


class Head(keras.Model):
    """The last layer alone, without its activation: from features to logits.

    Args:
        dense: The layer.
    """

    def __init__(self, dense):
        super().__init__(name=dense.name)
        self.dense = dense
        self.built = True  # as the layer is

    def call(self, features):
        """Logits, (batch, classes), of features, (batch, channels)."""
        return ops.matmul(features, self.dense.kernel) + self.dense.bias


@plainly
def training_feed(source, *, augmentation, shared=False, **options):
    """Endless training batches; the arguments are those of `data.pipeline.drawn_batches`.

    Args:
        source: The images.
        augmentation: What is done to them at random.
        shared: Whether several devices share a batch: each image then comes with the one that it is
            mixed with, which another device may have.
        **options: The others.
    """

    def with_others(batch, *labels):
        pairs = {"pixels": "others", "erasures": "other_erasures"}
        partners = batch.pop("partners")
        others = {
            other: tf.gather(batch[name], partners)
            for name, other in pairs.items()
            if name in batch
        }
        return {**batch, **others}, *labels

    batches = drawn_batches(source, augmentation=augmentation, **options)
    if shared and augmentation.mixes_images:
        batches = batches.map(with_others)
    return prefetched(_of_one_size(_one_hot(batches, source), options["batch_size"]))


@plainly
def validation_feed(source, preprocessing, *, batch_size, skipped):
    """Validation batches; the arguments are those of `data.pipeline.pixel_batches`.

    What a batch lacks, the last one or one with bad images, are rows of weight 0.
    """
    batches = pixel_batches(source, preprocessing, batch_size=batch_size, skipped=skipped)
    batches = batches.map(lambda pixels, labels, *_: ({"pixels": pixels}, labels))
    return prefetched(padded(_one_hot(batches, source), batch_size))


@plainly
def padded(batches, batch_size):
    """(inputs, labels, weights) of (inputs, labels): rows of weight 0 fill a batch up."""

    def fill(inputs, labels):
        missing = batch_size - tf.shape(labels)[0]
        weights = tf.ones(tf.shape(labels)[:1])

        def filled(part):
            return tf.pad(part, [[0, missing], *([[0, 0]] * (len(part.shape) - 1))])

        return tf.nest.map_structure(filled, (inputs, labels, weights))

    return _of_one_size(batches.map(fill), batch_size)


def _one_hot(batches, source):
    """Labels as shares of each class, which they, or augmentation made them, may be already."""
    if batches.element_spec[1].dtype.is_floating:
        return batches
    classes = len(source.class_names)
    return batches.map(
        lambda inputs, labels, *weights: (inputs, tf.one_hot(labels, classes), *weights)
    )


def _of_one_size(batches, batch_size):
    """Batches whose first length is known to be this."""
    return batches.map(
        lambda *parts: tf.nest.map_structure(
            lambda part: tf.ensure_shape(part, (batch_size, *part.shape[1:])), parts
        )
    )
