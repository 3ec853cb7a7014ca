"""All convolution paths, compared with stock Keras layers in float64: outputs and gradients."""

import contextlib
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from comparison import relative_error, with_xla
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from keras_resnet import convolution
from keras_resnet.convolution import choose_path, convolution_path
from keras_resnet.layers import Conv2D

FAST_PATHS = ["native", "onednn", "eigen"]
CHANNELS = 64


def results(layer, x, compiled=None):
    """Returns the output, and gradients of the sum of its squares for the input and each weight."""

    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
            loss = tf.reduce_sum(tf.square(tf.cast(y, layer.variable_dtype)))
        return [y, *tape.gradient(loss, [x, *[v.value for v in layer.trainable_variables]])]

    values = tf.convert_to_tensor(x)
    return (compiled(step) if compiled else step)(values)


def stock_layer(kernel, padding, dilation, dtype, **arguments):
    """Returns a stock Keras layer that pads and convolves."""

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


def in_blocks(channels, filters, groups):
    """Returns a mask (channels, filters) of the block-diagonal elements that groups have."""
    rows, columns = np.arange(channels) * groups // channels, np.arange(filters) * groups // filters
    return rows[:, np.newaxis] == columns


def without_groups(weights, groups):
    """Returns the weights of an equal convolution without groups: a block-diagonal kernel.

    It is the reference in float64, for which TensorFlow has no gradient of grouped convolutions,
    and Keras compiles each case with XLA.
    """
    kernel, *bias = weights
    channels, filters = kernel.shape[2] * groups, kernel.shape[3]
    dense = np.tile(kernel, (1, 1, groups, 1)) * in_blocks(channels, filters, groups)
    return [dense, *bias]


def gradient_with_groups(gradient, groups):
    """Converts the gradient of a block-diagonal kernel to that of the kernel with groups."""
    height, width, channels, filters = gradient.shape
    gradient = np.asarray(gradient) * in_blocks(channels, filters, groups)
    return gradient.reshape(height, width, groups, channels // groups, filters).sum(2)


def with_dynamic_shapes(step):
    return tf.function(step, input_signature=[tf.TensorSpec((None, None, None, CHANNELS))])


@st.composite
def cases(draw):
    """Draws arguments of a convolution that has an output and that Keras allows."""
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


def assume_that_a_cpu_has(path, case, dtype, compiled):
    """Skips cases that a path does not support on this CPU.

    XLA supports everything; oneDNN has gradients for groups and dilation, but not with explicit
    padding, which `native` supports on GPUs only.
    """
    grouped, dilated = case["groups"] > 1, case["dilation"] > 1
    if compiled is with_xla:
        return
    if (grouped and path in ("native", "onednn")) or (dilated and path == "native"):
        wide = convolution._cpu_dtype(dtype, case["groups"])
        assume(convolution._has_grouped_gradient(wide))
    if grouped and path == "native":
        assume(case["padding"] != "symmetric" or case["strides"] == 1)


def check(case, shape, path, dtype="float32", data_format="channels_last", compiled=None):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    assume_that_a_cpu_has(path, case, keras.dtype_policies.get(dtype).compute_dtype, compiled)
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
    groups = arguments["groups"]
    layer = stock_layer(kernel, padding, dilation, "float64", **{**arguments, "groups": 1})
    layer.build(x.shape)
    layer.convolution.set_weights(without_groups(ours.get_weights(), groups))
    references["float64"] = results(layer, x.astype(np.float64))
    references["float64"][2] = gradient_with_groups(references["float64"][2], groups)
    if dtype != "float32":
        layer = stock_layer(kernel, padding, dilation, dtype, **arguments)
        layer.build(x.shape)
        layer.convolution.set_weights(ours.get_weights())
        references[dtype] = results(layer, x)
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


def examples(few, many):
    """Sets the number of hypothesis examples: few by default, many in the slow suite."""
    return pytest.mark.parametrize("count", [few, pytest.param(many, marks=pytest.mark.slow)])


@examples(30, 120)
def test_paths(count):
    @settings(max_examples=count, deadline=None)
    @given(cases(), st.sampled_from(FAST_PATHS))
    def each(case, path):
        check(*case, path)

    each()


@pytest.mark.parametrize("path", ["onednn", "eigen"])
@pytest.mark.parametrize("kernel", [1, 3, 5, (1, 5), (3, 1)])
@pytest.mark.parametrize("strides", [3, 4, (1, 2), (3, 1)])
def test_unusual_strides(kernel, strides, path):
    """Strides above 2 or less than the kernel size, and different ones for each axis."""
    layer = Conv2D(6, kernel, strides, "symmetric", groups=2)
    x = np.random.default_rng(0).normal(size=(2, 11, 14, 4))
    layer.build(x.shape)
    margin = [(size // 2, size // 2) for size in layer.kernel_size]
    stock = keras.layers.Conv2D(6, kernel, strides, dtype="float64")
    padded = np.pad(x, [(0, 0), *margin, (0, 0)])
    stock.build(padded.shape)
    stock.set_weights(without_groups(layer.get_weights(), 2))
    y, dx, dkernel, *dbias = results(stock, padded)
    dweights = [gradient_with_groups(dkernel, 2), *dbias]
    (top, _), (left, _) = margin
    dx = dx[:, top : top + 11, left : left + 14]
    with convolution_path(path if convolution._has_grouped_gradient("float32") else "eigen"):
        ours = results(layer, x.astype(np.float32))
    for result, exact in zip(ours, [y, dx, *dweights], strict=True):
        assert relative_error(result, exact) <= 1e-5


@examples(4, 60)
def test_mixed_precision(count):
    @settings(max_examples=count, deadline=None)
    @given(cases(), st.sampled_from(["onednn", "eigen"]), st.sampled_from(["float16", "bfloat16"]))
    def each(case, path, dtype):
        check(*case, path, dtype=f"mixed_{dtype}")

    each()


@examples(8, 40)
def test_channels_first(count):
    @settings(max_examples=count, deadline=None)
    @given(cases(), st.sampled_from(["onednn", "eigen"]))
    def each(case, path):
        check(*case, path, data_format="channels_first")

    each()


@examples(8, 40)
def test_dynamic_shapes(count):
    @settings(max_examples=count, deadline=None)
    @given(cases(), st.sampled_from(FAST_PATHS))
    def each(case, path):
        check(*case, path, compiled=with_dynamic_shapes)

    each()


@examples(4, 30)
def test_xla(count):
    @settings(max_examples=count, deadline=None)
    @given(cases(), st.sampled_from(FAST_PATHS))
    def each(case, path):
        check(*case, path, compiled=with_xla)

    each()


def test_the_stock_path():
    """Keras' own operations, with XLA for groups: the path of other backends."""
    case = {"kernel": 3, "padding": "symmetric", "dilation": 1, "strides": 2, "use_bias": True}
    for groups in (1, 32):
        check({**case, "groups": groups}, (2, 9, 8, CHANNELS), "stock", compiled=tf.function)


def test_integers_are_refused():
    layer = Conv2D(2, 3, padding="symmetric")
    with pytest.raises(ValueError, match="Received: dtype=int32"):
        layer(np.ones((1, 4, 4, 2), np.int32))


@pytest.mark.parametrize("path", ["onednn", "eigen"])
def test_a_gradient_of_unknown_shape(path):
    layer = Conv2D(3, 1, padding="symmetric")
    layer.build((None, None, None, 2))

    @tf.function
    def gradient(x):
        with tf.GradientTape() as tape:
            y = tf.py_function(lambda y: 2 * y, [layer(x)], tf.float32)
            loss = tf.reduce_sum(y)
        return tape.gradient(loss, layer.kernel.value)

    with convolution_path(path):
        result = gradient(tf.ones((1, 4, 5, 2)))
    np.testing.assert_allclose(result, np.full((1, 1, 2, 3), 40.0))


def chosen(x=None):
    return choose_path(tf.zeros((1, 1, 1, 2)) if x is None else x, "float32")


def test_choosing_a_path():
    assert chosen() in FAST_PATHS
    with convolution_path("eigen"):
        assert chosen() == "eigen"
        with convolution_path("native"):
            assert chosen() == "native"
        assert chosen() == "eigen"
    with pytest.raises(ValueError, match=r"one of .*'onednn'.* Received: path='mkl'"):
        with convolution_path("mkl"):
            pass


def graph_path(scope, run=lambda function, *arguments: function(*arguments)):
    """Returns the path chosen in a graph that is traced in `scope`."""
    paths = []

    @tf.function
    def choose(x):
        with scope():
            paths.append(chosen(x))
        return x

    with tf.device("CPU:0"):
        x = tf.ones((1, 1, 1, 2))  # created elsewhere: the device that uses it decides
    run(choose, x)
    return paths[0]


def test_beside_an_accelerator_the_cpu_takes_its_own_path(monkeypatch):
    """The path depends on where the operations are placed, not on the available devices."""
    of_cpu = chosen()
    monkeypatch.setattr(convolution, "_has_accelerator", lambda: True)
    for scope in (
        lambda: tf.device("CPU:0"),
        lambda: tf.device("CPU"),
        lambda: keras.device("cpu:0"),
    ):
        with scope():
            assert chosen() == of_cpu
            assert graph_path(contextlib.nullcontext) == of_cpu
        assert graph_path(scope) == of_cpu
    assert graph_path(lambda: tf.device("GPU:0")) == "native"
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    assert graph_path(contextlib.nullcontext, lambda *a: strategy.run(a[0], a[1:])) == of_cpu


@pytest.mark.parametrize("compiled", [None, tf.function])
def test_beside_an_accelerator_groups_have_gradients_on_the_cpu(monkeypatch, compiled):
    monkeypatch.setattr(convolution, "_has_accelerator", lambda: True)
    layer = Conv2D(8, 3, 2, "symmetric", groups=4)
    stock = keras.layers.Conv2D(8, 3, 2, dtype="float64")
    x = np.random.default_rng(0).normal(size=(2, 5, 6, 8))
    padded = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    layer.build(x.shape)
    stock.build(padded.shape)
    stock.set_weights(without_groups(layer.get_weights(), 4))
    y, dx, dkernel, dbias = results(stock, padded)
    expected = [y, dx[:, 1:6, 1:7], gradient_with_groups(dkernel, 4), dbias]
    with tf.device("CPU:0"):
        found = results(layer, x.astype(np.float32), compiled)
    for result, exact in zip(found, expected, strict=True):
        assert relative_error(result, exact) <= 1e-5


WITHOUT_ONEDNN = """
import sys
sys.path.insert(0, {tests!r})
import tensorflow as tf
import test_convolution as t
with tf.Graph().as_default():  # without eager execution
    assert t.chosen() == "eigen"
assert t.chosen() == "eigen"
case = {{"kernel": 3, "padding": "symmetric", "dilation": 1, "strides": 2, "use_bias": True}}
for groups in (1, 32):
    t.check({{**case, "groups": groups}}, (2, 9, 8, 64), t.chosen())
    t.check({{**case, "groups": groups}}, (2, 9, 8, 64), "eigen", compiled=tf.function)
"""


@pytest.mark.slow
def test_a_process_without_onednn_chooses_its_own_path(run_python):
    """On such CPUs, which are older ones, TensorFlow has no gradient of grouped convolutions."""
    program = WITHOUT_ONEDNN.format(tests=str(Path(__file__).parent))
    done = run_python("-c", program, variables={"TF_ENABLE_ONEDNN_OPTS": "0"})
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("path", FAST_PATHS)
def test_no_path_needs_xla(path):
    layer = Conv2D(64, 3, padding="symmetric", groups=32)
    layer.build((None, 8, 8, 64))
    with convolution_path(path):
        graph = tf.function(layer).get_concrete_function(tf.TensorSpec((1, 8, 8, 64))).graph
    assert b"_XlaMustCompile" not in graph.as_graph_def().SerializeToString()
    convolutions = [node for node in graph.as_graph_def().node if node.op == "Conv2D"]
    assert len(convolutions) == (4 if path == "eigen" else 1)  # 4 blocks of 16 channels


def test_gradients_of_gradients():
    """The custom gradients can be differentiated again, as in a gradient penalty."""
    keras.utils.set_random_seed(0)
    layer = Conv2D(4, 3, strides=2, padding="symmetric", dtype="float64")
    x = tf.constant(np.random.default_rng(0).normal(size=(1, 5, 6, 3)))
    layer.build(x.shape)

    def penalty(kernel):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.reduce_sum(layer.convolution_op(x, kernel) ** 3)
        return tf.reduce_sum(tape.gradient(y, x) ** 2)

    for path in ("onednn", "eigen"):
        with convolution_path(path):
            theory, numeric = tf.test.compute_gradient(penalty, [layer.kernel.value], delta=1e-5)
        assert relative_error(theory[0], numeric[0]) <= 1e-7
