"""Batch normalization folded into convolutions: equal outputs without it."""

import keras
import numpy as np
import pytest
from small_networks import CONFIGS, noise, small, trained

from keras_resnet import export, features


def left(model):
    return [
        layer.path
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
    ]


def assert_equal(folded, model, x, tolerance=1e-5):
    for ours, theirs in zip(
        keras.tree.flatten(folded(x, training=False)),
        keras.tree.flatten(model(x, training=False)),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, atol=tolerance * np.abs(theirs).max())


@pytest.mark.parametrize(
    ("family", "arguments"),
    [
        *((family, {}) for family in CONFIGS),
        ("resnext", {"version": "v1", "output_stride": 8, "include_top": False}),
        ("basic", {"zero_init_residual": True, "drop_path": 0.5, "dropout": 0.5}),
        ("bottleneck", {"data_format": "channels_first", "include_preprocessing": True}),
        ("basic", {"name_prefix": "a_", "synchronized": True}),
    ],
)
def test_the_same_outputs(family, arguments):
    model = small(family, classifier_activation=None, **arguments)
    shape = (3, 64, 64) if "data_format" in arguments else (64, 64, 3)
    before = [keras.ops.convert_to_numpy(weight) for weight in model.weights]
    folded = export.fold(model)
    before_convolutions = [path for path in left(model) if path.endswith(("/bn1", "norm"))]
    stay = before_convolutions if CONFIGS[family].preactivation else []
    assert left(folded) == stay and left(model) != stay
    assert_equal(folded, model, noise(2, *shape))
    for old, weight in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(old, weight)
    assert folded.count_params() == model.count_params() - 3 * (
        _channels(model) - _channels(folded)
    )


def _channels(model):
    """Returns the number of channels of all batch normalizations; of 4 values each, 1 remains."""
    return sum(
        layer.gamma.shape[0]
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
    )


def test_networks_of_others_layers(tmp_path):
    """Nested, with a convolution of Keras, and normalization after other layers."""
    backbone = small("basic", include_top=False, input_shape=(32, 32, 3))
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.BatchNormalization(),
            backbone,
            layers.Conv2D(8, 1),
            layers.BatchNormalization(center=False, scale=False),
            layers.Conv2D(8, 1, activation="relu"),
            layers.BatchNormalization(),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3),
        ]
    )
    trained(model)
    model.compile("sgd", loss=lambda y, x: keras.ops.mean(x))
    folded = export.fold(model)
    assert len(left(folded)) == 2  # the first one, and the one after a ReLU
    x = noise(2, 32, 32, 3)
    assert_equal(folded, model, x)
    folded.save(tmp_path / "folded.keras")
    assert_equal(keras.saving.load_model(tmp_path / "folded.keras"), model, x)
    assert_equal(export.fold(folded), model, x)


def test_convolutions_used_by_two_layers_are_not_folded():
    inputs = keras.Input((8, 8, 3))
    convolved = keras.layers.Conv2D(4, 1)(inputs)
    normalised = keras.layers.BatchNormalization()(convolved)
    model = trained(keras.Model(inputs, keras.layers.Add()([convolved, normalised])))
    folded = export.fold(model)
    assert len(left(folded)) == 1
    assert_equal(folded, model, noise(2, 8, 8, 3))
    ends = trained(keras.Model(inputs, [convolved, normalised]))
    assert_equal(export.fold(ends), ends, noise(2, 8, 8, 3))
    added = trained(keras.Model(inputs, keras.ops.add(convolved, normalised)))
    assert_equal(export.fold(added, dtype="float32"), added, noise(2, 8, 8, 3))


def test_a_normalisation_of_two_convolutions_stays():
    inputs = keras.Input((8, 8, 3))
    shared = keras.layers.BatchNormalization()
    paths = [shared(keras.layers.Conv2D(4, 1)(inputs)) for _ in range(2)]
    model = trained(keras.Model(inputs, keras.layers.Add()(paths)))
    assert_equal(export.fold(model), model, noise(2, 8, 8, 3))


def test_layers_that_compute_something_else_stay():
    class Scaled(keras.layers.Conv2D):
        def convolution_op(self, inputs, kernel):
            return super().convolution_op(inputs, 2 * kernel)

    inputs = keras.Input((8, 8, 3))
    x = keras.layers.BatchNormalization()(Scaled(8, 1)(inputs))
    x = keras.layers.BatchNormalization(axis=1)(keras.layers.Conv2D(8, 1)(x))
    x = keras.layers.BatchNormalization()(inputs=keras.layers.Conv2D(8, 1)(x))
    model = trained(keras.Model(inputs, x))
    folded = export.fold(model)
    assert len(left(folded)) == 2
    assert_equal(folded, model, noise(2, 8, 8, 3))
    with pytest.raises(ValueError, match="is not built"):
        export.fold(keras.Sequential([keras.layers.Conv2D(8, 1)]))


def test_pyramids():
    model = small("basic", include_top=False)
    pyramid = features.pyramid(model, ("C2", "C3"))
    folded = export.fold(pyramid)
    assert list(folded(noise(1, 32, 32, 3))) == ["C2", "C3"]
    assert_equal(folded, pyramid, noise(1, 32, 32, 3))


def test_mixed_precision_can_be_undone():
    model = small("basic", dtype="mixed_float16")
    folded = export.fold(model, dtype="float32")
    assert {layer.compute_dtype for layer in folded._flatten_layers()} == {"float32"}
    assert_equal(folded, model, noise(2, 32, 32, 3), tolerance=1e-2)


def test_a_model_of_unknown_order_is_refused():
    class Subclassed(keras.Model):
        pass

    with pytest.raises(ValueError, match="functional or sequential"):
        export.fold(Subclassed())
