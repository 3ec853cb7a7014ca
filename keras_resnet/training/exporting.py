"""Trained networks in the formats of other systems, and whether these answer alike.

As a program, for trainings on other backends than TensorFlow, it writes a run's SavedModel:

    KERAS_BACKEND=tensorflow python -m keras_resnet.training.exporting RUN
"""

import dataclasses
import logging
import sys
from pathlib import Path
from typing import Any

from keras_resnet import export
from keras_resnet.export import record
from keras_resnet.training.opening import open_network
from keras_resnet.training.run import BEST, newest_run

logger = logging.getLogger("keras_resnet")

SUFFIXES = {"onnx": ".onnx", "litert": ".tflite", "openvino": ".xml"}
FORMATS = ("saved_model", *SUFFIXES)


@dataclasses.dataclass(frozen=True)
class Options:
    """How to export.

    Args:
        fold: SavedModel: whether batch normalization becomes part of the convolutions.
        top_k: SavedModel: how many classes an answer names.
        warmup: SavedModel: whether to write requests for TensorFlow Serving to warm up with.
        any_size: Files: whether to leave the sides of the images open.
        with_preprocessing: ONNX: whether the normalisation is in the file.
        quantize: ONNX and LiteRT: "int8"; LiteRT: "dynamic".
        representative_data: For "int8": a folder of images such as the network will see.
    """

    fold: bool = True
    top_k: int = 5
    warmup: bool = False
    any_size: bool = False
    with_preprocessing: bool = False
    quantize: str | None = None
    representative_data: str | None = None

    def check(self, format):
        """Refuses what a format does not have."""
        if format not in FORMATS:
            raise ValueError(
                f"format should be one of {', '.join(FORMATS)}. Received: format={format!r}"
            )
        meant = {
            "fold": ("--no-fold", ("saved_model",)),
            "top_k": ("--top", ("saved_model",)),
            "warmup": ("--warmup", ("saved_model",)),
            "any_size": ("--any-size", tuple(SUFFIXES)),
            "with_preprocessing": ("--with-preprocessing", ("onnx",)),
            "quantize": ("--quantize", ("onnx", "litert")),
            "representative_data": ("--representative-data", ("onnx", "litert")),
        }
        for field in dataclasses.fields(self):
            value, (option, formats) = getattr(self, field.name), meant[field.name]
            if value != field.default and format not in formats:
                raise ValueError(
                    f"{field.name} ({option}) is for the format {' or '.join(formats)}. "
                    f"Received: {field.name}={value!r} with format={format!r}"
                )
        kinds = {"onnx": (None, "int8"), "litert": (None, "dynamic", "int8")}.get(format, (None,))
        if self.quantize not in kinds:
            raise ValueError(
                f"quantize (--quantize) should be one of {kinds} for the format {format}. "
                f"Received: quantize={self.quantize!r}"
            )
        if (self.quantize == "int8") != (self.representative_data is not None):
            raise ValueError(
                "quantize='int8' measures the range of each activation on images such as the "
                "network will see: pass their folder as representative_data "
                "(--representative-data), and only then. "
                f"Received: quantize={self.quantize!r}, "
                f"representative_data={self.representative_data!r}"
            )


def export_network(
    format,
    output=None,
    *,
    run=None,
    model=None,
    weights=None,
    preprocessing=None,
    **options,
) -> Path:
    """Exports a run's network, or any with weights.

    Args:
        format: "saved_model", "onnx", "litert" or "openvino".
        output: The folder of a SavedModel's versions, or the file. Default: in the run folder,
            `saved_model` or for example `onnx_int8/model.onnx`.
        run: A run folder.
        model: Name of a network, instead of `run`; needs `weights`.
        weights: A file, or the name of published weights; only with `model`.
        preprocessing: As of `open_network`.
        **options: Those of `Options`.

    Returns:
        The version folder, or the file.

    Raises:
        ValueError: if the arguments do not fit, or the export does not answer as the model does.
    """
    chosen = Options(**options)
    chosen.check(format)
    if output is None:
        if run is None and model is not None:
            raise ValueError("Say where to export to: pass output (--output).")
        folder = f"{format}_{chosen.quantize}" if chosen.quantize else format
        output = Path(run or "") / folder
        if format in SUFFIXES:
            output = output / f"model{SUFFIXES[format]}"
    network = open_network(run, model, weights, preprocessing=preprocessing)
    common: dict[str, Any] = {
        "preprocessing": network.preprocessing,
        "class_names": network.class_names,
        "source": network.file,
    }
    if format == "saved_model":
        return export.saved_model(
            network.model,
            output,
            top_k=chosen.top_k,
            fold=chosen.fold,
            warmup=chosen.warmup,
            **common,
        )
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    if not chosen.any_size:
        common["image_size"] = network.preprocessing.crop
    if chosen.with_preprocessing:
        common["with_preprocessing"] = True
    if chosen.quantize:
        common["quantize"] = chosen.quantize
    if chosen.representative_data is not None:
        common["calibration_data"] = export.calibration_images(
            network.model,
            chosen.representative_data,
            network.preprocessing,
            pixels=chosen.with_preprocessing,
        )
    return getattr(export, format)(network.model, output, **common)


def verify_export(artefact, images, *, run=None, model=None, weights=None) -> export.Comparison:
    """Has an exported network and the one that it was made from answer the same image files.

    Args:
        artefact: A SavedModel's version folder, or a .onnx, .tflite or .xml file.
        images: Paths of the image files.
        run: The run folder. Default, without `model`: the one that the artefact lies in, or the
            newest finished one in `runs`.
        model: Name of a network, instead of `run`; needs `weights`.
        weights: A file, or the name of published weights; only with `model`.

    Returns:
        The comparison. `check` raises if the answers differ.

    Raises:
        ValueError: if it is no artefact, if it was made from other weights, or an image cannot be
            decoded.
        OSError: if an image cannot be read.
    """
    artefact = Path(artefact)
    if artefact.suffix not in SUFFIXES.values() and not (artefact / "saved_model.pb").is_file():
        raise ValueError(
            f"{artefact} is no export: expected a .onnx, .tflite or .xml file, or the folder of a "
            "SavedModel's version, models/flowers/1 for example."
        )
    if not artefact.exists():
        raise ValueError(f"There is no file {artefact}.")
    if run is None and model is None:
        run = next((f for f in artefact.resolve().parents if (f / BEST).is_file()), None)
        if run is None:
            run = newest_run()
            logger.info("%s is in no run folder: beside the newest run, %s.", artefact, run)
    said = None if run else record.preprocessing_of(record.read(artefact))
    network = open_network(run, model, weights, preprocessing=said)
    contents = {str(image): Path(image).read_bytes() for image in images}
    return export.verify(artefact, contents, network.model, preprocessing=network.preprocessing)


if __name__ == "__main__":
    export_network("saved_model", run=sys.argv[1])
