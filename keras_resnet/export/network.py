"""The network to export: folded, with named inputs and outputs."""

from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_resnet.builder import channels_first, family_of
from keras_resnet.export.folding import NETWORKS, fold
from keras_resnet.preprocessing import Preprocessing, affine, pair
from keras_resnet.weights.description import checked_thresholds


def check_backend() -> None:
    """Raises a ValueError if the backend is not TensorFlow."""
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "Exporting needs the TensorFlow backend of Keras. Save the model, set "
            "KERAS_BACKEND=tensorflow and load it again. Received: the backend "
            f"{keras.backend.backend()!r}"
        )


def activation(model: keras.Model) -> Callable[..., Any] | None:
    """Returns the activation of a classifier's head; None if the model has no head."""
    last = model.layers[-1]
    if isinstance(last, NETWORKS):
        return activation(last)
    if len(model.outputs) != 1 or len(model.outputs[0].shape) != 2:
        return None
    if isinstance(last, keras.layers.Softmax):
        return keras.activations.softmax
    if not isinstance(last, (keras.layers.Dense, keras.layers.Activation)):
        return None
    classifying = [keras.activations.softmax, keras.activations.sigmoid]
    if last.output.shape[-1] > 1:  # a single linear output is not a class
        classifying.append(keras.activations.linear)
    return last.activation if last.activation in classifying else None


def is_classifier(model: keras.Model) -> bool:
    """Whether a model returns probabilities or logits, not features."""
    return activation(model) is not None


def gives_logits(model: keras.Model) -> bool:
    """Whether a model returns logits."""
    return activation(model) is keras.activations.linear


def named_outputs(model: keras.Model, outputs: Any) -> dict[str, Any]:
    """Names a model's outputs: `probabilities`, `logits`, `features`, or each level of a pyramid.

    Levels are named by the keys of the output dictionary, or else by their layers.
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


def checked_names(model: keras.Model, class_names: Sequence[object] | None) -> Any:
    """Validates class names; by default the class indices; None for a backbone.

    Line breaks in names are replaced by spaces.

    Raises:
        ValueError: if their number is not that of the classes, or one is empty.
    """
    if not is_classifier(model):
        if class_names is not None:
            raise ValueError(
                f"{model.name} returns features, not class probabilities: remove class_names. "
                f"Received: {len(class_names)} names"
            )
        return None
    classes = model.output_shape[-1]
    if class_names is None:
        class_names = range(classes)
    if isinstance(class_names, (str, bytes)) or len(class_names) != classes:
        raise ValueError(
            f"class_names should have one name for each of the model's {classes} classes. "
            f"Received: {len(class_names)} names, {str(class_names)[:60]}"
        )
    names = [" ".join(str(name).splitlines()) for name in class_names]
    if not all(names):
        raise ValueError(
            "class_names should not contain empty names. Received: "
            f"class_names[{names.index('')}]=''"
        )
    return names


def fitting_thresholds(
    model: keras.Model, thresholds: Sequence[float] | None
) -> tuple[float, ...] | None:
    """The thresholds of a network's classes.

    Raises:
        ValueError: if they are no numbers, 0 to 1, one for each class, or the network does not give
            a probability of each class by itself.
    """
    if thresholds is None:
        return None
    if activation(model) is not keras.activations.sigmoid:
        raise ValueError(
            f"thresholds need a network that ends in a sigmoid; {model.name} does not. Remove them."
        )
    return checked_thresholds(list(thresholds), model.output_shape[-1])


def every_layer(model: keras.Model) -> list[keras.layers.Layer]:
    """Lists a model's layers and all their sublayers.

    Uses a private method of Keras, since the public `layers` does not include sublayers.
    """
    return list(model._flatten_layers())


def normalises_itself(model: keras.Model) -> bool:
    """Whether a model accepts pixels in 0..255 (`include_preprocessing=True`)."""
    kinds = (keras.layers.Rescaling, keras.layers.Normalization)
    return any(isinstance(layer, kinds) for layer in every_layer(model))


def transform(model: keras.Model, preprocessing: Preprocessing) -> Callable[[Any], Any]:
    """Returns a function from an encoded image to a model's input, normalised or not."""
    return preprocessing.pixels if normalises_itself(model) else preprocessing


def laid_out(model: keras.Model, images: Any) -> Any:
    """Transposes images (batch, height, width, channels) if the model is channels first."""
    return keras.ops.transpose(images, (0, 3, 1, 2)) if channels_first(model) else images


def check_sizes(
    model: keras.Model,
    image_size: int | tuple[int, int] | None,
    preprocessing: Preprocessing | None,
) -> None:
    """Checks the image size.

    Raises:
        ValueError: if `image_size` is too small, or differs from the model's or preprocessing's.
    """
    channels, *sides = model.input_shape[1:]
    if not channels_first(model):
        *sides, channels = model.input_shape[1:]
    least = family_of(model).min_size
    given = [] if image_size is None else [pair(image_size)]
    if given and min(given[0]) < least:
        raise ValueError(
            f"image_size should be at least {least}; the feature map of a smaller image is empty. "
            f"Received: image_size={image_size}"
        )
    if preprocessing is not None:
        given.append(preprocessing.sides)
        if channels != 3:
            raise ValueError(
                f"preprocessing returns RGB images, but {model.name} expects {channels} channels. "
                "Remove preprocessing."
            )
    if given and any(len({*axis} - {None}) > 1 for axis in zip(sides, *given, strict=True)):
        raise ValueError(
            f"The image sizes differ: the model expects {model.input_shape[1:]}, image_size is "
            f"{image_size}, and the preprocessing crops to {preprocessing and preprocessing.crop} "
            "pixels."
        )


def inference_network(
    model: keras.Model,
    *,
    image_size: int | tuple[int, int] | None = None,
    normalise: Preprocessing | None = None,
) -> keras.Model:
    """Makes the network to export: folded, in float32, with named inputs and outputs.

    Args:
        model: A model of this package.
        image_size: Image size in pixels, or (height, width), if the model accepts any.
        normalise: A `Preprocessing` whose normalisation to include; the images are then uint8,
            0..255.

    Returns:
        A model from `images` to `named_outputs`.
    """
    shape = list(model.input_shape[1:])
    if image_size:
        first = 1 if channels_first(model) else 0
        shape[first : first + 2] = pair(image_size)
    images = keras.Input(shape, dtype="uint8" if normalise else "float32", name="images")
    x = images
    if normalise:
        scale, offset = affine(normalise.mean, normalise.std)
        axes = (3, 1, 1) if channels_first(model) else (1, 1, 3)
        scale, offset = scale.reshape(axes), offset.reshape(axes)
        x = keras.layers.Rescaling(scale.tolist(), offset.tolist(), name="normalise")(x)
    outputs = fold(model, dtype="float32")(x, training=False)
    return keras.Model(images, named_outputs(model, outputs), name=model.name)
