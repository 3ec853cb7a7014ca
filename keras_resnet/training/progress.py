"""Progress bar and log lines of a training."""

import logging
import time

import keras
from keras import ops
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from keras_resnet.trained.evaluation import TOP5_CLASSES
from keras_resnet.trained.run import MEAN_AP

logger = logging.getLogger("keras_resnet")

REDRAWN = 0.1  # minimum interval, in seconds


class ProgressBar(keras.callbacks.Callback):
    """Shows a progress bar over all epochs, and logs a line for each epoch.

    Args:
        phase: A `Phase`.
        recipe: A `Recipe`.
        classes: Number of classes.
        first_step: Number of completed steps of the first epoch.
        shown: Whether this process shows it; one of several processes does.
    """

    def __init__(self, phase, recipe, *, classes, first_step=0, shown=True):
        super().__init__()
        self.epochs, self.steps = recipe.total_epochs, phase.steps
        self.batch_size = phase.batch_size
        self.top5 = classes >= TOP5_CLASSES
        self.first_step, self.shown = first_step, shown
        console = Console()
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[said]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not (console.is_terminal and shown),
        )
        self.task = self.bar.add_task("", total=self.epochs * self.steps, said="")

    def on_train_begin(self, logs=None):
        """Shows the bar."""
        self.bar.start()

    def close(self):
        """Stops updating the bar."""
        self.bar.stop()

    def on_epoch_begin(self, epoch, logs=None):
        """Starts the clock."""
        self.done, self.seconds, self.drawn, self.logs = 0, 0.0, 0.0, None
        self.epoch, self.before, self.first_step = epoch, self.first_step, 0
        self.bar.update(self.task, description=f"epoch {epoch + 1}/{self.epochs}")
        self.began = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        """Moves the bar."""
        self.done, self.seconds = batch + 1, time.perf_counter() - self.began
        if not self.bar.disable and self.seconds - self.drawn >= REDRAWN:
            # The logs of the previous update, which the device has computed by now.
            known, self.logs, self.drawn = self.logs or logs, logs, self.seconds
            self._draw(known)

    def _draw(self, logs):
        said = f"{_said(logs)}, {self.images_per_second:.0f} img/s"
        self.bar.update(
            self.task, completed=self.epoch * self.steps + self.before + self.done, said=said
        )

    def on_epoch_end(self, epoch, logs=None):
        """Logs a line of at most 80 columns."""
        if not self.shown:
            return
        self._draw(logs)
        validation = {
            name.removeprefix("val_"): value for name, value in logs.items() if name[:4] == "val_"
        }
        logger.info(
            "Epoch %d/%d: %s; val %s; %.0f img/s",
            epoch + 1,
            self.epochs,
            f"loss {logs['loss']:.3f}" if self.top5 else _said(logs),
            _said(validation, self.top5),
            self.images_per_second,
        )

    @property
    def images_per_second(self):
        """Training speed in this epoch, without validation."""
        return self.done * self.batch_size / max(self.seconds, 1e-9)


def _said(logs, top5=False):
    figures = {"loss": "loss", "accuracy": "top-1", MEAN_AP: "mAP"}
    figures |= {"top5": "top-5"} if top5 else {}
    values = numbers(logs)
    return ", ".join(f"{name} {values[key]:.3f}" for key, name in figures.items() if key in values)


def numbers(logs):
    """Converts logs to Python numbers, which waits for the device."""
    return {name: float(ops.convert_to_numpy(value)) for name, value in logs.items()}
