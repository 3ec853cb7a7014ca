"""Pre-activation blocks: batch normalization and ReLU before each convolution (He et al., 2016).

The identity path through all blocks makes it possible to train networks of a thousand layers.
Sublayers are named as in other blocks; `bn1` is the first of them.

Source: He et al., Identity Mappings in Deep Residual Networks, https://arxiv.org/abs/1603.05027,
figure 1b and its appendix.
"""

from typing import Any

import keras
from keras import ops

from keras_resnet.blocks import ResidualBlock
from keras_resnet.layers import PACKAGE, Tensor
from keras_resnet.pooling import AveragePooling2D

__all__ = ["PreactivationBasicBlock", "PreactivationBlock", "PreactivationBottleneckBlock"]


class PreactivationBlock(ResidualBlock):
    """Base class of the pre-activation blocks, whose projection has no batch normalization.

    Args:
        filters: As for `ResidualBlock`, like all other arguments. `anti_aliasing` has no effect;
            with `zero_init_residual`, the last convolution is initialized with zeros.
        use_bias: Whether convolutions without a following batch normalization have a bias.
        dropout: Dropout rate between the convolutions of a basic block, 0 to 1.
        activates_shortcut: Whether the shortcut's input is normalized and rectified, as it always
            is if the number of channels changes.
    """

    arguments: tuple[str, ...] = (
        *ResidualBlock.arguments,
        "use_bias",
        "dropout",
        "activates_shortcut",
    )

    def __init__(
        self,
        filters: int,
        *,
        use_bias: bool = False,
        dropout: float = 0.0,
        activates_shortcut: bool = False,
        **kwargs: Any,
    ) -> None:
        self.use_bias = use_bias
        self.dropout = dropout
        self.activates_shortcut = activates_shortcut
        super().__init__(filters, **kwargs)

    def _make_shortcut(self):
        """Creates the projection, whose input is already normalized."""
        changes = self.strides > 1 or self.dilation_rate > 1
        pooled = self.avg_down and changes
        pools = [self._pool(AveragePooling2D, "downsample.pool")] if pooled else []
        strides = 1 if pooled else self.strides
        self.downsample_conv = self._conv(
            "downsample.0", self.filters, 1, strides=strides, use_bias=self.use_bias
        )
        return [*pools, self.downsample_conv]

    def _last_conv(self, name, kernel_size, **kwargs):
        if self.zero_init_residual:
            kwargs["kernel_initializer"] = "zeros"
        return self._conv(name, self.filters, kernel_size, use_bias=self.use_bias, **kwargs)

    @property
    def shares_activation(self) -> bool:
        """Whether the shortcut has the same input as the first convolution."""
        return self.activates_shortcut or self.projection or self.new_channels > 0

    def _add(self, y, activated, inputs, training):
        x = activated if self.shares_activation else inputs
        return self.add_shortcut(y, x, training)


@keras.saving.register_keras_serializable(PACKAGE)
class PreactivationBasicBlock(PreactivationBlock):
    """Two 3x3 convolutions; Wide ResNets for CIFAR have more `filters` and dropout.

    Takes the arguments of `PreactivationBlock`; `width`, `groups` and `version` have no effect.
    Input (batch, height, width, channels), output (batch, height / strides, width / strides,
    filters).
    """

    def _make_main(self):
        first = {"strides": self.strides, "dilation_rate": self.first_dilation_rate}
        self.bn1 = self._bn("bn1", folds=False)
        self.conv1 = self._conv("conv1", self.filters, 3, **first)
        self.bn2 = self._bn("bn2")
        self.conv2 = self._last_conv("conv2", 3, dilation_rate=self.dilation_rate)
        if self.dropout:
            self.dropout_layer = self.make_part(keras.layers.Dropout, "dropout", rate=self.dropout)
        return [self.bn1, self.conv1, self.bn2, self.conv2]

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        x = ops.relu(self.bn1(inputs, training=training))
        y = ops.relu(self.bn2(self.conv1(x), training=training))
        y = self.dropout_layer(y, training=training) if self.dropout else y
        y = self.conv2(y)
        return self._add(y, x, inputs, training)


@keras.saving.register_keras_serializable(PACKAGE)
class PreactivationBottleneckBlock(PreactivationBlock):
    """1x1, 3x3 and 1x1 convolutions: ResNetV2-50 and deeper, and ResNet-164 and -1001 for CIFAR.

    Takes the arguments of `PreactivationBlock`; `dropout` has no effect. Input (batch, height,
    width, channels), output (batch, height / strides, width / strides, filters).
    """

    def _make_main(self):
        first, main = self._strided(self.strides)
        self.bn1 = self._bn("bn1", folds=False)
        self.conv1 = self._conv("conv1", self.width, 1, strides=first)
        self.bn2 = self._bn("bn2")
        self.conv2 = self._conv("conv2", self.width, 3, **main)
        self.bn3 = self._bn("bn3")
        self.conv3 = self._last_conv("conv3", 1)
        return [self.bn1, self.conv1, self.bn2, self.conv2, self.bn3, self.conv3]

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        x = ops.relu(self.bn1(inputs, training=training))
        y = ops.relu(self.bn2(self.conv1(x), training=training))
        y = ops.relu(self.bn3(self.conv2(y), training=training))
        y = self.conv3(y)
        return self._add(y, x, inputs, training)
