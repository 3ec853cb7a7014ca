"""What happens between steps: validation, checkpoints, and a stop where it leads nowhere."""

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

LOSSES_AT_ONCE = 50  # that are looked at
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


class CallbackList(keras.callbacks.CallbackList):
    """Callbacks that get the logs of a step as the device has them, in this thread.

    Keras' own list has each step wait for numbers, or calls from another thread.
    """

    def on_train_batch_end(self, batch, logs=None):
        """Calls each of them."""
        for callback in self.callbacks:
            callback.on_train_batch_end(batch, logs)

    def on_test_batch_end(self, batch, logs=None):
        """Likewise."""
        for callback in self.callbacks:
            callback.on_test_batch_end(batch, logs)


def write_network(network, path):
    """Saves a network; it replaces the file at once."""
    with replacing(path) as temporary:
        network.save(temporary)


def seeds(model):
    """The states of a network's random generators."""
    weights = {id(variable) for variable in model.weights}
    return [variable for variable in model.variables if id(variable) not in weights]


class CheckpointCallback(keras.callbacks.Callback):
    """Keeps the history, the best network and a checkpoint in the run folder.

    Args:
        training: A `Training`.
        phase: A `Phase`.
        state: A `TrainingState`, which is kept up.
        bar: The `ProgressBar`, which knows the speed.
        averaging: A `WeightAveraging`, whose average is kept too; None without.
    """

    def __init__(self, training, phase, state, bar, averaging=None):
        super().__init__()
        self.training, self.phase, self.state, self.bar = training, phase, state, bar
        self.averaging = averaging

    def on_epoch_begin(self, epoch, logs=None):
        """Remembers what an interrupted process had done of the epoch."""
        self.before, self.logs_before = self.state.step, self.state.logs
        self.losses = []

    def on_train_batch_end(self, batch, logs=None):
        """Saves if it is time to, and looks at the losses: seldom, since the device is waited for.

        Args:
            batch: The step, from 0, in this process's part of the epoch.
            logs: The means over the epoch, as the device has them.
        """
        self.state.step = self.before + batch + 1
        self.losses.append(logs["loss"])
        done = self.state.epoch * self.phase.steps + self.state.step
        ends = self.state.step == self.phase.steps
        saves = self.training.save_every and done % self.training.save_every == 0 and not ends
        if saves or ends or len(self.losses) == LOSSES_AT_ONCE:
            self._look_at_losses()
        if saves:
            self.state.logs = self._over_the_epoch(numbers(logs))
            self.save()

    def _look_at_losses(self):
        """Stops if one is no number: the mean over the epoch is none from that step on."""
        step = self.state.step - len(self.losses)
        for loss in self.losses:
            step += 1
            if not np.isfinite(loss := float(ops.convert_to_numpy(loss))):
                self._refuse(f"loss became {loss}", step)
        self.losses = []

    def on_epoch_end(self, epoch, logs=None):
        """Saves, and stops where training ends."""
        if not np.isfinite(logs["val_loss"]):
            self._refuse(f"validation loss became {logs['val_loss']}", self.state.step)
        history = self.state.history
        self._judge_data()
        best = checkpoint.score(logs) > self.state.best
        self.state.step, self.state.logs = self.phase.steps, {}
        logs.update(self._over_the_epoch(logs))  # for the callbacks that come later too
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
        # After them: a process killed between the two repeats the epoch, and writes them again.
        self.save()
        self._write("history.csv", lambda name: write_history(history, self.training.folder))
        self.model.stop_training = ends

    def _judge_data(self):
        """Writes skipped.csv; after the first epoch, which saw all images, judges how many."""
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
        """The means over the steps of an interrupted process and those of this one."""
        share = self.before / self.state.step
        return {
            name: share * self.logs_before.get(name, 0.0) + (1 - share) * logs[name]
            for name in ("loss", "accuracy", "top5")
            if name in logs
        }

    def save_network(self, name):
        """Writes the network as it was validated."""
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
    """Has each of several processes validate its part by itself, on one device, and sums up.

    A validation that all devices compute together would need as many images of each.
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
            copy_validated(self.model, self.model, training.plain)
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
