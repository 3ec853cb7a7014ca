"""Runs trainings that a small machine can do in minutes, and writes results/results.csv.

    python benchmarks/results.py [NAME ...]  # entries of RUNS with these names; all by default
    python benchmarks/results.py --page      # docs/results.md and its chart, from the CSV file

KERAS_RESNET_TEST_DATA is the folder of real images: flowers/train and flowers/val, class folders
of photographs, and cifar10/cifar10_test_0_499.npz, images of CIFAR-10's test part. Runs without
their data, or without torch and torchvision for the article's script, are skipped with a message.
"""

import argparse
import csv
import dataclasses
import datetime
import itertools
import os
import platform
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS, PAGE, CHART = (
    ROOT / path for path in ("results/results.csv", "docs/results.md", "docs/images/results.svg")
)
HEADER = ("run", "recipe", "data", "seed", "metric", "value", "seconds", "cpu_seconds")
HEADER += ("machine", "version", "date", "command")
REAL = "KERAS_RESNET_TEST_DATA"
SMALL = "--model resnet18 --image-size 64 --epochs 4"


@dataclasses.dataclass(frozen=True)
class Run:
    """A training command, with a row in the table for each seed.

    Args:
        name: Its name.
        recipe: The recipe, or the script.
        data: A key of `DATA`.
        command: With {seed}; run in a folder with the data. The run folder is `run`.
        seeds: Number of seeds, from 0.
    """

    name: str
    recipe: str
    data: str
    command: str
    seeds: int = 1


RUNS = [
    Run(
        "photographs",
        "flowers",
        "flowers",
        f"keras-resnet train --data flowers {SMALL} --seed {{seed}} --output run",
        seeds=2,
    ),
    Run(
        "photographs, article",
        "tests/parity/article.py",
        "flowers",
        f"python tests/parity/article.py flowers {SMALL} --seed {{seed}}",
        seeds=2,
    ),
    Run(
        "photographs, unequal classes",
        "flowers",
        "unequal_flowers",
        f"keras-resnet train --data unequal_flowers {SMALL} --seed {{seed}} --output run",
    ),
    Run(
        "photographs, unequal classes, balanced",
        "flowers",
        "unequal_flowers",
        f"keras-resnet train --data unequal_flowers {SMALL} --seed {{seed}} --output run "
        "--set class_weights=balanced",
    ),
    Run(
        "drawn flowers",
        "flowers",
        "drawn_flowers",
        f"keras-resnet train --data drawn_flowers {SMALL} --seed {{seed}} --output run",
    ),
    Run(
        "drawn flowers, several labels",
        "flowers",
        "labelled_flowers",
        f"keras-resnet train --data labelled_flowers {SMALL} --seed {{seed}} --output run "
        "--set loss=binary_cross_entropy",
    ),
    Run(
        "CIFAR-10, 400 images",
        "cifar",
        "cifar_400",
        "keras-resnet train --recipe cifar --data cifar_400 --epochs 30 --batch-size 32 "
        "--seed {seed} --output run --set milestones=[15,25]",
    ),
]
COLUMNS = {"accuracy": "val_accuracy", "mean average precision": "val_mean_average_precision"}


def flowers(folder):
    """400 + 100 photographs of TensorFlow's flower_photos, of 5 classes."""
    folder.symlink_to(Path(os.environ[REAL]) / "flowers")


def unequal_flowers(folder):
    """The photographs of `flowers`, of which 10 dandelions and 20 tulips train."""
    shutil.copytree(Path(os.environ[REAL]) / "flowers", folder)
    for name, count in (("dandelion", 10), ("tulips", 20)):
        for file in sorted((folder / "train" / name).iterdir())[count:]:
            file.unlink()


def drawn_flowers(folder):
    """400 + 100 drawn flowers of 5 classes: data.drawn_flowers(folder, train=80, val=20)."""
    from keras_resnet import data

    data.drawn_flowers(folder, train=80, val=20)


def labelled_flowers(folder):
    """The drawn flowers with labels of their kind, round, yellow and tall, in tables."""
    drawn_flowers(folder)
    more = {
        **{"daisy": "round", "dandelion": "round;yellow", "rose": "", "sunflower": "round;yellow"},
        "tulip": "tall",
    }
    for part in ("train", "val"):
        with (folder / f"{part}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["file", "labels"])
            for path in sorted((folder / part).rglob("*.jpg")):
                kind = path.parent.name
                labels = ";".join(filter(None, [kind, more[kind]]))
                writer.writerow([path.relative_to(folder), labels])


def cifar_400(folder):
    """400 + 100 of the first 500 images of CIFAR-10's test part, of 10 classes."""
    import numpy as np
    from PIL import Image

    with np.load(Path(os.environ[REAL]) / "cifar10" / "cifar10_test_0_499.npz") as arrays:
        for number, (image, label) in enumerate(zip(arrays["x"], arrays["y"], strict=True)):
            part = "train" if number < 400 else "val"
            path = folder / part / str(arrays["classes"][label]) / f"{number:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)


DATA = {
    make.__name__: make
    for make in (flowers, unequal_flowers, drawn_flowers, labelled_flowers, cifar_400)
}


def measure(run, seed):
    """Returns the row of one run."""
    command = run.command.format(seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        DATA[run.data](place / run.data)
        (place / "tests").symlink_to(ROOT / "tests")
        python, *arguments = shlex.split(command)
        begin = [sys.executable, *(["-m", "keras_resnet_cli"] if python != "python" else [])]
        started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [*begin, *arguments],
            cwd=place,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        )
        seconds, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
        # For all cores: unlike seconds, it hardly depends on other programs on the machine.
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        metric, value = "accuracy", done.stdout.split()[-1]
        if (place / "run").is_dir():
            with (place / "run" / "history.csv").open(newline="") as file:
                history = list(csv.DictReader(file))
            metric = next(name for name, column in COLUMNS.items() if column in history[0])
            value = max(float(row[COLUMNS[metric]]) for row in history)
    from keras_resnet import __version__

    machine = f"{os.cpu_count()} cores of {_processor()}"
    said = (run.name, run.recipe, run.data, seed, metric, f"{float(value):.4f}")
    times = (f"{seconds:.0f}", f"{cpu:.0f}")
    today = datetime.datetime.now(tz=datetime.UTC).date()
    return (*said, *times, machine, __version__, today, command)


def _processor():
    """Returns the name of the processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def rows():
    """Returns the rows of the CSV file, as dictionaries."""
    with RESULTS.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def page(found):
    """Returns the text of docs/results.md."""
    lines = [
        "# Results",
        "",
        "Results of short trainings from random weights on few images, with their commands. They",
        "show what to expect when you run the same command, not what the networks can achieve.",
        "`results/results.csv` has one row per run; the file and this page are written by",
        "",
        "```sh no-run: network (photographs; the parity extra brings torch)",
        "python benchmarks/results.py",
        "```",
        "",
        "![Each run's validation accuracy or mean average precision](images/results.svg)",
        "",
        "| run | metric | value, by seed | seconds | version, date |",
        "| --- | --- | --- | --- | --- |",
    ]
    groups = [
        (name, list(group)) for name, group in itertools.groupby(found, lambda row: row["run"])
    ]
    for name, group in groups:
        values, seconds = (", ".join(row[key] for row in group) for key in ("value", "seconds"))
        when = f"{group[0]['version']}, {group[0]['date']}"
        lines.append(f"| {name} | {group[0]['metric']} | {values} | {seconds} | {when} |")
    lines += [
        "",
        "The value is that of the best epoch, on the validation images. The seconds are measured",
        "from the start of the program to its end; `keras-resnet train` also draws diagrams,",
        "writes a report and exports the network. The CSV file has the CPU time over all cores,",
        "too. The commands:",
        "",
    ]
    for name, group in groups:
        command = " ".join(
            "SEED" if before == "--seed" else word
            for before, word in itertools.pairwise(["", *shlex.split(group[0]["command"])])
        )
        lines += [f"- {name}: `{command}`"]
    lines += ["", "The data, which `benchmarks/results.py` creates or finds:", ""]
    used = dict.fromkeys(row["data"] for row in found)
    lines += [f"- `{name}`: {DATA[name].__doc__}" for name in used]
    lines += ["", "The machines:", ""]
    lines += [f"- {machine}" for machine in dict.fromkeys(row["machine"] for row in found)]
    return "\n".join([*lines, ""])


def draw(found):
    """Draws the chart: a dot for each run."""
    import matplotlib

    matplotlib.rcParams["svg.hashsalt"] = "results"  # reproducible output
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(row["run"] for row in found))[::-1]
    figure = Figure(figsize=(8, 0.5 + 0.4 * len(names)), layout="constrained")
    axes = figure.subplots()
    for metric, sign in (("accuracy", "o"), ("mean average precision", "s")):
        chosen = [row for row in found if row["metric"] == metric]
        places = [names.index(row["run"]) for row in chosen]
        values = [float(row["value"]) for row in chosen]
        axes.plot(values, places, sign, label=metric, alpha=0.7)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlim(0, 1.02)
    axes.grid(axis="x", alpha=0.3)
    axes.legend()
    figure.savefig(CHART, metadata={"Date": None})


def main():
    """Runs the trainings, and writes the CSV file, the page and the chart."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="names of runs")
    parser.add_argument("--page", action="store_true", help="write the page only")
    given = parser.parse_args()
    kept = rows() if RESULTS.is_file() else []
    for run in [] if given.page else RUNS:
        if given.names and run.name not in given.names:
            continue
        kept = [row for row in kept if row["run"] != run.name]
        for seed in range(run.seeds):
            try:
                row = measure(run, seed)
            except (KeyError, OSError) as error:
                print(f"{run.name}: left out, {error} is missing")
                break
            except subprocess.CalledProcessError as error:
                print(f"{run.name}: left out, {error.stderr.splitlines()[-1]}")
                break
            print(*row[:7], flush=True)
            kept.append(dict(zip(HEADER, row, strict=True)))
        order = [run.name for run in RUNS]
        kept.sort(key=lambda row: order.index(row["run"]))
        RESULTS.parent.mkdir(exist_ok=True)
        with RESULTS.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, HEADER, lineterminator="\n")
            writer.writeheader()
            writer.writerows(kept)
    found = rows()
    PAGE.write_text(page(found), encoding="utf-8")
    draw(found)


if __name__ == "__main__":
    main()
