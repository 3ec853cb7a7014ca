"""Runs contestants in turn, each in its own process, under the same conditions."""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from contestants import MATMUL_SIZE
from rich.console import Console
from rich.table import Table

from keras_resnet_cli import quiet

with quiet():
    import keras_resnet
    from keras_resnet.configs import CONFIGS
    from keras_resnet.kinds import kind_of

HERE = Path(__file__).parent
TORCHVISION = ("torchvision channels_last", "torchvision")
WITHOUT_ONEDNN = "keras_resnet without oneDNN"
VARIABLES = {WITHOUT_ONEDNN: {"TF_ENABLE_ONEDNN_OPTS": "0"}}
BFLOAT16 = ("keras_resnet bfloat16", "torchvision bfloat16")

# Allocating memory is slow on some machines; with these settings, glibc keeps freed memory.
MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": "4000000000",
    "MALLOC_TRIM_THRESHOLD_": "40000000000",
    "MALLOC_TOP_PAD_": "1000000000",
}


class Contestant:
    """A process with a network that runs rounds of steps on request."""

    def __init__(self, name, *arguments):
        self.name = name
        self.seconds = []
        command = [sys.executable, HERE / "contestants.py", name, *map(str, arguments)]
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env={**os.environ, **MALLOC, **VARIABLES.get(name, {})},
        )
        self.first_step_seconds = self._answer()["first_step_seconds"]

    def _answer(self):
        line = self.process.stdout.readline()
        if not line:
            code = self.process.wait()
            self.log.seek(0)
            raise SystemExit(f"{self.log.read()[-2000:]}\n{self.name} ended with exit code {code}")
        return json.loads(line)

    def round(self):
        """Runs a round of steps, and stores their median."""
        print("round", file=self.process.stdin, flush=True)
        self.seconds.append(statistics.median(self._answer()))

    def finish(self):
        """Ends the process; returns the median over the rounds, and the peak memory."""
        self.process.stdin.close()
        memory = self._answer()
        self.process.wait()
        return {"seconds": statistics.median(self.seconds), **memory}


def contest(names, model, task, batch, size, threads, rounds):
    """Measures contestants in rounds in which they take turns; returns medians.

    Returns:
        A list of dicts: contestant, seconds (of a step), images_per_second, first_step_seconds
        (building and tracing included), process_mib and step_mib (peak memory: of the process,
        and above the built network).
    """
    contestants = [
        Contestant(name, model, task, batch, size, threads) for name in (*names, "matmul")
    ]
    for _ in range(rounds):
        for contestant in contestants:
            contestant.round()
    rows = []
    for contestant in contestants:
        row = {"contestant": contestant.name, **contestant.finish()}
        if contestant.name == "onnxruntime":
            row["step_mib"] = None  # includes memory left by the export in its process
        row["first_step_seconds"] = contestant.first_step_seconds
        row["images_per_second"] = batch / row["seconds"]
        rows.append(row)
    peak = 2 * MATMUL_SIZE**3 / rows.pop()["seconds"]
    rows.append(floor(peak, model, task, batch, size))
    torch = min((row["seconds"] for row in rows if row["contestant"] in TORCHVISION), default=None)
    ours = next((row["seconds"] for row in rows if row["contestant"] == "keras_resnet"), None)
    for row in rows:
        row["ratio_to_torchvision"] = torch and torch / row["seconds"]
        row["ours_to_this"] = ours and row["seconds"] / ours
    return rows


def floor(peak, model, task, batch, size):
    """Computes the time of the multiply-adds alone, at the speed of a large matrix product.

    A training step has three passes: forward, and the gradients of inputs and of kernels, minus the
    gradient for the image, which is not needed.
    """
    stem, *stages = keras_resnet.visualize.summary(keras_resnet.create(model), image_size=size)
    multiply_adds = stem.multiply_adds + sum(stage.multiply_adds for stage in stages)
    if task == "training":
        multiply_adds = 3 * multiply_adds - stem.multiply_adds
    operations = 2 * multiply_adds * batch
    seconds = operations / peak
    name = f"floor at {peak / 1e9:.0f} GFLOP/s"
    return {"contestant": name, "seconds": seconds, "images_per_second": batch / seconds}


def main(task, description, batches):
    """The command line of inference.py and training.py."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "models", nargs="*", default=["resnet18", "resnet50", "resnext50_32x4d"], metavar="MODEL"
    )
    parser.add_argument("--batch", type=int, nargs="*", default=batches)
    parser.add_argument("--size", type=int, default=224, help="image size in pixels (224)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--contestants", nargs="*", help="run only these")
    parser.add_argument(
        "--without-onednn", action="store_true", help="also measure our network without oneDNN"
    )
    parser.add_argument(
        "--bfloat16",
        action="store_true",
        help="compare with torch's autocast; for AVX512-BF16 or AMX",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--quick", action="store_true", help="ResNet-18, batch 2, 64 px, 1 round")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.models, arguments.batch = ["resnet18"], [2]
        arguments.size, arguments.rounds = 64, 1
    results = []
    for model in arguments.models:
        for batch in arguments.batch:
            names = arguments.contestants or eligible(task, model, arguments.size)
            if arguments.bfloat16:
                names = ["keras_resnet", TORCHVISION[0], *BFLOAT16]
            if arguments.without_onednn:
                names = [*names, WITHOUT_ONEDNN]
            rows = contest(
                names, model, task, batch, arguments.size, arguments.threads, arguments.rounds
            )
            title = f"{model}, {task}, batch {batch}, {arguments.size} px"
            results.append({"title": title, "rows": rows})
            if not arguments.json:
                Console(width=100).print(table(title, rows))
    if arguments.json:
        print(json.dumps(results, indent=1))


def eligible(task, model, size):
    """Lists contestants: some networks lack one in Keras; ONNX Runtime does not train."""
    names = ["keras_resnet", *TORCHVISION]
    if model == "resnet50":
        names.append("keras.applications")
    row = CONFIGS[model]
    plain = kind_of(row).name in ("ResNet", "ResNeXt", "Wide ResNet")
    # Stock Keras takes minutes for a training step of grouped convolutions on large images.
    if plain and not (task == "training" and row.groups > 1 and size > 64):
        names.append("stock Keras layers")
    if task == "inference":
        names.append("onnxruntime")
    return names


COLUMNS = {
    "contestant": ("contestant", ""),
    "images/s": ("images_per_second", ".2f"),
    "to torchvision": ("ratio_to_torchvision", ".2f"),
    "ours to this": ("ours_to_this", ".2f"),
    "step MiB": ("step_mib", ".0f"),
    "to 1st step, s": ("first_step_seconds", ".1f"),
}


def table(title, rows):
    """Makes a table of rows; `to torchvision` is the ratio to the faster of its two layouts."""
    result = Table(title=title)
    for heading in COLUMNS:
        result.add_column(
            heading, justify="left" if heading == "contestant" else "right", no_wrap=True
        )
    for row in rows:
        values = ((row.get(key), form) for key, form in COLUMNS.values())
        result.add_row(*("" if value is None else f"{value:{form}}" for value, form in values))
    return result
