"""What is validated: the moving averages of the weights; and by whom, where there are several."""

import keras
import numpy as np
from keras import ops

from keras_resnet.training.evaluation import evaluate

CROSS_ENTROPY = "cross_entropy"  # the metric


def synchronise(model):
    """Gives the variables the values that JAX holds apart while it trains."""
    if keras.backend.backend() == "jax":
        model.jax_state_sync()


def averages(optimizer) -> dict:
    """{id of a variable: its moving average}, of an optimizer that keeps them."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    if not optimizer.use_ema:
        return {}
    return {
        id(variable): average
        for variable, average in zip(
            optimizer._trainable_variables, optimizer._model_variables_moving_average, strict=True
        )
    }


def copy_weights(source, target, *, instead=None):
    """Gives a network the weights of another.

    Args:
        source: The network to read.
        target: The network to change.
        instead: {id of a weight: what is read in its place}.
    """
    for ours, theirs in zip(target.weights, source.weights, strict=True):
        ours.assign(ops.convert_to_numpy((instead or {}).get(id(theirs), theirs)))


def copy_validated(model, network, plain):
    """Gives the plain network the weights that are validated: the averages, where there are any.

    Args:
        model: What is trained, compiled.
        network: The whole network; it may be the same.
        plain: The network to change.
    """
    synchronise(model)
    copy_weights(network, plain, instead=averages(model.optimizer))


class Averages(keras.callbacks.Callback):
    """Validates the moving averages of the weights.

    `keras.callbacks.SwapEMAWeights` exchanges them by sums and differences, which rounds the
    weights that training goes on with.
    """

    def on_test_begin(self, logs=None):
        """Puts the averages in the weights' place."""
        synchronise(self.model)
        found = averages(self.model.optimizer)
        self.kept = [
            (variable, ops.convert_to_numpy(variable))
            for variable in self.model.trainable_variables
            if id(variable) in found
        ]
        for variable, _ in self.kept:
            variable.assign(ops.convert_to_numpy(found[id(variable)]))

    def on_test_end(self, logs=None):
        """Puts the weights back."""
        for variable, value in self.kept:
            variable.assign(value)
        self.kept = []

    def on_epoch_end(self, epoch, logs=None):
        """Has the mean over the images, each once, for the validation's loss."""
        logs["val_loss"] = logs.pop(f"val_{CROSS_ENTROPY}")
        del logs[CROSS_ENTROPY]


class SharedValidation(keras.callbacks.Callback):
    """Has each of several processes validate its part by itself, on one device, and sums up.

    A validation that all devices compute together would need as many images of each.
    """

    def __init__(self, setting):
        super().__init__()
        self.setting = setting

    def on_epoch_end(self, epoch, logs=None):
        """Adds val_loss, val_accuracy and val_top5 to the logs."""
        setting, recipe = self.setting, self.setting.recipe
        distribution = keras.distribution.distribution()
        keras.distribution.set_distribution(None)
        try:
            copy_validated(self.model, self.model, setting.plain)
            found = evaluate(
                setting.plain,
                setting.sources[1],
                recipe.preprocessing,
                batch_size=recipe.batch_size // setting.placement.processes,
                skipped=setting.skipped[1],
            )
        finally:
            keras.distribution.set_distribution(distribution)
        means = np.array([found.loss, found.top1, found.top5])
        count, *sums = setting.placement.total([1, *means] * np.array(len(found.rows)))
        del logs[CROSS_ENTROPY]
        names = ("val_loss", "val_accuracy", "val_top5")
        logs.update(zip(names, (float(value / count) for value in sums), strict=True))
