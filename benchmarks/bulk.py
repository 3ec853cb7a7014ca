"""Measures the speed of `bulk.embed`, in comparison with its parts alone.

    python benchmarks/bulk.py FOLDER [--model resnet50] [--size 224] [--images 256] [--rounds 3]

FOLDER has photographs, which are repeated. Decoding alone loads them like `embed`, with the same
number of threads; the network alone computes embeddings of one batch in memory. They alternate with
the whole in one process, and medians are reported. If decoding and the network share cores, the
whole cannot be faster than both in turn, 1 / (1 / decoding + 1 / network): the last column is the
ratio to that. Below are the resulting times for 10 and 100 million images.
"""

import argparse
import itertools
import os
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from keras_resnet_cli import quiet

with quiet():
    from keras_resnet import Preprocessing, bulk, create
    from keras_resnet.bulk.inputs import open_inputs
    from keras_resnet.bulk.loading import Loader
    from keras_resnet.data.checking import in_turn
    from keras_resnet.data.skipped import PARALLEL
    from keras_resnet.trained import Network, open_runtime

BATCH = 32


def decoding(files, network):
    """Loads all images."""
    load = Loader(network.preprocessing, sha256=False)
    rows = open_inputs(files)
    with ThreadPoolExecutor(PARALLEL) as pool:
        for loaded in in_turn(pool, load, rows.rows(0, rows.count), BATCH + PARALLEL):
            assert loaded.pixels is not None, loaded.error  # noqa: S101


def network_alone(files, network, answer, images):
    """Computes the same number of embeddings."""
    for _ in range(0, len(files), BATCH):
        answer(images)


def whole(files, network):
    """Embeds all images."""
    with tempfile.TemporaryDirectory() as folder:
        bulk.embed(network, files, folder, batch_size=BATCH)


def measure(folder, model, size, images, rounds):
    """Returns images per second: medians of the rounds, after a warm-up round."""
    found = sorted(map(str, (f for f in Path(folder).rglob("*") if f.suffix.lower() in SUFFIXES)))
    if not found:
        raise SystemExit(f"There is no JPEG or PNG in {folder}.")
    files = list(itertools.islice(itertools.cycle(found), images))
    built = create(model, input_shape=(size, size, 3))
    network = Network(built, Preprocessing.for_crop(size), None, Path(model))
    answer = open_runtime(network, layer="avgpool")
    batch = np.random.default_rng(0).normal(size=(BATCH, size, size, 3)).astype(np.float32)
    steps = {
        "decoding alone": lambda: decoding(files, network),
        "network alone": lambda: network_alone(files, network, answer, batch),
        "embed": lambda: whole(files, network),
    }
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds + 1):
        for name, step in steps.items():
            began = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - began)
    return {name: images / statistics.median(values[1:]) for name, values in seconds.items()}


SUFFIXES = (".jpg", ".jpeg", ".png")


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="a folder of photographs")
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--size", type=int, default=224, help="image size in pixels (224)")
    parser.add_argument("--images", type=int, default=256, help="images per round (256)")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    found = measure(**vars(arguments))
    decoded, computed, both = found.values()
    in_turns = 1 / (1 / decoded + 1 / computed)
    table = Table(title=f"{arguments.model}, {arguments.size} px, batch {BATCH}")
    for heading in (*found, "to the slower", "to both in turn"):
        table.add_column(heading, justify="right")
    ratios = (both / min(decoded, computed), both / in_turns)
    table.add_row(*(f"{value:,.1f}" for value in found.values()), *(f"{r:.2f}" for r in ratios))
    Console(width=100).print(table)
    cores = len(os.sched_getaffinity(0))
    for millions in (10, 100):  # extrapolated
        hours = millions * 1e6 / both / 3600
        print(f"{millions} million: {hours:,.0f} h, {hours * cores:,.0f} core-hours")


if __name__ == "__main__":
    main()
