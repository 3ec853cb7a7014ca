"""How a convolution is computed: four paths, and the one place that chooses between them.

| path | chosen | grouped convolutions | gradients |
|---|---|---|---|
| "stock" | on JAX and PyTorch | Keras' own | Keras' own |
| "native" | on TensorFlow with a GPU or TPU | TensorFlow's, not wrapped in XLA | TensorFlow's |
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

import keras
from keras import ops

PATHS = ("stock", "native", "onednn", "eigen")

# Neighbouring groups are merged until a block of them has this many channels: narrower blocks
# leave the matrix units idle, wider ones multiply too many zeros.
MERGED_CHANNELS = 16

_forced: contextvars.ContextVar[str | None] = contextvars.ContextVar(
    "convolution_path", default=None
)


@contextlib.contextmanager
def convolution_path(path: str):
    """Forces one path of `PATHS` on every convolution that is called or traced inside.

    For tests, and for exports: a graph keeps the path that it was traced with. A thread that
    starts inside (a replica of MirroredStrategy) chooses for itself.

    Example:
    >>> with keras_resnet.layers.convolution_path("native"):
    ...     model.export("resnext.onnx", format="onnx")  # grouped: one Conv, whatever the machine

    Raises:
        ValueError: if the path is unknown, or another than "stock" on a backend other than
            TensorFlow.
    """
    if path not in PATHS:
        raise ValueError(f"path should be one of {PATHS}. Received: path={path!r}")
    if path != "stock" and keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"The path {path!r} is TensorFlow's; the backend is {keras.backend.backend()!r}, "
            "which has 'stock' only."
        )
    token = _forced.set(path)
    try:
        yield
    finally:
        _forced.reset(token)


def choose_path(dtype: str) -> str:
    """The path of a convolution of this dtype: the forced one, or the machine's best."""
    if forced := _forced.get():
        return forced
    if keras.backend.backend() != "tensorflow":
        return "stock"
    if _has_accelerator():
        return "native"
    return "onednn" if _has_grouped_gradient(dtype) else "eigen"


def convolve(x, kernel, *, strides, padding, dilation_rate, groups, data_format):
    """A 2D convolution by the path that `choose_path` gives.

    Args:
        x: Tensor of shape (batch, height, width, channels), or as `data_format` says.
        kernel: Tensor of shape (height, width, channels / groups, filters). It may be wider
            than `x` (float32 beside float16), and its gradient is as wide.
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
            f"A convolution takes floating-point values: cast its input. Received: dtype={dtype}"
        )
    wide = _cpu_dtype(dtype, groups)
    path = choose_path(wide)
    if padding == "symmetric" and max(strides) == 1:
        padding = "same"  # the same zeros, and no operation of its own for them
    if path in ("onednn", "eigen"):
        if wide != dtype:
            # The values that 16 bits have, but a gradient that is not rounded to them.
            rounded = ops.cast(ops.cast(kernel, dtype), wide)
            kernel = ops.cast(kernel, wide)
            kernel = kernel + ops.stop_gradient(rounded - kernel)
        x, kernel = ops.cast(x, wide), ops.cast(kernel, wide)
        y = _on_cpu(x, kernel, strides, padding, dilation_rate, groups, data_format, path)
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
    """What a CPU computes in: it has no float16, and groups as Keras' XLA does them, in float32."""
    grouped_16_bit = groups > 1 and dtype == "bfloat16"
    return "float32" if dtype == "float16" or grouped_16_bit else dtype


def margins(kernel_size, dilation_rate) -> list[int]:
    """Zeros before and after each spatial axis under symmetric padding."""
    return [rate * (size - 1) // 2 for size, rate in zip(kernel_size, dilation_rate, strict=True)]


def _on_cpu(x, kernel, strides, padding, dilation_rate, groups, data_format, path):
    """TensorFlow's CPU has its operations for channels_last only."""
    import tensorflow as tf

    channels_first = data_format == "channels_first"
    if channels_first:
        x = tf.transpose(x, (0, 2, 3, 1))
    odd = all(size % 2 for size in kernel.shape[:2])
    pads_evenly = padding == "symmetric" or (padding == "same" and odd and max(strides) == 1)

    def single(x, kernel):
        if max(dilation_rate) > 1:  # then the strides are 1
            return tf.nn.convolution(x, kernel, 1, padding.upper(), dilations=dilation_rate)
        if pads_evenly:
            return _symmetric(x, kernel, tuple(strides), path)
        return tf.nn.conv2d(x, kernel, strides, padding.upper())

    if groups == 1 or path == "onednn":
        y = single(x, kernel)
    else:
        kernels = merge_groups(kernel, groups)
        parts = zip(tf.split(x, len(kernels), axis=-1), kernels, strict=True)
        y = tf.concat([single(part, merged) for part, merged in parts], axis=-1)
    return tf.transpose(y, (0, 3, 1, 2)) if channels_first else y


def _symmetric(x, kernel, strides, path):
    """A convolution with symmetric padding and the gradients of `path`."""
    import tensorflow as tf

    height, width = margins(kernel.shape[:2], (1, 1))
    dense = x.shape[-1] == kernel.shape[2]
    plain = max(strides) == 1 or not (height or width)
    zeros = [[0, 0], [height, height], [width, width], [0, 0]]
    padding = "SAME" if max(strides) == 1 else "VALID"

    def pad(x):
        return x if plain else tf.pad(x, zeros)

    @tf.custom_gradient
    def convolution(x, kernel):
        def gradient(dy):
            # Padded again rather than kept: the copy would live until here.
            padded = pad(x)
            arguments = {"out_backprop": dy, "strides": (1, *strides, 1), "padding": padding}
            if path == "eigen":
                dx = _input_gradient(dy, kernel, strides, tf.shape(x))
            else:
                dx = tf.raw_ops.Conv2DBackpropInput(
                    input_sizes=tf.shape(padded), filter=kernel, **arguments
                )
                if not plain:
                    dx = dx[:, height : height + tf.shape(x)[1], width : width + tf.shape(x)[2]]
            if kernel.shape[:2] == (1, 1) and max(strides) == 1 and dense:
                rows = tf.reshape(x, (-1, kernel.shape[2]))
                drows = tf.reshape(dy, (-1, kernel.shape[3]))
                dkernel = tf.matmul(rows, drows, transpose_a=True)[None, None]
            else:
                dkernel = tf.raw_ops.Conv2DBackpropFilter(
                    input=padded, filter_sizes=kernel.shape, **arguments
                )
            return dx, dkernel

        if path == "onednn" and not plain:  # which takes it forward
            return tf.nn.conv2d(x, kernel, strides, zeros), gradient
        return tf.nn.conv2d(pad(x), kernel, strides, padding), gradient

    return convolution(x, kernel)


def _input_gradient(dy, kernel, strides, shape):
    """The gradient for the input of a symmetrically padded convolution, by forward convolutions.

    Input row `s * q + r` meets the kernel's rows `t` with `t = r + margin (mod s)` only, in
    output rows `q + (r + margin - t) / s`. So each of the `s` phases `r`, along either axis, is a
    convolution at stride 1 with every `s`-th row of the reversed kernel.

    Args:
        dy: Gradient of the output, (batch, rows, columns, filters).
        kernel: (height, width, channels, filters), of odd sizes.
        strides: Two integers.
        shape: The input's shape, a tensor.
    """
    import tensorflow as tf

    def phases(axis):
        """Each phase's rows of the kernel and of `dy`, and zeros around those; None if no rows."""
        size, stride = kernel.shape[axis], strides[axis]
        for phase in range(stride):
            reach, first = divmod(phase + size // 2, stride)
            before = len(range(first, size, stride)) - 1 - reach  # below 0: rows to leave out
            zeros = [max(before, 0), reach]
            rows = slice(max(-before, 0), None)
            yield (slice(first, None, stride), rows, zeros) if first < size else None

    def part(vertical, horizontal):
        if not (vertical and horizontal):
            return tf.zeros(tf.concat([tf.shape(dy)[:3], kernel.shape[2:3]], 0), dy.dtype)
        taps, rows, zeros = zip(vertical, horizontal, strict=True)
        reversed_taps = tf.transpose(tf.reverse(kernel[taps], (0, 1)), (0, 1, 3, 2))
        return tf.nn.conv2d(dy[:, *rows], reversed_taps, 1, [[0, 0], *zeros, [0, 0]])

    rows = [[part(v, h) for h in phases(1)] for v in phases(0)]
    if max(strides) == 1:
        return rows[0][0]
    # (batch, rows, stride, columns, stride, channels): the phases between one another
    dx = tf.stack([tf.stack(row, axis=3) for row in rows], axis=2)
    height, width = strides[0] * tf.shape(dy)[1], strides[1] * tf.shape(dy)[2]
    dx = tf.reshape(dx, (-1, height, width, kernel.shape[2]))
    return dx[:, : shape[1], : shape[2]]


def merge_groups(kernel, groups: int) -> list:
    """Splits a grouped TensorFlow kernel into a few block-diagonal ones of plain convolutions.

    Args:
        kernel: Tensor of shape (height, width, channels / groups, filters).
        groups: Number of groups.

    Returns:
        Kernels for consecutive, equal slices of the input's channels.
    """
    import tensorflow as tf

    height, width, channels, filters = kernel.shape
    merged = max(1, min(groups, MERGED_CHANNELS // max(channels, filters // groups)))
    while groups % merged:
        merged -= 1
    if merged == 1:
        return tf.split(kernel, groups, axis=-1)
    blocks = groups // merged
    # (H, W, 1, C/g, blocks, merged, F/g) times the identity of (merged, merged)
    split = tf.reshape(kernel, (height, width, 1, channels, blocks, merged, filters // groups))
    eye = tf.reshape(tf.eye(merged, dtype=kernel.dtype), (merged, 1, 1, merged, 1))
    diagonal = tf.reshape(
        split * eye, (height, width, merged * channels, blocks, filters // blocks)
    )
    return tf.unstack(diagonal, axis=3)


def _has_accelerator() -> bool:
    import tensorflow as tf

    return any(device.device_type != "CPU" for device in tf.config.get_visible_devices())


def _has_grouped_gradient(dtype: str) -> bool:
    """Whether this CPU has gradients of grouped convolutions: oneDNN does, Eigen does not.

    TensorFlow has no public way to ask, so the smallest one is tried, once for a dtype. In a
    graph of TensorFlow 1, where nothing can be tried, the answer is no.
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
