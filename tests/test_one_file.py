"""examples/resnet_in_one_file.py builds the same networks as the package."""

import runpy
from pathlib import Path

import numpy as np
import pytest

import keras_resnet
from keras_resnet import features

FILE = Path(__file__).parents[1] / "examples" / "resnet_in_one_file.py"


@pytest.fixture(scope="module")
def one_file():
    return runpy.run_path(str(FILE))


def weights_in_order(model):
    """Convolutions and batch normalizations in turn; a block's projection follows its main path."""
    return [weight for layer in features.all_layers(model) for weight in layer.weights]


@pytest.mark.parametrize(
    "name, side",
    [
        ("resnet20", 32),
        ("resnet18", 64),
        pytest.param("resnet50", 64, marks=pytest.mark.slow),
        pytest.param("resnext50_32x4d", 64, marks=pytest.mark.slow),
    ],
)
def test_outputs_equal_those_of_the_package(one_file, name, side):
    ours = keras_resnet.create(name)
    theirs = one_file["cifar_resnet"](20) if name == "resnet20" else one_file[name]()
    assert theirs.count_params() == ours.count_params()
    random = np.random.default_rng(0)
    # Keras sorts the layers of a functional model by depth, which puts shortcuts elsewhere.
    pairs = zip(sorted_by_creation(theirs), weights_in_order(ours), strict=True)
    for other, weight in pairs:
        assert other.shape == weight.shape
        spread = 0.1 if weight.shape[1:] else 0.5
        value = random.normal(1.0 if len(weight.shape) == 1 else 0.0, spread, weight.shape)
        for variable in (other, weight):
            variable.assign(np.abs(value) if len(weight.shape) == 1 else value)
    images = random.normal(size=(2, side, side, 3)).astype(np.float32)
    found, expected = theirs.predict_on_batch(images), ours.predict_on_batch(images)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def sorted_by_creation(model):
    """Sorts by the numbers that Keras gives to layer names on creation: conv2d, conv2d_1, ..."""

    def number(layer):
        kind, _, digits = layer.name.rpartition("_")
        return int(digits) if digits.isdigit() and kind else 0

    kinds = {}
    for layer in model.layers:
        if layer.weights:
            kinds.setdefault(type(layer).__name__, []).append(layer)
    ordered = {kind: sorted(found, key=number) for kind, found in kinds.items()}
    pairs = zip(ordered["Conv2D"], ordered["BatchNormalization"], strict=True)
    return [w for pair in pairs for layer in (*pair,) for w in layer.weights] + [
        w for layer in ordered["Dense"] for w in layer.weights
    ]


def test_it_trains(one_file, tmp_path):
    random = np.random.default_rng(0)
    arrays = {
        "x_train": random.integers(0, 256, (256, 32, 32, 3), np.uint8),
        "y_train": random.integers(0, 10, (256, 1)),
        "x_test": random.integers(0, 256, (64, 32, 32, 3), np.uint8),
        "y_test": random.integers(0, 10, (64, 1)),
    }
    np.savez(tmp_path / "cifar10.npz", **arrays)
    history = one_file["main"](tmp_path / "cifar10.npz", epochs=1).history
    assert np.isfinite(history["loss"]).all() and np.isfinite(history["val_loss"]).all()


def test_it_is_short():
    assert len(FILE.read_text().splitlines()) <= 150
