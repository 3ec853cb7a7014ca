"""What `keras-resnet train` costs beside its steps: a bare loop on data in memory is the yardstick.

    python benchmarks/fit_overhead.py FOLDER [--model resnet18] [--size 224] [--rounds 3] [--json]

FOLDER has train/ and val/ folders of class folders. The command and the bare loop of train_on_batch
(same network, optimizer, batch size; one batch, in memory) take turns, each in a process of its own
with the same settings of the memory allocator. The command's images a second are those that it
writes in history.csv, of its second epoch on. Then: how long it takes from the command, and from
the start of the bare script, to the end of the first step.
"""

import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from contest import MALLOC
from rich.console import Console
from rich.table import Table

STEPS = 25  # of the bare loop, after 3 that do not count
BATCH = 16


def bare(model, size, steps):
    """Prints the images a second of the bare loop."""
    import keras
    import numpy as np

    from keras_resnet import models
    from keras_resnet.training import Recipe
    from keras_resnet.training.optimizers import create_optimizer

    network = models.create(model, classes=5, input_shape=(size, size, 3))
    network.compile(create_optimizer(Recipe(), 1e-4), keras.losses.CategoricalCrossentropy())
    images = np.random.default_rng(0).normal(size=(BATCH, size, size, 3)).astype("float32")
    labels = np.eye(5, dtype="float32")[np.arange(BATCH) % 5]
    seconds = []
    for _ in range(steps):
        begun = time.perf_counter()
        network.train_on_batch(images, labels)
        seconds.append(time.perf_counter() - begun)
    print(BATCH / statistics.median(seconds[3:] or seconds))


def run(*arguments, folder):
    """Runs a program of this benchmark; returns what it printed and its seconds."""
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, **MALLOC, "TF_ENABLE_ONEDNN_OPTS": "1"},
        check=False,
    )
    if done.returncode:
        sys.exit(f"{done.stdout[-1000:]}\n{done.stderr[-2000:]}")
    return done.stdout, time.perf_counter() - begun


def command(data, model, size, epochs, output):
    """The command's arguments."""
    return (
        *("-m", "keras_resnet_cli", "train", "--data", data, "--model", model),
        *("--image-size", size, "--epochs", epochs, "--batch-size", BATCH, "--output", output),
    )


def seconds_to_first_step(data, model, size, folder):
    """Seconds until the command has written a checkpoint after its first step."""
    arguments = (*command(data, model, size, 1, "first"), "--save-every", 1)
    begun = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        env={**os.environ, **MALLOC},
    )
    while not (folder / "first" / "checkpoint.safetensors").exists() and process.poll() is None:
        time.sleep(0.01)
    seconds = time.perf_counter() - begun
    if process.poll() not in (None, 0):
        sys.exit(f"{' '.join(map(str, arguments))} ended with exit code {process.returncode}")
    process.kill()
    process.wait()
    return seconds


def main(
    folder: Annotated[Path, typer.Argument(help="Photographs, in train/ and val/.")],
    model: Annotated[str, typer.Option(help="Network.")] = "resnet18",
    size: Annotated[int, typer.Option(help="Side of the images, in pixels.")] = 224,
    rounds: Annotated[int, typer.Option(help="Rounds; the medians count.", min=1)] = 3,
    epochs: Annotated[int, typer.Option(help="Of the command, a round.", min=2)] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
):
    """Measures, and prints a table of ratios."""
    data = folder.absolute()
    fit, loop, start, bare_start = [], [], [], []
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        for number in range(rounds):
            run(*command(data, model, size, epochs, f"run{number}"), folder=place)
            with (place / f"run{number}" / "history.csv").open(newline="") as file:
                rows = list(csv.DictReader(file))[1:]
            fit.append(statistics.median(float(row["images_per_second"]) for row in rows))
            printed, _ = run(__file__, "bare", model, size, STEPS + 3, folder=place)
            loop.append(float(printed.split()[-1]))
        for number in range(rounds):
            (place / str(number)).mkdir()
            start.append(seconds_to_first_step(data, model, size, place / str(number)))
            bare_start.append(run(__file__, "bare", model, size, 1, folder=place)[1])
    found = {
        "images_per_second": statistics.median(fit),
        "bare_images_per_second": statistics.median(loop),
        "ratio": statistics.median(a / b for a, b in zip(fit, loop, strict=True)),
        "seconds_to_first_step": statistics.median(start),
        "bare_seconds_to_first_step": statistics.median(bare_start),
    }
    if as_json:
        print(json.dumps(found))
        return
    table = Table("", "keras-resnet train", "bare loop", "ratio")
    speeds = (found["images_per_second"], found["bare_images_per_second"])
    table.add_row("images a second", *(f"{value:.1f}" for value in speeds), f"{found['ratio']:.2f}")
    seconds = (found["seconds_to_first_step"], found["bare_seconds_to_first_step"])
    table.add_row("seconds to the first step", *(f"{value:.1f}" for value in seconds), "")
    Console().print(f"{model}, {size} px, batch {BATCH}")
    Console().print(table)


if __name__ == "__main__":
    if sys.argv[1:2] == ["bare"]:
        bare(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        typer.run(main)
