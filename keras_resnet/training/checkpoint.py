"""Checkpoints: the state of a training in one file, to resume it bit for bit."""

import dataclasses
import json
import zlib
from pathlib import Path

import numpy as np
import safetensors.numpy
from keras import ops

from keras_resnet.files import read_safetensors, replacing
from keras_resnet.trained.run import MEAN_AP
from keras_resnet.training.errors import TrainingError

NAME = "checkpoint.safetensors"


def score(row) -> float:
    """What the best epoch is chosen by: validation accuracy, or mean average precision."""
    return row["val_accuracy"] if "val_accuracy" in row else row[f"val_{MEAN_AP}"]


@dataclasses.dataclass
class TrainingState:
    """The progress of a training.

    Args:
        counts: Numbers of training and validation images.
        history: A row of history.csv for each completed epoch.
        step: Completed steps of the current epoch.
        logs: The means of loss and accuracies over these steps, and the sum of the weights.
        skipped: {file: reason} of the unreadable training images, and of the validation images.
        teacher: Checksum of the teacher's weights; None without a teacher.
    """

    counts: tuple[int, int]
    history: list[dict] = dataclasses.field(default_factory=list)
    step: int = 0
    logs: dict[str, float] = dataclasses.field(default_factory=dict)
    skipped: list[dict] = dataclasses.field(default_factory=lambda: [{}, {}])
    teacher: str | None = None

    @property
    def epoch(self):
        """Number of completed epochs."""
        return len(self.history)

    @property
    def best(self):
        """The best validation score so far, -1 before the first epoch."""
        return max(map(score, self.history), default=-1.0)

    def ends(self, recipe) -> bool:
        """Whether the training is complete."""
        return self.epoch == recipe.total_epochs or self.patience_ends(recipe)

    def patience_ends(self, recipe) -> bool:
        """Whether the validation accuracy has not improved for the number of epochs in the recipe.

        Epochs that train only the head do not count.
        """
        first = recipe.head_epochs
        if recipe.early_stopping is None or self.epoch <= first:
            return False
        scores = [score(row) for row in self.history]
        best = scores.index(max(scores))
        return self.epoch - max(best + 1, first) >= recipe.early_stopping

    def __str__(self):
        """Returns the epoch and the step, for messages."""
        return f"step {self.step} of epoch {self.epoch + 1}" if self.step else f"epoch {self.epoch}"


def save(folder, state, groups):
    """Writes a checkpoint; it replaces the previous one atomically.

    Args:
        folder: The run folder.
        state: A `TrainingState`.
        groups: {name: Keras variables}.

    Raises:
        TrainingError: if a weight is not finite; nothing is written.
        OSError: if it cannot be written; the previous checkpoint is kept.
    """
    arrays = {
        f"{group}/{number:05}": np.ascontiguousarray(ops.convert_to_numpy(variable))
        for group, variables in groups.items()
        for number, variable in enumerate(variables)
    }
    if not all(
        np.isfinite(array).all() for name, array in arrays.items() if name.startswith("weights/")
    ):
        raise TrainingError(f"Some weights are NaN or infinite after {state}.")
    metadata = {"progress": json.dumps(dataclasses.asdict(state))}
    metadata["checksum"] = _checksum(arrays, metadata["progress"])
    # ascontiguousarray makes 0-dimensional arrays 1-dimensional; restore accepts both.
    with replacing(Path(folder) / NAME) as temporary:
        # Not save_file, which uses a temporary name of its own that a killed process would leave.
        temporary.write_bytes(safetensors.numpy.save(arrays, metadata))


def _checksum(arrays, progress):
    """Returns the CRC-32 of a checkpoint's content, in hexadecimal."""
    found = zlib.crc32(progress.encode())
    for name, array in sorted(arrays.items()):
        found = zlib.crc32(f"{name} {array.dtype} {array.shape}".encode(), found)
        found = zlib.crc32(array, found)
    return f"{found:08x}"


def load(folder):
    """Reads a checkpoint.

    Returns:
        The `TrainingState` and {name: array} for `restore`; None if there is no checkpoint.

    Raises:
        TrainingError: if the file is damaged.
    """
    path = Path(folder) / NAME
    advice = "Remove it to restart the training from the beginning."
    return read_safetensors(path, _understood, advice=advice, error=TrainingError)


def _understood(metadata, arrays):
    checksum = _checksum(arrays, metadata["progress"])
    if metadata.get("checksum", checksum) != checksum:  # older releases wrote none
        raise ValueError("its checksum is wrong")
    said = json.loads(metadata["progress"])
    return TrainingState(**{**said, "counts": tuple(said["counts"])}), arrays


def restore(arrays, groups):
    """Assigns the values of a checkpoint to variables; all or nothing.

    Args:
        arrays: From `load`.
        groups: As for `save`; may be a part of its groups.

    Raises:
        TrainingError: if they are not the same variables.
    """
    values = []
    for group, variables in groups.items():
        names = sorted(name for name in arrays if name.startswith(f"{group}/"))
        sizes = [arrays[name].size for name in names]
        if sizes != [int(np.prod(variable.shape)) for variable in variables]:
            raise TrainingError(
                f"The checkpoint's {group} was written by another version of the package: it has "
                f"{len(names)} arrays for {len(variables)} variables. Choose another run folder."
            )
        values += [
            (variable, arrays[name].reshape(variable.shape))
            for name, variable in zip(names, variables, strict=True)
        ]
    for variable, value in values:
        variable.assign(value)
