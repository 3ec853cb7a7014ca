"""Writes a network to one file of another system: what ONNX, LiteRT and OpenVINO share."""

import importlib.util
import logging
from pathlib import Path

import keras
import numpy as np

from keras_resnet.builder import channels_first
from keras_resnet.export import record, verification
from keras_resnet.export.network import (
    check_backend,
    check_sizes,
    checked_names,
    inference_network,
    laid_out,
    named_outputs,
    normalises_itself,
)
from keras_resnet.files import replacing
from keras_resnet.layers import convolution_path

logger = logging.getLogger("keras_resnet")

# From so many representative images on, a fifth is held back, to compare the file with the model;
# fewer are all used, and a warning says that they are few.
FEW = 50


def write_file(
    format,
    write,
    model,
    path,
    *,
    suffix,
    packages,
    extra="export",
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
        extra: The extra that brings them.
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
        OSError: if the disk is full; what was at the path stays.
    """
    check_backend()
    path = Path(path)
    _check_target(path, suffix)
    _check_installed(packages, extra)
    names = checked_names(model, class_names)
    check_sizes(model, image_size, preprocessing)
    if with_preprocessing and preprocessing is None:
        raise ValueError(
            "with_preprocessing puts a normalisation in front: pass the preprocessing that it is "
            "of, keras_resnet.Preprocessing() for ImageNet's."
        )
    if with_preprocessing and normalises_itself(model):
        raise ValueError(
            f"{model.name} normalises its images itself: leave with_preprocessing out."
        )
    normalise = preprocessing if with_preprocessing else None
    network = inference_network(model, image_size=image_size, normalise=normalise)
    calibration, held_back = _representative(network, quantize, representative_data)
    with replacing(path) as temporary:
        # OpenVINO's weights are a second file of the same name.
        weights, beside = path.with_suffix(".bin"), temporary.with_suffix(".bin")
        try:
            # While the graph is traced only: what follows is run, on this machine.
            with convolution_path("native"):
                write(network, temporary, calibration)
            compared = _try(temporary, network, model, normalise, quantize, held_back)
            description = record.describe(
                format,
                model,
                signature={"tensor": _signature(network)},
                preprocessing=preprocessing,
                inside="normalisation" if with_preprocessing else "none",
                class_names=names,
                comparison=compared,
                artefact=temporary,
                source=source,
                modules=("keras", "tensorflow", *packages),
            )
            # On a full disk it fails here, where nothing has its name: what follows only renames.
            record.write({**description, "quantize": quantize, **said}, path)
            if beside.exists():
                beside.replace(weights)
        finally:
            beside.unlink(missing_ok=True)
    return path


def _check_target(path, suffix):
    if path.suffix != suffix:
        raise ValueError(f"The file's name should end in {suffix}. Received: path={str(path)!r}")
    if not path.parent.is_dir():
        raise ValueError(f"The folder {path.parent} does not exist. Create it first.")
    if path.is_dir():
        raise ValueError(f"{path} is a folder. Choose another name.")
    if (path.parent / "saved_model.pb").is_file():
        raise ValueError(
            f"{path.parent} is a SavedModel, which has an export.json of its own. Choose another "
            "folder."
        )


def input_signature(network):
    """A network's inputs, as `model.export` takes them; it infers them only after a call."""
    return [keras.InputSpec(shape=t.shape, dtype=t.dtype, name=t.name) for t in network.inputs]


def _check_installed(packages, extra):
    missing = [name for module, name in packages.items() if not importlib.util.find_spec(module)]
    if missing:
        raise ImportError(
            f"This export needs {', '.join(missing)}: pip install 'keras3-resnet[{extra}]'"
        )


def _representative(network, quantize, data):
    """The representative data, checked: what the ranges are measured on, and what is held back."""
    if quantize != "int8":
        if data is not None:
            raise ValueError(
                "representative_data is for quantize='int8'. "
                f"Received: quantize={quantize!r} with it"
            )
        return None, None
    images = network.inputs[0]
    shape = tuple(images.shape[1:])
    received = "none"
    if data is not None:
        data = np.asarray(data)
        received = f"an array of {data.dtype}, {data.shape}"
    if data is None or not _fits(data, shape, images.dtype):
        raise ValueError(
            "quantize='int8' measures the range of each activation on representative_data: images "
            f"as the file takes them, {images.dtype}, of shape "
            f"(number, {', '.join(map(str, shape))}). Received: {received}"
        )
    if not np.isfinite(data).all() or (data == data[:1, :1, :1]).all():
        raise ValueError(
            "representative_data should be images such as the network will see. Received: images "
            "of one colour, or with what is no number"
        )
    if len(data) < FEW:
        logger.warning(
            "Only %d representative images: the range of an activation is better measured on a "
            "hundred or more, of the kind that the network will see.",
            len(data),
        )
        return data.astype(images.dtype), data.astype(images.dtype)
    held_back = np.arange(len(data)) % 5 == 4
    return data[~held_back].astype(images.dtype), data[held_back].astype(images.dtype)


def _fits(data, shape, dtype):
    """Whether an array holds images of a shape, with None for what is open, and a kind of dtype."""
    kind = np.dtype(dtype).kind
    if data.ndim != 4 or not len(data) or data.dtype.kind != kind:
        return False
    return all(side in (None, given) for side, given in zip(shape, data.shape[1:], strict=True))


def _try(file, network, model, normalise, quantize, images):
    """Runs a file and compares it with the model, on noise if there are no images."""
    allowed = None if quantize else verification.tolerance(model)
    batches = [images]
    if images is None:
        noise = verification.sample(network.inputs[0].shape[1:], network.inputs[0].dtype)
        batches = [noise[:1], noise]
    answer = verification.opened(file)
    for given in batches:
        inputs = given
        if normalise is not None:
            pixels = given.transpose(0, 2, 3, 1) if channels_first(model) else given
            inputs = laid_out(model, normalise.normalise(pixels)).numpy()
        compared = verification.compare(answer(given), model, inputs, allowed)
        if not quantize:
            compared.check("The exported file")
    if quantize:
        try:
            compared.check("The quantised file")
        except ValueError as error:
            if not np.isfinite(compared.error):
                raise
            logger.warning("%s Pass more representative images, of the kind it will see.", error)
    return compared


def _signature(network):
    outputs = named_outputs(network, network.output)
    return {
        "inputs": {t.name: record.spec(t.dtype, t.shape) for t in network.inputs},
        "outputs": {name: record.spec(t.dtype, t.shape) for name, t in outputs.items()},
    }
