"""Verifies an export: compares its files with its record, and its predictions with the model."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_resnet import features
from keras_resnet.export import record, run_exported
from keras_resnet.export.comparison import (
    Comparison,
    check_names,
    compare,
    model_inputs,
    opened,
    tolerance,
)
from keras_resnet.export.network import laid_out
from keras_resnet.preprocessing import Preprocessing


def verify(
    artefact: str | os.PathLike[str],
    images: dict[str, bytes],
    model: keras.Model,
    *,
    preprocessing: Preprocessing | None = None,
) -> Comparison:
    """Compares the predictions of an exported network and of its model for the same images.

    Args:
        artefact: The version folder of a SavedModel, or a .onnx, .tflite or .xml file, with its
            record.
        images: Encoded images, bytes, by name; error messages use the names.
        model: The model that was exported.
        preprocessing: The evaluation transform, if export.json has none.

    Returns:
        The comparison. `check` raises if the predictions differ.

    Raises:
        ValueError: if an image cannot be decoded, a file of the export was modified, or the model
            has other weights than the exported one.
    """
    artefact = Path(artefact)
    said = checked_record(artefact, model)
    if said.get("layer") is not None:
        model = features.pooled(model, said["layer"])
    preprocessing = record.preprocessing_of(said) or preprocessing
    if preprocessing is None:
        raise ValueError(f"{artefact} was exported without preprocessing: pass preprocessing.")
    inputs = model_inputs(model, preprocessing, images)
    given: np.ndarray | list[bytes] = inputs
    if said["preprocessing_inside"] == "all":
        given = list(images.values())
    elif said["preprocessing_inside"] == "normalisation":
        given = np.asarray(laid_out(model, preprocessing.batch(images, normalise=False)))
    outputs = opened(artefact)(given)
    check_names(outputs, said["class_names"])
    return compare(outputs, model, inputs, None if said.get("quantize") else tolerance(model))


def checked_record(artefact: Path, model: keras.Model) -> dict[str, Any]:
    """The record of an export that was not modified, and was made from a model.

    Raises:
        ValueError: if the files are not those of the record, or the model has other weights.
    """
    said = record.read(artefact)
    if record.file_hashes(artefact) != said.get("files_sha256"):
        raise ValueError(
            f"{artefact} does not match {record.place(artefact)}: its sha256 differs, so it was "
            "modified or replaced. Export again."
        )
    if said.get("layer") is not None:
        model = features.pooled(model, said["layer"])
    if record.weights_hash(model) != said["weights_sha256"]:
        raise ValueError(
            f"{artefact} was exported from a model with other weights. Pass the model that was "
            "exported."
        )
    return said


def answers_in_new_process(
    artefact: str | os.PathLike[str], inputs: np.ndarray | list[bytes]
) -> dict[str, np.ndarray]:
    """Runs an exported network in a new process that does not import this package.

    Args:
        artefact: The version folder of a SavedModel, or a .onnx, .tflite or .xml file.
        inputs: An array of input images or, for a SavedModel with preprocessing, a list of encoded
            images, bytes.

    Returns:
        A dictionary of outputs by name.

    Raises:
        ValueError: if the process fails; the message has the last line of its output.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if isinstance(inputs, list):
            given = folder / "images"
            given.mkdir()
            for number, content in enumerate(inputs):
                (given / f"{number:06}").write_bytes(content)
        else:
            given = folder / "images.npy"
            np.save(given, inputs)
        output = folder / "outputs.npz"
        # -P: modules are not imported from the script's folder.
        command = [sys.executable, "-P", run_exported.__file__, artefact, given, output]
        done = subprocess.run(  # noqa: S603 (our own program)
            [str(part) for part in command],
            capture_output=True,
            text=True,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
            check=False,
        )
        if done.returncode:
            *_, reason = ["", *done.stderr.splitlines()]
            said = reason.removeprefix("Error: ") or f"its process exited with {done.returncode}"
            raise ValueError(f"{artefact} could not be run: {said}")
        with np.load(output) as outputs:
            return dict(outputs)
