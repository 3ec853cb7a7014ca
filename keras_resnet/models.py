"""The public builders, one a variant, and `create` and `list_models` over their names."""

import difflib
from collections.abc import Callable

import keras

from keras_resnet.builder import build
from keras_resnet.configs import CIFAR, CONFIGS
from keras_resnet.weights.assigning import check_choice
from keras_resnet.weights.loading import load_pretrained, locate
from keras_resnet.weights.registry import list_weights

_DOC = """Builds {title}.

    The arguments are those of `keras.applications.ResNet50`, in its order; {about}

    Args:
        include_top: Whether to end in global average pooling and a Dense layer, `fc`.
        weights: None (random){published} a path to a file that `keras_resnet.weights.load`
            takes. If `classes` is given and differs from the file's, the head stays random.
        input_tensor: Keras tensor to use as the input, from `keras.Input` or another layer.
        input_shape: Shape of one image, (height, width, channels) or, for "channels_first",
            (channels, height, width). A side may be None, otherwise it is at least {min_size}.
            Default: (None, None, 3).
        pooling: Without the top, what to do with the feature map: None (keep it), "avg" or
            "max" (pool it over height and width).
        classes: Number of classes. Default: {classes}.
        classifier_activation: Activation of `fc`; None gives logits.
        name: Name of the model.
        output_stride: 32, 16 or 8: how much smaller than the image the last feature map is. Below
            32, the last stages are dilated instead of strided; the weights stay the same. No
            effect on CIFAR networks, which end at 4.
        version: "v1.5" strides on a bottleneck's 3x3 convolution, as torchvision does; "v1" on
            its first 1x1, as in the paper. No effect on basic blocks.
        shortcut: Of CIFAR networks only, where the shape changes: "A" (their default) skips
            pixels and adds channels of zeros, "B" projects with a 1x1 convolution.
        dropout: Rate of dropout before `fc`: 0 or more and less than 1.
        drop_path: Rate of stochastic depth of the last block, 0 or more and less than 1; growing
            linearly from 0 at the first (https://arxiv.org/abs/1603.09382, section 3).
        zero_init_residual: Whether blocks start as their shortcuts (gamma of the last BN is 0).
        synchronized: Whether batch statistics are taken over all replicas (TensorFlow only).
        include_preprocessing: Whether the model takes RGB in 0..255 and normalises it by
            ImageNet's mean and standard deviation. It never resizes.
        name_prefix: Put before every layer's name: two networks in one graph need two prefixes.
        data_format: "channels_last" or "channels_first". Default: Keras' setting.
        dtype: Dtype or dtype policy of the layers. Default: Keras' setting.
        first_conv: "strict", or "adapt" to fit the first convolution of `weights` to another
            number of input channels, as `keras_resnet.weights.load` does.

    Returns:
        A functional `keras.Model` from images, already normalised (see
        `keras_resnet.preprocess_input`), of shape (batch, *input_shape) to probabilities (batch,
        classes), to pooled features (batch, {features}), or to a feature map (batch, height /
        {stride}, width / {stride}, {features}).

    Raises:
        ValueError: if an argument is out of range, or the weights do not fit (`CheckpointError`).

    Reference: {reference}

    Example:

    >>> backbone = keras_resnet.{public}(include_top=False, input_shape=({size}, {size}, 3))
    >>> backbone.output.shape
    (None, {side}, {side}, {features})
    """

_ABOUT_IMAGENET = """the network, its
    layers' names and its numbers are torchvision's `{}`."""
_ABOUT_CIFAR = """the network is
    the paper's for CIFAR-10, for images of 32 px; layers are named as in the other networks."""

RESNET = (
    "He et al., Deep Residual Learning for Image Recognition, "
    "https://arxiv.org/abs/1512.03385, table 1."
)
RESNEXT = (
    "Xie et al., Aggregated Residual Transformations for Deep Neural Networks, "
    "https://arxiv.org/abs/1611.05431, table 1."
)
CIFAR_RESNET = (
    "He et al., Deep Residual Learning for Image Recognition, "
    "https://arxiv.org/abs/1512.03385, section 4.2 and table 6."
)
WIDE_RESNET = (
    "Zagoruyko and Komodakis, Wide Residual Networks, https://arxiv.org/abs/1605.07146, section 2."
)

_BUILDERS: dict[str, Callable[..., keras.Model]] = {}


def _builder(public, variant, reference):
    """Makes the public function that builds `variant`, with its signature and docstring."""

    def builder(
        include_top=True,
        weights=None,
        input_tensor=None,
        input_shape=None,
        pooling=None,
        classes=None,
        classifier_activation="softmax",
        name=variant,
        *,
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
        first_conv="strict",
    ):
        check_choice("first_conv", first_conv, "adapt")
        if weights is not None:
            weights = locate(weights, variant)  # before the seconds that building takes
        model = build(
            CONFIGS[variant],
            include_top=include_top,
            input_tensor=input_tensor,
            input_shape=input_shape,
            pooling=pooling,
            classes=classes,
            classifier_activation=classifier_activation,
            name=name,
            output_stride=output_stride,
            version=version,
            shortcut=shortcut,
            dropout=dropout,
            drop_path=drop_path,
            zero_init_residual=zero_init_residual,
            synchronized=synchronized,
            include_preprocessing=include_preprocessing,
            name_prefix=name_prefix,
            data_format=data_format,
            dtype=dtype,
        )
        if weights is not None:
            load_pretrained(
                model, weights, classes_given=classes is not None, first_conv=first_conv
            )
        return model

    builder.__name__ = builder.__qualname__ = public
    config, family = CONFIGS[variant], CONFIGS[variant].family
    published = [f'"{row.name}"' for row in list_weights(variant)]
    stride = 4 if family is CIFAR else 32
    builder.__doc__ = _DOC.format(
        title=public,
        public=public,
        about=(_ABOUT_CIFAR if family is CIFAR else _ABOUT_IMAGENET).format(variant),
        features=config.filters(len(config.depths) - 1),
        reference=reference,
        published=f'; {" or ".join(published)} ("imagenet"), downloaded once; or'
        if published
        else " or",
        min_size=family.min_size,
        classes=family.classes,
        stride=stride if family is CIFAR else "output_stride",
        size=family.image_size,
        side=family.image_size // stride,
    )
    _BUILDERS[variant] = builder
    return builder


ResNet18 = _builder("ResNet18", "resnet18", RESNET)
ResNet34 = _builder("ResNet34", "resnet34", RESNET)
ResNet50 = _builder("ResNet50", "resnet50", RESNET)
ResNet101 = _builder("ResNet101", "resnet101", RESNET)
ResNet152 = _builder("ResNet152", "resnet152", RESNET)
ResNeXt50_32x4d = _builder("ResNeXt50_32x4d", "resnext50_32x4d", RESNEXT)
ResNeXt101_32x8d = _builder("ResNeXt101_32x8d", "resnext101_32x8d", RESNEXT)
ResNeXt101_64x4d = _builder("ResNeXt101_64x4d", "resnext101_64x4d", RESNEXT)
WideResNet50_2 = _builder("WideResNet50_2", "wide_resnet50_2", WIDE_RESNET)
WideResNet101_2 = _builder("WideResNet101_2", "wide_resnet101_2", WIDE_RESNET)
ResNet20 = _builder("ResNet20", "resnet20", CIFAR_RESNET)
ResNet32 = _builder("ResNet32", "resnet32", CIFAR_RESNET)
ResNet44 = _builder("ResNet44", "resnet44", CIFAR_RESNET)
ResNet56 = _builder("ResNet56", "resnet56", CIFAR_RESNET)
ResNet110 = _builder("ResNet110", "resnet110", CIFAR_RESNET)
ResNet1202 = _builder("ResNet1202", "resnet1202", CIFAR_RESNET)


def list_models() -> list[str]:
    """The names that `create` takes, in the order of CONFIGS: torchvision's, then CIFAR's.

    >>> keras_resnet.list_models()[:3]
    ['resnet18', 'resnet34', 'resnet50']
    """
    return list(CONFIGS)


def create(model_name, /, **arguments):
    """Builds the network called `model_name`.

    Args:
        model_name: One of `list_models()`.
        **arguments: Those of the network's builder, `keras_resnet.ResNet50` for example.

    Returns:
        A functional `keras.Model`.

    Raises:
        ValueError: if there is no such network.
        TypeError: if the builder has no such argument.

    >>> keras_resnet.create("resnext50_32x4d", classes=5, weights=None).output.shape
    (None, 5)
    """
    if model_name not in _BUILDERS:
        near = difflib.get_close_matches(str(model_name).lower(), _BUILDERS, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(_BUILDERS)}."
        raise ValueError(f"Unknown model. Received: model_name={model_name!r}. {hint}")
    return _BUILDERS[model_name](**arguments)
