"""Grouped convolutions and gradients that TensorFlow lacks, or computes slowly, on a CPU."""

# Adjacent groups are merged into blocks of this many channels: narrower blocks do not use the
# vector units well, wider ones multiply too many zeros.
MERGED_CHANNELS = 16


def margins(kernel_size, dilation_rate) -> list[int]:
    """Returns the symmetric padding on each side of both spatial axes."""
    return [rate * (size - 1) // 2 for size, rate in zip(kernel_size, dilation_rate, strict=True)]


def convolve_on_cpu(x, kernel, strides, padding, dilation_rate, groups, data_format, path):
    """Computes a convolution with the path "onednn" or "eigen"; arguments as for `convolve`.

    TensorFlow's CPU operations support channels_last only.
    """
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
    """Computes a convolution with symmetric padding, whose gradients are those of `path`."""
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
            # Padding again takes less memory than keeping the padded copy until here.
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

        if (
            path == "onednn" and not plain
        ):  # oneDNN supports explicit padding in the forward operation
            return tf.nn.conv2d(x, kernel, strides, zeros), gradient
        return tf.nn.conv2d(pad(x), kernel, strides, padding), gradient

    return convolution(x, kernel)


def _input_gradient(dy, kernel, strides, shape):
    """Computes the input gradient of a symmetrically padded convolution by forward convolutions.

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
        """Returns each phase's rows of the kernel and of `dy`, and padding; None without rows."""
        size, stride = kernel.shape[axis], strides[axis]
        for phase in range(stride):
            reach, first = divmod(phase + size // 2, stride)
            before = len(range(first, size, stride)) - 1 - reach  # negative: rows to skip
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
    # (batch, rows, stride, columns, stride, channels): interleaves the phases
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
