"""The training loop: batches of one shape, few images, and steps that do not wait for the host."""

import csv
import logging

import keras
import numpy as np
import pytest
import tensorflow as tf
from numbered_images import make
from small_networks import CONFIGS as SMALL

from keras_resnet import data
from keras_resnet.data.images import list_images
from keras_resnet.data.locations import training_sources
from keras_resnet.data.pipeline import training_batches
from keras_resnet.layers import convolution_path
from keras_resnet.models import create
from keras_resnet.preprocessing import Preprocessing
from keras_resnet.trained import open_network
from keras_resnet.training import Distribution, Recipe, train
from keras_resnet.training.callbacks import CallbackList
from keras_resnet.training.feed import FedNetwork, training_feed, validation_feed

PREPROCESSING = Preprocessing(32, 32)
MIXED = data.Augmentation(erasing=0.5, mixup=0.4, cutmix=1.0, label_smoothing=0.1, repeats=2)


@pytest.fixture(scope="module")
def flowers(tmp_path_factory, tiny_rows, draw_flowers):
    """45 training images, and 10 validation images, of which one is broken."""
    folder = draw_flowers(tmp_path_factory.mktemp("loop") / "flowers", train=9, val=2)
    (folder / "val" / "rose" / "000.jpg").write_bytes(b"no image")
    return folder


@pytest.mark.slow
def test_a_training_compiles_two_steps(flowers, tmp_path, monkeypatch):
    """One for training batches, of 45 images by 8, and one for validation, despite a bad image."""
    traced = []

    def counted(name):
        step = getattr(FedNetwork, name)

        def count(self, batch):
            traced.append((name, batch[0]["pixels"].shape))
            return step(self, batch)

        monkeypatch.setattr(FedNetwork, name, count)

    counted("train_step")
    counted("test_step")
    recipe = Recipe(
        data=str(flowers),
        model="resnet20",
        image_size=32,
        epochs=2,
        batch_size=8,
        max_bad=0.5,
        augmentation=MIXED,
        jit_compile=True,
    )
    folder = train(recipe, tmp_path / "run", save_every=3)
    assert traced == [("train_step", (8, 32, 32, 3)), ("test_step", (8, 32, 32, 3))]
    with (folder / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    best = max(rows, key=lambda row: float(row["val_accuracy"]))
    # Each good image counts once.
    found = open_network(folder).evaluate(str(flowers))
    assert len(found.rows) == 9
    assert float(best["val_accuracy"]) == pytest.approx(found.top1, abs=1e-6)
    assert float(best["val_loss"]) == pytest.approx(found.loss, rel=1e-4)
    assert Recipe.from_json((folder / "recipe.json").read_text()).jit_compile is True


@pytest.mark.parametrize(
    "augmentation, shared",
    [
        pytest.param(MIXED, True, id="mixed, shared"),
        pytest.param(data.Augmentation(), False, id="plain", marks=pytest.mark.slow),
        pytest.param(MIXED, False, id="mixed", marks=pytest.mark.slow),
        pytest.param(data.Augmentation(), True, id="plain, shared", marks=pytest.mark.slow),
    ],
)
def test_a_step_prepares_batches_like_the_pipeline(flowers, augmentation, shared):
    """The images and labels for the network are bit-identical."""
    source = training_sources(flowers)[0].whole_batches(8)
    options = {
        "preprocessing": PREPROCESSING,
        "augmentation": augmentation,
        "batch_size": 8,
        "seed": 3,
        "first_step": 0,
    }
    seen = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Identity()])
    fed = FedNetwork(seen, augmentation, PREPROCESSING)
    finished = training_batches(source, **options)
    fed_batches = training_feed(source, shared=shared, **options)
    pairs = tf.data.Dataset.zip(finished, fed_batches).take(6)
    for (images, labels), (batch, fed_labels) in pairs:
        assert batch["pixels"].dtype == "uint8" and batch["pixels"].shape[0] == 8
        np.testing.assert_array_equal(fed(batch), images)
        if labels.dtype == "int64":
            labels = tf.one_hot(labels, 5)
        np.testing.assert_array_equal(fed_labels, labels)


def test_half_a_batch_on_each_of_two_devices(flowers):
    """MixUp and CutMix give the same result as for the whole batch."""
    source = training_sources(flowers)[0].whole_batches(8)
    options = {"preprocessing": PREPROCESSING, "batch_size": 8, "seed": 3, "first_step": 0}
    batch, _ = next(iter(training_feed(source, augmentation=MIXED, shared=True, **options)))
    whole = MIXED.apply(batch, PREPROCESSING)
    halves = [
        MIXED.apply({name: part[rows] for name, part in batch.items()}, PREPROCESSING)
        for rows in (slice(0, 4), slice(4, 8))
    ]
    np.testing.assert_array_equal(tf.concat(halves, 0), whole)


def test_the_images_left_out_of_an_epoch_differ(tmp_path):
    source = list_images(make(tmp_path / "images")).source()
    batch_size = source.count // 2 + 1
    chosen = source.whole_batches(batch_size)

    def taken(epoch):
        examples = chosen.examples(tf.constant([0, epoch], tf.int64), 0).take(chosen.count)
        return frozenset(name for name, *_ in examples.as_numpy_iterator())

    assert len({taken(epoch) for epoch in range(4)}) == 4


@pytest.mark.slow
def test_fewer_images_than_a_batch(flowers, tmp_path, caplog, monkeypatch):
    recipe = Recipe(
        data=str(flowers), model="resnet20", image_size=32, epochs=1, batch_size=64, max_bad=0.5
    )
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    caplog.set_level("INFO", "keras_resnet")
    monkeypatch.setattr(logging.getLogger("keras_resnet"), "propagate", True)
    with convolution_path("eigen"):  # as on a CPU where TensorFlow disables oneDNN
        folder = train(recipe, tmp_path / "run")
    assert (folder / "report.md").exists()
    assert "TF_ENABLE_ONEDNN_OPTS=1" in caplog.text


def test_validation_pads(flowers):
    source = training_sources(flowers)[1]
    batches = list(validation_feed(source, PREPROCESSING, batch_size=4, skipped=data.Skipped()))
    assert all(
        part.shape[0] == 4 for batch, *others in batches for part in (batch["pixels"], *others)
    )
    assert sum(float(tf.reduce_sum(weights)) for *_, weights in batches) == 9


class Watch(keras.callbacks.Callback):
    """Keeps the loss in the logs of the last step."""

    def on_train_batch_end(self, batch, logs=None):
        self.seen = logs["loss"]


def test_the_logs_of_a_step_are_left_on_the_device():
    model = create(SMALL["basic"], classes=3, input_shape=(32, 32, 3))
    model.compile("sgd", "sparse_categorical_crossentropy")
    watch = Watch()
    callbacks = CallbackList([watch], add_history=True, model=model, epochs=1, steps=1)
    model.fit(np.zeros((2, 32, 32, 3)), np.zeros(2), verbose=0, callbacks=callbacks)
    assert isinstance(watch.seen, tf.Tensor)


@pytest.mark.parametrize(
    "capability, steps, expected",
    [
        (None, 10**6, ("float32", False)),
        (7.5, 10**6, ("float32", True)),
        (9.0, 10**6, ("mixed_bfloat16", True)),
        (9.0, 10, ("mixed_bfloat16", False)),
    ],
)
def test_machine_dependent_settings(capability, steps, expected, monkeypatch):
    from keras_resnet.training import distribution

    monkeypatch.setattr(distribution, "_compute_capability", lambda: capability)
    left = Recipe(precision=None)
    found = Distribution().resolved(left, steps)
    assert (found.precision, found.jit_compile) == expected
    # An unfinished training is resumed with the resolved values.
    assert left.resolved_as(found) == found
    forced = Recipe(precision="float32", jit_compile=not expected[1])
    assert Distribution().resolved(forced, steps) == forced
