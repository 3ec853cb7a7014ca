"""Pooling layers that Keras does not have."""

from typing import Any

import keras
from keras import ops

from keras_resnet.layers import PACKAGE, Shape, Tensor

__all__ = ["AveragePooling2D", "BlurPool2D", "MaxPooling2D"]


class _Pooling(keras.layers.Layer):
    """Base class of the pooling layers, with one stride for height and width."""

    def __init__(self, strides: int = 2, *, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.strides = strides
        self.data_format = data_format or keras.config.image_data_format()
        self.axes = (2, 3) if self.data_format == "channels_first" else (1, 2)

    def _pad(self, x, before, after, **how):
        return ops.pad(
            x, [(before, after) if axis in self.axes else (0, 0) for axis in range(4)], **how
        )

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        shape = list(input_shape)
        for axis in self.axes:
            if shape[axis] is not None:
                shape[axis] = (shape[axis] - 1) // self.strides + 1
        return tuple(shape)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"strides": self.strides, "data_format": self.data_format}


@keras.saving.register_keras_serializable(PACKAGE)
class BlurPool2D(_Pooling):
    """Blurs by (1, 2, 1) / 4, with reflection padding, and subsamples.

    Args:
        strides: 2, or 1 to blur only.
        data_format: "channels_last" or "channels_first"; Keras' default if None.

    Input (batch, height, width, channels), output (batch, height / strides, width / strides,
    channels).

    Source: Zhang, Making Convolutional Networks Shift-Invariant Again,
    https://arxiv.org/abs/1904.11486, section 3; timm 1.0, timm/layers/blur_pool.py.
    """

    def call(self, inputs: Tensor) -> Tensor:
        x = self._pad(inputs, 1, 1, mode="reflect")
        # Averaging twice is that filter, and 6 to 11 times as fast on a CPU as adding slices.
        x = ops.average_pool(x, 2, 1, "valid", self.data_format)
        return ops.average_pool(x, 2, self.strides, "valid", self.data_format)


@keras.saving.register_keras_serializable(PACKAGE)
class AveragePooling2D(_Pooling):
    """2x2 average pooling; at an odd edge, over the existing pixels only.

    With stride 1, pixels beyond the edge count as zeros, as in timm, where dilation replaces the
    stride.

    Args:
        strides: 1 or 2.
        data_format: "channels_last" or "channels_first"; Keras' default if None.

    Input (batch, height, width, channels), output (batch, height / strides, width / strides,
    channels).

    Source: He et al., Bag of Tricks, https://arxiv.org/abs/1812.01187, section 4.1 (ResNet-D);
    timm 1.0, timm/models/resnet.py, downsample_avg.
    """

    def call(self, inputs: Tensor) -> Tensor:
        padding = "same" if self.strides > 1 else "valid"
        x = inputs if self.strides > 1 else self._pad(inputs, 0, 1)
        return ops.average_pool(x, 2, self.strides, padding, self.data_format)


@keras.saving.register_keras_serializable(PACKAGE)
class MaxPooling2D(_Pooling):
    """3x3 max pooling with PyTorch's padding, which ignores pixels beyond the edge.

    Padding with zeros would be the same only after a ReLU.

    Args:
        strides: 1 or 2.
        data_format: "channels_last" or "channels_first"; Keras' default if None.

    Input (batch, height, width, channels), output (batch, height / strides, width / strides,
    channels). Sides should be 2 or more.
    """

    def call(self, inputs: Tensor) -> Tensor:
        # Reflected pixels are already in the window, so they do not change its maximum.
        x = self._pad(inputs, 1, 1, mode="reflect")
        return ops.max_pool(x, 3, self.strides, "valid", self.data_format)
