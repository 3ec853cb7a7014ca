"""Measures time and memory of loading weights into a network, in comparison with torch.

    python benchmarks/load_weights.py

Both load the same file, saved by torch.save from a torchvision network with random weights, into an
existing network: `keras_resnet.weights.load`, and `torch.load(weights_only=True, mmap=True)` with
`load_state_dict`. They alternate in one run, each in its own process, with the same settings of the
memory allocator. Peak memory is in addition to that of the process with the network.

Keras has another order of axes, so kernels have to be transposed, while torch only copies them. The
third contestant is torch with the same transpositions. Needs the parity extra.
"""

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from contest import MALLOC

NAMES = ("resnet50", "resnext101_32x8d")
RUNS = 7

MEASURE = """
import re, time
from pathlib import Path

def memory(kind):
    return int(re.search(rf"{kind}:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024

def measure(load):
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak to what is used now
    before, start = memory("VmRSS"), time.perf_counter()
    load()
    print(time.perf_counter() - start, memory("VmHWM") - before)
"""

OURS = """
import sys, keras_resnet
model = keras_resnet.create(sys.argv[1])
measure(lambda: keras_resnet.weights.load(model, sys.argv[2]))
"""

TORCHS = """
import sys, torch, torchvision
model = torchvision.models.get_model(sys.argv[1])
measure(lambda: model.load_state_dict(torch.load(sys.argv[2], weights_only=True, mmap=True)))
"""

TRANSPOSED = """
import sys, torch, torchvision
model = torchvision.models.get_model(sys.argv[1])
axes = {4: (2, 3, 1, 0), 2: (1, 0)}

def load():
    state = torch.load(sys.argv[2], weights_only=True, mmap=True)
    targets = model.state_dict()
    for key, value in state.items():
        if value.ndim > 1:
            value = value.permute(axes[value.ndim]).contiguous()
        targets[key].view(-1).copy_(value.view(-1))

measure(load)
"""

SAVE = """
import sys, torch, torchvision
torch.save(torchvision.models.get_model(sys.argv[1]).state_dict(), sys.argv[2])
"""


def run(program, *arguments):
    """Runs a program in a new process; returns its output."""
    environment = {**os.environ, **MALLOC, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout


def main():
    """Prints a table of medians and ratios."""
    contestants = {"keras_resnet": OURS, "torch": TORCHS, "torch, transposing": TRANSPOSED}
    print(f"{'network':17} {'file':>7}  {'contestant':18} {'time':>8} {'ours / it':>9} peak / file")
    with tempfile.TemporaryDirectory() as folder:
        for name in NAMES:
            path = Path(folder) / f"{name}.pth"
            run(SAVE, name, path)
            megabytes = path.stat().st_size / 2**20
            figures = {contestant: [] for contestant in contestants}
            for _ in range(RUNS):
                for contestant, program in contestants.items():
                    printed = run(MEASURE + program, name, path)
                    figures[contestant].append([float(figure) for figure in printed.split()])
            medians = {
                contestant: [statistics.median(column) for column in zip(*rows, strict=True)]
                for contestant, rows in figures.items()
            }
            for contestant, (seconds, peak) in medians.items():
                print(
                    f"{name:17} {megabytes:4.0f} MB  {contestant:18} {seconds:6.3f} s "
                    f"{medians['keras_resnet'][0] / seconds:9.2f} {peak / megabytes:11.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
