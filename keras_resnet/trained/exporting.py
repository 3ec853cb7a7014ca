"""A trained network in the formats of other systems."""

import inspect
from pathlib import Path

from keras_resnet import export
from keras_resnet.export.file import check_suffix

SUFFIXES = {"onnx": ".onnx", "litert": ".tflite", "openvino": ".xml"}
FORMATS = ("saved_model", *SUFFIXES)


def export_network(network, format, output, *, any_size=False, **options) -> Path:
    """What `Network.export` does."""
    check(format, output, {**options, "any_size": True} if any_size else options)
    if output is None:
        if network.run is None:
            raise ValueError("output is missing: pass the file or folder to export to.")
        quantize = options.get("quantize")
        output = network.run.folder / (f"{format}_{quantize}" if quantize else format)
        if format in SUFFIXES:
            output = output / f"model{SUFFIXES[format]}"
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
    return getattr(export, format)(
        network.model,
        output,
        preprocessing=network.preprocessing,
        class_names=network.class_names,
        thresholds=network.thresholds,
        source=network.file,
        **options,
    )


def check(format, output, options) -> None:
    """Refuses what a format does not have, and a file that is not called as it wants."""
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
