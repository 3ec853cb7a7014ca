"""Builds the networks: `create`, and the public builders, which call it with a name."""

import functools
import inspect
import logging
import os
import textwrap
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import keras

from keras_resnet import builder
from keras_resnet.configs import CONFIGS, ResNetConfig, builders
from keras_resnet.fields import row_of
from keras_resnet.preprocessing import Preprocessing, pair
from keras_resnet.weights.assigning import check_choice
from keras_resnet.weights.description import preprocessing_of
from keras_resnet.weights.loading import load_pretrained, locate
from keras_resnet.weights.registry import list_weights

__all__ = ["create", "list_models"]

logger = logging.getLogger("keras_resnet")


def list_models(pattern: str = "*", *, pretrained: bool = False) -> list[str]:
    """Lists the names of the networks that `create` builds.

    Args:
        pattern: Pattern of the names, as for `fnmatch`: "seresnet*", "*50*", "resnet[135]*".
        pretrained: Whether to list only networks with published weights.

    Returns:
        The names that match, possibly none.

    >>> keras_resnet.list_models()[:3]
    ['resnet18', 'resnet34', 'resnet50']
    >>> keras_resnet.list_models("seresnet1*", pretrained=True)
    ['seresnet152d']
    """
    published = {row.model for row in list_weights()} if pretrained else CONFIGS
    return [name for name in CONFIGS if name in published and fnmatchcase(name, pattern)]


def create(
    model_name: str | ResNetConfig,
    /,
    include_top: bool = True,
    weights: str | os.PathLike[str] | None = None,
    input_tensor: keras.KerasTensor | None = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: int | None = None,
    classifier_activation: str | Callable[..., Any] | None = "softmax",
    name: str | None = None,
    *,
    output_stride: int = 32,
    version: str | None = None,
    shortcut: str | None = None,
    dropout: float = 0.0,
    drop_path: float = 0.0,
    zero_init_residual: bool = False,
    synchronized: bool = False,
    include_preprocessing: bool = False,
    name_prefix: str = "",
    data_format: str | None = None,
    dtype: str | keras.DTypePolicy | None = None,
    first_conv: str = "strict",
    prefix: str | None = None,
    ignore: Sequence[str] = (),
) -> keras.Model:
    """Builds a network by name.

    The positional arguments after the name are those of `keras.applications.ResNet50`. The networks
    for ImageNet equal torchvision's in their outputs and their layers' names; the CIFAR networks
    follow the paper and name their layers in the same way.

    Args:
        model_name: One of `list_models()`; or a `ResNetConfig` for a network that is not among
            them.
        include_top: Whether to end in global average pooling and a Dense layer, `fc`.
        weights: None for random initialization; "imagenet" or another name in `list_weights`,
            "ra2_in1k" for example, downloaded once; the path of a file that
            `keras_resnet.weights.load` accepts; or a repository on the Hugging Face hub,
            "hf://timm/resnet50.a1_in1k". If `classes` is given and differs from the file's, the
            head keeps its random initialization.
        input_tensor: Keras tensor to use as the input, from `keras.Input` or another layer.
        input_shape: Shape of one image, (height, width, channels) or, for "channels_first",
            (channels, height, width). Height and width may be None; otherwise they should be at
            least 32, or 8 for CIFAR networks. Default: (None, None, 3).
        pooling: Without the top, what to do with the feature map: None (keep it), "avg" or
            "max" (pool it over height and width).
        classes: Number of classes. Default: 1000, or 10 for CIFAR networks.
        classifier_activation: Activation of `fc`; None gives logits.
        name: Name of the model. Default: `model_name`, "resnet50" for example.
        output_stride: 32, 16 or 8: factor by which the last feature map is smaller than the image.
            Below 32, the last stages are dilated instead of strided; the weights stay the same. No
            effect on CIFAR networks, which end at 4.
        version: Position of the stride in bottleneck blocks: "v1.5" on the 3x3 convolution, as in
            torchvision; "v1" on the first 1x1 convolution, as in the paper. No effect on basic
            blocks. Default: "v1.5".
        shortcut: Shortcut where the shape changes, for CIFAR networks only: "A" subsamples and pads
            with zero channels, "B" projects with a 1x1 convolution. Default: "A", but "B" for
            pre-activation bottlenecks and Wide ResNets.
        dropout: Dropout rate before `fc`, or for CIFAR Wide ResNets between the convolutions of
            each block: 0 or more and less than 1.
        drop_path: Stochastic depth rate of the last block, 0 or more and less than 1; it grows
            linearly from the first block (https://arxiv.org/abs/1603.09382, section 3).
        zero_init_residual: Whether to initialize the end of each residual branch with zeros (gamma
            of the last batch normalization), so that blocks start as their shortcuts.
        synchronized: Whether to compute batch statistics over all replicas (TensorFlow only).
        include_preprocessing: Whether the model accepts RGB in 0..255 and normalises it by the mean
            and standard deviation of its `weights`; by default those of ImageNet, or to -1..1 for
            keras.applications' ResNetV2. It never resizes.
        name_prefix: Prefix of all layer names; two networks in one graph need different prefixes.
        data_format: "channels_last" or "channels_first". Default: Keras' setting.
        dtype: Dtype or dtype policy of the layers. Default: Keras' setting.
        first_conv: "strict", or "adapt" to fit the first convolution of `weights` to another
            number of input channels, as `keras_resnet.weights.load` does.
        prefix: Prefix of the network to load, if `weights` contains several, as for
            `keras_resnet.weights.load`.
        ignore: Names in `weights` that may be unused, as for `keras_resnet.weights.load`.

    Returns:
        A functional `keras.Model`. Its input is a batch of normalised images (see
        `keras_resnet.preprocess_input`), (batch, *input_shape); its output probabilities (batch,
        classes), pooled features (batch, channels), or a feature map (batch, height /
        output_stride, width / output_stride, channels). Its attribute `preprocessing` is the
        `Preprocessing` of its `weights`, None if it is unknown.

    Raises:
        ValueError: if the network does not exist, an argument is out of range, or the weights do
            not fit (`CheckpointError`).

    Example:
    >>> keras_resnet.create("resnext50_32x4d", classes=5).output.shape
    (None, 5)
    >>> backbone = keras_resnet.ResNet18(include_top=False, input_shape=(224, 224, 3))
    >>> backbone.output.shape
    (None, 7, 7, 512)
    """
    config = (
        model_name if isinstance(model_name, ResNetConfig) else row_of(CONFIGS, model_name, "model")
    )
    check_choice("first_conv", first_conv, "adapt")
    given = {"classes_given": classes is not None, "version_given": version is not None}
    version = version or "v1.5"
    data_format = data_format or keras.config.image_data_format()
    dtype = keras.dtype_policies.get(dtype or keras.config.dtype_policy())
    units = config.family.classes if classes is None else classes
    builder.check_arguments(pooling, units, output_stride, version, dropout, drop_path, data_format)
    builder.check_version(version, config)
    shortcut = builder.check_shortcut(shortcut, config)
    inputs, x = builder.inputs(input_tensor, input_shape, data_format, dtype, config.family)
    # Before building, which takes seconds.
    file = None if weights is None else locate(weights, str(model_name))
    said = None if weights is None else _preprocessing(weights, model_name)

    # Arguments of all layers; blocks pass them to their sublayers.
    common = {"data_format": data_format, "dtype": dtype}
    if include_preprocessing:
        used = said or Preprocessing(**config.pixels)
        x = builder.normalisation(x, used.mean, used.std, data_format, dtype, name_prefix)
    x = builder.stem(x, config, synchronized, name_prefix, common)
    for block in builder.blocks(
        config,
        output_stride,
        shortcut,
        dropout,
        drop_path,
        name_prefix,
        version=version,
        zero_init_residual=zero_init_residual,
        synchronized=synchronized,
        **common,
    ):
        x = block(x)
    if config.preactivation:
        x = builder.normalize(x, ("norm", "norm_relu"), synchronized, name_prefix, common)
    # A RematScope of the caller applies to the blocks only.
    with keras.RematScope(None):
        if include_top:
            x = builder.pool("avg", x, name_prefix, data_format, dtype)
            rate = 0.0 if config.dropout_inside else dropout
            x = builder.head(x, units, classifier_activation, rate, name_prefix, dtype)
        elif pooling:
            x = builder.pool(pooling, x, name_prefix, data_format, dtype)
        model = keras.Model(inputs, x, name=name or (None if config is model_name else model_name))
    if file is not None:
        load_pretrained(model, file, first_conv=first_conv, prefix=prefix, ignore=ignore, **given)
    model.preprocessing = said
    return model


def at_size(model: keras.Model, size: int | tuple[int, int] | None) -> keras.Model:
    """Returns a copy of a model for another image size, with the same weights.

    Args:
        model: A functional model with one input, channels last.
        size: Height and width in pixels, or a tuple of both; None for any size.

    Raises:
        ValueError: if the model supports only one image size.
    """
    sides = (None, None) if size is None else pair(size)
    if model.input_shape[1:3] == sides:
        return model
    try:
        image = keras.Input((*sides, model.input_shape[-1]), name="image")
        copy = keras.models.clone_model(model, input_tensors=image)
        copy.set_weights(model.get_weights())
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{model.name} supports only images of {model.input_shape[1:3]} pixels. Received: "
            f"{sides}"
        ) from error
    return copy


def _preprocessing(weights, model_name):
    """Returns the preprocessing of the weights; None if it is unknown or not supported."""
    try:
        return preprocessing_of(weights, str(model_name))
    except ValueError as error:
        logger.warning("The preprocessing of these weights is not supported: %s", error)
        return None


def __getattr__(name: str) -> Callable[..., keras.Model]:
    if name not in builders():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _builder(name, builders()[name])


@functools.cache
def _builder(public, variant):
    """Makes the public builder of a row."""

    def build(*arguments, **options):
        return create(variant, *arguments, **options)

    build.__name__ = build.__qualname__ = public
    vars(build).update(__signature__=inspect.signature(functools.partial(create, variant)))
    published = [f'"{row.name}"' for row in list_weights(variant)]
    listed = textwrap.fill(", ".join(published), 92, subsequent_indent="    ")
    _, _, arguments = (create.__doc__ or "").partition("        include_top: ")
    build.__doc__ = f"""Builds {public}: `create({variant!r}, ...)`.

    Reference: {CONFIGS[variant].paper}
    Published weights (`list_weights({variant!r})`):
    {listed or "none"}.

    Args:
        include_top: {arguments}"""
    return build
