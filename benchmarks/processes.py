"""Compares training with JAX in two processes with one process, on one machine.

    python benchmarks/processes.py [--model resnet20] [--image-size 32] [--batch-size 128]

Reports images per second from history.csv, without the first epoch: for one process on one core,
for one process on two, and for two processes with one core each, which exchange gradients over the
loopback interface. The data are the same; nothing else should run on the cores. Needs the jax
extra.
"""

import argparse
import csv
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CASES = {"one process, one core": [{0}], "one process, two cores": [{0, 1}]}
CASES |= {"two processes, a core each": [{0}, {1}]}
EPOCHS = 4


def run(cores, folder, output, options):
    """Returns images per second of a training whose processes run on these cores."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    available = sorted(os.sched_getaffinity(0))
    for number, mine in enumerate(cores):
        place = ("--coordinator", f"127.0.0.1:{port}", "--processes", len(cores))
        place = (*place, "--process-id", number) if len(cores) > 1 else ()
        command = ("-m", "keras_resnet_cli", "train", "--data", folder, "--output", output)
        chosen = {available[core] for core in mine}
        processes.append(
            subprocess.Popen(
                list(map(str, (sys.executable, *command, *options, *place))),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "KERAS_BACKEND": "jax"},
                preexec_fn=lambda chosen=chosen: os.sched_setaffinity(0, chosen),
            )
        )
    history = Path(output) / "history.csv"
    try:
        while True:  # without waiting for reports and exports
            time.sleep(1)
            rows = history.read_text().splitlines() if history.exists() else []
            if len(rows) > EPOCHS:
                break
            if any(process.poll() is not None for process in processes):
                sys.exit("A training failed.")
    finally:
        for process in processes:
            process.kill()
            process.wait()
    speeds = [float(row["images_per_second"]) for row in csv.DictReader(rows)]
    return statistics.median(speeds[1:])


def main():
    """Prints a line for each case, with the ratio to the first one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--images", type=int, default=640)
    arguments = parser.parse_args()
    options = ("--model", arguments.model, "--image-size", arguments.image_size)
    options += ("--batch-size", arguments.batch_size, "--epochs", 100)
    with tempfile.TemporaryDirectory() as temporary:
        from keras_resnet import data

        flowers = Path(temporary) / "flowers"
        data.drawn_flowers(flowers, train=arguments.images // 5, val=8)
        found = {}
        for number, (case, cores) in enumerate(CASES.items()):
            output = f"{temporary}/run{number}"
            found[case] = run(cores, flowers, output, options)
            ratio = found[case] / next(iter(found.values()))
            print(f"{case}: {found[case]:.0f} images/s, {ratio:.2f}", flush=True)


if __name__ == "__main__":
    main()
