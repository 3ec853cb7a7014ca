"""Backbones: feature maps of the stages, and freezing."""

import dataclasses
import logging
import os
import re
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

from keras_resnet import models
from keras_resnet.blocks import ResidualBlock
from keras_resnet.builder import all_layers, channels_first, walk

__all__ = ["FeatureInfo", "all_layers", "freeze", "freeze_batch_norm", "pooled", "pyramid"]

# The last convolution of a stem, or the ReLU after it.
STEM_ENDS = ("conv1", "conv1.6", "relu")

logger = logging.getLogger("keras_resnet")


@dataclasses.dataclass(frozen=True)
class FeatureInfo:
    """One output of a pyramid.

    Args:
        name: "C1" for the stem, "C2" for the first stage, and so on.
        layer: Name of the layer with this output.
        channels: Channels of the feature map.
        stride: Factor by which it is smaller than the image.
    """

    name: str
    layer: str
    channels: int
    stride: int


def pyramid(
    name_or_model: str | keras.Model,
    levels: Iterable[str] = ("C2", "C3", "C4", "C5"),
    *,
    weights: str | os.PathLike[str] | None = None,
    **arguments: Any,
) -> keras.Model:
    """Builds a model that returns feature maps of several stages, for detection or segmentation.

    Args:
        name_or_model: A name in `list_models()`; or a model of this package, with or without a
            head, which shares its variables with the pyramid.
        levels: Among "C1" (the stem, before the max-pool), "C2" (the first stage), "C3", .... For
            pre-activation networks these are the sums before normalization, as in timm.
        weights: As for the builders; for a name only.
        **arguments: Other arguments of the builders, `output_stride=8` for example; for a name
            only.

    Returns:
        A model from images to a dict of feature maps (batch, height / stride, width / stride,
        channels) with the names in `levels`. Its attribute `feature_info` is a tuple with a
        `FeatureInfo` for each level; it is not saved with the model.

    Raises:
        ValueError: if the network or a level does not exist, or the weights do not fit.

    Source of the names: Lin et al., Feature Pyramid Networks, https://arxiv.org/abs/1612.03144,
    section 3.

    Example:
    >>> backbone = keras_resnet.features.pyramid("resnet50", input_shape=(352, 352, 3))
    >>> [(info.name, info.stride, info.channels) for info in backbone.feature_info]
    [('C2', 4, 256), ('C3', 8, 512), ('C4', 16, 1024), ('C5', 32, 2048)]
    >>> backbone.output["C3"].shape
    (None, 44, 44, 512)
    """
    if isinstance(name_or_model, keras.Model):
        if weights is not None or arguments:
            raise ValueError(
                f"{name_or_model.name} is already built; pass weights and the builder's arguments "
                f"with the name of a network instead. Received: weights={weights!r}, {arguments}"
            )
        model = name_or_model
    else:
        model = models.create(name_or_model, include_top=False, weights=weights, **arguments)
    found, levels = _levels(model), tuple(levels)
    unknown = [level for level in levels if level not in found]
    if unknown or not levels:
        raise ValueError(
            "levels should be among "
            f"{', '.join(found) or 'a residual network, which this is not'}. "
            f"{_networks_inside(model)}Received: levels={levels}, {model.name}"
        )
    infos = [found[level] for level in levels]
    outputs = {info.name: model.get_layer(info.layer).output for info in infos}
    backbone = keras.Model(model.input, outputs, name=f"{model.name}_pyramid")
    backbone.feature_info = tuple(infos)
    return backbone


def pooled(model: keras.Model, layer: str = "avgpool") -> keras.Model:
    """Makes a model that returns one feature vector an image, an embedding.

    Args:
        model: A model of this package, which shares its variables with the new one.
        layer: The layer whose output is averaged over height and width: a stage ("layer3"), a block
            ("layer3.0"), a level of a pyramid ("C4") or another layer. The default is what the
            classifier takes, which is averaged already.

    Returns:
        A model from images to features, float32 (batch, channels).

    Raises:
        ValueError: if the layer does not exist, or is the classifier.

    Example:
    >>> model = keras_resnet.ResNet18(classes=5)
    >>> keras_resnet.features.pooled(model).output_shape
    (None, 512)
    >>> keras_resnet.features.pooled(model, "layer3").output_shape
    (None, 256)
    """
    levels = {name: info.layer for name, info in _levels(model).items()}
    layers = [one for one in model.layers if not isinstance(one, (keras.Model, keras.layers.Dense))]
    name = levels.get(layer, layer)
    found = [one for one in layers if one.name == name or one.name.startswith(f"{name}.")]
    if not found or len(found[-1].output.shape) not in (2, 4):
        stages = dict.fromkeys(one.name.split(".")[0] for one in layers if one.weights)
        raise ValueError(
            f"layer should be avgpool, a stage or another layer ({', '.join(stages)}), or a level "
            f"({', '.join(levels)}). {_networks_inside(model)}Received: layer={layer!r} of "
            f"{model.name}"
        )
    output = found[-1].output
    if len(output.shape) == 4:
        data_format = "channels_first" if channels_first(model) else "channels_last"
        output = keras.layers.GlobalAveragePooling2D(
            data_format=data_format, dtype="float32", name="features"
        )(output)
    return keras.Model(model.input, output, name=f"{model.name}_{layer}")


def _networks_inside(model) -> str:
    """Suggests to pass a nested network instead of the model."""
    blocks = [path for path, layer in walk(model) if isinstance(layer, ResidualBlock)]
    inside = dict.fromkeys(path.rpartition("/")[0] for path in blocks)
    return "".join(f"Pass {path}, the network inside. " for path in inside if path)


def _levels(model) -> dict[str, FeatureInfo]:
    """Finds the last layer of the stem and of every stage, {level: info}."""
    levels, prefixes, channels, stride = {}, set(), 0, 1
    for layer in model.layers:
        channels = getattr(layer, "filters", channels)
        stride *= int(np.ravel(getattr(layer, "strides", 1))[0])
        if isinstance(layer, ResidualBlock):
            prefix, place = layer.name.rsplit("layer", 1)
            prefixes.add(prefix)
            stage, index = map(int, place.split("."))
            if index and layer.strides > 1:  # the level is its input
                continue
            name = f"C{stage + 1}"
        elif not prefixes and layer.name.endswith(STEM_ENDS):
            name = "C1"
        else:
            continue
        levels[name] = FeatureInfo(name, layer.name, channels, stride)
    if len(prefixes) > 1:
        raise ValueError(
            f"{model.name} contains {len(prefixes)} residual networks. Pass one of them. "
            f"Received: networks with the prefixes {sorted(prefixes)}"
        )
    return levels


def freeze(model: keras.Model, until: str, *, batch_norm: bool = True) -> tuple[int, int]:
    """Freezes the first layers of a network, so that only the others are trained.

    Call it before `model.compile`.

    Args:
        model: A network of this package, or a model with one inside.
        until: Name of the last frozen layer, block or stage, "layer2" for example; all layers
            before it are frozen too. "left/layer2" if several nested networks have one.
        batch_norm: Whether to freeze their batch normalization too, which then uses its moving
            statistics in training as well. False to keep training it.

    Returns:
        (number of trainable parameters, number of frozen parameters).

    Raises:
        ValueError: if the layer does not exist.

    Example:
    >>> model = keras_resnet.ResNet18(classes=5)
    >>> keras_resnet.features.freeze(model, "layer4")
    (2565, 11186112)
    """
    layers = {path: layer for path, layer in walk(model) if not isinstance(layer, keras.Model)}
    last = re.compile(rf"(?:(.*)/)?{re.escape(until)}(?:\..*)?")
    found = {place: match for place, path in enumerate(layers) if (match := last.fullmatch(path))}
    inside = {match[1] for match in found.values()}
    if len(inside) != 1:
        stages = dict.fromkeys(path.split(".")[0] for path in layers if layers[path].weights)
        what = f"{len(inside)} layers or stages" if inside else "no layer or stage"
        raise ValueError(
            f"{model.name} has {what} {until!r}, but {', '.join(stages)}. Received: until={until!r}"
        )
    for layer in list(layers.values())[: max(found) + 1]:
        # Its sublayers, since freezing the block would also freeze its batch normalization.
        block = isinstance(layer, ResidualBlock)
        for part in (*layer.main, *layer.shortcut) if block else (layer,):
            if batch_norm or not isinstance(part, keras.layers.BatchNormalization):
                part.trainable = False
    trained, kept = (
        sum(int(np.prod(variable.shape)) for variable in variables)
        for variables in (model.trainable_weights, model.non_trainable_weights)
    )
    numbers = f"{trained:,} trainable parameters, {kept:,} frozen"
    logger.info("%s is frozen up to %s: %s.", model.name, until, numbers)
    return trained, kept


def freeze_batch_norm(model: keras.layers.Layer) -> int:
    """Freezes all batch normalization: its statistics, scale and offset.

    It then uses its moving statistics in training as well. Call it before `model.compile`.

    Args:
        model: Any model; nested models are included.

    Returns:
        Number of frozen layers.

    Example:
    >>> keras_resnet.features.freeze_batch_norm(keras_resnet.ResNet50())
    53
    """
    found = [
        layer for layer in all_layers(model) if isinstance(layer, keras.layers.BatchNormalization)
    ]
    for layer in found:
        layer.trainable = False
    return len(found)
