"""Trainings that are killed, and go on to the same bits; and what happens where nothing fits."""

import csv
import errno
import json
import os
import resource
import signal
import subprocess
import sys
import time
import zipfile
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from keras_resnet import data
from keras_resnet.training import Distribution, Recipe, TrainingError, checkpoint
from keras_resnet.training.callbacks import (
    CROSS_ENTROPY,
    Averages,
    CheckpointCallback,
    averages,
)
from keras_resnet.training.checkpoint import TrainingState
from keras_resnet.training.optimizers import create_optimizer
from keras_resnet.training.phases import Phase, Training

# All that has a state: order, augmentation, dropout, schedule, momentum, moving averages.
ARGUMENTS = (
    *("train", "--data", "flowers", "--model", "resnet18", "--image-size", "32"),
    *("--epochs", "4", "--batch-size", "8", "--deterministic", "--save-every", "2"),
    *("--set", "augmentation.mixup=0.2", "--set", "dropout=0.2", "--set", "drop_path=0.2"),
    *("--set", "ema_momentum=0.9", "--set", "schedule=cosine", "--set", "optimizer=sgd"),
)


def killed_once(reached, folder, delay=0.0):
    """What the training into a folder says until `reached()` and some seconds more."""
    process = subprocess.Popen(
        [sys.executable, "-m", "keras_resnet_cli", *ARGUMENTS, "--output", folder.name],
        cwd=folder.parent,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None and not reached():
        time.sleep(0.001)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    said = process.communicate()[0]
    assert process.returncode == -signal.SIGKILL, said
    return said


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path, run_python):
    data.drawn_flowers(tmp_path / "flowers", train=8, val=2)
    whole = run_python("-m", "keras_resnet_cli", *ARGUMENTS, "--output", "whole")
    assert whole.returncode == 0, whole.stderr
    folder = tmp_path / "killed"
    path = folder / checkpoint.NAME
    moments = np.random.default_rng()

    def has_written():
        return path.exists() and path.stat().st_mtime_ns > before

    def writes():
        return any(file.name.endswith(checkpoint.NAME) for file in folder.glob(".*"))

    # The second is killed while it writes, the others some time after they have written.
    before = 0
    said = [killed_once(has_written, folder, moments.uniform(0, 0.5))]
    said.append(killed_once(writes, folder))
    before = path.stat().st_mtime_ns
    said.append(killed_once(has_written, folder, moments.uniform(0, 0.5)))
    done = run_python("-m", "keras_resnet_cli", *ARGUMENTS, "--output", "killed")
    assert done.returncode == 0, done.stderr
    assert "Going on after" in done.stdout
    for name in ("last.keras", "best.keras"):
        contents = [
            zipfile.ZipFile(tmp_path / run / name).read("model.weights.h5")
            for run in ("whole", "killed")
        ]
        assert contents[0] == contents[1], (name, said)
    histories = []
    for run in ("whole", "killed"):
        with (tmp_path / run / "history.csv").open(newline="") as file:
            histories.append(list(csv.DictReader(file)))
    for one, other in zip(*histories, strict=True):
        for name in one.keys() - {"phase", "images_per_second"}:
            assert float(one[name]) == pytest.approx(float(other[name]), rel=1e-6), name
    assert not list(folder.glob(".*"))
    assert not (folder / checkpoint.NAME).exists()


def small(**recipe):
    """A network of two layers, compiled, its data, and its keeper's arguments."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(3, "softmax", name="fc")(inputs))
    plain = keras.models.clone_model(model)
    model.compile(
        create_optimizer(Recipe(optimizer="sgd", **recipe), 0.5),
        keras.losses.CategoricalCrossentropy(),
        weighted_metrics=[
            keras.metrics.CategoricalAccuracy(name="accuracy"),
            keras.metrics.TopKCategoricalAccuracy(name="top5"),
            keras.metrics.CategoricalCrossentropy(name=CROSS_ENTROPY),
        ],
    )
    rng = np.random.default_rng(0)
    batches = rng.normal(size=(32, 4)).astype("float32"), np.eye(3)[rng.integers(0, 3, 32)]
    return model, plain, batches


class Bar:
    """What a keeper asks of the progress bar."""

    batch_size, epochs, images_per_second = 8, 5, 1.0


def keeper(model, plain, folder, **recipe):
    skipped = (data.Skipped(), data.Skipped())
    sources = (SimpleNamespace(count=32), SimpleNamespace(count=32))
    training = Training(
        Recipe(**recipe), model, plain, sources, skipped, folder, None, Distribution()
    )
    phase = Phase("network", model, model, model.optimizer, 0.5, range(5), 4, 8, None, None)
    return CheckpointCallback(training, phase, TrainingState((32, 32)), Bar)


def fit(model, batches, *callbacks, **arguments):
    model.fit(
        *batches,
        batch_size=8,
        validation_data=batches,
        shuffle=False,
        verbose=0,
        callbacks=[Averages(), *callbacks],
        **arguments,
    )


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path):
    """The kernel refuses the write, as it would on a full disk."""
    model, plain, batches = small()
    keep = keeper(model, plain, tmp_path)
    fit(model, batches, keep, epochs=1)
    kept = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert set(kept) == {"best.keras", checkpoint.NAME, "history.csv", "skipped.csv"}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, limits[1]))
    try:
        with pytest.raises(OSError, match="What was saved before is intact") as error:
            keep.save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.strerror(errno.EFBIG) in str(error.value)
    assert f"{tmp_path / checkpoint.NAME} cannot be written after epoch 1" in str(error.value)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == kept


def test_moving_averages_are_validated_and_saved(tmp_path):
    """Against NumPy; and training goes on with the weights themselves, to the bit."""
    model, plain, batches = small(ema_momentum=0.8)
    twin, *_ = small()
    kernels = []
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: kernels.append(np.array(twin.layers[1].kernel))
    )
    fit(twin, batches, watch, epochs=2)
    fit(model, batches, keeper(model, plain, tmp_path), epochs=2)
    np.testing.assert_array_equal(np.array(model.layers[1].kernel), kernels[-1])
    average = kernels[0]
    for kernel in kernels[1:]:
        average = 0.8 * average + 0.2 * kernel
    found = averages(model.optimizer)[id(model.layers[1].kernel)]
    np.testing.assert_allclose(np.array(found), average, rtol=1e-5)
    saved = keras.saving.load_model(tmp_path / "best.keras")
    saved.compile(loss=keras.losses.CategoricalCrossentropy())
    with (tmp_path / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    losses = [float(row["val_loss"]) for row in rows]
    assert any(saved.evaluate(*batches, verbose=0) == pytest.approx(loss) for loss in losses)


def test_weights_that_are_no_numbers_are_not_saved(tmp_path):
    model, plain, batches = small()
    keep = keeper(model, plain, tmp_path)
    fit(model, batches, keep, epochs=1)
    before = (tmp_path / checkpoint.NAME).read_bytes()
    model.layers[1].kernel.assign(np.full((4, 3), np.nan))
    with pytest.raises(TrainingError, match="no finite numbers after epoch 1"):
        keep.save()
    assert (tmp_path / checkpoint.NAME).read_bytes() == before


def test_patience(tmp_path):
    history = [{"val_accuracy": value} for value in (0.1, 0.5, 0.4, 0.5, 0.3)]
    recipe = Recipe(early_stopping=3)
    state = TrainingState((32, 32), history)
    assert not TrainingState((32, 32), history[:4]).ends(recipe)
    assert state.ends(recipe)
    assert not state.ends(Recipe(early_stopping=3, head_epochs=3, weights="w.pth"))
    assert not state.ends(Recipe())
    model, plain, batches = small()
    model.optimizer.learning_rate = 0.0
    fit(model, batches, keeper(model, plain, tmp_path, early_stopping=2), epochs=5)
    with (tmp_path / "history.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 3
    assert (tmp_path / "last.keras").exists()


def test_what_a_checkpoint_is_not(tmp_path):
    model, plain, batches = small()
    fit(model, batches, keeper(model, plain, tmp_path), epochs=1)
    progress, state = checkpoint.load(tmp_path)
    assert (progress.epoch, progress.step, progress.counts) == (1, 0, (32, 32))
    other = keras.layers.Dense(5)
    other.build((None, 4))
    with pytest.raises(TrainingError, match="of another version"):
        checkpoint.restore(state, {"weights": other.weights})
    path = tmp_path / checkpoint.NAME
    written = path.read_bytes()
    for bit in np.random.default_rng(0).permutation(8 * len(written))[:500]:
        flipped = bytearray(written)
        flipped[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(flipped)
        try:
            found, arrays = checkpoint.load(tmp_path)
        except TrainingError as error:
            assert "cannot be read" in str(error)
        else:  # where the bit says nothing
            assert found == progress
            assert all(np.array_equal(arrays[name], state[name]) for name in state)
    path.write_bytes(written[:50])
    with pytest.raises(TrainingError, match="cannot be read"):
        checkpoint.load(tmp_path)
    header = json.dumps({"__metadata__": {"progress": "{}"}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(TrainingError, match="cannot be read"):
        checkpoint.load(tmp_path)
