"""Assembles a network from its configuration: stem, stages of blocks, head.

The only place where strides, dilation and projections are decided.
"""

import numbers

import keras

from keras_resnet.blocks import (
    BasicBlock,
    BottleneckBlock,
    ResidualBlock,
    batch_normalization,
    convolution,
)
from keras_resnet.configs import (
    CIFAR,
    IMAGENET,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Family,
    ResNetConfig,
)

BLOCKS = {"basic": BasicBlock, "bottleneck": BottleneckBlock}


def build(
    config: ResNetConfig,
    *,
    include_top=True,
    input_tensor=None,
    input_shape=None,
    pooling=None,
    classes=None,
    classifier_activation="softmax",
    name=None,
    output_stride=32,
    version="v1.5",
    shortcut=None,
    dropout=0.0,
    drop_path=0.0,
    zero_init_residual=False,
    synchronized=False,
    include_preprocessing=False,
    name_prefix="",
    data_format=None,
    dtype=None,
) -> keras.Model:
    """Builds the functional model of `config`, with random weights.

    The arguments are those of `keras_resnet.ResNet50`, where they are explained.
    """
    data_format = data_format or keras.config.image_data_format()
    dtype = keras.dtype_policies.get(dtype or keras.config.dtype_policy())
    classes = config.family.classes if classes is None else classes
    _check_arguments(pooling, classes, output_stride, version, dropout, drop_path, data_format)
    shortcut = _check_shortcut(shortcut, config.family)
    if input_tensor is None:
        shape = input_shape or _default_input_shape(data_format)
        _check_input_shape(shape, data_format, config.family.min_size)
        inputs = x = keras.Input(tuple(shape), dtype=dtype.variable_dtype)
    else:
        x = _check_input_tensor(input_tensor, input_shape, data_format, config.family.min_size)
        inputs = keras.utils.get_source_inputs(x)
        inputs = inputs[0] if len(inputs) == 1 else inputs

    # What every layer gets; a block hands it down to its sublayers.
    common = {"data_format": data_format, "dtype": dtype}
    if include_preprocessing:
        _check_colours(x, data_format)
        x = _normalisation(data_format, dtype, name_prefix)(x)
    x = _stem(x, config.family, synchronized, name_prefix, common)
    for block in _blocks(
        config,
        output_stride,
        shortcut,
        drop_path,
        name_prefix,
        version=version,
        zero_init_residual=zero_init_residual,
        synchronized=synchronized,
        **common,
    ):
        x = block(x)
    # Under a RematScope blocks are recomputed: not what is small, and not all of it once more.
    with keras.RematScope(None):
        if include_top:
            x = _pool("avg", x, name_prefix, data_format, dtype)
            x = _head(x, classes, classifier_activation, dropout, name_prefix, dtype)
        elif pooling:
            x = _pool(pooling, x, name_prefix, data_format, dtype)
        return keras.Model(inputs, x, name=name)


def walk(model, above=""):
    """(path, layer) of a model's layers, those of models inside too: "resnet50/layer1.0"."""
    for layer in model.layers:
        yield f"{above}{layer.name}", layer
        if isinstance(layer, keras.Model):
            yield from walk(layer, f"{above}{layer.name}/")


def family_of(model) -> Family:
    """The images that a network is for, by its stem; ImageNet's if it is none of ours."""
    layers = [layer for _, layer in walk(model)]
    if not any(isinstance(layer, ResidualBlock) for layer in layers):
        return IMAGENET
    kernels = [
        layer.kernel_size[0]
        for layer in layers
        if layer.name.endswith("conv1") and isinstance(layer, keras.layers.Conv2D)
    ]
    return CIFAR if kernels[:1] == [CIFAR.stem_kernel] else IMAGENET


def channels_first(model) -> bool:
    """Whether a model takes (batch, channels, height, width)."""
    layers = (layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.Conv2D))
    first = next(layers, None)
    return first is not None and first.data_format == "channels_first"


def _stem(x, family, synchronized, name_prefix, common):
    reduces = family.stem_kernel == 7
    x = convolution(
        family.widths[0],
        family.stem_kernel,
        strides=2 if reduces else 1,
        name=f"{name_prefix}conv1",
        **common,
    )(x)
    x = batch_normalization(name=f"{name_prefix}bn1", synchronized=synchronized, **common)(x)
    x = keras.layers.ReLU(name=f"{name_prefix}relu", dtype=common["dtype"])(x)
    if not reduces:
        return x
    # After a ReLU, padding with zeros is padding with minus infinity, which PyTorch does.
    x = keras.layers.ZeroPadding2D(1, name=f"{name_prefix}maxpool_padding", **common)(x)
    return keras.layers.MaxPooling2D(3, 2, name=f"{name_prefix}maxpool", **common)(x)


def _blocks(config, output_stride, shortcut, drop_path, name_prefix, **arguments):
    """Yields the residual blocks of all stages, in order."""
    block_class = BLOCKS[config.block]
    number, last = 0, max(sum(config.depths) - 1, 1)
    channels, dilation = config.family.widths[0], 1
    stride = 4 if config.family.stem_kernel == 7 else 1
    for stage, depth in enumerate(config.depths):
        previous_dilation, stage_stride = dilation, 1 if stage == 0 else 2
        if stride * stage_stride > output_stride:
            dilation, stage_stride = dilation * stage_stride, 1
        stride *= stage_stride
        for index in range(depth):
            first = index == 0
            filters = config.filters(stage)
            strides = stage_stride if first else 1
            yield block_class(
                filters,
                width=config.width(stage),
                strides=strides,
                dilation_rate=dilation,
                # Up to where its stride was, a dilated stage sees the grid of the stage before.
                first_dilation_rate=previous_dilation if first else dilation,
                groups=config.groups,
                projection=shortcut == "B" and first and (strides != 1 or channels != filters),
                # Deeper blocks are dropped more often (stochastic depth, section 3).
                drop_path=drop_path * number / last,
                name=f"{name_prefix}layer{stage + 1}.{index}",
                **arguments,
            )
            channels = filters
            number += 1


def _pool(pooling, x, name_prefix, data_format, dtype):
    pool_class, name = {
        "avg": (keras.layers.GlobalAveragePooling2D, "avgpool"),
        "max": (keras.layers.GlobalMaxPooling2D, "global_maxpool"),  # the stem has a maxpool
    }[pooling]
    # From here on in full precision: averages, logits and probabilities.
    pool = pool_class(
        data_format=data_format, dtype=dtype.variable_dtype, name=f"{name_prefix}{name}"
    )
    return pool(x)


def _head(x, classes, activation, dropout, name_prefix, dtype):
    if dropout:
        x = keras.layers.Dropout(dropout, name=f"{name_prefix}dropout")(x)
    bound = x.shape[-1] ** -0.5  # torch.nn.Linear: uniform in +-1 / sqrt(fan_in), bias too
    return keras.layers.Dense(
        classes,
        activation=activation,
        kernel_initializer=keras.initializers.RandomUniform(-bound, bound),
        bias_initializer=keras.initializers.RandomUniform(-bound, bound),
        dtype=dtype.variable_dtype,
        name=f"{name_prefix}fc",
    )(x)


def _normalisation(data_format, dtype, name_prefix):
    """0..255 to zero mean and unit variance per channel."""

    # With all three axes: of fewer, Rescaling takes the global data format for the model's.
    def along_channels(values):
        return [[[value]] for value in values] if data_format == "channels_first" else [[values]]

    scale = [1 / (255 * std) for std in IMAGENET_STD]
    offset = [-mean / std for mean, std in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)]
    return keras.layers.Rescaling(
        along_channels(scale),
        along_channels(offset),
        dtype=dtype.variable_dtype,
        name=f"{name_prefix}preprocessing",
    )


def _default_input_shape(data_format):
    return (3, None, None) if data_format == "channels_first" else (None, None, 3)


def _check_colours(x, data_format):
    if x.shape[1 if data_format == "channels_first" else 3] != 3:
        raise ValueError(
            "include_preprocessing=True normalises RGB images, which have three channels; for "
            "others, put a layer of your own in front. "
            f"Received: an input of shape {tuple(x.shape)}"
        )


def _check_shortcut(shortcut, family):
    if family.stem_kernel == 7 and shortcut is not None:
        raise ValueError(
            "shortcut is an argument of the CIFAR networks; the others always project where the "
            f"shape changes. Received: shortcut={shortcut!r}"
        )
    if shortcut not in (None, "A", "B"):
        raise ValueError(f"shortcut should be 'A' or 'B'. Received: shortcut={shortcut!r}")
    return shortcut or family.shortcut


def _check_input_shape(shape, data_format, min_size):
    expected = "(channels, height, width)"
    if data_format == "channels_last":
        expected = "(height, width, channels)"
    if len(shape) != 3:
        raise ValueError(
            f"input_shape should be {expected}, without the batch. Received: input_shape={shape}"
        )
    channels, *sides = shape if data_format == "channels_first" else (shape[2], *shape[:2])
    if not channels or channels < 1:
        raise ValueError(
            f"input_shape should be {expected} with a known number of channels. "
            f"Received: input_shape={shape}"
        )
    if any(side is not None and side < min_size for side in sides):
        raise ValueError(
            f"The image should be at least {min_size}x{min_size}, or too little is left of it at "
            "the end of the network. Resize the images, or use None for a side that varies. "
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
    if input_shape is not None and (
        len(input_shape) != len(shape)
        or any(
            None not in (ours, theirs) and ours != theirs
            for ours, theirs in zip(shape, input_shape, strict=True)
        )
    ):
        raise ValueError(
            "input_shape does not fit input_tensor; leave it out. "
            f"Received: input_shape={tuple(input_shape)}, input_tensor.shape={tensor.shape}"
        )
    return tensor


def _check_arguments(pooling, classes, output_stride, version, dropout, drop_path, data_format):
    def one_of(argument, value, choices):
        if value not in choices:
            raise ValueError(
                f"{argument} should be one of {choices}. Received: {argument}={value!r}"
            )

    one_of("pooling", pooling, (None, "avg", "max"))
    one_of("output_stride", output_stride, (32, 16, 8))
    one_of("version", version, ("v1.5", "v1"))
    one_of("data_format", data_format, ("channels_last", "channels_first"))
    if isinstance(classes, bool) or not isinstance(classes, numbers.Integral) or classes < 1:
        raise ValueError(
            f"classes should be a whole number, 1 or more. Received: classes={classes!r}"
        )
    for argument, value in (("dropout", dropout), ("drop_path", drop_path)):
        if not 0 <= value < 1:
            raise ValueError(
                f"{argument} is a probability and should be at least 0 and less than 1. "
                f"Received: {argument}={value!r}"
            )
