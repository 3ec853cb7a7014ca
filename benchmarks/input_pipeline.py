"""Measures the input pipelines in comparison with torchvision's.

    python benchmarks/input_pipeline.py FOLDER

FOLDER has class folders; its photographs are repeated to 1,000 files, which are also written as
shards with sides of at most 400 pixels. The contestants are `data.image_folder`, `data.tfrecords`
with the shards, torchvision's ImageFolder with a DataLoader with one worker per core, all with the
same transforms and batches, and TensorFlow's decoder alone, with one thread per core, as an upper
bound for files. Each runs in its own process, on the same number of cores, with the same settings
of the memory allocator; they take turns with an epoch each, and the medians of the rounds are
reported. Memory is that of the process and its workers in the middle of an epoch, minus that of
the process before it built the pipeline; shared pages are divided among processes. Needs the
parity extra.
"""

import argparse
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

FILES = 1000
BATCH = 32
MAX_SIDE = 400  # of the images in shards
CONTESTANTS = ("keras_resnet", "torchvision", f"shards of {MAX_SIDE} px", "decoding alone")
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def keras_resnet_batches(folder, task, size, cores):
    """Yields the number of images of each epoch of `data.image_folder`."""
    from keras_resnet import data

    batches, _ = data.image_folder(
        folder, training=task == "training", image_size=size, batch_size=BATCH
    )
    return lambda: (len(labels) for _, labels in batches)


def torchvision_batches(folder, task, size, cores):
    """The same for torchvision's ImageFolder and a DataLoader."""
    import torch
    from torchvision import datasets, transforms

    chains = {
        "training": [transforms.RandomResizedCrop(size), transforms.RandomHorizontalFlip()],
        "evaluation": [
            transforms.Resize(round(size * 256 / 224)),
            transforms.CenterCrop(size),
        ],
    }
    chain = transforms.Compose(
        [*chains[task], transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    )
    loader = torch.utils.data.DataLoader(
        datasets.ImageFolder(folder, chain),
        batch_size=BATCH,
        shuffle=task == "training",
        num_workers=cores,
        persistent_workers=True,
    )
    return lambda: (len(labels) for _, labels in loader)


def shards_batches(folder, task, size, cores):
    """The same for `data.tfrecords`, with smaller images."""
    from keras_resnet import data

    batches, _ = data.tfrecords(
        f"{folder}_shards", training=task == "training", image_size=size, batch_size=BATCH
    )
    return lambda: (len(labels) for _, labels in batches)


def decoding_alone(folder, task, size, cores):
    """The same for TensorFlow's decoder on whole images."""
    import tensorflow as tf

    files = sorted(map(str, Path(folder).rglob("*.jpg")))
    decoded = tf.data.Dataset.from_tensor_slices(files).map(
        lambda file: tf.io.decode_jpeg(tf.io.read_file(file), channels=3)[0, 0], 2 * cores
    )
    batches = decoded.batch(BATCH)
    return lambda: (len(batch) for batch in batches)


MAKERS = dict(
    zip(
        CONTESTANTS,
        (keras_resnet_batches, torchvision_batches, shards_batches, decoding_alone),
        strict=True,
    )
)


def memory():
    """Returns the memory of this process and its children in MiB."""
    tasks = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    processes = [os.getpid(), *(pid for task in tasks for pid in task.read_text().split())]
    lines = itertools.chain.from_iterable(
        Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines() for pid in processes
    )
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def compete(name, folder, task, size, cores):
    """Runs a contestant: an epoch for each line of its input."""
    os.sched_setaffinity(0, list(os.sched_getaffinity(0))[:cores])
    modules = {"torchvision": "torchvision"}.get(name, "keras_resnet.data")
    __import__(modules)
    before = memory()
    epoch = MAKERS[name](folder, task, size, cores)
    held = 0.0
    for _ in sys.stdin:
        start, images = time.perf_counter(), 0
        pause = 0.0
        for count in epoch():
            images += count
            if images == FILES // (2 * BATCH) * BATCH:
                begun = time.perf_counter()
                held = max(held, memory() - before)
                pause = time.perf_counter() - begun
        seconds = time.perf_counter() - start - pause
        print(json.dumps([images / seconds, held]), flush=True)


def contest(folder, task, size, cores, rounds, names=CONTESTANTS):
    """Returns {contestant: (images per second, MiB)}, medians over alternating rounds."""
    from contest import MALLOC  # imports Keras, which conflicts with torch in one process

    command = [sys.executable, __file__, folder, "--task", task, "--size", size, "--cores", cores]
    processes = {
        name: subprocess.Popen(
            [*map(str, command), "--contestant", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **MALLOC, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        for name in names
    }
    answers = {name: [] for name in names}
    for _ in range(rounds + 1):  # the first round is a warm-up
        for name, process in processes.items():
            print("epoch", file=process.stdin, flush=True)
            answers[name].append(json.loads(process.stdout.readline()))
    for process in processes.values():
        process.stdin.close()
        process.wait()
    return {
        name: [statistics.median(column) for column in zip(*given[1:], strict=True)]
        for name, given in answers.items()
    }


def print_table(title, rows, headings):
    """Prints rows of text."""
    table = Table(title=title)
    for heading in headings:
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(*row)
    Console(width=100).print(table)


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="a folder of class folders")
    parser.add_argument("--size", type=int, default=224, help="image size in pixels (224)")
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--growth", action="store_true", help="also measure by number of cores and image size"
    )
    parser.add_argument("--task", choices=["training", "evaluation"], help="run only this task")
    parser.add_argument("--contestant", choices=CONTESTANTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contestant:
        compete(
            arguments.contestant,
            arguments.folder,
            arguments.task,
            arguments.size,
            arguments.cores,
        )
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = f"{temporary}/files"
        repeat(arguments.folder, folder)
        write(folder)
        tasks = [arguments.task] if arguments.task else ["training", "evaluation"]
        for task in tasks:
            found = contest(folder, task, arguments.size, arguments.cores, arguments.rounds)
            rows = [
                (name, f"{speed:.0f}", f"{speed / found['torchvision'][0]:.2f}", f"{mib:.0f}")
                for name, (speed, mib) in found.items()
            ]
            title = f"{task}, {arguments.size} px, {arguments.cores} cores"
            print_table(title, rows, ("contestant", "images/s", "to torchvision", "MiB"))
        if arguments.growth:
            sizes = [(size, arguments.cores) for size in (64, 128, 224, 384)]
            counts = [(arguments.size, cores) for cores in range(1, arguments.cores + 1)]
            for task in tasks:
                rows = []
                for size, cores in dict.fromkeys([*sizes, *counts]):
                    found = contest(folder, task, size, cores, arguments.rounds, CONTESTANTS[:2])
                    ours, theirs = (found[name][0] for name in CONTESTANTS[:2])
                    rows.append(
                        (
                            str(size),
                            str(cores),
                            f"{ours:.0f}",
                            f"{theirs:.0f}",
                            f"{ours / theirs:.2f}",
                        )
                    )
                print_table(task, rows, ("px", "cores", "images/s", "torchvision", "ratio"))


def repeat(source, target):
    """Copies the JPEGs of class folders until there are 1,000."""
    files = sorted(
        path for path in Path(source).rglob("*") if path.suffix.lower() in (".jpg", ".jpeg")
    )
    if not files:
        raise SystemExit(f"There is no JPEG in {source}.")
    for number, file in zip(range(FILES), itertools.cycle(files), strict=False):
        copy = Path(target, file.parent.name, f"{number}.jpg")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copy)


def write(folder):
    """Writes the files as shards of smaller images, and prints both sizes."""
    from keras_resnet import data

    start = time.perf_counter()
    data.write_shards(folder, f"{folder}_shards", shards=8, max_side=MAX_SIDE)
    seconds = time.perf_counter() - start
    before, after = (
        sum(file.stat().st_size for file in Path(path).rglob("*") if file.is_file()) / 1e6
        for path in (folder, f"{folder}_shards")
    )
    print(f"{FILES} images, {before:.1f} MB; as shards {after:.1f} MB, in {seconds:.1f} s")


if __name__ == "__main__":
    main()
