"""Exports of trained networks."""

import inspect
from pathlib import Path

from keras_resnet import export
from keras_resnet.export.file import check_suffix

SUFFIXES = {"onnx": ".onnx", "litert": ".tflite", "openvino": ".xml"}
FORMATS = ("saved_model", *SUFFIXES)


def export_network(network, format, output, *, any_size=False, **options) -> Path:
    """Implements `Network.export`."""
    check(format, output, {**options, "any_size": True} if any_size else options)
    if output is None:
        if network.run is None:
            raise ValueError("output is missing: pass the file or folder to export to.")
        output = default_place(
            network.run.folder, format, options.get("quantize"), options.get("layer")
        )
    if format in SUFFIXES:
        Path(output).parent.mkdir(parents=True, exist_ok=True)
        options["image_size"] = None if any_size else network.preprocessing.crop
    if "calibration_data" in options:
        options["calibration_data"] = export.calibration_images(
            network.model,
            options["calibration_data"],
            network.preprocessing,
            pixels=options.get("with_preprocessing", False),
        )
    classifies = options.get("layer") is None
    return getattr(export, format)(
        network.model,
        output,
        preprocessing=network.preprocessing,
        class_names=network.class_names if classifies else None,
        thresholds=network.thresholds if classifies else None,
        source=network.file,
        **options,
    )


def default_place(folder, format, quantize=None, layer=None) -> Path:
    """Where in a run folder an export is: a file, or the folder of a SavedModel's versions."""
    output = folder / "_".join(filter(None, (format, quantize, layer)))
    return output / f"model{SUFFIXES[format]}" if format in SUFFIXES else output


def check_artefact(artefact: Path) -> None:
    """Refuses what is not called as an export, or does not exist."""
    if artefact.suffix not in SUFFIXES.values() and not (artefact / "saved_model.pb").is_file():
        raise ValueError(
            f"{artefact} is not an export: expected a .onnx, .tflite or .xml file, or the folder "
            "of a SavedModel's version, models/flowers/1 for example."
        )
    if not artefact.exists():
        raise ValueError(f"The file {artefact} does not exist.")


def check(format, output, options) -> None:
    """Raises a ValueError for options that a format does not have, and for a wrong suffix."""
    if format not in FORMATS:
        raise ValueError(
            f"format should be one of {', '.join(FORMATS)}. Received: format={format!r}"
        )
    if output is not None and format in SUFFIXES:
        check_suffix(Path(output), SUFFIXES[format])
    taken = {name: set(inspect.signature(getattr(export, name)).parameters) for name in FORMATS}
    for name in SUFFIXES:
        taken[name].add("any_size")
    for name, value in options.items():
        if name not in taken[format]:
            formats = " or ".join(other for other in FORMATS if name in taken[other])
            raise ValueError(
                f"{name} needs the format {formats}. Received: {name}={value!r} with "
                f"format={format!r}"
                if formats
                else f"There is no export option {name}."
            )
    quantize, images = options.get("quantize"), options.get("calibration_data")
    if (quantize == "int8") != (images is not None):
        raise ValueError(
            "quantize='int8' measures the range of each activation on images like those that the "
            "network will see: pass a folder as calibration_data, and only with int8. Received: "
            f"quantize={quantize!r}, calibration_data={images!r}"
        )
