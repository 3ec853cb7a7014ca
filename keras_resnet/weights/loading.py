"""Loads weights files of all kinds into models: `load`, and the builders' argument `weights`.

file -> `read_checkpoint`: its weights with torchvision's names -> `assign`: check and assign
"""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import keras

from keras_resnet.configs import CIFAR
from keras_resnet.weights import registry
from keras_resnet.weights.assigning import HEAD, assign, check_backbone
from keras_resnet.weights.download import download
from keras_resnet.weights.errors import CheckpointError
from keras_resnet.weights.reading import (
    KERAS,
    Checkpoint,
    Source,
    existing_file,
    read_checkpoint,
)
from keras_resnet.weights.selection import Weights, said_of
from keras_resnet.weights.state_dict import (
    anti_aliasing_of,
    output_stride_of,
    variables_by_key,
    version_of,
)

logger = logging.getLogger("keras_resnet")


def load(
    model: keras.Model,
    source: Source,
    *,
    head: str = "strict",
    first_conv: str = "strict",
    prefix: str | None = None,
    ignore: Sequence[str] = (),
    version: str | None = None,
) -> None:
    """Loads weights into a model, either completely or not at all.

    Args:
        model: A model of this package.
        source: A `.pth`, `.pt`, `.th`, `.bin`, `.pkl` or `.safetensors` file, also of a training
            checkpoint; "hf://owner/name", a repository on the Hugging Face hub, or a folder with
            the same layout; a `.keras` or `.weights.h5` file of this network; a `.weights.h5` or
            `.h5` file of keras.applications' ResNet50, 101 or 152, for a model built with
            `version="v1"`; or a mapping from names to arrays, as for `read_state_dict`.
        head: "strict", or "skip" to keep the model's own `fc`. A model without a top ignores the
            file's classifier in both cases.
        first_conv: "strict", or "adapt" to fit the file's first convolution to another number of
            input channels: summed for one channel, otherwise repeated and rescaled.
        prefix: Prefix of the network to load, if the file contains several, "teacher" for example;
            the error lists them.
        ignore: Patterns, as for `fnmatch`, of unused names that are not an error:
            `["layer?.*.attention.*"]`.
        version: Position of the stride in the file's bottleneck blocks, "v1" or "v1.5", as for the
            builders. Needed if its names fit two networks, as with detectron2; it should be that of
            the model.

    Raises:
        CheckpointError: if the file cannot be read; if it does not fit the model, with a list of
            missing, unused and differently shaped tensors; or if it is, or may be, for another
            network. The model is unchanged.

    Example:
    >>> model = keras_resnet.ResNet50(classes=36)
    >>> keras_resnet.weights.load(model, "resnet50-0676ba61.pth", head="skip")  # doctest: +SKIP
    """
    if version not in (None, "v1", "v1.5"):
        raise ValueError(f"version should be 'v1' or 'v1.5'. Received: version={version!r}")
    own = version_of(model)
    if version and own and version != own:
        raise CheckpointError(
            f"The model {model.name!r} has version={own!r}. Build it with version={version!r}."
        )
    checkpoint = read_checkpoint(source, prefix)
    weights = fitting(checkpoint, model, version is not None)
    _assign(model, checkpoint, weights, head, first_conv, ignore)


def load_pretrained(
    model: keras.Model,
    path: Path,
    *,
    classes_given: bool,
    version_given: bool,
    first_conv: str = "strict",
    prefix: str | None = None,
    ignore: Sequence[str] = (),
) -> None:
    """Loads `path` into a new model; the head is skipped if another number of classes was given.

    Raises:
        CheckpointError: as for `load`; if no number of classes was given and the file's differs
            from the model's; or if its names are of two networks and no version was given.
    """
    checkpoint = read_checkpoint(path, prefix)
    weights = fitting(checkpoint, model, version_given)
    model_head = variables_by_key(model).get(HEAD[1])
    file_head = weights.state.get(HEAD[1], weights.state.get(HEAD[0]))
    classes = 0 if file_head is None else (*file_head.shape, 0)[0]
    head = "strict"
    has_head = file_head is not None
    units = classes if model_head is None else model_head.shape[0]
    if classes != units and (has_head or checkpoint.found.network):
        if not classes_given and has_head:
            raise CheckpointError(
                f"{path.name} has {classes} classes, but the model has {units}. Pass "
                f"classes={classes} to keep the file's head, another number for a new one, or "
                "include_top=False."
            )
        if not classes_given:
            if first_conv == "strict":
                check_backbone(model, weights.state, path.name, ignore)
            raise CheckpointError(
                f"{path.name} has no classifier that was recognized. Pass classes= for a new "
                "head, or include_top=False. Other content of the file: "
                + (said_of(weights.left_over) or "nothing")
                + "."
            )
        head = "skip"
        logger.warning(
            "%s has %s: only its backbone was loaded; the new head for %d classes is random.",
            path.name,
            f"{classes} classes" if has_head else "no classifier",
            units,
        )
    _assign(model, checkpoint, weights, head, first_conv, ignore)


def _assign(model, checkpoint, weights, head, first_conv, ignore):
    assign(
        model,
        weights.state,
        checkpoint.path.name,
        head=head,
        first_conv=first_conv,
        ignore=ignore,
        unreadable=checkpoint.found.unreadable,
    )
    say(checkpoint, weights, model.name, version_of(model), anti_aliasing_of(model))


def say(
    checkpoint: Checkpoint,
    weights: Weights,
    network: str,
    version: str | None,
    anti_aliasing: str = "none",
) -> None:
    """Logs what was ignored in a file, and what was assumed as the file does not specify it."""
    name = checkpoint.path.name
    if weights.left_over:
        logger.info("%s: ignored content: %s.", name, said_of(weights.left_over))
    if checkpoint.two_networks:
        logger.warning("%s: %s", name, checkpoint.two_networks)
    elif not checkpoint.origin.said_by and not checkpoint.of_applications:
        logger.info(
            "%s: %s specifies the architecture; assuming %s as in %s.",
            name,
            "nothing in it" if checkpoint.container in KERAS else "no config.json",
            network,
            _assumed(checkpoint, weights, version or "v1.5", anti_aliasing),
        )


def _assumed(checkpoint, weights, version, anti_aliasing):
    """Describes the properties that cannot be determined from names and shapes."""
    stem = weights.state.get("conv1.weight")
    if stem is not None and stem.shape[2:] == (CIFAR.stem_kernel,) * 2:
        return "its paper: ReLU, no pooling before the last"
    strides = f", version={version!r}" if checkpoint.has_bottlenecks else ""
    if anti_aliasing != "none":
        return f"timm: ReLU, {anti_aliasing!r} anti-aliasing{strides}"
    return f"torchvision: ReLU, no anti-aliasing{strides}"


def _named(row):
    accuracy, side = row.best
    return f"{row.name} (accuracy {accuracy:.3f} at {side} px, licence {row.licence})"


def locate(weights: str | os.PathLike[str], variant: str) -> Path:
    """Returns the file for the argument `weights` of a builder.

    Args:
        weights: A path, "hf://owner/name", "imagenet", or the name of published weights, which are
            downloaded if necessary.
        variant: The network's name in CONFIGS.

    Raises:
        ValueError: if the network has no weights of that name.
        CheckpointError: if there is no such file, or it cannot be downloaded.
    """
    if registry.is_name(weights):
        row = registry.find(variant, str(weights))
        if weights == "imagenet":
            best = registry.best_of(variant)
            others = "" if best in (None, row) else f"; the best is {_named(best)}"
            logger.warning(
                "weights='imagenet' is %s%s. list_weights(%r) has all %d.",
                *(_named(row), others, variant, len(registry.list_weights(variant))),
            )
        return download(row)
    return existing_file(weights)


def fitting(checkpoint: Checkpoint, model: keras.Model, version_given: bool) -> Weights:
    """Returns a file's weights for a model, whose number of classes helps to find the classifier.

    Raises:
        CheckpointError: as for `Checkpoint.check_version`.
    """
    checkpoint.check_version(
        version_of(model), version_given, output_stride_of(model), anti_aliasing_of(model)
    )
    head = variables_by_key(model).get(HEAD[1])
    return checkpoint.weights(None if head is None else head.shape[0])
