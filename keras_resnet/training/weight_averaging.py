"""Stochastic weight averaging.

Source: Izmailov et al., https://arxiv.org/abs/1803.05407; torch.optim.swa_utils.
"""

import itertools

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_resnet import features, models
from keras_resnet.data.pipeline import training_batches
from keras_resnet.training import checkpoint
from keras_resnet.training.callbacks import copy_weights, synchronise


class WeightAveraging(keras.callbacks.Callback):
    """Averages the weights of a network over the ends of epochs.

    Args:
        network: The network.
        first: Index of the first epoch to include.
    """

    def __init__(self, network, first):
        super().__init__()
        self.network, self.first = network, first
        self.average = [
            keras.Variable(np.zeros(weight.shape, "float32"), trainable=False)
            for weight in network.weights
        ]

    def on_epoch_end(self, epoch, logs=None):
        """Updates the average."""
        count = epoch - self.first
        if count < 0:
            return
        synchronise(self.model)
        for average, weight in zip(self.average, self.network.weights, strict=True):
            value, before = ops.convert_to_numpy(weight), ops.convert_to_numpy(average)
            average.assign(before + (value - before) / (count + 1))


def copy_average(training, folder):
    """Copies the averaged weights to the plain network, and recomputes its batch statistics.

    Args:
        training: A `Training`, with the images of all processes.
        folder: The run folder; its checkpoint contains the average.
    """
    recipe, plain = training.recipe, training.plain
    _, arrays = checkpoint.load(folder)
    checkpoint.restore(arrays, {"average": plain.weights})
    network = models.create(
        recipe.model, classes=plain.output_shape[-1], input_shape=(None, None, 3), dtype="float32"
    )
    copy_weights(plain, network)
    if recipe.freeze_until:
        features.freeze(network, recipe.freeze_until)
    source = training.sources[0]
    batch_size = min(recipe.batch_size, source.count)
    source = source.whole_batches(batch_size)
    steps = source.count // batch_size
    batches = training_batches(
        source,
        preprocessing=recipe.training_preprocessing,
        batch_size=batch_size,
        seed=recipe.seed,
        augmentation=recipe.augmentation,
        first_step=recipe.epochs * steps,
        skipped=training.skipped[0],
    )
    recompute_statistics(network, (images for images, *_ in itertools.islice(batches, steps)))
    copy_weights(network, plain)


def recompute_statistics(network, batches):
    """Sets the batch statistics of a network to their mean over batches.

    Args:
        network: The network. Frozen layers are not changed.
        batches: Batches of normalised images.

    Source: torch.optim.swa_utils.update_bn.
    """
    layers = [
        layer
        for layer in features.all_layers(network)
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
    ]
    moments = [part for layer in layers for part in (layer.moving_mean, layer.moving_variance)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0  # the statistics are then those of the last batch
    call = tf.function(network) if keras.backend.backend() == "tensorflow" else network
    sums, count = [np.zeros(part.shape) for part in moments], 0
    for images in batches:
        call(ops.convert_to_tensor(np.asarray(images)), training=True)
        count += 1
        for total, part in zip(sums, moments, strict=True):
            total += ops.convert_to_numpy(part)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    for total, part in zip(sums, moments, strict=True):
        part.assign(total / count)
