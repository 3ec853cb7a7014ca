"""The record of an export: export.json in a SavedModel, FILE.export.json next to a file."""

import dataclasses
import hashlib
import importlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import keras
import numpy as np

import keras_resnet
from keras_resnet.export.comparison import Comparison
from keras_resnet.files import read_json, write_text
from keras_resnet.preprocessing import Preprocessing
from keras_resnet.weights.download import sha256

NAME = "export.json"
INSIDE = ("all", "normalisation", "none")  # parts of the preprocessing
KEYS = {"format", "preprocessing", "preprocessing_inside", "weights_sha256", "class_names"}


def weights_hash(model: keras.Model) -> str:
    """Returns the sha256 of a model's weights, in the order of `model.weights`."""
    digest = hashlib.sha256()
    for variable in model.weights:
        digest.update(np.ascontiguousarray(keras.ops.convert_to_numpy(variable)).tobytes())
    return digest.hexdigest()


def file_hashes(artefact: str | os.PathLike[str]) -> dict[str, str]:
    """Returns the sha256 of an export's files, by their paths in a SavedModel's folder.

    Includes the .bin of OpenVINO's .xml, but not export.json and assets.extra, which are not
    part of the graph.
    """
    artefact = Path(artefact)
    if artefact.is_dir():
        files = [file for file in sorted(artefact.rglob("*")) if file.is_file()]
        names = [file.relative_to(artefact).as_posix() for file in files]
        aside = (NAME, "assets.extra/")
        kept = [pair for pair in zip(names, files, strict=True) if not pair[0].startswith(aside)]
        return {name: sha256(file) for name, file in kept}
    beside = [artefact, artefact.with_suffix(".bin")][: 2 if artefact.suffix == ".xml" else 1]
    return {file.suffix: sha256(file) for file in beside if file.is_file()}


def spec(dtype: Any, shape: Iterable[int | None]) -> dict[str, Any]:
    """Describes a tensor: its dtype and shape, with null for dynamic dimensions."""
    return {"dtype": dtype, "shape": [None if side is None else int(side) for side in shape]}


def describe(
    format: str,
    model: keras.Model,
    artefact: Path,
    *,
    signature: dict[str, Any],
    preprocessing: Preprocessing | None,
    inside: str,
    class_names: list[str] | None,
    layer: str | None,
    thresholds: tuple[float, ...] | None,
    comparison: Comparison,
    source: str | os.PathLike[str] | None,
    modules: Iterable[str],
) -> dict[str, Any]:
    """Makes the record of an export whose files are complete.

    `signature` is {name: {"inputs": {name: spec}, "outputs": {name: spec}}}, `inside` the part of
    the preprocessing that the export includes (one of `INSIDE`), `layer` the layer whose features
    it returns, if any, and `modules` are those whose versions are recorded.
    """
    return {
        "format": format,
        "model": model.name,
        "signature": signature,
        "preprocessing": preprocessing and dataclasses.asdict(preprocessing),
        "preprocessing_inside": inside,
        "class_names": class_names,
        "layer": layer,
        "thresholds": thresholds,
        "files_sha256": file_hashes(artefact),
        "weights_sha256": weights_hash(model),
        "source": source and {"file": Path(source).name, "sha256": sha256(Path(source))},
        "versions": _versions(modules),
        "error": comparison.error,
        "agreement": comparison.agreement,
        "compared_on": comparison.images,
        "tolerance": comparison.tolerance,
    }


def metadata(
    model: keras.Model,
    *,
    preprocessing: Preprocessing | None,
    inside: str,
    class_names: list[str] | None,
    layer: str | None,
    thresholds: tuple[float, ...] | None,
) -> dict[str, str]:
    """Returns the metadata to write into a file; values are JSON, except for the model's name."""
    values = {
        "preprocessing": preprocessing and dataclasses.asdict(preprocessing),
        "preprocessing_inside": inside,
        "class_names": class_names,
        "layer": layer,
        "thresholds": thresholds,
    }
    said = {name: json.dumps(value) for name, value in values.items()}
    return {"model": model.name, **said}


def _versions(modules):
    """Returns the versions of Python and of the modules that made an export."""
    found = {"keras_resnet": keras_resnet.__version__}
    for name in modules:
        module = importlib.import_module(name)
        found[name] = str(getattr(module, "__version__", "unknown"))
    return found


def place(artefact: str | os.PathLike[str]) -> Path:
    """Returns the path of an export's record: in a SavedModel's folder, or next to a file.

    If a file has no record of its own, it is export.json, as written by earlier versions of this
    package.
    """
    artefact = Path(artefact)
    if artefact.is_dir():
        return artefact / NAME
    own, earlier = artefact.with_name(f"{artefact.name}.{NAME}"), artefact.with_name(NAME)
    return earlier if earlier.is_file() and not own.is_file() else own


def write(record: dict[str, Any], artefact: Path) -> None:
    """Writes the record of an export; for a file, `<file>.export.json`."""
    folder = artefact.is_dir()
    target = artefact / NAME if folder else artefact.with_name(f"{artefact.name}.{NAME}")
    write_text(target, json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def read(artefact: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads the record of an export.

    Raises:
        ValueError: if there is no record, or it is damaged.
    """
    path, name = place(artefact), Path(artefact).name
    record = read_json(path, _checked, advice="Export again.") if path.is_file() else {}
    if (
        not record or record.get("file", name) != name
    ):  # an export.json of earlier versions may be of another file
        raise ValueError(
            f"{artefact} has no record: expected {path}, which every export of this package "
            "writes. Copy it along with the export."
        )
    return record


def _checked(record):
    """Validates a record; returns an empty one if it is not from this package."""
    if not record.keys() >= KEYS:
        return {}
    preprocessing_of(record)
    names = record["class_names"]
    if names is not None and not (
        isinstance(names, list) and names and all(isinstance(name, str) for name in names)
    ):
        raise TypeError("class_names should be null or a list of names")
    if not isinstance(record.get("layer"), str | None):
        raise TypeError("layer should be null or the name of a layer")
    if record["preprocessing_inside"] not in INSIDE:
        raise ValueError(f"preprocessing_inside should be one of {', '.join(INSIDE)}")
    return record


def preprocessing_of(record: dict[str, Any]) -> Preprocessing | None:
    """Returns the evaluation transform of a record.

    Raises:
        ValueError: if it is not valid.
    """
    values = record["preprocessing"]
    try:
        arguments: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in (values or {}).items()
        }
        return Preprocessing(**arguments) if values else None
    except (AttributeError, TypeError) as error:
        raise ValueError(f"its preprocessing is {values!r:.80}") from error
