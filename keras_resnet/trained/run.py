"""Reads run folders."""

import csv
import dataclasses
import zipfile
from pathlib import Path
from typing import Any

import keras

from keras_resnet.files import read_json
from keras_resnet.preprocessing import Preprocessing
from keras_resnet.weights.description import (
    MULTI_LABEL,
    RECIPE,
    of_recipe,
    thresholds_of_run,
)

BEST, LAST, CLASSES = "best.keras", "last.keras", "class_indices.json"
REPORT, PREDICTIONS, HISTORY = "report.md", "predictions.csv", "history.csv"
MEAN_AP = "mean_average_precision"
ADVICE = "Copy the run folder again from where it was trained, or train again."


def newest_run(parent: str | Path = "runs") -> Path:
    """Returns the run folder in `parent` that was finished last.

    Args:
        parent: A folder of run folders.

    Raises:
        ValueError: if there is no finished run.
    """
    reports = [file for file in Path(parent).glob(f"*/{REPORT}") if (file.parent / BEST).is_file()]
    if not reports:
        raise ValueError(f"There is no finished run in {parent}. Pass a run folder, or weights.")
    return max(reports, key=lambda file: file.stat().st_mtime_ns).parent


@dataclasses.dataclass(frozen=True)
class Run:
    """The content of a run folder.

    Args:
        folder: Path of the run folder.
        class_names: Class names.
        preprocessing: The evaluation transform that the network was trained for.
        split: How the data was split: arguments of `evaluation_source`.
        thresholds: Least probability at which each class is predicted, if images may show several
            classes; else None.
    """

    folder: Path
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    split: dict
    thresholds: tuple[float, ...] | None = None

    @classmethod
    def open(cls, folder) -> "Run":
        """Reads a run folder.

        Raises:
            ValueError: if it is not a run folder, or no epoch is complete.
        """
        folder = Path(folder)
        missing = [name for name in (BEST, CLASSES, RECIPE) if not (folder / name).is_file()]
        if missing:
            raise ValueError(
                f"{folder} is not a run folder: {', '.join(missing)} not found. Pass the folder "
                "that the training printed, for example runs/flowers."
            )
        class_names = read_json(folder / CLASSES, _class_names, advice=ADVICE)
        preprocessing, split = read_json(folder / RECIPE, _data, advice=ADVICE)
        thresholds = thresholds_of_run(folder, len(class_names))
        return cls(folder, class_names, preprocessing, split, thresholds)

    def model(self) -> keras.Model:
        """The network of the best epoch.

        Raises:
            ValueError: if it cannot be read, or does not match recipe.json or class_indices.json.
        """
        network = load_best(self.folder)
        taken, side, classes = network.input_shape[1:], self.preprocessing.crop, self.class_names
        if network.output_shape[-1] != len(classes):
            said = f"{CLASSES} names {len(classes)} classes, and {BEST} has "
            raise ValueError(f"{self.folder / said}{network.output_shape[-1]}. {ADVICE}")
        if {*taken[:2]} - {side, None}:
            said = f"{RECIPE} has images of {side} px, and {BEST} takes {taken}"
            raise ValueError(f"{self.folder / said}. {ADVICE}")
        return network

    def card(self) -> dict[str, Any]:
        """The run's entries for a model card, without paths: arguments of `weights.save_hub`."""
        recipe = read_json(self.folder / RECIPE, advice=ADVICE)
        data, networks = recipe.get("data"), ("weights", "teacher")
        left_out = ("data", *networks, "classes", "command", MULTI_LABEL)
        said = {key: value for key, value in recipe.items() if key not in left_out}
        for key in networks:
            if name := recipe.get(key):
                said[key] = name if "://" in name else Path(name).name
        rows = self.folder / PREDICTIONS
        if not rows.is_file():
            return {"recipe": said}
        with rows.open(newline="", encoding="utf-8") as file:
            name = "label" if self.thresholds is None else "labels"
            right = [row[name] == row["predicted"] for row in csv.DictReader(file)]
        counted = f"{len(right)} validation images" + (f" of {Path(data).name}" if data else "")
        metrics = {"accuracy": sum(right) / len(right)}
        if self.thresholds is not None:
            with (self.folder / HISTORY).open(newline="", encoding="utf-8") as file:
                found = [float(row[f"val_{MEAN_AP}"]) for row in csv.DictReader(file)]
            metrics = {MEAN_AP: max(found), "exact_match": metrics["accuracy"]}
        return {"metrics": metrics, "data": counted, "recipe": said}


def load_best(folder) -> keras.Model:
    """Loads the network from `best.keras` of a run folder.

    Raises:
        ValueError: if the file is damaged or has other content.
    """
    path = Path(folder) / BEST
    try:
        if not zipfile.is_zipfile(path):  # for which Keras reports that it does not exist
            raise ValueError("it is not a zip file, or is truncated")
        return keras.saving.load_model(path, compile=False)
    except Exception as error:  # of Keras, zipfile, h5py and others
        said = " ".join(str(error).split()).removesuffix(".")
        raise ValueError(f"{path} cannot be read: {said[:300]}. {ADVICE}") from error


def _class_names(indices):
    """Returns the class names from the content of class_indices.json."""
    names = tuple(indices[str(number)] for number in range(len(indices)))
    if not names or not all(isinstance(name, str) for name in names):
        raise TypeError('expected {"0": "daisy", ...}, a name for each class index, from 0')
    return names


def _data(recipe):
    """Returns the evaluation transform and the data split from the content of recipe.json."""
    if not isinstance(recipe.get("data", ""), str) or not isinstance(recipe.get("seed", 0), int):
        raise TypeError("data should be a string, and seed an integer")
    share = recipe.get("validation_split")
    if share is not None and not (isinstance(share, float) and 0 < share < 1):
        raise ValueError(f"validation_split should be null or between 0 and 1, not {share!r}")
    return of_recipe(recipe), {"validation_split": share, "seed": recipe.get("seed", 0)}
