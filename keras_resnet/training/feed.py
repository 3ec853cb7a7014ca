"""Batches for training: uint8 pixels, and the random numbers to augment them with.

Normalisation, erasing and mixing are part of the compiled step. All batches have the same shape, so
that a step is compiled once.
"""

import keras
import tensorflow as tf
from keras import ops

from keras_resnet.data.pipeline import drawn_batches, pixel_batches, prefetched
from keras_resnet.decoding import plainly


class FedNetwork(keras.Model):
    """A network whose inputs are the batches of this module; it is trained, but never saved.

    Args:
        network: The network, from normalised images to logits.
        augmentation: The `Augmentation` of the training batches.
        preprocessing: A `Preprocessing` with the mean and the standard deviation.
        distillation: A `Distillation`, whose loss is added; None without a teacher.
    """

    def __init__(self, network, augmentation, preprocessing, distillation=None):
        super().__init__(name=network.name)
        self.network, self.augmentation, self.preprocessing = network, augmentation, preprocessing
        self.distillation = distillation
        self.built = True  # like the network

    def call(self, batch, training=None):
        """Normalises and mixes the images of a batch, and calls the network."""
        images = self.augmentation.apply(batch, self.preprocessing, ops)
        logits = self.network(images, training=training)
        if training and self.distillation is not None:
            self.add_loss(self.distillation(images, logits))
        return logits


class Head(keras.Model):
    """The classifier alone, without its activation: from features to logits.

    Args:
        dense: The `Dense` layer.
    """

    def __init__(self, dense):
        super().__init__(name=dense.name)
        self.dense = dense
        self.built = True  # like the layer

    def call(self, features):
        """Returns logits (batch, classes) for features (batch, channels)."""
        return ops.matmul(features, self.dense.kernel) + self.dense.bias


@plainly
def training_feed(source, *, augmentation, shared=False, **options):
    """Makes endless training batches; arguments as for `data.pipeline.drawn_batches`.

    Args:
        source: The images.
        augmentation: The random augmentation.
        shared: Whether several devices share a batch. Each image then comes with the one that it is
            mixed with, which may be on another device.
        **options: The other arguments.
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
    """Makes validation batches; arguments as for `data.pipeline.pixel_batches`.

    Smaller batches, the last one or those with unreadable images, are padded with rows of weight 0.
    """
    batches = pixel_batches(source, preprocessing, batch_size=batch_size, skipped=skipped)
    batches = batches.map(lambda pixels, labels, *_: ({"pixels": pixels}, labels))
    return prefetched(padded(_one_hot(batches, source), batch_size))


@plainly
def padded(batches, batch_size):
    """Pads batches of (inputs, labels); returns (inputs, labels, weights), 0 for padding."""

    def fill(inputs, labels):
        missing = batch_size - tf.shape(labels)[0]
        weights = tf.ones(tf.shape(labels)[:1])

        def filled(part):
            return tf.pad(part, [[0, missing], *([[0, 0]] * (len(part.shape) - 1))])

        return tf.nest.map_structure(filled, (inputs, labels, weights))

    return _of_one_size(batches.map(fill), batch_size)


def _one_hot(batches, source):
    """One-hot encodes the labels, unless they are, or augmentation has already done so."""
    if batches.element_spec[1].dtype.is_floating:
        return batches
    classes = len(source.class_names)
    return batches.map(
        lambda inputs, labels, *weights: (inputs, tf.one_hot(labels, classes), *weights)
    )


def _of_one_size(batches, batch_size):
    """Sets the static batch size."""
    return batches.map(
        lambda *parts: tf.nest.map_structure(
            lambda part: tf.ensure_shape(part, (batch_size, *part.shape[1:])), parts
        )
    )
