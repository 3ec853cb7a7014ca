"""The state of a training in one file: what a killed process needs to go on, bit for bit."""

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
    """How far a training is.

    Args:
        counts: How many images train and validate.
        history: A row of history.csv for each whole epoch.
        step: Steps done of the epoch after those.
        logs: The means of loss and accuracies over these steps.
        skipped: {file: reason} of the bad images that train, and of those that validate.
    """

    counts: tuple[int, int]
    history: list[dict] = dataclasses.field(default_factory=list)
    step: int = 0
    logs: dict[str, float] = dataclasses.field(default_factory=dict)
    skipped: list[dict] = dataclasses.field(default_factory=lambda: [{}, {}])

    @property
    def epoch(self):
        """Whole epochs done."""
        return len(self.history)

    @property
    def best(self):
        """The best validation score so far, -1 before the first."""
        return max(map(score, self.history), default=-1.0)

    def ends(self, recipe) -> bool:
        """Whether nothing is left to train."""
        return self.epoch == recipe.total_epochs or self.patience_ends(recipe)

    def patience_ends(self, recipe) -> bool:
        """Whether so many epochs as the recipe says brought no better validation accuracy.

        The epochs of the head alone do not count.
        """
        first = recipe.head_epochs
        if recipe.early_stopping is None or self.epoch <= first:
            return False
        scores = [score(row) for row in self.history]
        best = scores.index(max(scores))
        return self.epoch - max(best + 1, first) >= recipe.early_stopping

    def __str__(self):
        """In words."""
        return f"step {self.step} of epoch {self.epoch + 1}" if self.step else f"epoch {self.epoch}"


def save(folder, state, groups):
    """Writes a checkpoint; it replaces the previous one atomically.

    Args:
        folder: The run folder.
        state: A `TrainingState`.
        groups: {name: Keras variables}.

    Raises:
        TrainingError: if a weight is not finite; nothing is written.
        OSError: if it cannot be written; the previous one is intact.
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
    # 0-dimensional arrays become 1-dimensional by ascontiguousarray; restore takes either.
    with replacing(Path(folder) / NAME) as temporary:
        # Not save_file: it makes a file of a name of its own, which a killed process would leave.
        temporary.write_bytes(safetensors.numpy.save(arrays, metadata))


def _checksum(arrays, progress):
    """CRC-32 of all that a checkpoint holds, in hexadecimal."""
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
    if metadata.get("checksum", checksum) != checksum:  # an older release wrote none
        raise ValueError("its checksum is wrong")
    said = json.loads(metadata["progress"])
    return TrainingState(**{**said, "counts": tuple(said["counts"])}), arrays


def restore(arrays, groups):
    """Gives variables the values of a checkpoint; all or nothing.

    Args:
        arrays: From `load`.
        groups: As of `save`; a part of its groups, perhaps.

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
