"""What goes into an exported file: the folded network with named inputs and outputs."""

import contextlib

import keras
import numpy as np

from keras_resnet.export.folding import fold
from keras_resnet.layers import convolution_path


@contextlib.contextmanager
def native_convolutions():
    """Traces each convolution as one operation, grouped ones too.

    Raises:
        ValueError: if Keras' backend is not TensorFlow, with which exports are made.
    """
    check_backend()
    with convolution_path("native"):
        yield


def check_backend():
    """Refuses to export with another backend than TensorFlow."""
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "Networks are exported with TensorFlow as Keras' backend. Save the model, set "
            "KERAS_BACKEND=tensorflow and load it there. "
            f"Received: the backend {keras.backend.backend()!r}"
        )


def activation(model):
    """The activation of a classifier's head; None if the model has no head."""
    last = model.layers[-1]
    if isinstance(last, (keras.Sequential, keras.Function)):
        return activation(last)
    if isinstance(last, keras.layers.Softmax) and len(last.output.shape) == 2:
        return keras.activations.softmax
    if isinstance(last, (keras.layers.Dense, keras.layers.Activation)):
        return last.activation if len(last.output.shape) == 2 else None
    return None


def is_classifier(model) -> bool:
    """Whether a model ends in classes, rather than in features."""
    return len(model.outputs) == 1 and activation(model) is not None


def gives_logits(model) -> bool:
    """Whether the softmax is still to be taken."""
    return activation(model) is keras.activations.linear


def named_outputs(model, outputs) -> dict:
    """A model's outputs by name: `probabilities` or `logits`; `features`, or each level's.

    A pyramid's levels keep the names of their dictionary, or have those of their layers.
    """
    if isinstance(outputs, dict):
        return dict(outputs)
    outputs = keras.tree.flatten(outputs)
    if len(outputs) > 1:
        return dict(zip(model.output_names, outputs, strict=True))
    name = "features"
    if is_classifier(model):
        name = "logits" if gives_logits(model) else "probabilities"
    return {name: outputs[0]}


def checked_names(model, class_names):
    """As many names as the model has classes, their numbers by default; None for a backbone.

    Raises:
        ValueError: if there are others.
    """
    if not is_classifier(model):
        return None
    classes = model.output_shape[-1]
    names = [str(number) for number in range(classes)] if class_names is None else class_names
    if len(names) != classes:
        raise ValueError(
            f"class_names should name each of the model's {classes} classes. "
            f"Received: {len(names)} names"
        )
    return list(names)


def channels_first(model) -> bool:
    """Whether a model of images takes (batch, channels, height, width)."""
    return model.input_shape[1] in (1, 3) and model.input_shape[-1] not in (1, 3)


def inference_network(model, *, image_size=None, normalise=None) -> keras.Model:
    """The network as a file of another system holds it: folded, in float32, its ends named.

    Args:
        model: A model of this package.
        image_size: Side of the images in pixels, to fix what the model leaves open.
        normalise: A `Preprocessing` whose normalisation is put in front, if any: the images are
            then uint8, 0..255.

    Returns:
        A model that takes `images`, and returns `named_outputs`.
    """
    shape = list(model.input_shape[1:])
    if image_size:
        first = 1 if channels_first(model) else 0
        shape[first : first + 2] = [image_size, image_size]
    images = keras.Input(shape, dtype="uint8" if normalise else "float32", name="images")
    x = images
    if normalise:
        std = np.float64(normalise.std)
        scale, offset = 1 / (255 * std), -np.float64(normalise.mean) / std
        if channels_first(model):
            scale, offset = scale[:, None, None], offset[:, None, None]
        x = keras.layers.Rescaling(scale.tolist(), offset.tolist(), name="normalise")(x)
    outputs = fold(model, dtype="float32")(x)
    return keras.Model(images, named_outputs(model, outputs), name=model.name)
