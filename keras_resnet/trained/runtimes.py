"""What answers batches of images: the Keras model, or an export of it in its own runtime."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from keras_resnet import features
from keras_resnet.export import record
from keras_resnet.export.comparison import opened
from keras_resnet.export.network import checked_names, laid_out
from keras_resnet.export.verification import checked_record
from keras_resnet.trained.exporting import FORMATS, SUFFIXES, check_artefact, default_place
from keras_resnet.trained.network import Network

KERAS = "keras"


def open_runtime(
    network: Network, runtime: str | Path = KERAS, *, layer: str | None = None
) -> Callable[[np.ndarray], np.ndarray]:
    """Opens a network in a runtime of your choice, to classify or embed many images.

    An export is used only if it was made from this network, with the same weights, preprocessing
    and class names, and was not modified. Its answers differ from the network's as its record says
    (`error`, `agreement` and `tolerance` in export.json).

    Args:
        network: The trained network.
        runtime: "keras"; or "saved_model", "onnx", "openvino" or "litert" for the export in the
            network's run folder; or the path of an export, 8-bit ones too: the version folder of a
            SavedModel, or a .onnx, .tflite or .xml file.
        layer: The layer to return the features of, as for `features.pooled`; the export has to be
            of the same layer. None for class probabilities.

    Returns:
        A function from normalised images, float32 (batch, height, width, 3), to probabilities,
        float32 (batch, classes), or features, float32 (batch, channels).

    Raises:
        ValueError: if there is no such export, it is of another network or another layer, or the
            layer does not exist.

    Example:
    >>> network = keras_resnet.trained.open_network("runs/flowers")  # doctest: +SKIP
    >>> embed = trained.open_runtime(network, "onnx", layer="avgpool")  # doctest: +SKIP
    """
    export = find_export(network, runtime, layer)
    model = network.model if layer is None else features.pooled(network.model, layer)
    if export is None:
        return lambda images: np.asarray(model.predict_on_batch(laid_out(model, images)))
    artefact, said = export
    predict, name = opened(artefact), "probabilities" if layer is None else "features"
    mean, std = np.array(network.preprocessing.mean), np.array(network.preprocessing.std)

    def answer(images):
        if said["preprocessing_inside"] == "normalisation":  # it takes the pixels that these were
            images = np.rint(255 * (images * std + mean)).clip(0, 255).astype(np.uint8)
        return predict(np.asarray(laid_out(model, images)))[name]

    return answer


def find_export(
    network: Network, runtime: str | Path, layer: str | None
) -> tuple[Path, dict[str, Any]] | None:
    """The file or version folder of an export, and its record; None for Keras.

    The arguments and the errors are those of `open_runtime`.
    """
    model = network.model if layer is None else features.pooled(network.model, layer)
    if str(runtime) == KERAS:
        return None
    artefact = _place(network, str(runtime), layer)
    said = record.read(artefact)
    if said.get("layer") != layer or (layer is None and said["class_names"] is None):
        raise ValueError(
            f"{artefact} returns {_returns(said)}, not {_returns({'layer': layer})}. Export the "
            f"network again: {_command(network, said['format'], layer)}"
        )
    checked_record(artefact, network.model)
    preprocessing = record.preprocessing_of(said)
    if preprocessing not in (None, network.preprocessing):
        raise ValueError(
            f"{artefact} was exported for other preprocessing. Use the same, or export again.\n"
            f"Expected: {network.preprocessing}\nReceived: {preprocessing}"
        )
    if layer is None and said["class_names"] != checked_names(model, network.class_names):
        raise ValueError(
            f"{artefact} has other class names than {network.file}. Export the network again."
        )
    return artefact, said


def _place(network, runtime, layer):
    """Where an export is."""
    if runtime not in FORMATS:
        artefact = Path(runtime)
    elif network.run is None:
        raise ValueError(
            f"Without a run folder, pass the path of the export instead of {runtime!r}."
        )
    else:
        artefact = default_place(network.run.folder, runtime, layer=layer)
        if runtime not in SUFFIXES and artefact.is_dir():
            versions = (int(entry.name) for entry in artefact.iterdir() if entry.name.isdecimal())
            artefact /= str(max(versions, default=""))
        if not artefact.exists():
            raise ValueError(
                f"{network.run.folder} has no export to run with {runtime}: expected {artefact}. "
                f"Export the network first: {_command(network, runtime, layer)}"
            )
    check_artefact(artefact)
    return artefact


def _returns(said):
    """What a network returns, in words."""
    if said.get("layer") is not None:
        return f"the features of the layer {said['layer']}"
    return "features" if said.get("class_names", "") is None else "class probabilities"


def _command(network, format, layer):
    """The command that makes an export."""
    run = "..." if network.run is None else str(network.run.folder)
    words = ["keras-resnet", "export", run, "--format", format]
    return shlex.join([*words, "--layer", layer] if layer else words)
