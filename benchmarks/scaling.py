"""Plots the cost of a training step over batch size, image size and depth.

    python benchmarks/scaling.py OUTPUT.svg [--threads 2]

The defaults are ResNet-50, a batch size of 8 and 224 px; the reference is torchvision in
channels_last. Conditions as in training.py, with one round per point. Needs the parity extra.
"""

import argparse
import os

import matplotlib.pyplot as plt
from contest import Contestant

CONTESTANTS = {"keras_resnet": "o-", "torchvision channels_last": "s--"}
DEPTHS = {18: "resnet18", 34: "resnet34", 50: "resnet50", 101: "resnet101", 152: "resnet152"}
AXES = {
    "images in a batch": {batch: ("resnet50", batch, 224) for batch in (1, 2, 4, 8, 16, 32)},
    "pixels of a side": {size: ("resnet50", 8, size) for size in (64, 128, 192, 256, 320)},
    "layers": {depth: (name, 8, 224) for depth, name in DEPTHS.items()},
}


def main():
    """Measures every point and draws the plots."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", help="image file to write, .svg or .png")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    arguments = parser.parse_args()
    figure, plots = plt.subplots(1, len(AXES), figsize=(13, 4), layout="constrained")
    for plot, (label, points) in zip(plots, AXES.items(), strict=True):
        for name, style in CONTESTANTS.items():
            seconds = []
            for model, batch, size in points.values():
                contestant = Contestant(name, model, "training", batch, size, arguments.threads)
                contestant.round()
                result = contestant.finish()
                seconds.append(result["seconds"])
                line = f"{name}, {model}, batch {batch}, {size} px"
                print(f"{line}: {result['seconds']:.3f} s, {result['step_mib']:.0f} MiB")
            plot.plot(list(points), seconds, style, label=name)
        plot.set_xlabel(label)
        plot.set_xticks(list(points))
        plot.tick_params("x", labelsize=8)  # labels 1 and 2 would overlap
        plot.set_ylim(bottom=0)
        plot.grid(alpha=0.3)
    plots[0].set_ylabel("seconds of a training step")
    plots[0].legend()
    figure.savefig(arguments.output)


if __name__ == "__main__":
    main()
