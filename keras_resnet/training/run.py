"""The folder that a training leaves behind, and what can be asked of it."""

import contextlib
import dataclasses
import itertools
import zipfile
from pathlib import Path

import keras
import numpy as np

from keras_resnet import files
from keras_resnet.files import LOCK, read_json
from keras_resnet.preprocessing import Preprocessing
from keras_resnet.training import naming
from keras_resnet.training.errors import WritingError
from keras_resnet.training.recipe import Recipe

RECIPE, REPORT = "recipe.json", "report.md"
CHECKPOINT = "checkpoint.safetensors"
BEST, CLASSES = "best.keras", "class_indices.json"
COPY = "Copy it from where the training was done, or train again."


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
    return read_json(
        folder / RECIPE,
        Recipe.from_config,
        advice="It is of an unfinished training, perhaps by another release of the package: go on "
        "with that one, choose another output (--output), or remove the folder.",
    )


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
    busy = ValueError(
        f"Another process trains in {folder}. Wait for it, or choose another output (--output)."
    )
    with contextlib.ExitStack() as held:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(files.locked(folder, busy))
        except OSError as error:
            raise WritingError(
                f"The training in {folder} stopped: {error}. Choose another output (--output), or "
                "make this one writable."
            ) from error
        try:
            files.remove_leftovers(folder)
            yield
        finally:
            held.close()
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


def load_best(folder) -> keras.Model:
    """The network in the `best.keras` of a run folder.

    Raises:
        ValueError: if the file is damaged, or is of something else.
    """
    path = Path(folder) / BEST
    try:
        if not zipfile.is_zipfile(path):  # of which Keras says that it is not there
            raise ValueError("it is no zip file, or was cut short")
        return keras.saving.load_model(path, compile=False)
    except Exception as error:  # of Keras, zipfile, h5py: there is no end of them
        said = " ".join(str(error).split()).removesuffix(".")
        raise ValueError(f"{path} cannot be read: {said[:300]}. {COPY}") from error


def _class_names(indices):
    """The names that class_indices.json has."""
    names = tuple(indices[str(number)] for number in range(len(indices)))
    if not names or not all(isinstance(name, str) for name in names):
        raise TypeError('expected {"0": "daisy", ...}, a name for each number from 0 on')
    return names


def _preprocessing(recipe):
    """The evaluation transform that recipe.json has; what else is read from it is checked."""
    if not isinstance(recipe.get("data", ""), str) or not isinstance(recipe.get("seed", 0), int):
        raise TypeError("data should be a string, and seed a whole number")
    split = recipe.get("validation_split")
    if split is not None and not (isinstance(split, float) and 0 < split < 1):
        raise ValueError(f"validation_split should be null or between 0 and 1, not {split!r}")
    mean, std = (
        tuple(values) if isinstance(values, list) else values
        for values in (recipe["mean"], recipe["std"])
    )
    exif = recipe.get("exif", False)
    return Preprocessing(recipe["resize"], recipe["image_size"], mean, std, exif)


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
        missing = [name for name in (BEST, CLASSES, RECIPE) if not (folder / name).is_file()]
        if missing:
            raise ValueError(
                f"{folder} is not the folder of a training: {', '.join(missing)} not found. Pass "
                "the folder that the training printed, runs/flowers for example."
            )
        class_names = read_json(folder / CLASSES, _class_names, advice=COPY)
        return cls(folder, class_names, read_json(folder / RECIPE, _preprocessing, advice=COPY))

    def split(self) -> dict:
        """How the data was split: arguments of `evaluation_source`."""
        recipe = read_json(self.folder / RECIPE, advice=COPY)
        return {name: recipe[name] for name in ("validation_split", "seed") if name in recipe}

    def model(self) -> keras.Model:
        """The network of the best epoch.

        Raises:
            ValueError: if it cannot be read, or does not take the images that recipe.json describes
                or has not the classes that class_indices.json names.
        """
        network = load_best(self.folder)
        taken, side, classes = network.input_shape[1:], self.preprocessing.crop, self.class_names
        if network.output_shape[-1] != len(classes):
            said = f"{CLASSES} names {len(classes)} classes, and {BEST} has "
            raise ValueError(f"{self.folder / said}{network.output_shape[-1]}. {COPY}")
        if taken[:2] != (side, side):
            said = f"{RECIPE} has images of {side} px, and {BEST} takes {taken}"
            raise ValueError(f"{self.folder / said}. {COPY}")
        return network

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
