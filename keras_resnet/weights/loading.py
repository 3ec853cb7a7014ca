"""Loads a weights file of any kind into a model: `load`, and what `weights=` of a builder does.

file -> `read_checkpoint`: its weights under torchvision's names -> `assign`: checked, assigned
"""

import logging
import os
from pathlib import Path

import keras
import numpy as np

from keras_resnet.blocks import BottleneckBlock
from keras_resnet.weights import registry
from keras_resnet.weights.assigning import HEAD, assign
from keras_resnet.weights.download import download
from keras_resnet.weights.errors import CheckpointError
from keras_resnet.weights.reading import existing_file, read_checkpoint
from keras_resnet.weights.state_dict import variables_by_key

logger = logging.getLogger("keras_resnet")


def load(
    model: keras.Model,
    path: str | os.PathLike[str],
    *,
    head: str = "strict",
    first_conv: str = "strict",
) -> None:
    """Loads a weights file into a model, completely or not at all.

    Args:
        model: A model of this package.
        path: A `.pth`, `.pt`, `.th`, `.bin` or `.safetensors` file with the names of torchvision,
            timm or Hugging Face's transformers; a `.keras` or `.weights.h5` file of this network;
            or a `.weights.h5` or `.h5` file of keras.applications' ResNet50, 101 or 152, for a
            model built with `version="v1"`.
        head: "strict", or "skip" to leave the model's `fc` as it is. A model without a top
            ignores the file's `fc` in either case.
        first_conv: "strict", or "adapt" to fit the file's first convolution to another number of
            input channels: summed for one channel, otherwise repeated and rescaled.

    Raises:
        CheckpointError: if the file cannot be read, or does not fit: the message counts the
            missing, unused and misshapen keys and names the first. The model is unchanged.

    Example:
    >>> model = keras_resnet.ResNet50(classes=36)
    >>> keras_resnet.weights.load(model, "resnet50-0676ba61.pth", head="skip")  # doctest: +SKIP
    """
    assign(model, read(path, model), Path(path).name, head=head, first_conv=first_conv)


def load_pretrained(
    model: keras.Model, path: Path, *, classes_given: bool, first_conv: str = "strict"
) -> None:
    """Loads `path` into a new model; the head is skipped if other classes were asked for.

    Raises:
        CheckpointError: as `load` does, and if the file has another number of classes than the
            model and none was given.
    """
    state = read(path, model)
    model_head = variables_by_key(model).get(HEAD[1])
    file_head = state.get(HEAD[1])
    head = "strict"
    if model_head is not None and file_head is not None and model_head.shape != file_head.shape:
        classes = (*file_head.shape, 0)[0]
        if not classes_given:
            raise CheckpointError(
                f"{path.name} has {classes} classes, and the model {model_head.shape[0]}. "
                f"Pass classes={classes} to use the file's head, any other number to start "
                "with a new one, or include_top=False."
            )
        head = "skip"
        logger.warning(
            "%s has %d classes: its backbone is loaded; the new head of %d classes is random.",
            path.name,
            classes,
            model_head.shape[0],
        )
    assign(model, state, path.name, head=head, first_conv=first_conv)


def locate(weights: str | os.PathLike[str], variant: str) -> Path:
    """The file that a builder's `weights` means.

    Args:
        weights: A path, "imagenet", or the name of published weights, which are downloaded unless
            they are there already.
        variant: The network's name in CONFIGS.

    Raises:
        ValueError: if the network has no weights of that name.
        CheckpointError: if there is no such file, or it cannot be downloaded.
    """
    if registry.is_name(weights):
        row = registry.find(variant, str(weights))
        if weights == "imagenet":
            others = [other for other in registry.list_weights(variant) if other != row]
            logger.warning(
                "weights='imagenet' is %s of %s (accuracy %.3f).%s",
                row.name,
                row.model,
                row.accuracy,
                "".join(f" There is {other.name} too ({other.accuracy:.3f})." for other in others),
            )
        return download(row)
    return existing_file(weights)


def read(
    path: str | os.PathLike[str], model: keras.Model | None = None, version: str = "v1.5"
) -> dict[str, np.ndarray]:
    """A file's weights under torchvision's names, for a model or a network of a version.

    Raises:
        CheckpointError: if it cannot be read, or is of a network that strides elsewhere.
    """
    checkpoint = read_checkpoint(path)
    if model is not None:
        blocks = [layer for layer in model.layers if isinstance(layer, BottleneckBlock)]
        version = "v1" if all(block.version == "v1" for block in blocks) else "v1.5"
    if checkpoint.of_applications and version != "v1":
        raise CheckpointError(
            f"{path} is of keras.applications, whose bottlenecks stride on their first "
            "convolution. Build the model with version='v1'."
        )
    return checkpoint.weights
