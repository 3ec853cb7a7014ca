"""Every path of a convolution against stock Keras layers in float64, outputs and gradients."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from keras_resnet import convolution
from keras_resnet.convolution import choose_path, convolution_path
from keras_resnet.layers import Conv2D

FAST_PATHS = ["native", "onednn", "eigen"]
CHANNELS = 64


def relative_error(ours, reference):
    ours, reference = np.asarray(ours, np.float64), np.asarray(reference, np.float64)
    assert ours.shape == reference.shape
    return np.abs(ours - reference).max() / np.abs(reference).max()


def results(layer, x, compiled=None):
    """The output, and the gradients of the sum of its squares for the input and each weight."""

    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
            loss = tf.reduce_sum(tf.square(tf.cast(y, layer.variable_dtype)))
        return [y, *tape.gradient(loss, [x, *[v.value for v in layer.trainable_variables]])]

    values = tf.convert_to_tensor(x)
    return (compiled(step) if compiled else step)(values)


def stock_layer(kernel, padding, dilation, dtype, **arguments):
    """Stock Keras: a padding layer and a convolution, in one layer."""

    class Stock(keras.layers.Layer):
        def __init__(self):
            super().__init__(dtype=dtype)
            margin = dilation * (kernel - 1) // 2 if padding == "symmetric" else 0
            self.pad = keras.layers.ZeroPadding2D(margin, dtype=dtype)
            self.convolution = keras.layers.Conv2D(
                CHANNELS,
                kernel,
                padding="same" if padding == "same" else "valid",
                dilation_rate=dilation,
                dtype=dtype,
                **arguments,
            )

        def build(self, shape):
            self.convolution.build(self.pad.compute_output_shape(shape))

        def call(self, x):
            return self.convolution(self.pad(x))

    return Stock()


@st.composite
def cases(draw):
    """The arguments of a convolution that has an output and that Keras allows."""
    case = {
        "kernel": draw(st.sampled_from([1, 3, 7])),
        "padding": draw(st.sampled_from(["symmetric", "same", "valid"])),
        "dilation": draw(st.sampled_from([1, 2, 4])),
        "strides": draw(st.sampled_from([1, 2])),
        "groups": draw(st.sampled_from([1, 2, 32, CHANNELS])),
        "use_bias": draw(st.booleans()),
    }
    size = draw(st.sampled_from([(8, 8), (9, 7), (5, 12)]))
    assume(case["strides"] == 1 or case["dilation"] == 1)
    assume(case["padding"] != "valid" or case["dilation"] * (case["kernel"] - 1) < min(size))
    return case, (draw(st.sampled_from([1, 5])), *size, CHANNELS)


def check(case, shape, path, dtype="float32", data_format="channels_last", compiled=None):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    grouped = case["groups"] > 1
    compute_dtype = keras.dtype_policies.get(dtype).compute_dtype
    if path != "eigen" and grouped and not compiled:  # a machine that does not have it
        assume(convolution._has_grouped_gradient(compute_dtype))
    if path == "native" and case["dilation"] > 1 and not compiled:  # a GPU's, not a CPU's
        assume(choose_path(compute_dtype) == "onednn")
    arguments = dict(case)
    kernel, padding, dilation = (arguments.pop(k) for k in ("kernel", "padding", "dilation"))
    ours = Conv2D(
        CHANNELS,
        kernel,
        padding=padding,
        dilation_rate=dilation,
        data_format=data_format,
        dtype=dtype,
        **arguments,
    )
    first = data_format == "channels_first"
    ours_x = x.transpose(0, 3, 1, 2) if first else x
    ours.build(ours_x.shape)
    references = {}
    for policy in {"float64", dtype}:
        layer = stock_layer(kernel, padding, dilation, policy, **arguments)
        layer.build(x.shape)
        layer.convolution.set_weights(ours.get_weights())
        if policy == "float64":
            references[policy] = results(layer, x.astype(np.float64))
        elif dtype != "float32":
            references[policy] = results(layer, x)
    with convolution_path(path):
        y, dx, *dweights = results(ours, ours_x, compiled)
    assert ours.compute_output_shape(ours_x.shape) == tuple(y.shape)
    if first:
        y, dx = (tf.transpose(z, (0, 2, 3, 1)) for z in (y, dx))
    for index, (result, exact) in enumerate(
        zip([y, dx, *dweights], references["float64"], strict=True)
    ):
        limit = 1e-5
        if dtype != "float32":
            limit = 1.5 * relative_error(tf.cast(references[dtype][index], tf.float64), exact)
        assert relative_error(tf.cast(result, tf.float64), exact) <= limit, index


@settings(max_examples=80, deadline=None)
@given(cases(), st.sampled_from(FAST_PATHS))
def test_paths(case, path):
    check(*case, path)


@settings(max_examples=40, deadline=None)
@given(cases(), st.sampled_from(["onednn", "eigen"]), st.sampled_from(["float16", "bfloat16"]))
def test_mixed_precision(case, path, dtype):
    check(*case, path, dtype=f"mixed_{dtype}")


@settings(max_examples=20, deadline=None)
@given(cases(), st.sampled_from(["onednn", "eigen"]))
def test_channels_first(case, path):
    check(*case, path, data_format="channels_first")


def with_dynamic_shapes(step):
    return tf.function(step, input_signature=[tf.TensorSpec((None, None, None, CHANNELS))])


def with_xla(step):
    return tf.function(step, jit_compile=True)


@settings(max_examples=20, deadline=None)
@given(cases(), st.sampled_from(FAST_PATHS))
def test_dynamic_shapes(case, path):
    check(*case, path, compiled=with_dynamic_shapes)


@settings(max_examples=10, deadline=None)
@given(cases(), st.sampled_from(FAST_PATHS))
def test_xla(case, path):
    check(*case, path, compiled=with_xla)
