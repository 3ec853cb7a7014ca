"""Batch normalization compared with stock Keras in float64 and PyTorch's formula; layer configs."""

import contextlib
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from comparison import relative_error, with_xla
from small_networks import noise, small

from keras_resnet.convolution import choose_path, convolution_path
from keras_resnet.layers import BatchNormalization, Conv2D


def draw(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def test_convolution_keeps_its_config():
    layer = Conv2D(8, 3, strides=2, padding="symmetric", groups=2, use_bias=False)
    again = Conv2D.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert again.padding == "symmetric"
    with pytest.raises(ValueError, match="odd kernel_size"):
        Conv2D(8, 2, padding="symmetric")


def training_results(layer, x, compiled=None):
    """Returns output and gradients in training, the running mean, and the output in inference."""
    values = tf.convert_to_tensor(x)

    def step(values):
        with tf.GradientTape() as tape:
            tape.watch(values)
            y = layer(values, training=True)
            loss = tf.reduce_sum(tf.cast(y, layer.variable_dtype) ** 3)
        return [y, *tape.gradient(loss, [values, layer.gamma.value, layer.beta.value])]

    results = (compiled(step) if compiled else step)(values)
    return [tf.cast(r, "float64") for r in (*results, layer.moving_mean, layer(values))]


def built(layer, x):
    layer.build(x.shape)
    layer.gamma.assign(np.linspace(0.5, 1.5, x.shape[layer.axis]))
    return layer


def stock(axis, dtype):
    return keras.layers.BatchNormalization(axis=axis, momentum=0.9, epsilon=1e-5, dtype=dtype)


def with_dynamic_shapes(step):
    return tf.function(step, input_signature=[tf.TensorSpec((None, None, None, 8))])


@pytest.mark.parametrize(
    "axis, dtype, compiled",
    [
        *itertools.product([-1, 1], ["float32", "float64"], [None, with_xla]),
        (-1, "float32", with_dynamic_shapes),
    ],
)
def test_batch_normalization_in_training(axis, dtype, compiled):
    """Compares outputs and gradients with the stock layer, the variance with n / (n - 1)."""
    tolerance = {"float32": 1e-5, "float64": 1e-9}[dtype]
    x = draw(5, 6, 7, 8) * 3 + 2
    ours = built(BatchNormalization(axis=axis, dtype=dtype), x)
    results = training_results(ours, x.astype(dtype), compiled)
    reference = training_results(built(stock(axis, "float64"), x), x.astype("float64"))
    for index, (result, exact) in enumerate(zip(results[:5], reference[:5], strict=True)):
        assert relative_error(result, exact) <= tolerance, index
    axes = tuple(number for number in range(4) if number != axis % 4)
    unbiased = x.astype("float64").var(axis=axes, ddof=1)
    assert relative_error(ours.moving_variance, 0.9 + 0.1 * unbiased) <= tolerance


@pytest.mark.parametrize("axis", [-1, 1])
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_batch_normalization_in_mixed_precision(axis, policy):
    """Errors relative to float64 are at most 1.5 times those of the stock layer."""
    x = draw(5, 6, 7, 8) * 3 + 2
    ours = training_results(built(BatchNormalization(axis=axis, dtype=policy), x), x)
    theirs = training_results(built(stock(axis, policy), x), x)
    exact = training_results(built(stock(axis, "float64"), x), x.astype("float64"))
    layer = BatchNormalization(axis=axis, dtype=policy)
    assert layer(x, training=True).dtype == policy.removeprefix("mixed_")
    assert layer.moving_variance.dtype == "float32"
    for index, (result, stock_result, reference) in enumerate(
        zip(ours[:5], theirs[:5], exact[:5], strict=True)
    ):
        limit = 1.5 * relative_error(stock_result, reference)
        assert relative_error(result, reference) <= limit, index


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


def trained_under(scope, run_eagerly, path):
    """Returns all weights, with running statistics, after two training steps."""
    with scope:
        model = small("cifar", input_shape=(16, 16, 3), drop_path=0.5, dropout=0.5)
    model.compile(
        keras.optimizers.SGD(0.01),
        "sparse_categorical_crossentropy",
        run_eagerly=run_eagerly,
        jit_compile=False,
    )
    with convolution_path(path):
        for _ in range(2):
            model.train_on_batch(noise(4, 16, 16, 3), np.arange(4) % 3)
    return model.get_weights()


BEST = choose_path(tf.zeros(()), "float32")


@pytest.fixture(scope="module")
def trained_plainly():
    return {path: trained_under(contextlib.nullcontext(), False, path) for path in {"eigen", BEST}}


@pytest.mark.parametrize(
    "mode, more, run_eagerly, path",
    [
        ("full", {}, False, BEST),
        pytest.param("full", {}, True, BEST, marks=pytest.mark.slow),
        ("full", {}, False, "eigen"),
        pytest.param("activations", {}, False, BEST, marks=pytest.mark.slow),
        pytest.param(
            "larger_than", {"output_size_threshold": 10}, False, BEST, marks=pytest.mark.slow
        ),
        ("list_of_layers", {"layer_names": ["conv1", "bn1", "layer2.0"]}, False, BEST),
    ],
)
def test_networks_train_when_they_are_recomputed(mode, more, run_eagerly, path, trained_plainly):
    """As without rematerialization, with the same random numbers."""
    found = trained_under(keras.RematScope(mode, **more), run_eagerly, path)
    for one, other in zip(found, trained_plainly[path], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
