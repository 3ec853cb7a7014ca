"""Schedules and optimizers, compared with numbers computed by hand or by NumPy."""

import keras
import numpy as np
import pytest
from small_networks import CONFIGS

from keras_resnet.models import create
from keras_resnet.training import SGD, Adam, Recipe, WarmUp
from keras_resnet.training.optimizers import create_optimizer, create_schedule


def rates(steps, *, steps_per_epoch=10, **arguments):
    schedule = create_schedule(Recipe(learning_rate=1.0, **arguments), steps_per_epoch)
    return [float(schedule(step) if callable(schedule) else schedule) for step in steps]


def test_schedules():
    assert rates([0, 500]) == [1.0, 1.0]
    assert rates([0], batch_size=512, reference_batch_size=256) == [2.0]
    assert rates([0], batch_size=128, accumulation_steps=4, reference_batch_size=256) == [2.0]
    step = {"schedule": "step", "milestones": (3, 6), "epochs": 9}
    np.testing.assert_allclose(
        rates([0, 29, 30, 59, 60, 89], **step), [1, 1, 0.1, 0.1, 0.01, 0.01], rtol=1e-6
    )
    np.testing.assert_allclose(
        rates([0, 5, 10, 29, 30], warmup_epochs=1, **step), [0.01, 0.505, 1, 1, 0.1], rtol=1e-6
    )
    cosine = {"schedule": "cosine", "epochs": 11}
    np.testing.assert_allclose(rates([0, 55, 110], **cosine), [1, 0.5, 0], atol=1e-6)
    np.testing.assert_allclose(
        rates([0, 5, 10, 60, 110], warmup_epochs=1, **cosine), [0.01, 0.505, 1, 0.5, 0], atol=1e-6
    )
    np.testing.assert_allclose(rates([0, 5, 10, 90], warmup_epochs=1), [0.01, 0.505, 1, 1])


def test_serialization():
    schedule = WarmUp(keras.optimizers.schedules.CosineDecay(0.1, 100), 10)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(schedule))
    assert float(again(5)) == float(schedule(5))
    for optimizer in (SGD(0.1, momentum=0.9, decay=1e-4), Adam(0.1, multipliers={"fc": 2.0})):
        config = keras.saving.serialize_keras_object(optimizer)
        again = keras.saving.deserialize_keras_object(config)
        assert again.get_config() == optimizer.get_config()


def network():
    """Three layers named like those of a ResNet, without batch statistics."""
    keras.utils.set_random_seed(0)
    names = ("conv1", "layer1.0", "fc")
    inputs = x = keras.Input((4,))
    for name in names:
        x = keras.layers.Dense(4, name=name)(x)
    model = keras.Model(inputs, x)
    for name in names:
        model.get_layer(name).bias.assign([1.0, 2.0, 3.0, 4.0])
    return model


def stepped(**arguments):
    """Returns the change of each variable in a step with gradients of 1, and its value before."""
    model = network()
    recipe = Recipe(**{"optimizer": "sgd", "learning_rate": 0.5, "momentum": 0.0, **arguments})
    optimizer = create_optimizer(recipe, recipe.learning_rate)
    before = {v.path: np.array(v) for v in model.trainable_variables}
    gradients = [np.ones(v.shape, np.float32) for v in model.trainable_variables]
    optimizer.apply(gradients, model.trainable_variables)
    return {v.path: (np.array(v) - before[v.path], before[v.path]) for v in model.variables}


@pytest.mark.parametrize("optimizer", ["sgd", "sgdw"])
@pytest.mark.parametrize("decay_all", [False, True])
def test_weight_decay(optimizer, decay_all):
    """For plain gradient descent, coupled and decoupled decay are equal."""
    moved = stepped(optimizer=optimizer, weight_decay=0.1, decay_all=decay_all)
    for path, (change, before) in moved.items():
        decays = decay_all or path.endswith("kernel")
        np.testing.assert_allclose(change, -0.5 * (1 + 0.1 * decays * before), rtol=1e-5)


def test_decoupled_decay_is_not_scaled_by_adam():
    moved = stepped(optimizer="adamw", weight_decay=0.1)
    for path, (change, before) in moved.items():
        decay = 0.1 * path.endswith("kernel")
        np.testing.assert_allclose(change, -0.5 * (1 + decay * before), rtol=1e-4)


def test_learning_rate_multipliers():
    moved = stepped(learning_rate_multipliers={"layer1": 0.1, "layer1.0": 0.2, "conv1": 0})
    for path, (change, _) in moved.items():
        factor = {"conv1": 0, "layer1.0": 0.2, "fc": 1}[path.split("/")[0]]
        np.testing.assert_allclose(change, -0.5 * factor, rtol=1e-5)


def test_clipping():
    moved = stepped(clip_norm=2.0)
    norm = np.sqrt(sum(np.square(change / 0.5).sum() for change, _ in moved.values()))
    assert norm == pytest.approx(2.0, rel=1e-5)


def test_accumulated_gradients_are_those_of_the_whole_batch():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 4)).astype("float32"), rng.normal(size=(8, 4)).astype("float32")
    results = []
    for parts in (1, 2):
        model = network()
        recipe = Recipe(optimizer="sgd", accumulation_steps=parts, learning_rate=0.1)
        model.compile(create_optimizer(recipe, 0.1), "mse")
        for start in range(0, 8, 8 // parts):
            part = slice(start, start + 8 // parts)
            model.train_on_batch(x[part], y[part])
        results.append(model.get_weights())
    for one, two in zip(*results, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "precision", ["mixed_float16", pytest.param("mixed_bfloat16", marks=pytest.mark.slow)]
)
def test_mixed_precision(precision):
    """A step runs; the head and variables are float32; a step with overflow is skipped."""
    model = create(CONFIGS["cifar"], classes=5, input_shape=(32, 32, 3), dtype=precision)
    assert model.output.dtype == "float32"
    assert model.get_layer("avgpool").compute_dtype == "float32"
    assert {v.dtype for v in model.variables} == {"float32"}
    recipe = Recipe(optimizer="sgd", precision=precision)
    model.compile(create_optimizer(recipe, 0.01), keras.losses.CategoricalCrossentropy())
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 32, 32, 3)).astype("float32"), np.eye(5)[np.arange(8) % 5]
    before = model.get_weights()
    assert np.isfinite(model.train_on_batch(x, y))
    assert any((a != b).any() for a, b in zip(before, model.get_weights(), strict=True))
    scaled = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert scaled == (precision == "mixed_float16")
    if scaled:
        scale = float(model.optimizer.dynamic_scale)
        kernel = np.array(model.get_layer("fc").kernel)
        model.train_on_batch(x * 1e30, y)  # beyond the range of float16
        assert float(model.optimizer.dynamic_scale) == scale / 2
        np.testing.assert_array_equal(np.array(model.get_layer("fc").kernel), kernel)


def keras_adam(learning_rate, **arguments):
    return keras.optimizers.Adam(learning_rate, epsilon=1e-8, **arguments)


AVERAGED = {"use_ema": True, "ema_momentum": 0.9}


@pytest.mark.parametrize(
    "ours, theirs, arguments",
    [
        (Adam, keras_adam, AVERAGED),
        *(
            pytest.param(SGD, keras.optimizers.SGD, arguments, marks=pytest.mark.slow)
            for arguments in (
                AVERAGED | {"gradient_accumulation_steps": 2},
                AVERAGED | {"ema_overwrite_frequency": 3},
                AVERAGED | {"swapped": True},
                AVERAGED | {"scaled": True},
                {"loss_scale_factor": 8.0, "clipnorm": 0.5},
            )
        ),
    ],
)
def test_a_fit_ends_as_with_keras_own_optimizer(ours, theirs, arguments, tmp_path):
    """Weights and validation losses are equal, also after resuming from a saved model."""
    arguments = dict(arguments)
    swapped, scaled = (arguments.pop(name, False) for name in ("swapped", "scaled"))
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(16, 4)).astype("float32"), rng.normal(size=(16, 4)).astype("float32")
    results = []
    for kind in (ours, theirs):
        model = network()
        optimizer = kind(0.05, **arguments)
        if scaled:
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        model.compile(optimizer, "mse")

        def fit(model):
            callbacks = [keras.callbacks.SwapEMAWeights()] if swapped else []
            done = model.fit(
                *(x, y),
                batch_size=4,
                epochs=2,
                shuffle=False,
                validation_data=(x, y),
                verbose=0,
                callbacks=callbacks,
            )
            return [*model.get_weights(), done.history["val_loss"]]

        first = fit(model)
        model.save(tmp_path / "model.keras")
        results.append([*first, *fit(keras.saving.load_model(tmp_path / "model.keras"))])
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_variables_excluded_from_decay():
    moved = {}
    for kind, decay in ((SGD, "decay"), (keras.optimizers.SGD, "weight_decay")):
        model = network()
        optimizer = kind(0.5, **{decay: 0.1})
        layers = [model.get_layer(name) for name in ("conv1", "layer1.0", "fc")]
        optimizer.exclude_from_weight_decay([layers[2].kernel, *(part.bias for part in layers)])
        before = model.get_weights()
        gradients = [np.ones(v.shape, np.float32) for v in model.trainable_variables]
        optimizer.apply(gradients, model.trainable_variables)
        moved[kind] = [a - b for a, b in zip(model.get_weights(), before, strict=True)]
    for one, other in zip(*moved.values(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)
