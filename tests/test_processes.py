"""Training with JAX in several real processes on one machine."""

import csv
import os
import signal
import socket
import subprocess
import sys
import time
import zipfile

import pytest

from keras_resnet import data
from keras_resnet.training import Distribution, Recipe

ARGUMENTS = (
    *("train", "--data", "flowers", "--model", "resnet18", "--image-size", "32"),
    *("--batch-size", "8", "--learning-rate", "1e-6", "--set", "optimizer=sgd"),
    *("--save-every", "2", "--set", 'class_weights={"rose": 3}'),
)


@pytest.fixture
def start(tmp_path):
    """Starts the given number of processes; those still running at the end are killed."""
    pytest.importorskip("jax", reason="training with several processes needs the jax extra")
    data.drawn_flowers(tmp_path / "flowers", train=8, val=3)
    started = []

    def run(count, *arguments):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        for number in range(count):
            place = ("--coordinator", f"127.0.0.1:{port}", "--processes", count)
            place = (*place, "--process-id", number) if count > 1 else ()
            command = ("-m", "keras_resnet_cli", *ARGUMENTS, *arguments, *place)
            with (tmp_path / f"log{number}").open("w") as log:
                started.append(
                    subprocess.Popen(
                        [sys.executable, *map(str, command)],
                        cwd=tmp_path,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        env={
                            **os.environ,
                            "KERAS_BACKEND": "jax",
                            "PYTHONPATH": os.pathsep.join(sys.path),
                        },
                    )
                )
        return started[-count:]

    yield run
    for process in started:
        process.kill()


def ended(processes):
    return [process.wait(240) for process in processes]


def history(folder):
    with (folder / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.backend
def test_two_train_as_one_and_survive(start, tmp_path):
    """Losses equal those of one process; if one is killed, the other ends; resuming is exact."""
    assert ended(start(1, "--epochs", 2, "--output", "one")) == [0]
    assert ended(start(2, "--epochs", 2, "--output", "two")) == [0, 0], (
        tmp_path / "log0"
    ).read_text()
    one, two = history(tmp_path / "one"), history(tmp_path / "two")
    for name in ("loss", "val_loss", "accuracy", "val_accuracy"):
        for row, other in zip(one, two, strict=True):
            assert float(other[name]) == pytest.approx(float(row[name]), rel=1e-5), name
    assert {entry.name for entry in (tmp_path / "two").iterdir()} == {
        entry.name for entry in (tmp_path / "one").iterdir()
    }
    assert (tmp_path / "two" / "saved_model" / "1").is_dir()
    assert "Epoch" not in (tmp_path / "log1").read_text()

    processes = start(2, "--epochs", 2, "--output", "killed")
    checkpoint = tmp_path / "killed" / "checkpoint.safetensors"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert checkpoint.exists(), (tmp_path / "log0").read_text()
    processes[1].send_signal(signal.SIGKILL)
    assert processes[0].wait(60) == 1
    assert "Error: Another of the 2 processes has ended" in (tmp_path / "log0").read_text()
    assert ended(start(2, "--epochs", 2, "--output", "killed")) == [0, 0]
    assert "Continuing after" in (tmp_path / "log0").read_text()
    contents = [
        zipfile.ZipFile(tmp_path / run / "last.keras").read("model.weights.h5")
        for run in ("two", "killed")
    ]
    assert contents[0] == contents[1]


def test_invalid_distributions():
    for arguments, said in (
        ({"devices": 0}, "devices=0"),
        ({"processes": 2}, "coordinator should be HOST:PORT of the first process"),
        ({"coordinator": "a:1"}, "coordinator should be HOST:PORT of the first process"),
        ({"coordinator": "a", "processes": 2}, "HOST:PORT"),
        ({"coordinator": "a:1", "processes": 2, "process_id": 2}, "process_id=2"),
        ({"coordinator": "a:1", "processes": 2}, "KERAS_BACKEND=jax"),
    ):
        with pytest.raises(ValueError, match=said):
            Distribution(**arguments)
    with pytest.raises(ValueError, match="batch_size=15, devices=2"):
        Distribution(2).check(Recipe(batch_size=15))
    with pytest.raises(ValueError, match=r"clip_norm=1\.0"):
        Distribution(2).check(Recipe(clip_norm=1.0))
    with pytest.raises(ValueError, match=r"devices=2, teacher='t\.keras'"):
        Distribution(2).check(Recipe(teacher="t.keras"))
    with pytest.raises(ValueError, match="accumulation_steps=2"):
        Distribution(2).check(Recipe(accumulation_steps=2))


LAMB = (*("--set", "optimizer=lamb", "--set", "loss=binary_cross_entropy", "--set", "swa_start=0"),)


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), LAMB], ids=["sgd", "lamb"])
def test_two_devices_train_as_one(more, run_python, tmp_path):
    """With MirroredStrategy on a CPU split in two, with batch statistics over both."""
    data.drawn_flowers(tmp_path / "flowers", train=8, val=3)
    for devices in (1, 2):
        done = run_python(
            *("-m", "keras_resnet_cli", *ARGUMENTS, *more, "--epochs", 1),
            *("--devices", devices, "--output", f"run{devices}"),
        )
        assert done.returncode == 0, done.stderr
    (one,), (two,) = history(tmp_path / "run1"), history(tmp_path / "run2")
    for name in ("loss", "val_loss", "accuracy", "val_accuracy"):
        assert float(two[name]) == pytest.approx(float(one[name]), rel=1e-5), name
