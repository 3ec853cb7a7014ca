"""The folder that a training leaves behind, and what can be asked of it."""

import contextlib
import dataclasses
import itertools
import json
from pathlib import Path

import filelock
import keras
import numpy as np

from keras_resnet.files import remove_leftovers
from keras_resnet.preprocessing import Preprocessing
from keras_resnet.training import naming
from keras_resnet.training.errors import WritingError
from keras_resnet.training.recipe import Recipe

RECIPE, REPORT, LOCK = "recipe.json", "report.md", ".lock"
CHECKPOINT = "checkpoint.safetensors"
BEST, CLASSES = "best.keras", "class_indices.json"


def run_folder(output, recipe: Recipe) -> Path:
    """The folder for a training: that of an unfinished one of the same recipe, or a new one.

    Args:
        output: The folder. If it holds a finished run or other things, output-2, output-3, ... are
            looked at in turn.
        recipe: The training.

    Raises:
        ValueError: if the folder has an unfinished training of another recipe, or one that this
            release cannot read, or is a file.
    """
    output = Path(output)
    folder, number = output, 1
    while True:
        if folder.is_file():
            raise ValueError(
                f"The run folder {folder} is a file. Choose another output (--output), or "
                "remove it."
            )
        if not folder.exists() or all(entry.name == LOCK for entry in folder.iterdir()):
            return folder
        if (folder / RECIPE).is_file() and not (folder / REPORT).exists():
            _check_same(folder, recipe_of(folder), recipe)
            return folder
        left = (folder / name for name in (CHECKPOINT, LOCK))
        if (folder / REPORT).exists() and any(file.exists() for file in left):
            # Whoever finished it was killed a moment too early; or is just about to remove them.
            with contextlib.suppress(ValueError, OSError), _lock(folder):
                (folder / CHECKPOINT).unlink(missing_ok=True)
        number += 1
        folder = output.with_name(f"{output.name}-{number}")


def recipe_of(folder) -> Recipe | None:
    """The recipe of the unfinished training in a run folder; None if there is none.

    Raises:
        ValueError: if it cannot be read.
    """
    if not (folder / RECIPE).is_file():
        return None
    try:
        return Recipe.from_json((folder / RECIPE).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{folder / RECIPE} of an unfinished training is damaged, or was written by another "
            f"release of the package: {error} Go on with that release, choose another output "
            "(--output), or remove the folder."
        ) from error


def _check_same(folder, before, recipe):
    """Refuses another recipe than an unfinished training's; what that does not say is the default.

    The data may lie elsewhere now: what it is, its fingerprint says.
    """
    old = dataclasses.asdict(before.located())
    same = recipe.resolved_as(before)
    new = dataclasses.asdict(Recipe.from_json(same.to_json()).located())
    others = [
        f"{name} was {old[name]!r} and is {value!r}"
        for name, value in new.items()
        if old[name] != value and name != "data"
    ]
    if others:
        raise ValueError(
            f"{folder} holds an unfinished training with other arguments: {'; '.join(others)}. "
            "Run it with the same ones to go on, choose another output (--output), or remove "
            "the folder."
        )


@contextlib.contextmanager
def locked(output, recipe: Recipe):
    """Keeps other processes out of a run folder, and removes what a killed one left half-written.

    Args:
        output: As of `run_folder`.
        recipe: As of `run_folder`.

    Yields:
        The folder.

    Raises:
        ValueError: as of `run_folder`, or if another process trains there.
        OSError: if the folder cannot be written.
    """
    while True:
        folder = run_folder(output, recipe)
        with _lock(folder):
            # Until it was locked, another process may have finished it.
            if run_folder(output, recipe) == folder:
                yield folder
                return


@contextlib.contextmanager
def _lock(folder):
    new = list(itertools.takewhile(lambda path: not path.exists(), (folder, *folder.parents)))
    path = folder / LOCK
    lock = filelock.FileLock(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise ValueError(
            f"Another process trains in {folder}. Wait for it, or choose another output (--output)."
        ) from error
    except OSError as error:
        raise WritingError(
            f"The training in {folder} stopped: {error}. Choose another output (--output), or make "
            "this one writable."
        ) from error
    try:
        remove_leftovers(folder)
        yield
    finally:
        path.unlink(missing_ok=True)  # before another process has it
        lock.release()
        with contextlib.suppress(OSError):  # not empty, which is well
            for made in new:
                made.rmdir()


def newest_run(parent="runs") -> Path:
    """The folder of the training that was finished last.

    Args:
        parent: The folder that the run folders are in.

    Raises:
        ValueError: if there is none.
    """
    reports = [file for file in Path(parent).glob(f"*/{REPORT}") if (file.parent / BEST).is_file()]
    if not reports:
        raise ValueError(
            f"There is no finished training in {parent}. Pass the folder of one (--run), or a "
            "network and its weights (--model, --weights)."
        )
    return max(reports, key=lambda file: file.stat().st_mtime_ns).parent


@dataclasses.dataclass(frozen=True)
class Run:
    """A training's best network.

    Args:
        folder: The run folder.
        class_names: Names of the classes.
        preprocessing: The evaluation transform that the network was trained for.

    Example:
    >>> run = keras_resnet.training.Run.open("runs/flowers")  # doctest: +SKIP
    >>> run.predict([Path("daisy.jpg").read_bytes()])  # doctest: +SKIP
    """

    folder: Path
    class_names: tuple[str, ...]
    preprocessing: Preprocessing

    @classmethod
    def open(cls, folder) -> "Run":
        """Reads a run folder.

        Raises:
            ValueError: if the folder is not one, or no epoch was finished yet.
        """
        folder = Path(folder)
        missing = [
            name
            for name in ("best.keras", "class_indices.json", "recipe.json")
            if not (folder / name).is_file()
        ]
        if missing:
            raise ValueError(
                f"{folder} is not the folder of a training: {', '.join(missing)} not found. Pass "
                "the folder that the training printed, runs/flowers for example."
            )
        indices = json.loads((folder / "class_indices.json").read_text(encoding="utf-8"))
        recipe = json.loads((folder / RECIPE).read_text(encoding="utf-8"))
        return cls(
            folder,
            tuple(indices[str(number)] for number in range(len(indices))),
            Preprocessing(
                recipe["resize"],
                recipe["image_size"],
                tuple(recipe["mean"]),
                tuple(recipe["std"]),
                recipe.get("exif", False),
            ),
        )

    def split(self) -> dict:
        """How the data was split: arguments of `evaluation_source`."""
        recipe = json.loads((self.folder / RECIPE).read_text(encoding="utf-8"))
        return {name: recipe[name] for name in ("validation_split", "seed") if name in recipe}

    def model(self) -> keras.Model:
        """The network of the best epoch."""
        return keras.saving.load_model(self.folder / "best.keras", compile=False)

    def predict(self, images) -> np.ndarray:
        """Probabilities of encoded images.

        Args:
            images: JPEG, PNG, GIF, BMP or WebP files, bytes.

        Returns:
            float32 (images, classes).

        Raises:
            ValueError: if there are none, or one is no image, with its place in the list.
        """
        return naming.probabilities(self.model(), self.preprocessing, images)

    def name_files(self, files, *, top=5) -> dict[Path, list[tuple[str, float]]]:
        """The most probable classes of image files.

        Args:
            files: Their paths. What cannot be decoded is left out and logged.
            top: How many classes.

        Returns:
            {path: [(class name, probability), ...], the best first}.

        Raises:
            ValueError: if there are none, or none can be decoded.
        """
        return naming.name_files(self.model(), self.preprocessing, self.class_names, files, top)
