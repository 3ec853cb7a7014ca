"""Builds the network of a weights file, and converts weights files to other formats."""

import dataclasses
import os
from pathlib import Path

import keras
import numpy as np

from keras_resnet import models
from keras_resnet.configs import CONFIGS
from keras_resnet.fields import row_of
from keras_resnet.weights.architecture import recognise
from keras_resnet.weights.assigning import assign
from keras_resnet.weights.errors import CheckpointError
from keras_resnet.weights.hub import is_address
from keras_resnet.weights.loading import say
from keras_resnet.weights.reading import read_checkpoint
from keras_resnet.weights.saving import check_target, save

__all__ = ["convert", "named_network"]

TOLERANCE = 1e-5  # of the largest output
SIDE = 64  # of the images on which `verify` compares


def convert(
    path: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    model: str | None = None,
    version: str | None = None,
    prefix: str | None = None,
    verify: bool = False,
) -> tuple[str, int | None, float | None]:
    """Converts a weights file to another format.

    Args:
        path: A file that `keras_resnet.weights.load` takes.
        target: The file to write, in a format that `keras_resnet.weights.save` takes.
        model: Name of the network. Default: recognized from the file.
        version: As for the builders: "v1" for files of keras.applications. Default: that of a
            config.json next to the file, else "v1.5".
        prefix: Prefix of the network to convert, if the file contains several.
        verify: Whether to load the written file into a new network and compare the logits.

    Returns:
        (name of the network, number of classes or None, largest difference between the logits or
        None without `verify`).

    Raises:
        CheckpointError: if the file cannot be read, or is not for a network of this package.
        ValueError: if the target has an unknown suffix, or the logits differ.
    """
    path, target = Path(path), Path(target)
    check_target(target)
    _, state, found, version = look_into(path, model, version, prefix)

    def build():
        return build_found(found, version)

    network = build()
    assign(network, state, path.name)
    save(network, target)
    difference = None
    if verify:
        again = build()
        assign(again, read_checkpoint(target).weights(found.classes).state, target.name)
        shape = (2, SIDE, SIDE, found.channels or 3)
        images = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        before, after = (net.predict_on_batch(images) for net in (network, again))
        difference = float(np.abs(before - after).max())
        # Equal on a CPU; a GPU may choose other algorithms for the second network.
        if not difference <= TOLERANCE * np.abs(before).max():
            raise ValueError(
                f"The outputs of {target} and {path} differ by {difference:.2g}; they should be "
                "equal. Do not use the converted file."
            )
    return found.variant, found.classes, difference


def named_network(
    name_or_file: str | os.PathLike[str],
    *,
    model: str | None = None,
    version: str | None = None,
    prefix: str | None = None,
) -> keras.Model:
    """Builds a network from its name or from a weights file.

    Args:
        name_or_file: A name in `list_models()`, for random weights; or a file that
            `keras_resnet.weights.load` accepts.
        model: As for `convert`, for a file.
        version: As for `convert`.
        prefix: As for `convert`.

    Returns:
        A model that returns logits, or without a head pooled features.

    Raises:
        CheckpointError: if the file does not exist or cannot be read.
        ValueError: if there is no such network.
    """
    path = Path(name_or_file)
    # If it is neither a network nor a file, `create` raises an error that lists the networks.
    is_file = path.suffix or path.exists() or is_address(name_or_file)
    if name_or_file in models.list_models() or not is_file:
        return models.create(str(name_or_file), version=version, classifier_activation=None)
    _, state, found, version = look_into(path, model, version, prefix)
    network = build_found(found, version)
    assign(network, state, path.name)
    return network


def look_into(path, model=None, version=None, prefix=None):
    """Reads a file; returns the checkpoint, its weights, their architecture and the version."""
    checkpoint = read_checkpoint(path, prefix)
    given = version is not None
    origin = checkpoint.origin
    version = version or origin.version
    weights = checkpoint.weights()
    blurs = row_of(CONFIGS, model, "model").blurs if model else origin.anti_aliasing or "none"
    found = recognise(weights.state, blurs)
    checkpoint.check_version(version or "v1.5", given, anti_aliasing=blurs)
    found = dataclasses.replace(found, variant=model or found.variant)
    if found.variant is None:
        raise CheckpointError(
            f"{path} seems to contain {found.text}, which is not in list_models()."
        )
    say(checkpoint, weights, found.variant, version, blurs)
    return checkpoint, weights.state, found, version


def build_found(found, version=None, classifier_activation=None):
    """Builds a network of an architecture found by `look_into`, with random weights."""
    return models.create(
        found.variant,
        include_top=found.classes is not None,
        pooling=None if found.classes else "avg",
        classes=found.classes,
        classifier_activation=classifier_activation,
        input_shape=(None, None, found.channels or 3),
        data_format="channels_last",
        version=version,
        shortcut=found.shortcut,
    )
