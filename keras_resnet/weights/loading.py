"""Loads a weights file of any kind into a model: `load`, and what `weights=` of a builder does."""

import logging

import keras

from keras_resnet.weights.errors import CheckpointError
from keras_resnet.weights.state_dict import (
    HEAD,
    SUFFIXES,
    TORCH_SUFFIXES,
    assign,
    existing_file,
    read_state_dict,
    to_state_dict,
    variables_by_key,
)

logger = logging.getLogger("keras_resnet")


def load(model, path, *, head="strict", first_conv="strict"):
    """Loads a weights file into a model, completely or not at all.

    Args:
        model: A model of this package.
        path: A `.pth`, `.pt`, `.th`, `.bin` or `.safetensors` file with torchvision's keys, or a
            `.keras` or `.weights.h5` file of this network.
        head: "strict", or "skip" to leave the model's `fc` as it is. A model without a top
            ignores the file's `fc` in either case.
        first_conv: "strict", or "adapt" to fit the file's first convolution to another number of
            input channels: summed for one channel, otherwise repeated and rescaled.

    Raises:
        CheckpointError: if the file cannot be read, or does not fit: the message names every
            missing, unused and misshapen key. The model is unchanged.

    Example:
    >>> model = keras_resnet.ResNet50(classes=36)
    >>> keras_resnet.weights.load(model, "resnet50-0676ba61.pth", head="skip")  # doctest: +SKIP
    """
    path = check_source(path)
    assign(model, _read(path, model), path.name, head=head, first_conv=first_conv)


def load_pretrained(model, path, *, classes_given):
    """Loads `path` into a new model; the head is skipped if other classes were asked for.

    Args:
        model: A model of this package.
        path: What `check_source` returned.
        classes_given: Whether the number of classes was chosen, rather than left to the default.

    Raises:
        CheckpointError: as `load` does, and if the file has another number of classes than the
            model and none was asked for.
    """
    state = _read(path, model)
    model_head = variables_by_key(model).get(HEAD[1])
    file_head = state.get(HEAD[1])
    head = "strict"
    if model_head is not None and file_head is not None and model_head.shape != file_head.shape:
        if not classes_given:
            raise CheckpointError(
                f"{path.name} has {len(file_head)} classes, and the model {model_head.shape[0]}. "
                f"Pass classes={len(file_head)} to use the file's head, any other number to start "
                "with a new one, or include_top=False."
            )
        head = "skip"
        logger.warning(
            "%s has %d classes: its backbone is loaded; the new head of %d classes is random.",
            path.name,
            len(file_head),
            model_head.shape[0],
        )
    assign(model, state, path.name, head=head)


def check_source(path):
    """`path` as a Path to an existing weights file, or a CheckpointError."""
    if isinstance(path, str) and (path == "imagenet" or path.startswith("IMAGENET1K_")):
        raise CheckpointError(
            f"This version downloads nothing. Received: weights={path!r}. Pass the path of a file "
            "of torchvision's, such as resnet50-0676ba61.pth."
        )
    path = existing_file(path)
    if not path.name.endswith(SUFFIXES):
        raise CheckpointError(
            f"The weights file should end in one of {', '.join(SUFFIXES)}. Received: {path}"
        )
    return path


def _read(path, model):
    """The file's weights under PyTorch's names; a Keras file is read by Keras."""
    if path.name.endswith((*TORCH_SUFFIXES, ".safetensors")):
        return read_state_dict(path)
    try:
        if path.suffix == ".keras":
            return to_state_dict(keras.saving.load_model(path, compile=False))
        twin = _twin_with_head_of(path, model)
        twin.load_weights(path)
        return to_state_dict(twin)
    # Keras raises these, and h5py's OSError, on files that are damaged or of another model.
    except (ValueError, TypeError, KeyError, OSError, AttributeError) as error:
        raise CheckpointError(
            f"{path} cannot be read by Keras for the model {model.name!r}: {error}"
        ) from error


def _twin_with_head_of(path, model):
    """A copy of `model` whose `fc` has as many classes as a `.weights.h5` file's."""
    import h5py

    with h5py.File(path) as file:
        bias = file.get("layers/dense/vars/1")
        classes = None if bias is None else bias.shape[0]

    def copy(layer):
        config = layer.get_config()
        if isinstance(layer, keras.layers.Dense) and classes:
            config["units"] = classes
        return type(layer).from_config(config)

    return keras.models.clone_model(model, clone_function=copy)
