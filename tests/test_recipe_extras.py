"""Trainings with a teacher, with averaged weights, and at growing sizes."""

import csv
import dataclasses
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_resnet import features
from keras_resnet.data.locations import training_sources
from keras_resnet.data.pipeline import training_batches
from keras_resnet.models import at_size, create
from keras_resnet.trained.run import Run
from keras_resnet.training import Recipe, callbacks, train
from keras_resnet.training.distillation import create_distillation, divergence
from keras_resnet.training.feed import FedNetwork
from keras_resnet.training.losses import create_loss
from keras_resnet.training.optimizers import create_schedule
from keras_resnet.training.weight_averaging import recompute_statistics


@pytest.fixture(scope="module")
def flowers(tmp_path_factory, tiny_rows, draw_flowers):
    return draw_flowers(tmp_path_factory.mktemp("extras") / "flowers", train=4, val=2)


def recipe_on(flowers, **changes):
    sizes = {"model": "resnet20", "image_size": 32, "batch_size": 8, "epochs": 2}
    return Recipe(
        data=str(flowers), **{"optimizer": "sgd", "learning_rate": 0.01, **sizes, **changes}
    )


def model_file(path, classes=5, ends="softmax"):
    """Saves a Keras model that is not from this package."""
    inputs = keras.Input((None, None, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(inputs))
    keras.Model(inputs, keras.layers.Dense(classes, ends)(x)).save(path)
    return str(path)


def test_divergence_is_hintons():
    """Computed by NumPy in double precision; 0 for equal logits."""
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(size=(2, 6, 4)).astype(np.float32)

    def softened(logits):
        powers = np.exp(logits.astype(float) / 3)
        return powers / powers.sum(-1, keepdims=True)

    p, q = softened(theirs), softened(ours)
    expected = 9 * (p * np.log(p / q)).sum(-1).mean()
    assert float(divergence(ours, theirs, 3.0)) == pytest.approx(expected, rel=1e-5)
    assert float(divergence(ours, ours, 3.0)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", ["cross_entropy", "binary_cross_entropy"])
def test_gradients_are_added_in_pairs(name):
    """AddN begins with any input whose memory it can reuse: sums of more than two would differ."""
    loss = create_loss(Recipe(loss=name))

    @tf.function
    def gradients(labels, logits, teachers):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            total = loss(labels, logits) + divergence(logits, teachers, 4.0)
        return tape.gradient(total, logits)

    graph = gradients.get_concrete_function(*[tf.TensorSpec((8, 5))] * 3).graph
    added = [len(node.inputs) for node in graph.get_operations() if node.type == "AddN"]
    assert added and max(added) == 2


def test_a_keras_model_teaches(flowers, tmp_path):
    recipe = recipe_on(flowers, teacher=model_file(tmp_path / "t.keras"), teacher_share=0.25)
    distillation = create_distillation(recipe, ["a", "b", "c", "d", "e"])
    rng = np.random.default_rng(0)
    images = rng.normal(size=(8, 32, 32, 3)).astype(np.float32)
    logits = 5 * rng.normal(size=(8, 5)).astype(np.float32)
    teacher = keras.saving.load_model(tmp_path / "t.keras")
    expected = float(divergence(logits, np.log(teacher(images)), 4.0))
    assert float(distillation(images, logits)) == pytest.approx(0.25 * expected, rel=1e-4)
    assert not distillation.trainable_variables


@pytest.mark.parametrize(
    "classes, ends, said",
    [(3, "softmax", "has 3 classes, and the data 5"), (5, None, "Add a softmax at its end")],
)
def test_invalid_teachers(classes, ends, said, flowers, tmp_path):
    recipe = recipe_on(flowers, teacher=model_file(tmp_path / "t.keras", classes, ends))
    with pytest.raises(ValueError, match=said):
        create_distillation(recipe, ["a", "b", "c", "d", "e"])


def test_unreadable_teachers(flowers, tmp_path):
    (tmp_path / "t.keras").write_bytes(b"no zip file")
    for name, said in (("t.keras", "cannot be read"), ("none.keras", "none.keras")):
        with pytest.raises(ValueError, match=said):
            create_distillation(recipe_on(flowers, teacher=str(tmp_path / name)), ["a"] * 5)


def test_sizes_by_epoch():
    recipe = Recipe(epochs=7, train_sizes=(128, 160, 192))
    sizes = [recipe.training_preprocessing_in(epoch).crop for epoch in range(7)]
    assert sizes == [128, 128, 128, 160, 160, 192, 192]
    assert recipe.training_preprocessing.crop == 192 and recipe.preprocessing.crop == 224


def test_the_learning_rate_of_averaged_epochs():
    arguments = {"epochs": 4, "schedule": "cosine", "learning_rate": 1.0}
    schedule = create_schedule(Recipe(swa_start=2, swa_learning_rate=0.3, **arguments), 10)
    plain = create_schedule(Recipe(**arguments), 10)
    for step in (0, 19):
        assert float(schedule(step)) == pytest.approx(float(plain(step)))
    assert float(schedule(20)) == float(schedule(39)) == pytest.approx(0.3)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(schedule))
    assert float(again(20)) == pytest.approx(0.3)


def test_a_copy_at_another_size(tiny_rows):
    model = create("resnet20", classes=5, input_shape=(32, 32, 3))
    assert at_size(model, 32) is model
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    for size, sides in ((None, (None, None)), ((48, 40), (48, 40))):
        copy = at_size(model, size)
        assert copy.input_shape[1:3] == sides and copy.count_params() == model.count_params()
    np.testing.assert_array_equal(at_size(model, None)(images), model(images))
    flat = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="supports only images"):
        at_size(flat, 9)


def test_a_card_names_no_folders(tmp_path):
    recipe = Recipe(data="/home/me/photos", weights="/home/me/w.pth", teacher="/home/me/t.keras")
    (tmp_path / "recipe.json").write_text(recipe.to_json())
    card = Run(tmp_path, ("a", "b"), recipe.preprocessing, {}).card()
    assert "/home" not in json.dumps(card)
    assert (card["recipe"]["weights"], card["recipe"]["teacher"]) == ("w.pth", "t.keras")


def rows(folder):
    with (folder / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_each_size_is_compiled_once(flowers, tmp_path, monkeypatch):
    traced, step = [], FedNetwork.train_step

    def count(self, batch):
        traced.append(batch[0]["pixels"].shape[1])
        return step(self, batch)

    monkeypatch.setattr(FedNetwork, "train_step", count)
    folder = train(
        recipe_on(flowers, epochs=4, train_sizes=(32, 40)), tmp_path / "run", save_every=1
    )
    assert traced == [32, 40] and len(rows(folder)) == 4


@pytest.mark.slow
def test_the_average_is_what_is_saved(flowers, tmp_path, monkeypatch):
    """The mean of the weights after three epochs, with statistics of all batches."""
    kept, write = [], callbacks.CheckpointCallback.on_epoch_end

    def keep(self, epoch, logs=None):
        kept.append(self.phase.network.get_weights())
        write(self, epoch, logs)

    monkeypatch.setattr(callbacks.CheckpointCallback, "on_epoch_end", keep)
    recipe = recipe_on(flowers, epochs=4, swa_start=1)
    folder = train(recipe, tmp_path / "run")
    means = [np.mean(values, 0, np.float64) for values in zip(*kept[1:], strict=True)]
    network = create("resnet20", classes=5, input_shape=(32, 32, 3))
    network.set_weights(means)
    source = training_sources(flowers)[0].whole_batches(8)
    batches = training_batches(
        source,
        preprocessing=recipe.preprocessing,
        batch_size=8,
        seed=0,
        augmentation=recipe.augmentation,
        first_step=4 * (source.count // 8),
    )
    recompute_statistics(network, (images for images, _ in batches.take(source.count // 8)))
    for name in ("best.keras", "last.keras"):
        saved = keras.saving.load_model(folder / name)
        for ours, theirs in zip(saved.get_weights(), network.get_weights(), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    assert "accuracy of the averaged weights" in (folder / "report.md").read_text()


@pytest.mark.slow
def test_a_run_teaches(flowers, tmp_path):
    """Another network learns from its outputs only, with a teacher share of 1."""
    teacher = train(recipe_on(flowers), tmp_path / "teacher")
    recipe = recipe_on(flowers, teacher=str(teacher), teacher_share=1.0, seed=1, epochs=6)
    recipe = dataclasses.replace(recipe, optimizer="adam", loss="binary_cross_entropy")
    losses = [float(row["loss"]) for row in rows(train(recipe, tmp_path / "student"))]
    assert losses[-1] < losses[0]
    with pytest.raises(ValueError, match=r"was trained on other classes: .* The data has a"):
        create_distillation(recipe, ["a", "b", "c", "d", "e"])


@pytest.mark.slow
def test_a_teacher_that_has_changed_is_refused(flowers, tmp_path, monkeypatch):
    """When a training is resumed; it continues with the old teacher back in its place."""
    path = tmp_path / "t.keras"
    recipe = recipe_on(flowers, teacher=model_file(path))
    save = callbacks.CheckpointCallback.save

    def save_and_stop(self):
        save(self)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(callbacks.CheckpointCallback, "save", save_and_stop)
        train(recipe, tmp_path / "run")
    before = path.read_bytes()
    model_file(path)  # other random weights
    with pytest.raises(ValueError, match=r"t\.keras has changed since .*run began. Restore it"):
        train(recipe, tmp_path / "run")
    path.write_bytes(before)
    assert len(rows(train(recipe, tmp_path / "run"))) == 2


@pytest.mark.backend
def test_jax_trains_the_same(flowers, tmp_path, run_python):
    """With LAMB, a teacher, growing images and averaged weights: the losses of TensorFlow."""
    pytest.importorskip("jax")
    program = (
        "from keras_resnet import ResNet20, weights\n"
        "for name in ('start', 'teacher'):\n"
        "    weights.save(ResNet20(classes=5), f'{name}.safetensors')\n"
    )
    assert run_python("-c", program).returncode == 0
    losses = []
    for backend in ("tensorflow", "jax"):
        done = run_python(
            *("-m", "keras_resnet_cli", "train", "--data", flowers, "--model", "resnet20"),
            *("--weights", "start.safetensors", "--set", "teacher=teacher.safetensors"),
            *("--image-size", 32, "--batch-size", 8, "--learning-rate", 1e-5, "--epochs", 2),
            *("--set", "optimizer=lamb", "--set", "swa_start=0", "--set", "train_sizes=[32,40]"),
            *("--output", backend),
            variables={"KERAS_BACKEND": backend},
        )
        assert done.returncode == 0, done.stderr
        averaged = tmp_path / backend / "predictions.csv"  # those of the averaged weights
        with averaged.open(newline="") as file:
            shares = [float(row["probability"]) for row in csv.DictReader(file)]
        found = [
            float(row[key]) for row in rows(tmp_path / backend) for key in ("loss", "val_loss")
        ]
        losses.append([*found, *shares])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_statistics_are_means_over_batches(tiny_rows):
    """Each batch has equal weight; frozen layers are unchanged; the momentum is restored."""
    model = create("resnet20", classes=5, input_shape=(32, 32, 3))
    features.freeze(model, "layer1")
    rng = np.random.default_rng(0)
    batches = [rng.normal(size=(4, 32, 32, 3)).astype(np.float32) for _ in range(3)]
    before = np.array(model.get_layer("bn1").moving_mean)
    norm = features.all_layers(model)
    last = [layer for layer in norm if isinstance(layer, keras.layers.BatchNormalization)][-1]
    each = []
    for batch in batches:
        recompute_statistics(model, [batch])
        each.append(np.array(last.moving_mean))
    recompute_statistics(model, iter(batches))
    np.testing.assert_allclose(last.moving_mean, np.mean(each, 0), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(model.get_layer("bn1").moving_mean, before)
    assert last.momentum == 0.9
