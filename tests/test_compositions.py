"""Several networks in one model: nested and flat, with shared and separate weights."""

import keras
import numpy as np
import pytest
from small_networks import noise, small

import keras_resnet

POOLED = {"include_top": False, "pooling": "avg"}


def answer(model, x):
    return keras.ops.convert_to_numpy(model(x))


def copies(model, tmp_path):
    """Returns copies of a model: saved and loaded, and cloned."""
    model.save(tmp_path / "m.keras")
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    return keras.saving.load_model(tmp_path / "m.keras"), clone


def step(model, x, y):
    """Takes one step of SGD at a rate of 1; returns the change of each variable, its gradient."""
    model.compile(keras.optimizers.SGD(1.0), "mse", run_eagerly=True)
    before = [keras.ops.convert_to_numpy(v).copy() for v in model.trainable_variables]
    model.train_on_batch(x, y)
    after = map(keras.ops.convert_to_numpy, model.trainable_variables)
    return [old - new for old, new in zip(before, after, strict=True)]


@pytest.mark.parametrize("nested", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_two_inputs_of_different_channels(nested, tmp_path):
    """RGB and depth images, with one network each and a shared head."""
    inputs = [keras.Input((32, 32, channels)) for channels in (3, 1)]
    if nested:
        parts = [
            small("basic", seed, input_shape=x.shape[1:], name=f"net{seed}", **POOLED)
            for seed, x in enumerate(inputs)
        ]
        pooled = [part(x) for part, x in zip(parts, inputs, strict=True)]
    else:
        parts = [
            small("basic", seed, input_tensor=x, name_prefix=f"net{seed}_", **POOLED)
            for seed, x in enumerate(inputs)
        ]
        pooled = [part.output for part in parts]
    joined = keras.layers.Concatenate()(pooled)
    model = keras.Model(inputs, keras.layers.Dense(2, name="head")(joined))
    images = [noise(2, 32, 32, 3), noise(2, 32, 32, 1)]
    features = np.concatenate(
        [answer(part, x) for part, x in zip(parts, images, strict=True)], axis=1
    )
    kernel, bias = model.get_layer("head").get_weights()
    expected = answer(model, images)
    np.testing.assert_allclose(expected, features @ kernel + bias, rtol=1e-4, atol=1e-5)
    for copy in copies(model, tmp_path):
        np.testing.assert_array_equal(answer(copy, images), expected)
    assert all(np.any(change) for change in step(model, images, np.ones((2, 2))))


def test_siamese(tmp_path):
    """One network is applied to both inputs: its gradient is the sum of both."""
    network = small("resnext", input_shape=(32, 32, 3), name="twin", **POOLED)
    left, right = keras.Input((32, 32, 3)), keras.Input((32, 32, 3))
    model = keras.Model([left, right], keras.layers.Subtract()([network(left), network(right)]))
    assert len(model.trainable_variables) == len(network.trainable_variables)
    images = [noise(2, 32, 32, 3), noise(4, 32, 32, 3)[2:]]
    expected = answer(model, images)
    sides = [answer(network, x) for x in images]
    np.testing.assert_allclose(expected, sides[0] - sides[1], rtol=1e-4, atol=1e-5)
    for copy in copies(model, tmp_path):
        np.testing.assert_array_equal(answer(copy, images), expected)
        assert len(copy.trainable_variables) == len(network.trainable_variables)

    # In inference mode, since in training mode both sides would update the batch statistics.
    for layer in network.layers:
        layer.trainable = layer.name == "conv1"
    target = np.zeros_like(expected)
    (both,) = step(model, images, target)
    network.get_layer("conv1").kernel.assign_add(both)
    one_side = []
    for place in (0, 1):
        x, other = keras.Input((32, 32, 3)), keras.Input(sides[0].shape[1:])
        pair = [network(x), other] if place == 0 else [other, network(x)]
        one = keras.Model([x, other], keras.layers.Subtract()(pair))
        (change,) = step(one, [images[place], sides[1 - place]], target)
        network.get_layer("conv1").kernel.assign_add(change)
        one_side.append(change)
    error = np.abs(both - sum(one_side)).max() / np.abs(both).max()
    assert error <= 1e-4


def test_weights_load_into_a_part(tmp_path):
    """Weights load into one network of a model, nested or flat, without changing the others."""
    source = small("basic", seed=5, **POOLED)
    file = keras_resnet.weights.save(source, tmp_path / "w.pth")
    x = keras.Input((32, 32, 3))
    nested = small("basic", seed=6, name="inner", **POOLED)
    flat = small("basic", seed=7, input_tensor=x, name_prefix="flat_", **POOLED)
    model = keras.Model(x, [nested(x), flat.output])
    images = noise(2, 32, 32, 3)
    for part, index in ((nested, 0), (flat, 1)):
        before = [keras.ops.convert_to_numpy(y) for y in model(images)]
        keras_resnet.weights.load(part, file)
        after = [keras.ops.convert_to_numpy(y) for y in model(images)]
        np.testing.assert_allclose(after[index], answer(source, images), rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(after[1 - index], before[1 - index])


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_any_number_of_channels(channels, tmp_path):
    model = small("cifar", input_shape=(32, 32, channels))
    images = noise(2, 32, 32, channels)
    for copy in copies(model, tmp_path):
        np.testing.assert_array_equal(answer(copy, images), answer(model, images))


def test_two_flat_networks_without_prefixes_are_refused():
    x = keras.Input((32, 32, 3))
    one, other = (small("basic", input_tensor=x, **POOLED) for _ in range(2))
    with pytest.raises(ValueError, match="unique"):
        keras.Model(x, [one.output, other.output])
