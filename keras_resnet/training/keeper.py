"""Keeping what a training has reached, and stopping it where it leads nowhere."""

import keras
import numpy as np
from keras import ops

from keras_resnet.files import replacing
from keras_resnet.training import checkpoint
from keras_resnet.training.checkpoint import NAME
from keras_resnet.training.errors import TrainingError, WritingError
from keras_resnet.training.progress import numbers
from keras_resnet.training.report import write_history, write_skipped
from keras_resnet.training.validation import copy_validated, synchronise

LOSSES_AT_ONCE = 50  # that are looked at


class Callbacks(keras.callbacks.CallbackList):
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


def seeds(model):
    """The states of a network's random generators."""
    weights = {id(variable) for variable in model.weights}
    return [variable for variable in model.variables if id(variable) not in weights]


class Keeper(keras.callbacks.Callback):
    """Keeps the history, the best network and a checkpoint in the run folder.

    Args:
        setting: A `Setting`.
        phase: A `Phase`.
        progress: A `Progress`, which is kept up.
        bar: The `ProgressBar`, which knows the speed.
    """

    def __init__(self, setting, phase, progress, bar):
        super().__init__()
        self.setting, self.phase, self.progress, self.bar = setting, phase, progress, bar

    def on_epoch_begin(self, epoch, logs=None):
        """Remembers what an interrupted process had done of the epoch."""
        self.before, self.logs_before = self.progress.step, self.progress.logs
        self.losses = []

    def on_train_batch_end(self, batch, logs=None):
        """Saves if it is time to, and looks at the losses: seldom, since the device is waited for.

        Args:
            batch: The step, from 0, in this process's part of the epoch.
            logs: The means over the epoch, as the device has them.
        """
        self.progress.step = self.before + batch + 1
        self.losses.append(logs["loss"])
        done = self.progress.epoch * self.phase.steps + self.progress.step
        ends = self.progress.step == self.phase.steps
        saves = self.setting.save_every and done % self.setting.save_every == 0 and not ends
        if saves or ends or len(self.losses) == LOSSES_AT_ONCE:
            self._look_at_losses()
        if saves:
            self.progress.logs = self._over_the_epoch(numbers(logs))
            self.save()

    def _look_at_losses(self):
        """Stops if one is no number: the mean over the epoch is none from that step on."""
        step = self.progress.step - len(self.losses)
        for loss in self.losses:
            step += 1
            if not np.isfinite(loss := float(ops.convert_to_numpy(loss))):
                self._refuse(f"loss became {loss}", step)
        self.losses = []

    def on_epoch_end(self, epoch, logs=None):
        """Saves, and stops where training ends."""
        if not np.isfinite(logs["val_loss"]):
            self._refuse(f"validation loss became {logs['val_loss']}", self.progress.step)
        history = self.progress.history
        self._judge_data()
        best = logs["val_accuracy"] > self.progress.best
        self.progress.step, self.progress.logs = self.phase.steps, {}
        logs.update(self._over_the_epoch(logs))  # for the callbacks that come later too
        row = {"epoch": epoch + 1, "phase": self.phase.name, **logs}
        row["learning_rate"] = self.phase.rate(self.phase.steps_done(self.progress) - 1)
        row["images_per_second"] = round(self.bar.images_per_second, 1)
        history.append(row)
        self.progress.step = 0
        ends = training_ends(history, self.setting.recipe)
        if best:
            self._write("best.keras", self.save_network)
        if ends:
            self._write("last.keras", self.save_network)
        # After them: a process killed between the two repeats the epoch, and writes them again.
        self.save()
        self._write("history.csv", lambda name: write_history(history, self.setting.folder))
        self.model.stop_training = ends

    def _judge_data(self):
        """Writes skipped.csv; after the first epoch, which saw all images, judges how many."""
        setting = self.setting
        self._write("skipped.csv", lambda name: write_skipped(setting.skipped, setting.folder))
        if not self.progress.history:
            for source, bad in zip(setting.sources, setting.skipped, strict=True):
                said = f"{len(bad)} of {source.count}"
                bad.judge(len(bad) / source.count, setting.recipe.max_bad, said)

    def save(self):
        """Writes a checkpoint."""
        synchronise(self.model)
        self.progress.skipped = [dict(part.reasons) for part in self.setting.skipped]
        groups = {
            "weights": self.phase.network.weights,
            "seeds": seeds(self.phase.network),
            "optimizer": self.model.optimizer.variables,
        }
        self._write(NAME, lambda name: checkpoint.save(self.setting.folder, self.progress, groups))

    def _over_the_epoch(self, logs):
        """The means over the steps of an interrupted process and those of this one."""
        share = self.before / self.progress.step
        return {
            name: share * self.logs_before.get(name, 0.0) + (1 - share) * logs[name]
            for name in ("loss", "accuracy", "top5")
        }

    def save_network(self, name):
        """Writes the network as it was validated."""
        copy_validated(self.model, self.phase.network, self.setting.plain)
        with replacing(self.setting.folder / name) as temporary:
            self.setting.plain.save(temporary)

    def _write(self, name, write):
        if not self.setting.placement.writes:
            return
        try:
            write(name)
        except OSError as error:
            raise WritingError(
                f"{self.setting.folder / name} cannot be written after {self.progress}: "
                f"{error.strerror or error}. What was saved before is intact: make room and run "
                "the same command again, and it goes on from there."
            ) from error

    def _refuse(self, what, step):
        kept = (
            f"{self.setting.folder} keeps the network of the best epoch before"
            if self.progress.epoch
            else f"No epoch was finished; {self.setting.folder} can be removed"
        )
        rate = self.phase.rate(self.phase.steps_done(self.progress) - self.progress.step + step - 1)
        raise TrainingError(
            f"The {what} at step {step} of {self.phase.steps} in epoch "
            f"{self.progress.epoch + 1}, at a learning rate of {rate:.3g}. "
            f"{kept}. "
            "Try a lower learning_rate, warmup_epochs or clip_norm, with another run folder."
        )


def training_ends(history, recipe) -> bool:
    """Whether nothing is left to train; arguments as of `patience_ends`."""
    return len(history) == recipe.total_epochs or patience_ends(history, recipe)


def patience_ends(history, recipe) -> bool:
    """Whether so many epochs as the recipe says brought no better validation accuracy.

    Args:
        history: Rows of history.csv.
        recipe: A `Recipe`; the epochs of the head alone do not count.
    """
    first = recipe.head_epochs
    if recipe.early_stopping is None or len(history) <= first:
        return False
    accuracies = [row["val_accuracy"] for row in history]
    best = accuracies.index(max(accuracies))
    return len(history) - max(best + 1, first) >= recipe.early_stopping
