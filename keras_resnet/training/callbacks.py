"""Callbacks of the training: validation, checkpoints, and the stop if a loss is not finite."""

import keras
import numpy as np
from keras import ops

from keras_resnet.files import replacing
from keras_resnet.trained.evaluation import evaluate
from keras_resnet.trained.multi_label import MultiLabelEvaluation
from keras_resnet.trained.run import BEST, LAST
from keras_resnet.training import checkpoint
from keras_resnet.training.errors import TrainingError, WritingError
from keras_resnet.training.progress import numbers
from keras_resnet.training.report import write_history, write_skipped

LOSSES_AT_ONCE = 50  # number of losses that are read together
CROSS_ENTROPY = "cross_entropy"  # name of the metric
WEIGHT = "weight"  # in an interrupted epoch's logs: sum of the weights of the images


def synchronise(model):
    """Updates the variables, whose values JAX keeps elsewhere during training."""
    if keras.backend.backend() == "jax":
        model.jax_state_sync()


def averages(optimizer) -> dict:
    """Returns an optimizer's moving averages of the weights, {id of a variable: average}."""
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
    """Copies the weights of a network to another one.

    Args:
        source: The network to copy from.
        target: The network to copy to.
        instead: {id of a weight: variable to copy instead}.
    """
    for ours, theirs in zip(target.weights, source.weights, strict=True):
        ours.assign(ops.convert_to_numpy((instead or {}).get(id(theirs), theirs)))


def copy_validated(model, network, plain):
    """Copies the validated weights to the plain network: the moving averages, if there are any.

    Args:
        model: The compiled model that is trained.
        network: The whole network; may be the same.
        plain: The network to copy to.
    """
    synchronise(model)
    copy_weights(network, plain, instead=averages(model.optimizer))


class CallbackList(keras.callbacks.CallbackList):
    """A callback list that passes the logs of a step as tensors on the device, in this thread.

    Keras' own list converts them to numbers in each step, or calls callbacks from another thread.
    """

    def on_train_batch_end(self, batch, logs=None):
        """Calls each callback."""
        for callback in self.callbacks:
            callback.on_train_batch_end(batch, logs)

    def on_test_batch_end(self, batch, logs=None):
        """Calls each callback."""
        for callback in self.callbacks:
            callback.on_test_batch_end(batch, logs)


def write_network(network, path):
    """Saves a network; an existing file is replaced atomically."""
    with replacing(path) as temporary:
        network.save(temporary)


def weight_of_metrics(model):
    """Returns the sum of the weights of the images in a model's weighted metrics, 0 without."""
    found = [m for part in model.metrics for m in (part, *getattr(part, "metrics", ()))]
    counts = [float(ops.convert_to_numpy(m.count)) for m in found if m.name == "accuracy"]
    return counts[0] if counts else 0.0


def seeds(model):
    """Returns the states of a network's random generators."""
    weights = {id(variable) for variable in model.weights}
    return [variable for variable in model.variables if id(variable) not in weights]


class CheckpointCallback(keras.callbacks.Callback):
    """Saves the history, the best network and checkpoints in the run folder.

    Args:
        training: A `Training`.
        phase: A `Phase`.
        state: A `TrainingState`, which is updated.
        bar: The `ProgressBar`, which measures the speed.
        averaging: A `WeightAveraging`, whose average is saved too; None without averaging.
    """

    def __init__(self, training, phase, state, bar, averaging=None):
        super().__init__()
        self.training, self.phase, self.state, self.bar = training, phase, state, bar
        self.averaging = averaging

    def on_epoch_begin(self, epoch, logs=None):
        """Stores the part of the epoch that an interrupted process did."""
        self.before, self.logs_before = self.state.step, self.state.logs
        self.losses, self.weight = [], 0.0

    def on_train_batch_end(self, batch, logs=None):
        """Saves a checkpoint if due, and checks the losses, rarely, since it waits for the device.

        Args:
            batch: The step, from 0, in this process's part of the epoch.
            logs: The means over the epoch, as tensors on the device.
        """
        self.state.step = self.before + batch + 1
        self.losses.append(logs["loss"])
        done = self.state.epoch * self.phase.steps + self.state.step
        ends = self.state.step == self.phase.steps
        saves = self.training.save_every and done % self.training.save_every == 0 and not ends
        if saves or ends or len(self.losses) == LOSSES_AT_ONCE:
            self._look_at_losses()
        if saves or ends:
            self.weight = weight_of_metrics(self.model)
        if saves:
            self.state.logs = {**self._over_the_epoch(numbers(logs)), WEIGHT: self._weight()}
            self.save()

    def _look_at_losses(self):
        """Stops the training if a loss is not finite, and so the mean from that step on."""
        step = self.state.step - len(self.losses)
        for loss in self.losses:
            step += 1
            if not np.isfinite(loss := float(ops.convert_to_numpy(loss))):
                self._refuse(f"loss became {loss}", step)
        self.losses = []

    def on_epoch_end(self, epoch, logs=None):
        """Saves the epoch, and stops the training at its end."""
        if not np.isfinite(logs["val_loss"]):
            self._refuse(f"validation loss became {logs['val_loss']}", self.state.step)
        history = self.state.history
        self._judge_data()
        best = checkpoint.score(logs) > self.state.best
        self.state.step, self.state.logs = self.phase.steps, {}
        logs.update(self._over_the_epoch(logs))  # also for the callbacks after this one
        row = {"epoch": epoch + 1, "phase": self.phase.name, **logs}
        row["learning_rate"] = self.phase.rate(self.phase.steps_done(self.state) - 1)
        row["images_per_second"] = round(self.bar.images_per_second, 1)
        history.append(row)
        self.state.step = 0
        ends = self.state.ends(self.training.recipe)
        if best:
            self._write(BEST, self.save_network)
        if ends:
            self._write(LAST, self.save_network)
        # After them: if killed in between, the epoch is repeated and they are written again.
        self.save()
        self._write("history.csv", lambda name: write_history(history, self.training.folder))
        self.model.stop_training = ends

    def _judge_data(self):
        """Writes skipped.csv; after the first epoch, checks the fraction of unreadable images."""
        training = self.training
        self._write("skipped.csv", lambda name: write_skipped(training.skipped, training.folder))
        if not self.state.history:
            for source, bad in zip(training.sources, training.skipped, strict=True):
                said = f"{len(bad)} of {source.count}"
                bad.judge(len(bad) / source.count, training.recipe.max_bad, said)

    def save(self):
        """Writes a checkpoint."""
        synchronise(self.model)
        self.state.skipped = [dict(part.reasons) for part in self.training.skipped]
        groups = {
            "weights": self.phase.network.weights,
            "seeds": seeds(self.phase.network),
            "optimizer": self.model.optimizer.variables,
        }
        if self.averaging is not None:
            groups["average"] = self.averaging.average
        self._write(
            checkpoint.NAME, lambda name: checkpoint.save(self.training.folder, self.state, groups)
        )

    def _over_the_epoch(self, logs):
        """Returns the means over the steps of an interrupted process and of this one."""
        by_steps = self.before / self.state.step
        before = self.logs_before.get(WEIGHT, 0.0)
        by_weight = before / self._weight() if before else by_steps
        shares = {"loss": by_steps, "accuracy": by_weight, "top5": by_weight}
        return {
            name: share * self.logs_before.get(name, 0.0) + (1 - share) * logs[name]
            for name, share in shares.items()
            if name in logs
        }

    def _weight(self):
        """Returns the sum of the images' weights in the epoch so far."""
        return self.logs_before.get(WEIGHT, 0.0) + self.weight

    def save_network(self, name):
        """Saves the network with the validated weights."""
        copy_validated(self.model, self.phase.network, self.training.plain)
        write_network(self.training.plain, self.training.folder / name)

    def _write(self, name, write):
        if not self.training.distribution.writes:
            return
        try:
            write(name)
        except OSError as error:
            raise WritingError(
                f"{self.training.folder / name} cannot be written after {self.state}: "
                f"{error.strerror or error}. Files saved before are intact: free disk space and "
                "run the same command again to resume."
            ) from error

    def _refuse(self, what, step):
        kept = (
            f"{self.training.folder} has the network of the best epoch so far"
            if self.state.epoch
            else f"No epoch was completed; {self.training.folder} can be removed"
        )
        rate = self.phase.rate(self.phase.steps_done(self.state) - self.state.step + step - 1)
        raise TrainingError(
            f"The {what} at step {step} of {self.phase.steps} in epoch "
            f"{self.state.epoch + 1}, at a learning rate of {rate:.3g}. "
            f"{kept}. "
            "Try a lower learning_rate, warmup_epochs or clip_norm, with another run folder."
        )


class Averages(keras.callbacks.Callback):
    """Validates with the moving averages of the weights.

    `keras.callbacks.SwapEMAWeights` swaps them by additions and subtractions, which changes the
    weights of the training by rounding.
    """

    def on_test_begin(self, logs=None):
        """Replaces the weights by the averages."""
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
        """Restores the weights."""
        for variable, value in self.kept:
            variable.assign(value)
        self.kept = []

    def on_epoch_end(self, epoch, logs=None):
        """Sets the validation loss to the mean over all images, each counted once."""
        logs["val_loss"] = logs.pop(f"val_{CROSS_ENTROPY}")
        del logs[CROSS_ENTROPY]


class LabelValidation(Averages):
    """Validates a network of several labels by its mean average precision, after each epoch.

    That is no mean over batches, as Keras' metrics are: it takes the answers for all images.

    Args:
        validation: The batches, as for `model.fit`; rows of weight 0 are left out.
    """

    def __init__(self, validation):
        super().__init__()
        self.validation = validation

    def on_epoch_end(self, epoch, logs=None):
        """Adds val_loss, val_mean_average_precision, and F1 at thresholds of 0.5, to the logs."""
        self.on_test_begin()
        targets, scores = [], []
        for inputs, labels, weights in self.validation:
            inputs = keras.tree.map_structure(np.asarray, inputs)
            logits = np.asarray(self.model.predict_on_batch(inputs), np.float64)
            counts = weights.numpy() > 0
            targets.append(labels.numpy()[counts])
            scores.append(1 / (1 + np.exp(-logits[counts])))
        self.on_test_end()
        found = MultiLabelEvaluation.of((), [], *map(np.concatenate, (targets, scores)))
        logs |= {f"val_{name}": value for name, value in found.figures.items()}


class SharedValidation(keras.callbacks.Callback):
    """Validates a part of the images in each process, on one device, and adds up the results.

    A joint validation on all devices would need the same number of images on each.
    """

    def __init__(self, training):
        super().__init__()
        self.training = training

    def on_epoch_end(self, epoch, logs=None):
        """Adds val_loss and val_accuracy, and the like, to the logs."""
        training, recipe = self.training, self.training.recipe
        distribution = keras.distribution.distribution()
        keras.distribution.set_distribution(None)
        try:
            copy_validated(self.model, training.model, training.plain)
            found = evaluate(
                training.plain,
                training.sources[1],
                recipe.preprocessing,
                batch_size=recipe.batch_size // training.distribution.processes,
                skipped=training.skipped[1],
            )
        finally:
            keras.distribution.set_distribution(distribution)
        means = np.array([*found.figures.values()])
        count, *sums = training.distribution.total([1, *means] * np.array(len(found.rows)))
        logs.pop(CROSS_ENTROPY, None)
        names = map("val_{}".format, found.figures)
        logs.update(zip(names, (float(value / count) for value in sums), strict=True))
