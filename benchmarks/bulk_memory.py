"""Measures the memory of `keras-resnet embed` over a long run, and plots it.

    python benchmarks/bulk_memory.py FOLDER --count 200000 --picture docs/images/bulk_memory.png

FOLDER has a few photographs. The requested number of hard links to them is embedded by a ResNet-20
at 32 px. The resident memory of the process is read from /proc twice per second.
"""

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import matplotlib.pyplot as plt
import pyarrow.dataset

PER_FOLDER = 10_000


def link(photographs, folder, count):
    """Creates `count` hard links to some photographs."""
    files = [file for file in sorted(Path(photographs).rglob("*")) if file.is_file()]
    for number, file in zip(range(count), itertools.cycle(files), strict=False):
        target = folder / f"{number // PER_FOLDER:04}" / f"{number:08}{file.suffix}"
        if number % PER_FOLDER == 0:
            target.parent.mkdir(parents=True)
        os.link(file, target)


def curve(command):
    """Runs a command; returns its memory as [(seconds, MiB)], and its output."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    status, points = Path(f"/proc/{process.pid}/status"), []
    began = time.perf_counter()
    while process.poll() is None:
        lines = [line for line in status.read_text().splitlines() if line.startswith("VmRSS:")]
        if lines:
            points.append((time.perf_counter() - began, int(lines[0].split()[1]) / 1024))
        time.sleep(0.5)
    if process.returncode:
        raise SystemExit(f"{command[2:4]} ended with exit code {process.returncode}")
    return points, process.stdout.read()


def draw(points, title, path):
    """Draws the curve."""
    figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
    axes.plot(*zip(*points, strict=True))
    axes.axhline(1500, color="grey", linestyle="--", linewidth=1)
    axes.set(xlabel="seconds", ylabel="resident memory, MiB", title=title, ylim=(0, 1600))
    figure.savefig(path, dpi=100)


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="a folder with a few photographs")
    parser.add_argument("--count", type=int, default=200_000, help="number of files (200000)")
    parser.add_argument("--picture", default="bulk_memory.png", help="image file to write")
    arguments = parser.parse_args()
    disk = Path(arguments.folder).resolve().parent  # hard links need the same disk
    with tempfile.TemporaryDirectory(dir=disk) as temporary:
        from keras_resnet import ResNet20, weights

        folder = Path(temporary)
        link(arguments.folder, folder / "many", arguments.count)
        weights.save(ResNet20(), folder / "resnet20.safetensors")
        command = [sys.executable, "-m", "keras_resnet_cli", "embed", folder / "many"]
        options = ["--weights", folder / "resnet20.safetensors", "-o", folder / "embeddings"]
        points, said = curve([*map(str, [*command, *options])])
        rows = pyarrow.dataset.dataset(folder / "embeddings").count_rows()
    peak = max(held for _, held in points)
    print(said.strip().replace(f"{folder}/", ""))
    print(f"{rows:,} rows in {points[-1][0]:.0f} s, at most {peak:.0f} MiB")
    middle = [held for seconds, held in points if seconds > points[-1][0] / 2]
    print(f"in the second half {min(middle):.0f} to {max(middle):.0f} MiB")
    draw(points, f"{rows:,} images of 32 px, ResNet-20", arguments.picture)


if __name__ == "__main__":
    main()
