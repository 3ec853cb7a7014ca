"""What an export says of itself: export.json."""

import dataclasses
import hashlib
import importlib.metadata
import json
from pathlib import Path

import keras
import numpy as np

import keras_resnet
from keras_resnet.files import write_text
from keras_resnet.weights.download import sha256

NAME = "export.json"


def weights_hash(model) -> str:
    """The sha256 of the values of a model's weights, in the order of `model.weights`."""
    digest = hashlib.sha256()
    for variable in model.weights:
        digest.update(np.ascontiguousarray(keras.ops.convert_to_numpy(variable)).tobytes())
    return digest.hexdigest()


def versions(*packages) -> dict[str, str]:
    """The versions that made an export."""
    found = {"keras_resnet": keras_resnet.__version__}
    return found | {name: importlib.metadata.version(name) for name in packages}


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
    source=None,
    packages=(),
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
        source: The file of the model's weights, or None.
        packages: Whose versions matter.
    """
    return {
        "format": format,
        "model": model.name,
        "signature": signature,
        "preprocessing": preprocessing and dataclasses.asdict(preprocessing),
        "preprocessing_inside": inside,
        "class_names": class_names,
        "weights_sha256": weights_hash(model),
        "source": source and {"file": Path(source).name, "sha256": sha256(source)},
        "versions": versions(*packages),
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
    own = artefact.with_name(f"{artefact.name}.{NAME}")
    return own if own.is_file() else artefact.with_name(NAME)


def write(record, artefact):
    """Writes the record of an artefact; that of another file beside it is kept under its name."""
    artefact = Path(artefact)
    if artefact.is_dir():
        write_text(artefact / NAME, _text(record))
        return
    target = artefact.with_name(NAME)
    if target.is_file():
        other = json.loads(target.read_text(encoding="utf-8")).get("file")
        if other != artefact.name and artefact.with_name(str(other)).is_file():
            target.replace(artefact.with_name(f"{other}.{NAME}"))
    write_text(target, _text({"file": artefact.name, **record}))
    artefact.with_name(f"{artefact.name}.{NAME}").unlink(missing_ok=True)


def read(artefact) -> dict:
    """The record of an artefact.

    Raises:
        ValueError: if there is none.
    """
    path = place(artefact)
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        record = {}
    if not record or record.get("file", Path(artefact).name) != Path(artefact).name:
        raise ValueError(
            f"{artefact} has no record: {path} was expected to describe it. Exports of this "
            "package write it; copy it along with the file."
        )
    return record


def _text(record):
    return json.dumps(record, indent=2, ensure_ascii=False) + "\n"
