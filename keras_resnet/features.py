"""Networks as backbones: freezing."""

import logging

import keras
import numpy as np

from keras_resnet.blocks import ResidualBlock

logger = logging.getLogger("keras_resnet")


def freeze(model, until, *, batch_norm=True) -> tuple[int, int]:
    """Keeps the first layers of a network as they are while the others train.

    To be called before `model.compile`.

    Args:
        model: A network of this package.
        until: The name of the last layer, block or stage that is frozen, "layer2" for example;
            all before it are too.
        batch_norm: Whether their batch normalization is frozen as well, which then normalises by
            its moving statistics, in training too. False: it goes on learning.

    Returns:
        How many numbers are trained, and how many are not.

    Raises:
        ValueError: if there is no such layer.

    Example:
    >>> model = keras_resnet.ResNet18(classes=5)
    >>> keras_resnet.features.freeze(model, "layer4")
    (2565, 11186112)
    """
    names = [layer.name for layer in model.layers]
    places = [
        place for place, name in enumerate(names) if name == until or name.startswith(f"{until}.")
    ]
    if not places:
        stages = dict.fromkeys(layer.name.split(".")[0] for layer in model.layers if layer.weights)
        raise ValueError(
            f"{model.name} has no layer or stage {until!r}, but {', '.join(stages)}. "
            f"Received: until={until!r}"
        )
    for layer in model.layers[: max(places) + 1]:
        # The sublayers, since a frozen block would freeze its batch normalization.
        block = isinstance(layer, ResidualBlock)
        for part in (*layer.main, *layer.shortcut) if block else (layer,):
            if batch_norm or not isinstance(part, keras.layers.BatchNormalization):
                part.trainable = False
    trained, kept = (
        sum(int(np.prod(variable.shape)) for variable in variables)
        for variables in (model.trainable_weights, model.non_trainable_weights)
    )
    logger.info(
        "%s is frozen up to %s: %s numbers train, %s do not.",
        model.name,
        until,
        f"{trained:,}",
        f"{kept:,}",
    )
    return trained, kept
