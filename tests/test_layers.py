"""The layers against the stock ones in float64, and batch statistics against PyTorch's formula."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_resnet.layers import BatchNormalization, Conv2D


def draw(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def relative_error(ours, reference):
    ours, reference = np.asarray(ours, np.float64), np.asarray(reference, np.float64)
    return np.abs(ours - reference).max() / np.abs(reference).max()


def with_gradients(layer, x):
    x = tf.convert_to_tensor(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
        loss = tf.reduce_sum(y * y)
    variables = [variable.value for variable in layer.trainable_variables]
    return [y, *tape.gradient(loss, [x, *variables])]


@settings(max_examples=40, deadline=None)
@given(
    kernel=st.sampled_from([1, 3, 7]),
    strides=st.sampled_from([1, 2]),
    groups=st.sampled_from([1, 2, 32, 64]),
    dilation=st.sampled_from([1, 2, 4]),
    padding=st.sampled_from(["symmetric", "same", "valid"]),
    size=st.sampled_from([(8, 8), (9, 7)]),
    batch=st.sampled_from([1, 5]),
    data_format=st.sampled_from(["channels_last", "channels_first"]),
)
def test_convolution(kernel, strides, groups, dilation, padding, size, batch, data_format):
    reach = dilation * (kernel - 1)
    if (strides > 1 and dilation > 1) or (padding == "valid" and reach >= min(size)):
        return
    arguments = {"strides": strides, "groups": groups, "dilation_rate": dilation}
    ours = Conv2D(64, kernel, padding=padding, data_format=data_format, **arguments)
    margin = reach // 2 if padding == "symmetric" else 0
    stock = keras.layers.Conv2D(
        64, kernel, padding="same" if padding == "same" else "valid", dtype="float64", **arguments
    )
    reference = keras.Sequential([keras.layers.ZeroPadding2D(margin, dtype="float64"), stock])
    x = draw(batch, *size, 64)
    reference(x.astype(np.float64))
    to_last = (0, 2, 3, 1) if data_format == "channels_first" else (0, 1, 2, 3)
    ours_x = x.transpose(0, 3, 1, 2) if data_format == "channels_first" else x
    ours.build(ours_x.shape)
    stock.set_weights(ours.get_weights())
    y, dx, *dweights = with_gradients(ours, ours_x)
    expected = with_gradients(reference, x.astype(np.float64))
    assert ours.compute_output_shape(ours_x.shape) == tuple(y.shape)
    results = [tf.transpose(y, to_last), tf.transpose(dx, to_last), *dweights]
    for result, exact in zip(results, expected, strict=True):
        assert relative_error(result, exact) <= 1e-5


def test_convolution_with_dynamic_shapes_and_jit():
    layer = Conv2D(64, 3, strides=2, padding="symmetric", groups=32)
    x = draw(2, 9, 11, 64)
    expected = layer(x)
    spec = [tf.TensorSpec((None, None, None, 64))]
    np.testing.assert_allclose(tf.function(layer, input_signature=spec)(x), expected, atol=1e-5)
    np.testing.assert_allclose(tf.function(layer, jit_compile=True)(x), expected, atol=1e-5)


def test_the_grouped_graph_needs_no_xla():
    layer = Conv2D(64, 3, padding="symmetric", groups=32)
    layer.build((None, 8, 8, 64))
    graph = tf.function(layer).get_concrete_function(tf.TensorSpec((1, 8, 8, 64))).graph
    assert b"_XlaMustCompile" not in graph.as_graph_def().SerializeToString()


def test_convolution_keeps_its_config():
    layer = Conv2D(8, 3, strides=2, padding="symmetric", groups=2, use_bias=False)
    again = Conv2D.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert again.padding == "symmetric"
    with pytest.raises(ValueError, match="odd kernel_size"):
        Conv2D(8, 2, padding="symmetric")


@pytest.mark.parametrize("axis", [-1, 1])
@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-5), ("float64", 1e-9)])
def test_batch_normalization_in_training(axis, dtype, tolerance):
    """Output and gradients against the stock layer, the running variance against n / (n - 1)."""
    ours = BatchNormalization(axis=axis, dtype=dtype)
    stock = keras.layers.BatchNormalization(axis=axis, momentum=0.9, epsilon=1e-5, dtype="float64")
    x = draw(5, 6, 7, 8) * 3 + 2
    results = []
    for layer, values in ((ours, x.astype(dtype)), (stock, x.astype("float64"))):
        layer.build(x.shape)
        layer.gamma.assign(np.linspace(0.5, 1.5, x.shape[axis]))
        values = tf.convert_to_tensor(values)
        with tf.GradientTape() as tape:
            tape.watch(values)
            y = layer(values, training=True)
            loss = tf.reduce_sum(y**3)
        gradients = tape.gradient(loss, [values, layer.gamma.value, layer.beta.value])
        results.append([y, *gradients, layer.moving_mean, layer(values, training=False)])
    for index, (result, exact) in enumerate(zip(*results, strict=True)):
        if index < 5:
            assert relative_error(result, exact) <= tolerance, index
    axes = tuple(number for number in range(4) if number != axis % 4)
    unbiased = x.astype("float64").var(axis=axes, ddof=1)
    assert relative_error(ours.moving_variance, 0.9 + 0.1 * unbiased) <= tolerance


def test_frozen_batch_normalization_infers():
    layer = BatchNormalization()
    x = draw(4, 5, 5, 3) + 1
    expected = layer(x, training=False)
    layer.trainable = False
    np.testing.assert_array_equal(layer(x, training=True), expected)
    np.testing.assert_array_equal(layer.moving_mean, np.zeros(3))


def test_batch_normalization_without_scale_and_offset():
    layer = BatchNormalization(scale=False, center=False)
    x = draw(4, 5, 5, 3)
    y = np.asarray(layer(x, training=True))
    np.testing.assert_allclose(y.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(y.std((0, 1, 2)), 1, atol=1e-3)
