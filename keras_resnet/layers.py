"""Keras layers with PyTorch's padding and constants, and faster grouped convolutions.

`keras_resnet/convolution.py` chooses how a convolution is computed.
"""

import contextlib
import functools
import itertools
from typing import Any, TypeAlias

import keras
from keras import ops

from keras_resnet.convolution import convolution_path, convolve

__all__ = ["BatchNormalization", "Conv2D", "convolution_path"]

PACKAGE = "keras_resnet"
Tensor: TypeAlias = Any  # of the backend, or a keras.KerasTensor
Shape: TypeAlias = tuple[Any, ...]  # of integers, and None for dynamic dimensions

# nn.BatchNorm2d's defaults, as in torchvision (PyTorch's momentum is one minus Keras').
BATCH_NORM_EPSILON = 1e-5
BATCH_NORM_MOMENTUM = 0.9


class Recomputed(keras.layers.Layer):
    """Mixin for layers that supports `keras.RematScope`; it should be the first base class.

    Keras passes arguments by keyword, which TensorFlow's recomputation supports in eager mode only.
    And when the layer is called again for the gradient, it has to draw the same random numbers,
    and must not update moving statistics again.
    """

    def rematerialized_call(self, layer_call, inputs, *args, **kwargs):
        state = [(v, ops.copy(v)) for v in self.non_trainable_variables]
        runs = itertools.count()

        @functools.wraps(layer_call)
        def call(inputs):
            # With the initial state; updates are discarded.
            again = keras.StatelessScope(state) if next(runs) else contextlib.nullcontext()
            with again:
                return layer_call(inputs, *args, **kwargs)

        remembered = super().rematerialized_call(call, inputs, *args, **kwargs)
        return lambda inputs, *_, **__: remembered(inputs)


def _allow_dots_in_torch():
    """Allows layer names with dots, like "layer1.0", with Keras' PyTorch backend.

    There, layers are `torch.nn.Module`s that register their variables by path, in which PyTorch
    does not allow dots. A model that contains such a layer registers them too, so this applies to
    all Keras layers. Dots are replaced by "//", which does not occur in paths; only the names in
    `named_parameters()` change.
    """
    import torch

    as_before = keras.layers.Layer._track_variables

    def track_variables(layer):
        values = {variable.path: variable.value for variable in layer.variables}
        if any("." in path for path in values):
            values = {path.replace(".", "//"): value for path, value in values.items()}
            layer._torch_params = torch.nn.ParameterDict(values)
        else:
            as_before(layer)

    keras.layers.Layer._track_variables = track_variables


if keras.backend.backend() == "torch":
    _allow_dots_in_torch()


@keras.saving.register_keras_serializable(PACKAGE)
class Conv2D(keras.layers.Conv2D):
    """A `keras.layers.Conv2D` with PyTorch's padding, and groups that can be trained on a CPU.

    It has the arguments and the weights of `keras.layers.Conv2D`. In addition to "valid" and
    "same", `padding="symmetric"` adds `dilation * (kernel - 1) // 2` zeros on each side, as
    torchvision's convolutions do. ("same" pads the far side more at stride 2 on even sizes.)

    The implementation depends on the backend and the machine, the results do not:
    `keras_resnet/convolution.py` describes the choice, and `convolution_path` overrides it. Groups
    can be trained on a CPU without XLA, and `channels_first` works there too, with transpositions
    around the operation.

    Example:
    >>> layer = keras_resnet.layers.Conv2D(64, 3, strides=2, padding="symmetric", groups=32)
    >>> layer.compute_output_shape((1, 56, 56, 64))
    (1, 28, 28, 64)
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, int],
        strides: int | tuple[int, int] = (1, 1),
        padding: str = "valid",
        **kwargs: Any,
    ) -> None:
        symmetric = padding == "symmetric"
        padding = "valid" if symmetric else padding
        super().__init__(filters, kernel_size, strides=strides, padding=padding, **kwargs)
        if symmetric:
            if not all(size % 2 for size in self.kernel_size):
                raise ValueError(
                    "padding='symmetric' needs an odd kernel_size. "
                    f"Received: kernel_size={self.kernel_size}"
                )
            self.padding = "symmetric"

    def add_weight(self, *args: Any, **kwargs: Any) -> keras.Variable:
        if kwargs.get("name") == "kernel":
            kwargs["autocast"] = False  # `convolve` casts it if necessary
        return super().add_weight(*args, **kwargs)

    def convolution_op(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        return convolve(
            inputs,
            kernel,
            strides=self.strides,
            padding=self.padding,
            dilation_rate=self.dilation_rate,
            groups=self.groups,
            data_format=self.data_format,
        )

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        if self.padding != "symmetric":
            return super().compute_output_shape(input_shape)
        shape = list(input_shape)
        first = 2 if self.data_format == "channels_first" else 1
        # With an odd kernel, the padding compensates for the kernel's size.
        for axis, stride in enumerate(self.strides, first):
            if shape[axis] is not None:
                shape[axis] = (shape[axis] - 1) // stride + 1
        shape[1 if first == 2 else -1] = self.filters
        return tuple(shape)


@keras.saving.register_keras_serializable(PACKAGE)
class BatchNormalization(Recomputed, keras.layers.BatchNormalization):
    """A `keras.layers.BatchNormalization` with PyTorch's constants and running variance.

    It has the same arguments and weights. PyTorch normalises a batch with its biased variance and
    adds the *unbiased* one, n / (n - 1) times as large, to the running variance
    (`torch.nn.BatchNorm2d`); Keras' own layer adds the biased one. `epsilon` and `momentum` default
    to torchvision's 1e-5 and 0.9.

    On TensorFlow, 4D inputs with the channels last go through one fused operation; everything
    else (`synchronized=True` in training, `channels_first`, float64, other backends) through
    Keras' operations. `trainable = False` means inference mode, as in Keras.
    """

    def __init__(
        self,
        axis: int = -1,
        momentum: float = BATCH_NORM_MOMENTUM,
        epsilon: float = BATCH_NORM_EPSILON,
        **kwargs: Any,
    ) -> None:
        super().__init__(axis=axis, momentum=momentum, epsilon=epsilon, **kwargs)

    def call(self, inputs: Tensor, training: bool | None = None, mask: Any = None) -> Tensor:
        if mask is not None or getattr(self, "renorm", False):  # Keras 3.13 has no renorm
            return super().call(inputs, training=training, mask=mask)
        training = bool(training) and self.trainable
        if self._can_fuse(inputs, training):
            return self._fused(inputs, training)
        x = ops.cast(inputs, keras.backend.result_type(inputs.dtype, "float32"))
        mean, variance = self.moving_mean, self.moving_variance
        if training:
            axes = [axis for axis in range(len(x.shape)) if axis != self.axis % len(x.shape)]
            mean, variance = ops.moments(x, axes=axes, synchronized=self.synchronized)
            self._update(mean, variance * self._unbias(x, mean))
        y = ops.batch_normalization(
            x,
            mean=ops.cast(mean, x.dtype),
            variance=ops.cast(variance, x.dtype),
            axis=self.axis,
            offset=self.beta,
            scale=self.gamma,
            epsilon=self.epsilon,
        )
        return ops.cast(y, self.compute_dtype)

    def _can_fuse(self, inputs, training) -> bool:
        return (
            keras.backend.backend() == "tensorflow"
            and not (self.synchronized and training)
            and len(inputs.shape) == 4
            and self.axis in (-1, 3)
            and keras.backend.standardize_dtype(inputs.dtype) != "float64"
            and keras.backend.standardize_dtype(self.variable_dtype) == "float32"
        )

    def _fused(self, inputs, training):
        import tensorflow as tf

        channels = inputs.shape[-1:]
        scale = tf.ones(channels) if self.gamma is None else tf.convert_to_tensor(self.gamma)
        offset = tf.zeros(channels) if self.beta is None else tf.convert_to_tensor(self.beta)
        moving = map(tf.convert_to_tensor, (self.moving_mean, self.moving_variance))
        mean, variance = (None, None) if training else moving
        # In training, the operation returns the batch mean and the unbiased variance.
        y, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs, scale, offset, mean, variance, self.epsilon, is_training=training
        )
        if training:
            self._update(mean, variance)
        return y

    def _update(self, mean, unbiased_variance):
        moving = ((self.moving_mean, mean), (self.moving_variance, unbiased_variance))
        for variable, batch in moving:
            batch = ops.cast(batch, variable.dtype)
            variable.assign(variable * self.momentum + batch * (1.0 - self.momentum))

    def _unbias(self, x, mean):
        """Returns the factor n / (n - 1) for statistics over n values per channel."""
        count = ops.cast(ops.size(x), mean.dtype) / ops.cast(ops.size(mean), mean.dtype)
        if self.synchronized:
            import tensorflow as tf

            replica = tf.distribute.get_replica_context()
            if replica is not None and replica.num_replicas_in_sync > 1:
                count = replica.all_reduce(tf.distribute.ReduceOp.SUM, count)
        return count / ops.maximum(count - 1.0, 1.0)


def convolution(filters, kernel_size, *, name, data_format, dtype, use_bias=False, **kwargs):
    """Makes a convolution with symmetric padding, Kaiming normal initialization and no bias."""
    # A new initializer each time, since one instance returns equal values for equal shapes.
    kaiming = keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
    return Conv2D(
        filters,
        kernel_size,
        padding="symmetric",
        use_bias=use_bias,
        data_format=data_format,
        dtype=dtype,
        name=name,
        **{"kernel_initializer": kaiming, **kwargs},
    )


def batch_normalization(*, name, data_format, dtype, **kwargs):
    """Makes a batch normalization layer over the channels of `data_format`."""
    axis = 1 if data_format == "channels_first" else -1
    return BatchNormalization(axis=axis, dtype=dtype, name=name, **kwargs)
