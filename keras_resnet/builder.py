"""The parts from which `models.create` builds a model, and functions that traverse a model.

Strides, dilation and projections are decided here only.
"""

import numbers
from typing import Any

import keras
import numpy as np

from keras_resnet.blocks import BasicBlock, BottleneckBlock, ResidualBlock
from keras_resnet.configs import CIFAR, IMAGENET, Family
from keras_resnet.layers import batch_normalization, convolution
from keras_resnet.pooling import BlurPool2D, MaxPooling2D
from keras_resnet.preactivation import PreactivationBasicBlock, PreactivationBottleneckBlock

BLOCKS = {  # without and with pre-activation
    "basic": (BasicBlock, PreactivationBasicBlock),
    "bottleneck": (BottleneckBlock, PreactivationBottleneckBlock),
}


def inputs(tensor, shape, data_format, dtype, family):
    """Returns the inputs of a model, and the tensor that the network is applied to."""
    if tensor is None:
        shape = shape or ((3, None, None) if data_format == "channels_first" else (None, None, 3))
        _check_input_shape(shape, data_format, family.min_size)
        x = keras.Input(tuple(shape), dtype=dtype.variable_dtype)
        return x, x
    _check_input_tensor(tensor, shape, data_format, family.min_size)
    sources = keras.utils.get_source_inputs(tensor)
    return sources[0] if len(sources) == 1 else sources, tensor


def stem(x, config, synchronized, name_prefix, common):
    """Applies the stem: one or more convolutions and, for ImageNet, a max-pool."""

    def convolve(x, width, kernel, strides, conv, *after):
        bias = {"use_bias": config.like_applications}
        conv = f"{name_prefix}{conv}"
        x = convolution(width, kernel, strides=strides, name=conv, **bias, **common)(x)
        return normalize(x, after, synchronized, name_prefix, common) if after else x

    reduces = config.family.stem_kernel == 7
    strides = 2 if reduces else 1
    *before, width = config.stem or (config.stem_width,)
    for number, narrower in enumerate(before):
        # Numbered as in timm's sequence.
        names = (f"conv1.{3 * number + place}" for place in range(3))
        x = convolve(x, narrower, 3, strides if number == 0 else 1, *names)
    last = () if config.preactivation else ("bn1", "relu")
    if before:
        x = convolve(x, width, 3, 1, f"conv1.{3 * len(before)}", *last)
    else:
        x = convolve(x, width, config.family.stem_kernel, strides, "conv1", *last)
    if not reduces:
        return x
    if config.stem_pool == "conv":
        return convolve(x, width, 3, 2, *(f"maxpool.{place}" for place in range(3)))
    if config.anti_aliasing == "avg":
        return keras.layers.AveragePooling2D(2, name=f"{name_prefix}maxpool", **common)(x)
    if config.preactivation and not config.like_applications:
        return MaxPooling2D(name=f"{name_prefix}maxpool", **common)(x)
    # PyTorch pads with minus infinity; after a ReLU, zeros give the same result.
    x = keras.layers.ZeroPadding2D(1, name=f"{name_prefix}maxpool_padding", **common)(x)
    strides = 1 if config.anti_aliasing else 2
    x = keras.layers.MaxPooling2D(3, strides, name=f"{name_prefix}maxpool", **common)(x)
    if config.anti_aliasing:
        x = BlurPool2D(name=f"{name_prefix}maxpool_blur", **common)(x)
    return x


def normalize(x, names, synchronized, name_prefix, common):
    """Applies batch normalization and ReLU."""
    bn, relu = names
    x = batch_normalization(name=f"{name_prefix}{bn}", synchronized=synchronized, **common)(x)
    return keras.layers.ReLU(name=f"{name_prefix}{relu}", dtype=common["dtype"])(x)


def blocks(config, output_stride, shortcut, dropout, drop_path, name_prefix, **arguments):
    """Yields the residual blocks of all stages, in order."""
    block_class = BLOCKS[config.block][config.preactivation]
    number, last = 0, max(sum(config.depths) - 1, 1)
    only_first: dict[str, Any] = {}
    if config.preactivation:
        # As in the paper's appendix: the first activation is shared by both paths.
        only_first["activates_shortcut"] = config.family is CIFAR
        arguments["use_bias"] = config.like_applications
        arguments["dropout"] = dropout if config.dropout_inside else 0.0
    channels, dilation = config.stem_width, 1
    stride = 4 if config.family.stem_kernel == 7 else 1
    for stage, depth in enumerate(config.depths):
        # In keras.applications' V2, the last block of a stage has the stride, not the first.
        late, previous_dilation = config.like_applications, dilation
        stage_stride = 1 if stage == (len(config.depths) - 1 if late else 0) else 2
        if stride * stage_stride > output_stride:
            dilation, stage_stride = dilation * stage_stride, 1
        stride *= stage_stride
        striding = depth - 1 if late else 0
        for index in range(depth):
            filters = config.filters(stage)
            strides = stage_stride if index == striding else 1
            yield block_class(
                filters,
                width=config.width(stage),
                strides=strides,
                dilation_rate=dilation if index >= striding else previous_dilation,
                # The convolution whose stride is replaced keeps the dilation of the previous stage.
                first_dilation_rate=previous_dilation if index <= striding else dilation,
                groups=config.groups,
                avg_down=config.avg_down,
                down_kernel=config.down_kernel,
                anti_aliasing=config.anti_aliasing,
                attention=config.attention,
                reduction=config.reduction,
                reduce_first=config.reduce_first,
                projection=shortcut == "B" and index == 0 and (strides != 1 or channels != filters),
                # The rate grows linearly with depth (stochastic depth, section 3).
                drop_path=drop_path * number / last,
                name=f"{name_prefix}layer{stage + 1}.{index}",
                **arguments,
                **(only_first if number == 0 else {}),
            )
            channels = filters
            number += 1


def pool(pooling, x, name_prefix, data_format, dtype):
    """Applies global average or max pooling."""
    # Averages, logits and probabilities are computed in full precision.
    common = {"data_format": data_format, "dtype": dtype.variable_dtype}
    if pooling == "avg":
        return keras.layers.GlobalAveragePooling2D(name=f"{name_prefix}avgpool", **common)(x)
    # Not "maxpool", which is in the stem.
    return keras.layers.GlobalMaxPooling2D(name=f"{name_prefix}global_maxpool", **common)(x)


def head(x, classes, activation, dropout, name_prefix, dtype):
    """Applies the classifier."""
    if dropout:
        x = keras.layers.Dropout(dropout, name=f"{name_prefix}dropout")(x)
    bound = x.shape[-1] ** -0.5  # as torch.nn.Linear: uniform in +-1 / sqrt(fan_in), the bias too
    return keras.layers.Dense(
        classes,
        activation,
        kernel_initializer=keras.initializers.RandomUniform(-bound, bound),
        bias_initializer=keras.initializers.RandomUniform(-bound, bound),
        dtype=dtype.variable_dtype,
        name=f"{name_prefix}fc",
    )(x)


def normalisation(x, mean, std, data_format, dtype, name_prefix):
    """Normalises pixel values in 0..255 to zero mean and unit variance per channel."""
    channels_first = data_format == "channels_first"
    if x.shape[1 if channels_first else 3] != 3:
        raise ValueError(
            "include_preprocessing=True needs RGB images with three channels. For other images, "
            "use a layer of your own. "
            f"Received: an input of shape {tuple(x.shape)}"
        )

    # With all three axes: with fewer, Rescaling would use Keras' global data format.
    axes = (3, 1, 1) if channels_first else (1, 1, 3)
    mean, std = (np.reshape(values, axes) for values in (mean, std))
    scale, offset = (1 / (255 * std)).tolist(), (-mean / std).tolist()
    name = f"{name_prefix}preprocessing"
    return keras.layers.Rescaling(scale, offset, dtype=dtype.variable_dtype, name=name)(x)


def _one_of(argument, value, choices):
    if value not in choices:
        raise ValueError(f"{argument} should be one of {choices}. Received: {argument}={value!r}")


def check_shortcut(shortcut, config):
    """Validates `shortcut`; returns "A" or "B"."""
    if config.family.stem_kernel == 7 and shortcut is not None:
        raise ValueError(
            "shortcut applies to CIFAR networks only; all others use projections where the shape "
            f"changes. Received: shortcut={shortcut!r}"
        )
    if shortcut not in (None, "A", "B"):
        raise ValueError(f"shortcut should be 'A' or 'B'. Received: shortcut={shortcut!r}")
    return shortcut or config.shortcut or config.family.shortcut


def check_version(version, config):
    """Raises a ValueError for "v1" if the network does not support it."""
    if version == "v1" and config.like_applications:
        raise ValueError(
            "The ResNetV2 networks of keras.applications have no version 'v1'. Remove version. "
            f"Received: version={version!r}"
        )
    if version == "v1" and config.anti_aliasing:
        raise ValueError(
            "Networks with anti-aliasing have no version 'v1'. Remove version. "
            f"Received: version={version!r}, anti_aliasing={config.anti_aliasing!r}"
        )


def _check_input_shape(shape, data_format, min_size):
    last = data_format == "channels_last"
    expected = "(height, width, channels)" if last else "(channels, height, width)"
    if len(shape) != 3:
        raise ValueError(
            f"input_shape should be {expected}, without the batch size. "
            f"Received: input_shape={shape}"
        )
    channels, *sides = (shape[2], *shape[:2]) if last else shape
    if not channels or channels < 1:
        raise ValueError(
            f"input_shape should be {expected} with a known number of channels. "
            f"Received: input_shape={shape}"
        )
    if any(side is not None and side < min_size for side in sides):
        raise ValueError(
            f"Images should be at least {min_size}x{min_size}: the last feature map of smaller "
            "images would be empty. Resize them, or use None for a side of variable length. "
            f"Received: input_shape={shape}, read as {expected}"
        )


def _check_input_tensor(tensor, input_shape, data_format, min_size):
    if not keras.backend.is_keras_tensor(tensor):
        raise ValueError(
            "input_tensor should be a Keras tensor, the output of keras.Input or of a layer. "
            f"Received: input_tensor={tensor!r} of type {type(tensor).__name__}"
        )
    shape = tuple(tensor.shape[1:])
    _check_input_shape(shape, data_format, min_size)
    given = shape if input_shape is None else tuple(input_shape)
    fits = len(given) == len(shape) and all(
        None in pair or pair[0] == pair[1] for pair in zip(shape, given, strict=True)
    )
    if not fits:
        raise ValueError(
            "input_shape does not match the shape of input_tensor. Remove it. "
            f"Received: input_shape={given}, input_tensor.shape={tensor.shape}"
        )


def check_arguments(pooling, classes, output_stride, version, dropout, drop_path, data_format):
    """Validates the arguments of `create` that do not depend on the network."""
    _one_of("pooling", pooling, (None, "avg", "max"))
    _one_of("output_stride", output_stride, (32, 16, 8))
    _one_of("version", version, ("v1.5", "v1"))
    _one_of("data_format", data_format, ("channels_last", "channels_first"))
    if isinstance(classes, bool) or not isinstance(classes, numbers.Integral) or classes < 1:
        raise ValueError(f"classes should be an integer, 1 or more. Received: classes={classes!r}")
    for argument, value in (("dropout", dropout), ("drop_path", drop_path)):
        if not 0 <= value < 1:
            raise ValueError(
                f"{argument} is a probability and should be at least 0 and less than 1. "
                f"Received: {argument}={value!r}"
            )


def walk(model, above=""):
    """Yields (path, layer) of all layers, nested models included: "resnet50/layer1.0"."""
    for layer in model.layers:
        yield f"{above}{layer.name}", layer
        if isinstance(layer, keras.Model):
            yield from walk(layer, f"{above}{layer.name}/")


def family_of(model) -> Family:
    """Returns the family of a network, by its stem; IMAGENET if it is not of this package."""
    layers = [layer for _, layer in walk(model)]
    if not any(isinstance(layer, ResidualBlock) for layer in layers):
        return IMAGENET
    kernels = [
        layer.kernel_size[0]
        for layer in layers
        if layer.name.endswith("conv1") and isinstance(layer, keras.layers.Conv2D)
    ]
    return CIFAR if kernels[:1] == [CIFAR.stem_kernel] else IMAGENET


def all_layers(model: keras.layers.Layer) -> list[keras.layers.Layer]:
    """Lists all layers of a model in order, including those inside blocks and nested models.

    In `model.layers`, a block or a nested model is a single layer.

    Args:
        model: Any model.

    Returns:
        The layers that contain no other layers.

    Example:
    >>> layers = keras_resnet.features.all_layers(keras_resnet.ResNet50())
    >>> sum(isinstance(layer, keras.layers.Conv2D) for layer in layers)
    53
    """
    # Private: the public API does not list sublayers. With recursive=True the order is reversed.
    parts = model._flatten_layers(include_self=False, recursive=False)
    return list(dict.fromkeys(layer for part in parts for layer in all_layers(part) or [part]))


def channels_first(model) -> bool:
    """Whether a model's inputs are (batch, channels, height, width)."""
    layers = (layer for layer in all_layers(model) if isinstance(layer, keras.layers.Conv2D))
    first = next(layers, None)
    return first is not None and first.data_format == "channels_first"
