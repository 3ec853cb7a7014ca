"""Channel attention: multiplies each channel of a block's output by a factor from 0 to 1.

The factors are computed from the global average of every channel.
"""

import math
from typing import Any

import keras
from keras import ops

from keras_resnet.composite import Composite
from keras_resnet.layers import PACKAGE, Shape, Tensor, convolution

__all__ = ["ChannelAttention", "EfficientChannelAttention", "SqueezeExcitation"]


class ChannelAttention(Composite):
    """Base class: global average pooling, scores by `_score`, a sigmoid, and a product.

    The convolutions are made in `build`, where the number of channels is known. `multiply_adds` is
    the number of multiply-adds of the scores for one image.
    """

    arguments: tuple[str, ...] = ("data_format",)
    multiply_adds = 0

    def __init__(self, *, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data_format = data_format or keras.config.image_data_format()
        self.channel_axis = 1 if self.data_format == "channels_first" else 3

    def call(self, inputs: Tensor) -> Tensor:
        axes = (2, 3) if self.channel_axis == 1 else (1, 2)
        scores = self._score(ops.mean(inputs, axes, keepdims=True))
        return ops.multiply(inputs, ops.sigmoid(scores))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return tuple(input_shape)


def squeezed_channels(channels: int, reduction: int) -> int:
    """Returns the channels between the two convolutions: a multiple of 8, rounded as in timm."""
    return max(8, int(channels / reduction + 4) // 8 * 8)


@keras.saving.register_keras_serializable(PACKAGE)
class SqueezeExcitation(ChannelAttention):
    """Squeeze-and-excitation: channel attention by two 1x1 convolutions, with a ReLU between them.

    Args:
        reduction: Reduction ratio of the channels between them, rounded by `squeezed_channels`.
        data_format: "channels_last" or "channels_first"; Keras' default if None.

    Input and output (batch, height, width, channels).

    Source: Hu et al., Squeeze-and-Excitation Networks, https://arxiv.org/abs/1709.01507,
    section 3; timm 1.0, timm/layers/squeeze_excite.py, which has the same layer names.
    """

    arguments = (*ChannelAttention.arguments, "reduction")

    def __init__(self, reduction: int = 16, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.reduction = reduction

    def build(self, input_shape: Shape) -> None:
        channels = input_shape[self.channel_axis]
        fewer = squeezed_channels(channels, self.reduction)
        one = (1, 1)
        means = (None, channels, *one) if self.channel_axis == 1 else (None, *one, channels)
        squeezed = (None, fewer, *one) if self.channel_axis == 1 else (None, *one, fewer)
        common = {"kernel_size": 1, "use_bias": True, "data_format": self.data_format}
        self.fc1 = self.make_part(convolution, "fc1", filters=fewer, activation="relu", **common)
        self.fc2 = self.make_part(convolution, "fc2", filters=channels, **common)
        self.check_parts()
        self.fc1.build(means)
        self.fc2.build(squeezed)
        self.multiply_adds = 2 * channels * fewer

    def _score(self, means):
        return self.fc2(self.fc1(means))


@keras.saving.register_keras_serializable(PACKAGE)
class EfficientChannelAttention(ChannelAttention):
    """Efficient channel attention: a 1D convolution over neighbouring channels.

    Args:
        data_format: "channels_last" or "channels_first"; Keras' default if None.

    Input and output (batch, height, width, channels).

    Source: Wang et al., ECA-Net, https://arxiv.org/abs/1910.03151, section 3.3; timm 1.0,
    timm/layers/eca.py, which has the same layer name.
    """

    def build(self, input_shape: Shape) -> None:
        size = int(abs(math.log2(input_shape[self.channel_axis]) + 1) / 2)
        size = max(size if size % 2 else size + 1, 3)
        self.conv = self.make_part(
            keras.layers.Conv1D,
            "conv",
            filters=1,
            kernel_size=size,
            padding="same",
            use_bias=False,
            data_format="channels_last",  # the convolution runs over the image's channels
        )
        self.check_parts()
        self.conv.build((None, input_shape[self.channel_axis], 1))
        self.multiply_adds = size * input_shape[self.channel_axis]

    def _score(self, means):
        channels = means.shape[self.channel_axis]
        return ops.reshape(self.conv(ops.reshape(means, (-1, channels, 1))), ops.shape(means))
