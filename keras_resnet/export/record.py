"""What an export says of itself: export.json."""

import dataclasses
import hashlib
import importlib
import json
from pathlib import Path
from typing import Any

import keras
import numpy as np

import keras_resnet
from keras_resnet.files import read_json, write_text
from keras_resnet.preprocessing import Preprocessing
from keras_resnet.weights.download import sha256

NAME = "export.json"
INSIDE = ("all", "normalisation", "none")  # of the preprocessing
KEYS = {"format", "preprocessing", "preprocessing_inside", "weights_sha256", "class_names"}


def weights_hash(model) -> str:
    """The sha256 of the values of a model's weights, in the order of `model.weights`."""
    digest = hashlib.sha256()
    for variable in model.weights:
        digest.update(np.ascontiguousarray(keras.ops.convert_to_numpy(variable)).tobytes())
    return digest.hexdigest()


def file_hashes(artefact) -> dict[str, str]:
    """The sha256 of an export's files, by their names in a SavedModel's folder.

    Of OpenVINO's .xml, its .bin too. What is read beside the graph, export.json and
    assets.extra, is left out.
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


def versions(*modules) -> dict[str, str]:
    """The versions that made an export."""
    found = {"keras_resnet": keras_resnet.__version__}
    for name in modules:
        module = importlib.import_module(name)
        found[name] = str(getattr(module, "__version__", "not told"))
    return found


def spec(dtype, shape) -> dict:
    """A tensor's type and shape, null where a side varies."""
    return {"dtype": dtype, "shape": [None if side is None else int(side) for side in shape]}


def describe(
    format,
    model,
    *,
    signature,
    preprocessing,
    inside,
    class_names,
    comparison,
    artefact,
    source=None,
    modules=(),
) -> dict:
    """The record of an export.

    Args:
        format: "saved_model", "onnx", "litert" or "openvino".
        model: The model that was exported.
        signature: {name: {"inputs": {name: spec}, "outputs": {name: spec}}}.
        preprocessing: The `Preprocessing` of its images, or None.
        inside: What of it is part of the export: "all", "normalisation" or "none".
        class_names: Names of the classes, or None.
        comparison: A `Comparison` with the model.
        artefact: The files, complete.
        source: The file of the model's weights, or None.
        modules: Whose versions matter.
    """
    return {
        "format": format,
        "model": model.name,
        "signature": signature,
        "preprocessing": preprocessing and dataclasses.asdict(preprocessing),
        "preprocessing_inside": inside,
        "class_names": class_names,
        "files_sha256": file_hashes(artefact),
        "weights_sha256": weights_hash(model),
        "source": source and {"file": Path(source).name, "sha256": sha256(Path(source))},
        "versions": versions(*modules),
        "error": comparison.error,
        "agreement": comparison.agreement,
        "compared_on": comparison.images,
        "tolerance": comparison.tolerance,
    }


def place(artefact) -> Path:
    """Where the record of an artefact is: in a SavedModel's folder, or beside a file.

    Of several files in one folder, export.json is of the last; the others' carry their names.
    """
    artefact = Path(artefact)
    if artefact.is_dir():
        return artefact / NAME
    own = _own_place(artefact)
    return own if own.is_file() else artefact.with_name(NAME)


def _own_place(file):
    return file.with_name(f"{file.name}.{NAME}")


def write(record, artefact):
    """Writes the record of an artefact.

    That of another file beside it is kept under its name. An export.json that is no record of ours
    is left alone, and the new one carries the file's name.
    """
    artefact = Path(artefact)
    if artefact.is_dir():
        write_text(artefact / NAME, text(record))
        return
    target, own = artefact.with_name(NAME), _own_place(artefact)
    if target.exists():
        other = _described(target)
        if other is None:
            target = own
        elif other != artefact.name and artefact.with_name(other).is_file():
            target.replace(_own_place(artefact.with_name(other)))
    write_text(target, text({"file": artefact.name, **record}))
    if target != own:
        own.unlink(missing_ok=True)


def _described(path):
    """The name of the file that a record is of; None if it is no record."""
    try:
        record = read_json(path, advice="")
    except (OSError, ValueError):
        return None
    name = record.get("file") if "format" in record else None
    return name if isinstance(name, str) and name == Path(name).name and name else None


def read(artefact) -> dict:
    """The record of an artefact.

    Raises:
        ValueError: if there is none, or it is damaged.
    """
    path = place(artefact)
    record = {}
    if path.is_file():
        record = read_json(path, _checked, advice="Export again.")
    if record.get("file", Path(artefact).name) != Path(artefact).name or not record:
        raise ValueError(
            f"{artefact} has no record: {path} was expected to describe it. Exports of this "
            "package write it; copy it along with the file."
        )
    return record


def _checked(record):
    """A record as it is, if what is read from it can be used; empty if it is none of ours."""
    if not record.keys() >= KEYS:
        return {}
    preprocessing_of(record)
    names = record["class_names"]
    if names is not None and not (
        isinstance(names, list) and names and all(isinstance(name, str) for name in names)
    ):
        raise TypeError("class_names should be null or a list of names")
    if record["preprocessing_inside"] not in INSIDE:
        raise ValueError(f"preprocessing_inside should be one of {', '.join(INSIDE)}")
    return record


def preprocessing_of(record) -> Preprocessing | None:
    """The evaluation transform that a record names.

    Raises:
        ValueError: if that is none.
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


def text(record) -> str:
    """A record as JSON."""
    return json.dumps(record, indent=2, ensure_ascii=False) + "\n"
