"""On a GPU: outputs equal those on the CPU, and training works. See docs/gpu.md for the command."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_resnet
from keras_resnet.layers import Conv2D

pytestmark = pytest.mark.gpu
GPUS = tf.config.list_logical_devices("GPU")


@pytest.fixture(autouse=True)
def gpu():
    """Runs on the first GPU, without TensorFloat-32."""
    if not GPUS:
        pytest.skip("TensorFlow finds no GPU")
    tf.config.experimental.enable_tensor_float_32_execution(False)
    keras.utils.set_random_seed(0)
    with tf.device(GPUS[0].name):
        yield


def images(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def relative_error(found, expected):
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def on_the_cpu(function, *arrays):
    """Calls a function on arrays on the CPU."""
    with tf.device("CPU:0"):
        return function(*map(tf.constant, arrays))


@pytest.mark.parametrize("name", ["resnet18", "resnext50_32x4d"])
def test_outputs_equal_those_on_the_cpu(name):
    model = keras_resnet.create(name, classes=7, classifier_activation=None)
    x = images(2, 97, 64, 3)
    found = model(tf.constant(x))
    assert "GPU" in found.device
    with tf.device("CPU:0"):
        copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    assert relative_error(found.numpy(), on_the_cpu(copy, x).numpy()) <= 1e-4


@pytest.mark.parametrize("groups", [1, 32])
@pytest.mark.parametrize("strides", [1, 2])
def test_convolution_and_gradients_equal_those_on_the_cpu(groups, strides):
    layer = Conv2D(64, 3, strides=strides, padding="symmetric", groups=groups)
    layer.build((None, 15, 16, 64))
    x, kernel = images(2, 15, 16, 64), layer.kernel.numpy()

    def gradients(x, kernel):
        with tf.GradientTape() as tape:
            tape.watch((x, kernel))
            y = tf.reduce_sum(layer.convolution_op(x, kernel) ** 2)
        return tape.gradient(y, (x, kernel))

    found = gradients(tf.constant(x), tf.constant(kernel))
    expected = on_the_cpu(gradients, x, kernel)
    for ours, theirs in zip(found, expected, strict=True):
        assert "GPU" in ours.device
        assert relative_error(ours.numpy(), theirs.numpy()) <= 1e-4


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_training_lowers_the_loss(data_format, policy, jit_compile):
    shape = (64, 64, 3) if data_format == "channels_last" else (3, 64, 64)
    model = keras_resnet.ResNet18(
        classes=4, input_shape=shape, data_format=data_format, dtype=policy
    )
    optimizer = keras.optimizers.SGD(0.02, momentum=0.9)
    if policy == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    model.compile(optimizer, "sparse_categorical_crossentropy", jit_compile=jit_compile)
    x, y = images(8, *shape), np.arange(8) % 4
    losses = [float(model.train_on_batch(x, y)) for _ in range(10)]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]


def test_channels_first_equals_channels_last():
    last = keras_resnet.ResNet18(classes=4)
    first = keras_resnet.ResNet18(classes=4, data_format="channels_first")
    first.set_weights(last.get_weights())
    x = images(2, 64, 64, 3)
    found = first(tf.constant(x.transpose(0, 3, 1, 2)))
    assert relative_error(found.numpy(), last(tf.constant(x)).numpy()) <= 1e-4


def test_all_gpus_train_together():
    strategy = tf.distribute.MirroredStrategy([device.name for device in GPUS])
    with strategy.scope():
        model = keras_resnet.ResNet18(classes=4, input_shape=(64, 64, 3), synchronized=True)
        model.compile(keras.optimizers.SGD(0.02, momentum=0.9), "sparse_categorical_crossentropy")
    batch = 4 * len(GPUS)
    x, y = images(batch, 64, 64, 3), np.arange(batch) % 4
    history = model.fit(x, y, batch, epochs=8, verbose=0).history["loss"]
    assert np.isfinite(history).all()
    assert history[-1] < history[0]
