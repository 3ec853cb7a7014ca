"""Killed trainings are resumed bit for bit; errors if they cannot be resumed."""

import contextlib
import csv
import errno
import json
import logging
import os
import resource
import signal
import subprocess
import sys
import time
import zipfile

import keras
import numpy as np
import pytest
from labelled_flowers import write_tables

from keras_resnet import data
from keras_resnet.models import create
from keras_resnet.trained import open_network
from keras_resnet.training import SGD, Recipe, TrainingError, checkpoint, train
from keras_resnet.training.callbacks import CROSS_ENTROPY, Averages
from keras_resnet.training.checkpoint import TrainingState
from keras_resnet.weights import save

# All stateful parts: order, augmentation, dropout, schedule, momentum, two kinds of averages.
ARGUMENTS = (
    *("train", "--data", "flowers", "--model", "resnet18", "--image-size", "32"),
    *("--epochs", "4", "--batch-size", "8", "--deterministic", "--save-every", "2"),
    *("--set", "augmentation.mixup=0.2", "--set", "dropout=0.2", "--set", "drop_path=0.2"),
    *("--set", "schedule=cosine", "--set"),
)
SGD_ARGUMENTS = (
    *(*ARGUMENTS, "optimizer=sgd", "--set", "ema_momentum=0.9"),
    *("--set", 'class_weights={"rose": 2}'),
)
LAMB_ARGUMENTS = (
    *(*ARGUMENTS, "optimizer=lamb", "--set", "teacher=teacher.pth", "--set", "swa_start=2"),
    *("--set", "train_sizes=[32, 40]", "--set", "loss=binary_cross_entropy"),
    *("--set", "augmentation.policy=rand-m7-mstd0.5-inc1"),
)
# The tables contain weights of images.
LABELS_ARGUMENTS = (*ARGUMENTS, "optimizer=sgd", "--set", "loss=binary_cross_entropy")


def killed_once(arguments, reached, folder, delay=0.0, by=signal.SIGKILL, code=-signal.SIGKILL):
    """Runs a training until `reached()`, kills it after a delay, and returns its output."""
    process = subprocess.Popen(
        [sys.executable, "-m", "keras_resnet_cli", *arguments, "--output", folder.name],
        cwd=folder.parent,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Processes started in the background by a shell ignore Ctrl+C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None and not reached():
        time.sleep(0.001)
    time.sleep(delay)
    process.send_signal(by)
    said = process.communicate()[0]
    assert process.returncode == code, said
    return said


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [SGD_ARGUMENTS, LAMB_ARGUMENTS, LABELS_ARGUMENTS],
    ids=["sgd", "lamb", "several labels"],
)
def test_killed_at_random_moments(arguments, tmp_path, run_python):
    data.drawn_flowers(tmp_path / "flowers", train=8, val=2)
    if arguments == LABELS_ARGUMENTS:
        write_tables(tmp_path / "flowers")
    save(create("resnet18", classes=5), tmp_path / "teacher.pth")
    whole = run_python("-m", "keras_resnet_cli", *arguments, "--output", "whole")
    assert whole.returncode == 0, whole.stderr
    folder = tmp_path / "killed"
    path = folder / checkpoint.NAME
    moments = np.random.default_rng()

    def has_written():
        return path.exists() and path.stat().st_mtime_ns > before

    def writes():
        return any(file.name.endswith(checkpoint.NAME) for file in folder.glob(".*"))

    # The second one is killed while writing, the others some time after writing.
    before = 0
    said = [killed_once(arguments, has_written, folder, moments.uniform(0, 0.5))]
    said.append(killed_once(arguments, writes, folder))
    before = path.stat().st_mtime_ns
    delay = moments.uniform(0, 0.5)
    said.append(killed_once(arguments, has_written, folder, delay, signal.SIGINT, 130))
    assert "Stopped in epoch" in said[-1] and "the same command resumes" in said[-1]
    assert "Traceback" not in said[-1]
    done = run_python("-m", "keras_resnet_cli", *arguments, "--output", "killed")
    assert done.returncode == 0, done.stderr
    assert "Continuing after" in done.stdout
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


def small(optimizer):
    """A compiled network with a single layer, and its data."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(3, "softmax", name="fc")(inputs))
    model.compile(optimizer, "categorical_crossentropy", weighted_metrics=[METRIC])
    rng = np.random.default_rng(0)
    return model, (rng.normal(size=(32, 4)).astype("float32"), np.eye(3)[rng.integers(0, 3, 32)])


METRIC = keras.metrics.CategoricalCrossentropy(name=CROSS_ENTROPY)


def fit(model, batches, *callbacks):
    return model.fit(
        *batches,
        batch_size=8,
        epochs=2,
        validation_data=batches,
        shuffle=False,
        verbose=0,
        callbacks=[*callbacks],
    ).history


class Watch(keras.callbacks.Callback):
    """Keeps the weights after each step."""

    def on_train_begin(self, logs=None):
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(self.model.get_weights())


def test_moving_averages_are_validated():
    """Compared with NumPy; training continues with the raw weights, bit for bit."""
    twin, batches = small(SGD(0.5))
    fit(twin, batches, plain := Watch())
    model, _ = small(SGD(0.5, use_ema=True, ema_momentum=0.8))
    history = fit(model, batches, watch := Watch(), Averages())
    for ours, theirs in zip(watch.seen, plain.seen, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(one, other)
    average = plain.seen[0]
    for step, weights in enumerate(plain.seen, 1):
        if step > 1:
            average = [0.8 * a + 0.2 * w for a, w in zip(average, weights, strict=True)]
        if step % 4 == 0:
            twin.set_weights(average)
            expected = twin.evaluate(*batches, verbose=0)[0]
            assert history["val_loss"][step // 4 - 1] == pytest.approx(expected, rel=1e-5)


def saved(folder):
    """Saves a checkpoint with the weights of a layer; returns the layer and the progress."""
    layer = keras.layers.Dense(3)
    layer.build((None, 4))
    history = [{"epoch": 1, "val_accuracy": 0.5}]
    progress = TrainingState((32, 32), history, skipped=[{"a.jpg": "it is empty"}, {}])
    checkpoint.save(folder, progress, {"weights": layer.weights})
    return layer, progress


def test_nan_weights_are_not_saved(tmp_path):
    layer, progress = saved(tmp_path)
    before = (tmp_path / checkpoint.NAME).read_bytes()
    layer.kernel.assign(np.full((4, 3), np.nan))
    with pytest.raises(TrainingError, match="NaN or infinite after epoch 1"):
        checkpoint.save(tmp_path, progress, {"weights": layer.weights})
    assert (tmp_path / checkpoint.NAME).read_bytes() == before


@contextlib.contextmanager
def files_of(size):
    """Limits the size of files: the kernel rejects larger ones, as it would on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path):
    layer, progress = saved(tmp_path)
    before = (tmp_path / checkpoint.NAME).read_bytes()
    layer.kernel.assign(np.ones((4, 3)))
    with files_of(200), pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
        checkpoint.save(tmp_path, progress, {"weights": layer.weights})
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {
        checkpoint.NAME: before
    }


def test_patience():
    history = [{"val_accuracy": value} for value in (0.1, 0.5, 0.4, 0.5, 0.3)]
    recipe = Recipe(early_stopping=3)
    state = TrainingState((32, 32), history)
    assert not TrainingState((32, 32), history[:4]).ends(recipe)
    assert state.ends(recipe)
    assert not state.ends(Recipe(early_stopping=3, head_epochs=3, weights="w.pth"))
    assert not state.ends(Recipe())


def rows(folder):
    with (folder / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_a_training_meets_a_full_disk_and_goes_on(tmp_path, tiny_rows):
    """Saved files are kept; the best network has the validation loss of the moving averages."""
    drawn = data.drawn_flowers(tmp_path / "flowers", train=4, val=2)
    sizes = {"model": "resnet20", "image_size": 32, "batch_size": 8, "epochs": 2}
    recipe = Recipe(data=str(drawn), optimizer="sgd", ema_momentum=0.8, **sizes)
    folder = tmp_path / "run"
    kept = {}

    class Full(logging.Handler):
        """Fills the disk after the first epoch is logged."""

        def emit(self, record):
            if record.getMessage().startswith("Epoch 1/2"):
                kept.update({name: (folder / name).read_bytes() for name in STATE})
                size = len(kept[checkpoint.NAME]) // 2
                resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    handler, logger = Full(), logging.getLogger("keras_resnet")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with files_of(resource.RLIM_INFINITY), pytest.raises(OSError, match="epoch 2") as error:
            train(recipe, folder)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    assert f"cannot be written after epoch 2: {os.strerror(errno.EFBIG)}" in str(error.value)
    assert "Files saved before are intact" in str(error.value)
    assert {name: (folder / name).read_bytes() for name in STATE} == kept
    assert train(recipe, folder) == folder
    history = rows(folder)
    assert len(history) == 2
    best = max(history, key=lambda row: float(row["val_accuracy"]))
    found = open_network(folder).evaluate(str(drawn))
    assert found.loss == pytest.approx(float(best["val_loss"]), rel=1e-4)


STATE = ("best.keras", checkpoint.NAME, "history.csv", "skipped.csv")


@pytest.mark.slow
def test_patience_ends_a_training(tmp_path, tiny_rows):
    """Nothing is learned, so it stops two epochs after the first."""
    drawn = data.drawn_flowers(tmp_path / "flowers", train=4, val=2)
    sizes = {"model": "resnet20", "image_size": 32, "batch_size": 8, "epochs": 5}
    recipe = Recipe(
        data=str(drawn), optimizer="sgd", learning_rate=1e-12, early_stopping=2, **sizes
    )
    folder = train(recipe, tmp_path / "run")
    assert len(rows(folder)) == 3 and (folder / "last.keras").exists()


def test_damaged_checkpoints(tmp_path):
    _, written = saved(tmp_path)
    progress, state = checkpoint.load(tmp_path)
    assert progress == written
    other = keras.layers.Dense(5)
    other.build((None, 4))
    with pytest.raises(TrainingError, match="by another version"):
        checkpoint.restore(state, {"weights": other.weights})
    path = tmp_path / checkpoint.NAME
    content = path.read_bytes()
    for bit in np.random.default_rng(0).permutation(8 * len(content))[:500]:
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(flipped)
        try:
            found, arrays = checkpoint.load(tmp_path)
        except TrainingError as error:
            assert "cannot be read" in str(error)
        else:  # the bit has no effect
            assert found == progress
            assert all(np.array_equal(arrays[name], state[name]) for name in state)
    path.write_bytes(content[:50])
    with pytest.raises(TrainingError, match="cannot be read"):
        checkpoint.load(tmp_path)
    header = json.dumps({"__metadata__": {"progress": "{}"}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(TrainingError, match="cannot be read"):
        checkpoint.load(tmp_path)
