"""`model.fit` as commonly used: several steps per call, XLA, and two replicas."""

import functools
from pathlib import Path

import keras
import numpy as np
import pytest
from small_networks import CONFIGS

from keras_resnet.configs import ResNetConfig
from keras_resnet.layers import convolution_path
from keras_resnet.models import create
from keras_resnet.training import SGD

GROUPED = ResNetConfig("bottleneck", (1, 1), groups=32, width_per_group=4)


def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(16, 40, 40, 3)).astype(np.float32), np.arange(16) % 5


def trained(config=GROUPED, synchronized=False, dtype="float32", **compile_arguments):
    """Returns a small network after two epochs of two steps, and its losses."""
    keras.utils.set_random_seed(0)
    model = create(
        config, classes=5, classifier_activation=None, synchronized=synchronized, dtype=dtype
    )
    model.compile(
        optimizer=SGD(0.01, momentum=0.9, decay=1e-3),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        **compile_arguments,
    )
    history = model.fit(*data(), batch_size=8, epochs=2, shuffle=False, verbose=0)
    return model, history.history["loss"]


@functools.cache
def stock_losses(config):
    """Returns losses with Keras' own convolutions, which need XLA for groups."""
    with convolution_path("stock"):
        return trained(config, jit_compile=False)[1]


@pytest.mark.parametrize(
    "config, arguments",
    [
        pytest.param(CONFIGS["basic"], {"steps_per_execution": 2}, id="several steps"),
        *(
            pytest.param(GROUPED, arguments, id=f"groups, {name}", marks=pytest.mark.slow)
            for name, arguments in (
                ("one step", {"jit_compile": False}),
                ("XLA", {"jit_compile": True}),
                ("several steps", {"steps_per_execution": 2}),
            )
        ),
    ],
)
def test_losses_are_those_of_stock_convolutions(config, arguments):
    model, losses = trained(config, **arguments)
    # In float32, an activation near ReLU's kink can change the fourth loss by 1e-3 of its value.
    np.testing.assert_allclose(losses, stock_losses(config), rtol=1e-2)
    assert losses[1] < losses[0]
    assert np.isfinite(model.predict(data()[0], verbose=0)).all()


TWO_REPLICAS = """
import sys
sys.path.insert(0, {tests!r})
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import numpy as np
import test_fit
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    two, losses = test_fit.trained(synchronized=True, dtype="float64")
one, losses_of_one = test_fit.trained(dtype="float64")
np.testing.assert_allclose(losses, losses_of_one, rtol=1e-6)
for ours, theirs in zip(two.variables, one.variables, strict=True):
    difference = np.abs(np.array(ours) - np.array(theirs)).max()
    assert difference <= 1e-8 * np.abs(np.array(theirs)).max() + 1e-10, (ours.path, difference)
with strategy.scope():
    _, losses = test_fit.trained(dtype="float64")
assert losses[1] < losses[0]
"""


@pytest.mark.slow
def test_two_replicas_with_synchronized_statistics_train_as_one(run_python):
    """Half of a batch each; after four steps, weights and statistics equal those of one replica."""
    done = run_python("-c", TWO_REPLICAS.format(tests=str(Path(__file__).parent)))
    assert done.returncode == 0, done.stderr[-3000:]
