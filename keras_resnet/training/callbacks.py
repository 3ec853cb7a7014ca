"""What happens beside the steps: keeping what was reached, and stopping where it leads nowhere."""

import keras
import numpy as np
from keras import ops

from keras_resnet.files import replacing
from keras_resnet.training import checkpoint
from keras_resnet.training.checkpoint import NAME
from keras_resnet.training.errors import TrainingError
from keras_resnet.training.report import write_csv


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


def seeds(model):
    """The states of a network's random generators."""
    weights = {id(variable) for variable in model.weights}
    return [variable for variable in model.variables if id(variable) not in weights]


def copy_validated(model, network, plain):
    """Gives the plain network the weights that are validated: the averages, where there are any.

    Args:
        model: What is trained, compiled.
        network: The whole network; it may be the same.
        plain: The network to change.
    """
    synchronise(model)
    found = averages(model.optimizer)
    for target, variable in zip(plain.weights, network.weights, strict=True):
        target.assign(ops.convert_to_numpy(found.get(id(variable), variable)))


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


class Keeper(keras.callbacks.Callback):
    """Keeps the history, the best network and a checkpoint in the run folder.

    Args:
        folder: The run folder.
        network: The whole network, of which `fit` may train a part.
        plain: The same without what is for training only: what is saved, float32.
        progress: A `Progress`, which is kept up.
        phase: Its name, for the history.
        save_every: Steps between checkpoints; None for the ends of epochs only.
        steps: Steps of an epoch.
        images: Images of an epoch.
        patience: Epochs with no better validation accuracy after which training stops; or None.
        patient_from: The epoch from which they count.
        bar: The `ProgressBar`, which knows the speed.
        writes: Whether this process writes; of several one does.
    """

    def __init__(
        self,
        *,
        folder,
        network,
        plain,
        progress,
        phase,
        save_every,
        steps,
        images,
        patience,
        patient_from,
        bar,
        writes,
    ):
        super().__init__()
        self.folder, self.network, self.plain = folder, network, plain
        self.progress, self.phase, self.save_every = progress, phase, save_every
        self.steps, self.images, self.bar = steps, images, bar
        self.patience, self.patient_from, self.writes = patience, patient_from, writes

    def on_epoch_begin(self, epoch, logs=None):
        """Remembers what an interrupted process had done of the epoch."""
        self.before, self.logs_before = self.progress.step, self.progress.logs

    def on_train_batch_end(self, batch, logs=None):
        """Stops if the loss is no number; saves if it is time to."""
        self.progress.step = self.before + batch + 1
        if not np.isfinite(logs["loss"]):
            self._refuse(f"loss became {logs['loss']}")
        done = self.progress.epoch * self.steps + self.progress.step
        if self.save_every and done % self.save_every == 0 and self.progress.step < self.steps:
            self.progress.logs = self._over_the_epoch(logs)
            self.save()

    def on_epoch_end(self, epoch, logs=None):
        """Saves, and stops where patience ends."""
        if not np.isfinite(logs["val_loss"]):
            self._refuse(f"validation loss became {logs['val_loss']}")
        history = self.progress.history
        best = logs["val_accuracy"] > self.progress.best
        self.progress.step, self.progress.logs = self.steps, {}
        logs.update(self._over_the_epoch(logs))  # for the callbacks that come later too
        row = {"epoch": epoch + 1, "phase": self.phase, **logs}
        row["learning_rate"] = self._learning_rate()
        row["images_per_second"] = round(self.bar.images_per_second, 1)
        history.append(row)
        self.progress.step = 0
        ends = patience_ends(history, self.patience, self.patient_from)
        if best:
            self._write("best.keras", self.save_network)
        if ends or len(history) == self.bar.epochs:
            self._write("last.keras", self.save_network)
        # After them: a process killed between the two repeats the epoch, and writes them again.
        self.save()
        self._write("history.csv", lambda name: write_csv(self.folder / name, *table(history)))
        self.model.stop_training = ends

    def save(self):
        """Writes a checkpoint."""
        synchronise(self.model)
        groups = {
            "weights": self.network.weights,
            "seeds": seeds(self.network),
            "optimizer": self.model.optimizer.variables,
        }
        self._write(NAME, lambda name: checkpoint.save(self.folder, self.progress, groups))

    def _over_the_epoch(self, logs):
        """The means over the steps of an interrupted process and those of this one."""
        before = self.before * self.bar.batch_size
        done = min(self.progress.step * self.bar.batch_size, self.images)
        share = before / done
        return {
            name: share * self.logs_before.get(name, 0.0) + (1 - share) * logs[name]
            for name in ("loss", "accuracy", "top5")
        }

    def save_network(self, name):
        """Writes the network as it was validated."""
        copy_validated(self.model, self.network, self.plain)
        with replacing(self.folder / name) as temporary:
            self.plain.save(temporary)

    def _write(self, name, write):
        if not self.writes:
            return
        try:
            write(name)
        except OSError as error:
            raise OSError(
                f"{self.folder / name} cannot be written after {self.progress}: "
                f"{error.strerror or error}. What was saved before is intact: make room and run "
                "the same command again, and it goes on from there."
            ) from error

    def _learning_rate(self):
        return float(ops.convert_to_numpy(self.model.optimizer.learning_rate))

    def _refuse(self, what):
        kept = (
            f"{self.folder} keeps the network of the best epoch before"
            if self.progress.epoch
            else f"No epoch was finished; {self.folder} can be removed"
        )
        raise TrainingError(
            f"The {what} at step {self.progress.step} of {self.steps} in epoch "
            f"{self.progress.epoch + 1}, at a learning rate of {self._learning_rate():.3g}. "
            f"{kept}. "
            "Try a lower learning_rate, warmup_epochs or clip_norm, with another run folder."
        )


def table(history):
    """The header and the rows of history.csv."""
    header = list(history[0])
    return header, [[row[name] for name in header] for row in history]


def patience_ends(history, patience, first) -> bool:
    """Whether so many epochs brought no better validation accuracy.

    Args:
        history: Rows of history.csv.
        patience: How many epochs; or None.
        first: The epoch, counted from 0, from which they count.
    """
    if patience is None or len(history) <= first:
        return False
    accuracies = [row["val_accuracy"] for row in history]
    best = accuracies.index(max(accuracies))
    return len(history) - max(best + 1, first) >= patience
