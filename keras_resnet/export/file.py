"""Writes a network to one file of another system: what ONNX, LiteRT and OpenVINO share."""

import importlib.util
import logging
from pathlib import Path

import keras
import numpy as np

from keras_resnet.export import record, run_exported, verification
from keras_resnet.export.network import (
    channels_first,
    checked_names,
    inference_network,
    named_outputs,
    native_convolutions,
)
from keras_resnet.files import replacing

logger = logging.getLogger("keras_resnet")

COMPARED = 64  # Representative images on which a quantised file and the model are compared.
AGREEMENT = 0.95  # Below this share of equal answers a quantised file is warned of.


def write_file(
    format,
    write,
    model,
    path,
    *,
    suffix,
    packages,
    preprocessing=None,
    with_preprocessing=False,
    class_names=None,
    image_size=None,
    quantize=None,
    representative_data=None,
    source=None,
    **said,
) -> Path:
    """Writes a file, runs it, compares it with the model, and gives it its name.

    Args:
        format: The format's name in export.json.
        write: Function from the network, the file to write and the representative data.
        model: As the other arguments, what the public functions take.
        path: The file.
        suffix: What its name has to end in.
        packages: Those that write and run the format, {module: name of its distribution}.
        preprocessing: A `Preprocessing`, or None.
        with_preprocessing: Whether its normalisation is put in front.
        class_names: Names of the classes, or None.
        image_size: Side of the images, or None.
        quantize: None, "dynamic" or "int8".
        representative_data: Images as the file takes them, for "int8".
        source: The file of the model's weights, or None.
        **said: What else export.json says.

    Raises:
        ValueError: if an argument does not fit, or the file does not answer as the model does.
        ImportError: if a package is missing.
    """
    path = Path(path)
    if path.suffix != suffix:
        raise ValueError(f"The file's name should end in {suffix}. Received: path={str(path)!r}")
    if not path.parent.is_dir():
        raise ValueError(f"The folder {path.parent} does not exist. Create it first.")
    _check_installed(packages)
    names = checked_names(model, class_names)
    if with_preprocessing and preprocessing is None:
        raise ValueError(
            "with_preprocessing puts a normalisation in front: pass the preprocessing that it is "
            "of, keras_resnet.Preprocessing() for ImageNet's."
        )
    normalise = preprocessing if with_preprocessing else None
    network = inference_network(model, image_size=image_size, normalise=normalise)
    data = _representative(network, quantize, representative_data)
    with replacing(path) as temporary, native_convolutions():
        # OpenVINO's weights are a second file of the same name.
        weights, beside = path.with_suffix(".bin"), temporary.with_suffix(".bin")
        try:
            write(network, temporary, data)
            compared = _try(temporary, network, model, normalise, quantize, data)
            if beside.exists():
                beside.replace(weights)
        finally:
            beside.unlink(missing_ok=True)
    description = record.describe(
        format,
        model,
        signature={"tensor": _signature(network)},
        preprocessing=preprocessing,
        inside="normalisation" if with_preprocessing else "none",
        class_names=names,
        comparison=compared,
        source=source,
        packages=("keras", "tensorflow", *packages.values()),
    )
    record.write({**description, "quantize": quantize, **said}, path)
    return path


def input_signature(network):
    """A network's inputs, as `model.export` takes them; it infers them only after a call."""
    return [keras.InputSpec(shape=t.shape, dtype=t.dtype, name=t.name) for t in network.inputs]


def _check_installed(packages):
    missing = [name for module, name in packages.items() if not importlib.util.find_spec(module)]
    if missing:
        raise ImportError(
            f"This export needs {', '.join(missing)}: pip install 'keras3-resnet[export]'"
        )


def _representative(network, quantize, data):
    """The representative data as an array, checked."""
    if quantize != "int8":
        if data is not None:
            raise ValueError(
                "representative_data is for quantize='int8'. "
                f"Received: quantize={quantize!r} with it"
            )
        return None
    images = network.inputs[0]
    shape = tuple(images.shape[1:])
    received = "none" if data is None else f"an array of shape {np.shape(data)}"
    fits = data is not None and len(np.shape(data)) == 4 and len(data) > 0
    if not fits or any(
        side not in (None, given) for side, given in zip(shape, np.shape(data)[1:], strict=True)
    ):
        raise ValueError(
            "quantize='int8' measures the range of each activation on representative_data: images "
            f"as the file takes them, of shape (number, {', '.join(map(str, shape))}). "
            f"Received: {received}"
        )
    return np.asarray(data).astype(images.dtype)


def _try(file, network, model, normalise, quantize, data):
    """Runs a file and compares it with the model."""
    shape, dtype = network.inputs[0].shape[1:], network.inputs[0].dtype
    allowed = None if quantize else verification.tolerance(model)
    noise = verification.sample(shape, dtype)
    batches = [data[:COMPARED]] if data is not None else [noise[:1], noise]
    answer = run_exported.load(file)
    for images in batches:
        inputs = images
        if normalise is not None:
            pixels = images.transpose(0, 2, 3, 1) if channels_first(model) else images
            inputs = normalise.normalise(pixels).numpy()
            inputs = inputs.transpose(0, 3, 1, 2) if channels_first(model) else inputs
        compared = verification.compare(answer(images), model, inputs, allowed)
        compared.check("The exported file")
    if data is not None and compared.agreement is not None and compared.agreement < AGREEMENT:
        logger.warning(
            "The quantised file and the model agree on the best class of only %.0f %% of %d "
            "representative images. Pass more of them, of the kind that it will see.",
            100 * compared.agreement,
            compared.images,
        )
    return compared


def _signature(network):
    outputs = named_outputs(network, network.output)
    return {
        "inputs": {t.name: record.spec(t.dtype, t.shape) for t in network.inputs},
        "outputs": {name: record.spec(t.dtype, t.shape) for name, t in outputs.items()},
    }
