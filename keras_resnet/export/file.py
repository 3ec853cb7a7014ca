"""Exports to a single file: what ONNX, LiteRT and OpenVINO have in common."""

import dataclasses
import importlib.util
import logging
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_resnet import features
from keras_resnet.builder import channels_first
from keras_resnet.export import calibration, comparison, record
from keras_resnet.export.network import (
    check_backend,
    check_sizes,
    checked_names,
    fitting_thresholds,
    inference_network,
    laid_out,
    named_outputs,
    normalises_itself,
)
from keras_resnet.files import replacing
from keras_resnet.layers import convolution_path
from keras_resnet.preprocessing import Preprocessing

logger = logging.getLogger("keras_resnet")


@dataclasses.dataclass(frozen=True)
class Format:
    """A file format.

    Args:
        name: Name in the record.
        suffix: Suffix of the file.
        packages: Packages that write and run it, {module: name of its distribution}.
        write: Function from the network, the file to write, its metadata, `quantize` and the
            calibration data.
        quantized: Allowed values of `quantize`.
        extra: The extra that installs the packages.
        said: Additional entries of the record.
    """

    name: str
    suffix: str
    packages: dict[str, str]
    write: Callable[[keras.Model, Path, dict[str, str], str | None, np.ndarray | None], None]
    quantized: tuple[str | None, ...] = (None,)
    extra: str = "export"
    said: dict[str, Any] = dataclasses.field(default_factory=dict)


def write_file(
    format: Format,
    model: keras.Model,
    path: str | os.PathLike[str],
    *,
    preprocessing: Preprocessing | None,
    class_names: Sequence[str] | None,
    thresholds: Sequence[float] | None,
    image_size: int | tuple[int, int] | None,
    source: str | os.PathLike[str] | None,
    layer: str | None,
    with_preprocessing: bool = False,
    quantize: str | None = None,
    calibration_data: np.ndarray | None = None,
    representative_data: np.ndarray | None = None,
) -> Path:
    """Writes a temporary file, runs it, compares it with the model, and renames it.

    Arguments, result and errors are those of the public functions.
    """
    if representative_data is not None:
        warnings.warn(
            "representative_data was renamed: pass calibration_data.",
            FutureWarning,
            stacklevel=3,
        )
        calibration_data = representative_data
    path = Path(path)
    check_backend()
    _check(format, model, path, preprocessing, with_preprocessing, quantize)
    model = model if layer is None else features.pooled(model, layer)
    names = checked_names(model, class_names)
    least = fitting_thresholds(model, thresholds)
    check_sizes(model, image_size, preprocessing)
    normalise = preprocessing if with_preprocessing else None
    network = inference_network(model, image_size=image_size, normalise=normalise)
    calibrating, held_back = None, None
    if quantize == "int8":
        calibrating, held_back = calibration.split(calibration_data, network.inputs[0])
    elif calibration_data is not None:
        raise ValueError(f"calibration_data needs quantize='int8'. Received: quantize={quantize!r}")
    inside = "normalisation" if with_preprocessing else "none"
    metadata = record.metadata(
        model,
        preprocessing=preprocessing,
        inside=inside,
        class_names=names,
        layer=layer,
        thresholds=least,
    )
    with replacing(path) as temporary:
        # OpenVINO's weights are in a second file.
        weights, beside = path.with_suffix(".bin"), temporary.with_suffix(".bin")
        try:
            # For tracing only: what follows runs on this machine.
            with convolution_path("native"):
                format.write(network, temporary, metadata, quantize, calibrating)
            compared = _try(temporary, network, model, normalise, quantize, held_back)
            description = record.describe(
                format.name,
                model,
                temporary,
                signature={"tensor": _signature(network)},
                preprocessing=preprocessing,
                inside=inside,
                class_names=names,
                layer=layer,
                thresholds=least,
                comparison=compared,
                source=source,
                modules=("keras", "tensorflow", *format.packages),
            )
            # A full disk fails here, before any file is replaced; what follows only renames.
            record.write({**description, "quantize": quantize, **format.said}, path)
            if beside.exists():
                beside.replace(weights)
        finally:
            beside.unlink(missing_ok=True)
    return path


def check_suffix(path: Path, suffix: str) -> None:
    """Raises a ValueError if a file does not have the suffix of its format."""
    if path.suffix != suffix:
        raise ValueError(f"The file's name should end in {suffix}. Received: path={str(path)!r}")


def _check(format, model, path, preprocessing, with_preprocessing, quantize):
    """Raises an error for unsupported arguments, an invalid path, or a missing package."""
    if quantize not in format.quantized:
        raise ValueError(
            f"quantize should be one of {format.quantized}. Received: quantize={quantize!r}"
        )
    check_suffix(path, format.suffix)
    if not path.parent.is_dir():
        raise ValueError(f"The folder {path.parent} does not exist. Create it first.")
    if path.is_dir():
        raise ValueError(f"{path} is a folder. Choose another name.")
    if (path.parent / "saved_model.pb").is_file():
        raise ValueError(
            f"{path.parent} is a SavedModel, which cannot contain other files. Choose another "
            "folder."
        )
    missing = [
        name for module, name in format.packages.items() if not importlib.util.find_spec(module)
    ]
    if missing:
        raise ImportError(
            f"This export needs {', '.join(missing)}: pip install 'keras3-resnet[{format.extra}]'"
        )
    if with_preprocessing and preprocessing is None:
        raise ValueError(
            "with_preprocessing adds the normalization to the network: pass preprocessing too, "
            "keras_resnet.Preprocessing() for ImageNet's."
        )
    if with_preprocessing and normalises_itself(model):
        raise ValueError(
            f"{model.name} already contains a normalization: remove with_preprocessing."
        )


def input_signature(network: keras.Model) -> list[keras.InputSpec]:
    """Returns a network's inputs for `model.export`, which infers them only after a call."""
    return [keras.InputSpec(shape=t.shape, dtype=t.dtype, name=t.name) for t in network.inputs]


def _try(file, network, model, normalise, quantize, images):
    """Runs a file and compares it with the model, on noise if there are no images."""
    allowed = None if quantize else comparison.tolerance(model)
    batches = [images]
    if images is None:
        noise = comparison.sample(network.inputs[0].shape[1:], network.inputs[0].dtype)
        batches = [noise[:1], noise]
    predict, expect = comparison.opened(file), comparison.predictor(model)
    for given in batches:
        inputs = given
        if normalise is not None:
            pixels = given.transpose(0, 2, 3, 1) if channels_first(model) else given
            inputs = laid_out(model, normalise.normalise(pixels)).numpy()
        compared = comparison.compare(predict(given), model, inputs, allowed, expect)
        if not quantize:
            compared.check("The exported file")
    if quantize:
        try:
            compared.check("The quantized file")
        except ValueError as error:
            if not np.isfinite(compared.error):
                raise
            logger.warning(
                "%s Pass more calibration data, images like those that the network will see.", error
            )
    return compared


def _signature(network):
    outputs = named_outputs(network, network.output)
    return {
        "inputs": {t.name: record.spec(t.dtype, t.shape) for t in network.inputs},
        "outputs": {name: record.spec(t.dtype, t.shape) for name, t in outputs.items()},
    }
