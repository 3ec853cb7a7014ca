"""Keras' own tests of keras.applications, applied to all ImageNet networks."""

import keras
import numpy as np
import pytest

import keras_resnet

SLOW = pytest.mark.slow
CHANNELS = {
    "ResNet18": 512,
    "ResNet34": 512,
    "ResNet50": 2048,
    "ResNet101": 2048,
    "ResNet152": 2048,
    "ResNeXt50_32x4d": 2048,
    "ResNeXt101_32x8d": 2048,
    "ResNeXt101_64x4d": 2048,
    "WideResNet50_2": 2048,
    "WideResNet101_2": 2048,
    "ResNet50V2": 2048,
    "ResNet101V2": 2048,
    "ResNet152V2": 2048,
}


@pytest.fixture(
    params=[
        # The others differ only in their numbers; tests/test_models.py has one of each block.
        name if name == "ResNet18" else pytest.param(name, marks=SLOW)
        for name in CHANNELS
    ]
)
def application(request):
    """(builder, number of channels of its last feature map)."""
    return getattr(keras_resnet, request.param), CHANNELS[request.param]


@pytest.mark.parametrize("channels", [1, 4])
def test_variable_input_channels(application, channels):
    build, last = application
    model = build(include_top=False, input_shape=(None, None, channels))
    assert model.output_shape == (None, None, None, last)
    assert model.layers[1].kernel.shape[2] == channels


def test_custom_input_shape_and_pooling(application):
    build, last = application
    model = build(include_top=False, input_shape=(123, 123, 3))
    assert model.output_shape == (None, 4, 4, last)
    pooled = build(include_top=False, pooling="avg", input_shape=(123, 123, 3))
    assert pooled.output_shape == (None, last)


def test_custom_input_tensor(application):
    build, last = application
    tensor = keras.Input((123, 123, 3))
    model = build(include_top=False, input_tensor=tensor)
    assert model.inputs[0] is tensor
    assert model.output_shape == (None, 4, 4, last)


def test_classifier_activation_and_serialization(application):
    build, last = application
    model = build(classifier_activation="softmax", classes=5)
    assert model.layers[-1].activation is keras.activations.softmax
    assert model.layers[-1].kernel.shape == (last, 5)
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(model))
    assert [v.path for v in copy.weights] == [v.path for v in model.weights]
    copy.set_weights(model.get_weights())
    x = np.random.default_rng(0).normal(size=(1, 32, 32, 3)).astype(np.float32)
    ours, theirs = (keras.ops.convert_to_numpy(net(x)) for net in (model, copy))
    np.testing.assert_array_equal(ours, theirs)
    assert ours.sum() == pytest.approx(1, abs=1e-5)
