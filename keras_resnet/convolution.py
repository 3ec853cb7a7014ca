"""Four implementations of convolution ("paths"), and the choice between them.

| path | chosen | grouped convolutions | gradients |
|---|---|---|---|
| "stock" | on JAX and PyTorch | Keras' own | Keras' own |
| "native" | on TensorFlow's GPU or TPU | TensorFlow's, not wrapped in XLA | TensorFlow's |
| "onednn" | on a CPU, where oneDNN has the gradient | TensorFlow's | oneDNN's, also at stride 2 |
| "eigen" | on a CPU otherwise | merged into blocks of groups | input's: forward convolutions |

The reasons, each measured (docs/performance.md):

- Keras compiles every grouped convolution of TensorFlow with XLA, on any device: on a CPU that
  is tens of times slower, and it exports as an operation that ONNX does not have.
- oneDNN, which TensorFlow uses on x86 processors with AVX512-VNNI (or wherever
  TF_ENABLE_ONEDNN_OPTS=1 is set), computes groups and gradients near the machine's peak, but
  has no gradient with explicit padding: there zeros are padded beforehand.
- Without it, TensorFlow has no CPU gradient for groups, and its gradient for the input takes up
  to thirty times as long as the forward convolution that the same sum is.
"""

import contextlib
import contextvars
import functools
import os
import platform
from collections.abc import Iterator

import keras
from keras import ops

from keras_resnet.cpu_convolution import convolve_on_cpu, margins

PATHS = ("stock", "native", "onednn", "eigen")

_forced: contextvars.ContextVar[str | None] = contextvars.ContextVar(
    "convolution_path", default=None
)


@contextlib.contextmanager
def convolution_path(path: str) -> Iterator[None]:
    """Forces one path of `PATHS` for every convolution that is called or traced inside the context.

    For tests, and for exports: a graph keeps the path that it was traced with. A thread that
    starts inside (a replica of MirroredStrategy) chooses for itself.

    Example:
    >>> model = keras_resnet.ResNeXt50_32x4d()
    >>> with keras_resnet.layers.convolution_path("native"):  # grouped: one Conv, on any machine
    ...     model.export("resnext.onnx", format="onnx")  # doctest: +SKIP

    Raises:
        ValueError: if the path is unknown, or not "stock" on a backend other than TensorFlow.
    """
    if path not in PATHS:
        raise ValueError(f"path should be one of {PATHS}. Received: path={path!r}")
    if path != "stock" and keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"The path {path!r} needs the TensorFlow backend. The backend is "
            f"{keras.backend.backend()!r}, which supports only 'stock'."
        )
    token = _forced.set(path)
    try:
        yield
    finally:
        _forced.reset(token)


def choose_path(x, dtype: str) -> str:
    """Returns the path for a convolution of `x` in this dtype: the forced one, or the fastest."""
    if forced := _forced.get():
        return forced
    if keras.backend.backend() != "tensorflow":
        return "stock"
    if _has_accelerator() and not _is_placed_on_cpu(x):
        return "native"
    return "onednn" if _has_grouped_gradient(dtype) else "eigen"


def lacks_onednn() -> bool:
    """Whether this is an x86 CPU without oneDNN, and TF_ENABLE_ONEDNN_OPTS is not set."""
    import tensorflow as tf

    return (
        platform.machine() in ("x86_64", "AMD64")
        and "TF_ENABLE_ONEDNN_OPTS" not in os.environ
        and choose_path(tf.zeros(()), "float32") == "eigen"
    )


def convolve(x, kernel, *, strides, padding, dilation_rate, groups, data_format):
    """Computes a 2D convolution with the path that `choose_path` returns.

    Args:
        x: Tensor of shape (batch, height, width, channels), or as `data_format` says.
        kernel: Tensor of shape (height, width, channels / groups, filters). It may be wider
            than `x` (float32 with float16), and so may its gradient.
        strides: Two integers.
        padding: "valid", "same", or "symmetric": `dilation * (size - 1) // 2` zeros on each
            side, for kernels of odd sizes.
        dilation_rate: Two integers.
        groups: Number of groups.
        data_format: "channels_last" or "channels_first".

    Raises:
        ValueError: if `x` is not of a floating type.
    """
    dtype = keras.backend.standardize_dtype(x.dtype)
    if not keras.backend.is_float_dtype(dtype):
        raise ValueError(
            f"A convolution needs floating-point input: cast it first. Received: dtype={dtype}"
        )
    wide = _cpu_dtype(dtype, groups)
    path = choose_path(x, wide)
    if padding == "symmetric" and max(strides) == 1:
        padding = "same"  # the same zeros, without an extra operation
    if path in ("onednn", "eigen"):
        if wide != dtype:
            # The kernel is rounded to 16 bits, its gradient is not.
            rounded = ops.cast(ops.cast(kernel, dtype), wide)
            kernel = ops.cast(kernel, wide)
            kernel = kernel + ops.stop_gradient(rounded - kernel)
        x, kernel = ops.cast(x, wide), ops.cast(kernel, wide)
        y = convolve_on_cpu(x, kernel, strides, padding, dilation_rate, groups, data_format, path)
        return ops.cast(y, dtype)
    kernel = ops.cast(kernel, dtype)
    first = 2 if data_format == "channels_first" else 1  # spatial axis
    zeros = [[margin, margin] for margin in margins(kernel.shape[:2], dilation_rate)]
    zeros = [[0, 0]] * first + zeros + [[0, 0]] * (2 - first)
    if path == "stock":
        if padding == "symmetric":
            x, padding = ops.pad(x, zeros), "valid"
        return ops.conv(
            x,
            kernel,
            strides=list(strides),
            padding=padding,
            data_format=data_format,
            dilation_rate=dilation_rate,
        )
    import tensorflow as tf

    return tf.nn.conv2d(
        x,
        kernel,
        strides,
        zeros if padding == "symmetric" else padding.upper(),
        data_format="NCHW" if data_format == "channels_first" else "NHWC",
        dilations=dilation_rate,
    )


def _cpu_dtype(dtype: str, groups: int) -> str:
    """Returns the dtype to compute in on a CPU: float32 for float16, and for groups in 16 bits."""
    grouped_16_bit = groups > 1 and dtype == "bfloat16"
    return "float32" if dtype == "float16" or grouped_16_bit else dtype


def _has_accelerator() -> bool:
    import tensorflow as tf

    return any(device.device_type != "CPU" for device in tf.config.get_visible_devices())


def _is_placed_on_cpu(x) -> bool:
    """Whether an operation on `x` would be placed on a CPU, for example by `tf.device("CPU")`.

    There is no public function for this, so the device of an operation is checked; `x` itself may
    be on another device.
    """
    import tensorflow as tf

    place = tf.identity(x).device
    if not place:  # in a graph without a device scope, which runs on the default device
        with tf.init_scope():
            place = tf.zeros(()).device
    return tf.DeviceSpec.from_string(place).device_type == "CPU"


def _has_grouped_gradient(dtype: str) -> bool:
    """Whether this CPU supports gradients of grouped convolutions: oneDNN does, Eigen does not.

    TensorFlow has no public function for this, so a minimal one is tried, once per dtype. In a
    TensorFlow 1 graph, where nothing can be run, the result is False.
    """
    import tensorflow as tf

    with tf.init_scope():
        return tf.executing_eagerly() and _try_grouped_gradient(dtype)


@functools.lru_cache
def _try_grouped_gradient(dtype: str) -> bool:
    import tensorflow as tf

    with tf.device("CPU"):
        ones = tf.ones((1, 1, 1, 2), dtype)
        try:
            tf.raw_ops.Conv2DBackpropFilter(
                input=ones,
                filter_sizes=(1, 1, 1, 2),
                out_backprop=ones,
                strides=(1, 1, 1, 1),
                padding="SAME",
            )
        except tf.errors.OpError:
            return False
    return True
