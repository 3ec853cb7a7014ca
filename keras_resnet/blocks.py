"""The residual blocks: a main path and a shortcut, added and rectified.

A block's sublayers are named as in torchvision's state_dict, so a variable's path is its key:
`layer1.0/conv1/kernel` is `layer1.0.conv1.weight`.
"""

from typing import Any

import keras
from keras import ops

from keras_resnet.attention import EfficientChannelAttention, SqueezeExcitation
from keras_resnet.composite import Composite
from keras_resnet.layers import (
    PACKAGE,
    BatchNormalization,
    Shape,
    Tensor,
    batch_normalization,
    convolution,
)
from keras_resnet.pooling import AveragePooling2D, BlurPool2D

__all__ = ["BasicBlock", "BottleneckBlock", "ResidualBlock"]

ATTENTION = {"se": SqueezeExcitation, "eca": EfficientChannelAttention}


class ResidualBlock(Composite):
    """Base class of the residual blocks: their arguments, the shortcut, and `build`.

    `_make_main` of a subclass creates the layers of the main path, and returns them in call order.

    Args:
        filters: Channels of the output.
        width: Channels inside the block (of a bottleneck's 3x3 convolution).
        strides: Stride of the block, 1 or 2.
        dilation_rate: Dilation of the 3x3 convolutions after the one with the stride.
        first_dilation_rate: Dilation of the 3x3 convolution with the stride; `dilation_rate` if
            None. They differ in a block whose stride is replaced by dilation.
        groups: Groups of the 3x3 convolution (bottleneck only).
        version: "v1.5" strides on the 3x3 convolution (torchvision), "v1" on the first 1x1
            (He et al., 2015). No effect on basic blocks.
        projection: Whether the shortcut is a 1x1 convolution (option B of the paper, section 3.3)
            or the identity. With a stride, the identity takes every other pixel; for more channels,
            it pads with zero channels on both sides (option A, which has no parameters).
        avg_down, down_kernel, anti_aliasing, attention, reduction, reduce_first: As for
            `ResNetConfig`.
        drop_path: Probability, 0 to 1, of dropping the main path for a sample during training
            (stochastic depth, https://arxiv.org/abs/1603.09382).
        zero_init_residual: Whether the last batch normalization starts with gamma = 0, so that
            the block starts as its shortcut (https://arxiv.org/abs/1706.02677, section 5.1).
        synchronized: Whether batch statistics are computed over all replicas.
        folded: Whether batch normalization is folded into the convolutions, which then have
            biases; for inference only (`keras_resnet.export.fold`).
        data_format: "channels_last" or "channels_first"; Keras' default if None.
        parts: Config values to override in sublayers, by their names:
            `{"bn1": {"trainable": False}}`.

    Raises:
        ValueError: if `parts` names a sublayer that does not exist.
    """

    arguments: tuple[str, ...] = (
        *("filters", "width", "strides", "dilation_rate", "first_dilation_rate", "groups"),
        *("version", "projection", "avg_down", "down_kernel", "anti_aliasing", "attention"),
        *("reduction", "reduce_first", "drop_path", "zero_init_residual", "synchronized"),
        *("folded", "data_format"),
    )

    def __init__(
        self,
        filters: int,
        *,
        width: int | None = None,
        strides: int = 1,
        dilation_rate: int = 1,
        first_dilation_rate: int | None = None,
        groups: int = 1,
        version: str = "v1.5",
        projection: bool = False,
        avg_down: bool = False,
        down_kernel: int = 1,
        anti_aliasing: str | None = None,
        attention: str | None = None,
        reduction: int = 16,
        reduce_first: int = 1,
        drop_path: float = 0.0,
        zero_init_residual: bool = False,
        synchronized: bool = False,
        folded: bool = False,
        data_format: str | None = None,
        parts: dict[str, dict[str, Any]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(parts=parts, **kwargs)
        self.filters = filters
        self.width = width or filters
        self.strides = strides
        self.dilation_rate = dilation_rate
        self.first_dilation_rate = first_dilation_rate or dilation_rate
        self.groups = groups
        self.version = version
        self.projection = projection
        self.avg_down = avg_down
        self.down_kernel = down_kernel
        self.anti_aliasing = anti_aliasing
        self.attention = attention
        self.reduction = reduction
        self.reduce_first = reduce_first
        self.drop_path = drop_path
        self.zero_init_residual = zero_init_residual
        self.synchronized = synchronized
        self.folded = folded
        self.data_format = data_format or keras.config.image_data_format()
        self.main = self._make_main()
        if attention:
            make, more = ATTENTION[attention], {"reduction": reduction} if attention == "se" else {}
            self.channel_attention = self.make_part(
                make, "se", data_format=self.data_format, **more
            )
            self.main.append(self.channel_attention)
        self.shortcut = self._make_shortcut() if projection else []
        if drop_path:
            # Drops whole samples: the noise is constant over height, width and channels.
            self.dropper = self.make_part(
                keras.layers.Dropout, "drop_path", rate=drop_path, noise_shape=(None, 1, 1, 1)
            )
        self.check_parts()

    def _make_shortcut(self):
        """Creates the projection, which torchvision calls "downsample" also without a stride."""
        changes = self.strides > 1 or self.dilation_rate > 1
        if not self.avg_down:
            kernel, strides = self.down_kernel if changes else 1, {"strides": self.strides}
            if kernel > 1:
                strides["dilation_rate"] = self.first_dilation_rate
            self.downsample_conv = self._conv("downsample.0", self.filters, kernel, **strides)
            self.downsample_bn = self._bn("downsample.1")
            return [self.downsample_conv, self.downsample_bn]
        # Numbered as in timm's sequence, where the pooling is 0.
        self.downsample_1 = self._conv("downsample.1", self.filters, 1)
        self.downsample_2 = self._bn("downsample.2")
        pooled = [self._pool(AveragePooling2D, "downsample.0")] if changes else []
        return [*pooled, self.downsample_1, self.downsample_2]

    def _make_blur(self):
        """Creates the anti-aliasing layer, if any; returns the stride of the 3x3 convolution."""
        self.aa = None
        moved = self.strides > 1 or self.first_dilation_rate != self.dilation_rate
        if not self.anti_aliasing or not moved:
            return self.strides
        make = AveragePooling2D if self.anti_aliasing == "avg" else BlurPool2D
        if self.strides > 1 or make is BlurPool2D:  # an average with stride 1 has no effect
            self.aa = self._pool(make, "aa")
        return 1

    def _strided(self, strides):
        """Returns the stride of a bottleneck's first convolution, and arguments of its 3x3 one."""
        first, rate = 1, self.first_dilation_rate
        if self.version == "v1":
            first, strides, rate = self.strides, 1, self.dilation_rate
        return first, {"strides": strides, "dilation_rate": rate, "groups": self.groups}

    def _pool(self, make, name):
        return self.make_part(make, name, strides=self.strides, data_format=self.data_format)

    def _conv(self, name, filters, kernel_size, **kwargs):
        return self.make_part(
            convolution,
            name,
            filters=filters,
            kernel_size=kernel_size,
            data_format=self.data_format,
            **{"use_bias": self.folded, **kwargs},
        )

    def _bn(self, name, last=False, folds=True):
        if self.folded and folds:
            return keras.layers.Identity(dtype=self.dtype_policy, name=name)
        return self.make_part(
            batch_normalization,
            name,
            data_format=self.data_format,
            synchronized=self.synchronized,
            gamma_initializer="zeros" if last and self.zero_init_residual else "ones",
        )

    def build(self, input_shape: Shape) -> None:
        self.new_channels = 0
        if not self.projection:
            axis = 1 if self.data_format == "channels_first" else -1
            self.new_channels = self.filters - input_shape[axis]
        if self.new_channels < 0:
            raise ValueError(
                f"{self.name}: an identity shortcut cannot reduce the number of channels. Use "
                f"projection=True. Received: "
                f"filters={self.filters}, input_shape={tuple(input_shape)}"
            )
        for path in (self.main, self.shortcut):
            shape = input_shape
            for layer in path:
                layer.build(shape)
                shape = layer.compute_output_shape(shape)

    def finish(self, y: Tensor, inputs: Tensor, training: bool | None) -> Tensor:
        """Adds the shortcut to the main path's output `y` and applies the last ReLU."""
        return ops.relu(self.add_shortcut(y, inputs, training))

    def add_shortcut(self, y: Tensor, inputs: Tensor, training: bool | None) -> Tensor:
        """Applies channel attention and stochastic depth to `y`, and adds the shortcut."""
        if self.attention:
            y = self.channel_attention(y)
        if self.drop_path:
            y = self.dropper(y, training=training)
        x = inputs if self.projection else self._identity(inputs)
        for layer in self.shortcut:
            more = {"training": training} if isinstance(layer, BatchNormalization) else {}
            x = layer(x, **more)
        return ops.add(y, x)

    def _identity(self, x):
        """Brings the inputs to the shape of the output, without parameters."""
        first = self.data_format == "channels_first"
        if self.strides > 1:
            step = slice(None, None, self.strides)
            x = x[:, :, step, step] if first else x[:, step, step]
        if self.new_channels:
            # As in akamaster/pytorch_resnet_cifar10: half of the zeros before, half after.
            before = self.new_channels // 2
            zeros = (before, self.new_channels - before)
            none = (0, 0)
            x = ops.pad(x, (none, zeros, none, none) if first else (none, none, none, zeros))
        return x

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        for layer in self.main:
            input_shape = layer.compute_output_shape(input_shape)
        return input_shape


@keras.saving.register_keras_serializable(PACKAGE)
class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions (He et al., 2015, figure 5 left): ResNet-18, -34 and CIFAR ResNets.

    Takes the arguments of `ResidualBlock`; `width`, `groups` and `version` have no effect.
    Input (batch, height, width, channels), output (batch, height / strides, width / strides,
    filters).
    """

    def _make_main(self):
        first = {"strides": self._make_blur(), "dilation_rate": self.first_dilation_rate}
        self.conv1 = self._conv("conv1", self.filters, 3, **first)
        self.bn1 = self._bn("bn1")
        self.conv2 = self._conv("conv2", self.filters, 3, dilation_rate=self.dilation_rate)
        self.bn2 = self._bn("bn2", last=True)
        return [self.conv1, self.bn1, *filter(None, [self.aa]), self.conv2, self.bn2]

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        y = ops.relu(self.bn1(self.conv1(inputs), training=training))
        y = self.aa(y) if self.aa else y
        y = self.bn2(self.conv2(y), training=training)
        return self.finish(y, inputs, training)


@keras.saving.register_keras_serializable(PACKAGE)
class BottleneckBlock(ResidualBlock):
    """1x1, 3x3 and 1x1 convolutions (He et al., 2015, figure 5 right): ResNet-50 and deeper.

    ResNeXt blocks have `groups`, Wide ResNet blocks a larger `width`. Takes the arguments of
    `ResidualBlock`. Input (batch, height, width, channels), output (batch, height / strides,
    width / strides, filters).
    """

    def _make_main(self):
        first, main = self._strided(self._make_blur())
        self.conv1 = self._conv("conv1", self.width // self.reduce_first, 1, strides=first)
        self.bn1 = self._bn("bn1")
        self.conv2 = self._conv("conv2", self.width, 3, **main)
        self.bn2 = self._bn("bn2")
        self.conv3 = self._conv("conv3", self.filters, 1)
        self.bn3 = self._bn("bn3", last=True)
        after = [*filter(None, [self.aa]), self.conv3, self.bn3]
        return [self.conv1, self.bn1, self.conv2, self.bn2, *after]

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        y = ops.relu(self.bn1(self.conv1(inputs), training=training))
        y = ops.relu(self.bn2(self.conv2(y), training=training))
        y = self.aa(y) if self.aa else y
        y = self.bn3(self.conv3(y), training=training)
        return self.finish(y, inputs, training)
