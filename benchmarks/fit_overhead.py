"""Measures the overhead of `train` per step, with networks small enough to show it.

    python benchmarks/fit_overhead.py [--rounds 2] [--json] [--quick]

Reports milliseconds per step for: the compiled step alone, called in a loop, and Keras' plain
`fit`, both with one batch in memory; plain `fit` on the input pipeline, which shares the cores;
`train`, from history.csv, starting with the second epoch; and the pipeline alone. Each runs in its
own process; they take turns, and medians are reported.
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

BATCH, SIDE = 4, 32
CONTESTANTS = ("step", "fit", "fit on the pipeline", "train", "pipeline")
NETWORKS = ("resnet20", "tiny")


def write_images(folder, count):
    """Writes noise as PNG files of two classes, `count` of them for training."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    for part, number in (("train", count), ("val", 2 * BATCH)):
        for index in range(number):
            file = folder / part / f"class{index % 2}" / f"{index}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 256, (SIDE, SIDE, 3), np.uint8)).save(file)


def add_tiny():
    """Registers a network with two blocks of 16 channels, named tiny."""
    from keras_resnet.configs import CIFAR, CONFIGS, ResNetConfig

    CONFIGS["tiny"] = ResNetConfig("basic", (1, 1), family=CIFAR)


def measure(contestant, name, folder, steps):
    """Prints the milliseconds per step."""
    add_tiny()
    import keras
    import numpy as np

    from keras_resnet import models
    from keras_resnet.data.locations import training_sources
    from keras_resnet.training import Recipe, train
    from keras_resnet.training.feed import FedNetwork, training_feed
    from keras_resnet.training.optimizers import create_optimizer

    folder = Path(folder)
    recipe = Recipe(
        data=str(folder), model=name, image_size=SIDE, resize=SIDE, batch_size=BATCH, epochs=3
    )
    if contestant == "train":
        with tempfile.TemporaryDirectory() as place:
            run = train(recipe, Path(place) / "run")
            with (run / "history.csv").open(newline="") as file:
                rows = list(csv.DictReader(file))[1:]
        print(statistics.median(1000 * BATCH / float(row["images_per_second"]) for row in rows))
        return
    feed = training_feed(
        training_sources(recipe.data)[0],
        preprocessing=recipe.preprocessing,
        augmentation=recipe.augmentation,
        batch_size=BATCH,
        seed=0,
        first_step=0,
    )
    network = models.create(name, classes=2, input_shape=(SIDE, SIDE, 3))
    model = FedNetwork(network, recipe.augmentation, recipe.preprocessing)
    model.compile(
        create_optimizer(recipe, 1e-4),
        keras.losses.CategoricalCrossentropy(),
        weighted_metrics=[keras.metrics.CategoricalAccuracy()],
        jit_compile=False,
    )
    batches = iter(feed)
    ready = next(batches)
    model.train_on_batch(*ready)
    if contestant.startswith("fit"):
        repeated = type(feed).from_tensors(ready).repeat() if contestant == "fit" else feed
        model.fit(repeated, steps_per_epoch=20, verbose=0)
        seconds = []
        for _ in range(5):
            begun = time.perf_counter()
            model.fit(repeated, steps_per_epoch=steps, verbose=0)
            seconds.append((time.perf_counter() - begun) / steps)
        print(1000 * statistics.median(seconds))
        return
    calls = {"step": lambda: model.train_function([ready]), "pipeline": lambda: next(batches)}
    seconds = []
    for _ in range(20 + steps):
        begun = time.perf_counter()
        calls[contestant]()
        seconds.append(time.perf_counter() - begun)
    print(1000 * np.mean(seconds[20:]))


def main(
    rounds: Annotated[int, typer.Option(help="Number of rounds; medians are reported.", min=1)] = 2,
    steps: Annotated[int, typer.Option(help="Number of steps per epoch.", min=1)] = 200,
    quick: Annotated[bool, typer.Option(help="Run one round of few steps, as a test.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
):
    """Measure the overhead of `train` per step, and print a table."""
    rounds, steps = (1, 5) if quick else (rounds, steps)
    found = {}
    with tempfile.TemporaryDirectory() as place:
        write_images(Path(place), steps * BATCH)
        for name in NETWORKS[1:] if quick else NETWORKS:
            taken = {contestant: [] for contestant in CONTESTANTS}
            for _ in range(rounds):
                for contestant in CONTESTANTS:
                    done = subprocess.run(
                        [sys.executable, __file__, "measure", contestant, name, place, str(steps)],
                        capture_output=True,
                        text=True,
                        env={**os.environ, **MALLOC},
                        check=False,
                    )
                    if done.returncode:
                        sys.exit(done.stderr[-2000:])
                    taken[contestant].append(float(done.stdout.split()[-1]))
                    print(f"{name}, {contestant}: {taken[contestant][-1]:.2f} ms", file=sys.stderr)
            found[name] = {key: statistics.median(values) for key, values in taken.items()}
            for other in ("fit", "fit on the pipeline"):
                found[name][f"train - {other}"] = found[name]["train"] - found[name][other]
    if as_json:
        print(json.dumps(found))
        return
    table = Table("ms per step", *found)
    for key in found[NETWORKS[1]]:
        table.add_row(key, *(f"{row[key]:.2f}" for row in found.values()))
    Console().print(table)


if __name__ == "__main__":
    if sys.argv[1:2] == ["measure"]:
        measure(*sys.argv[2:5], int(sys.argv[5]))
    else:
        typer.run(main)
