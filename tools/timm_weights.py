"""Writes keras_resnet/timm_weights.csv: timm's published weights for the networks in CONFIGS.

    curl -O https://raw.githubusercontent.com/huggingface/pytorch-image-models/COMMIT/results/results-imagenet.csv
    python tools/timm_weights.py results-imagenet.csv

COMMIT is the one in `keras_resnet.weights.registry.TIMM`. Names, preprocessing, classes and
licenses are from the metadata of the installed timm (the parity extra), numbers of parameters from
its networks. Accuracies are from the table, for the default image size and for a larger one, if
timm measured both.
"""

import argparse
import csv
import functools
import math
from pathlib import Path

import timm
import torch

from keras_resnet_cli import quiet

with quiet():
    from keras_resnet.configs import CONFIGS

FILE = Path(__file__).parents[1] / "keras_resnet" / "timm_weights.csv"


def rows(results):
    """Returns a row for each published weights file, in the order of CONFIGS.

    Args:
        results: The path of results-imagenet.csv.
    """
    measured = {}
    with open(results, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            measured.setdefault(row["model"], []).append(row)
    for model in filter(timm.is_model, CONFIGS):
        for name in timm.list_pretrained(f"{model}.*"):
            yield _row(model, name, measured.get(name, ()))


def _row(model, name, measured):
    config = timm.models.get_pretrained_cfg(name)
    if config.hf_hub_id != f"timm/{name}":
        raise ValueError(f"{name} is no repository of timm's: {config.hf_hub_id}")
    channels, crop, width = config.input_size
    if (channels, width) != (3, crop):
        raise ValueError(f"{name} takes images of {config.input_size}")
    row = {
        "model": model,
        "name": name.removeprefix(f"{model}."),
        "classes": config.num_classes,
        "parameters": _parameters(model, config.num_classes),
        "licence": config.license,
        "crop": crop,
        "resize": math.floor(crop / config.crop_pct),
        "interpolation": config.interpolation,
        "crop_mode": config.crop_mode,
        "mean": " ".join(map(str, config.mean)),
        "std": " ".join(map(str, config.std)),
    }
    # timm's validation uses the test image size if it is larger, else that of training.
    for found in sorted(measured, key=lambda found: int(found["img_size"])):
        size, share = int(found["img_size"]), float(found["crop_pct"])
        figures = {"accuracy": found["top1"], "top5_accuracy": found["top5"]}
        sides = {"crop": size, "resize": math.floor(size / share)}
        if sides.items() <= row.items():
            row |= figures
        elif found["interpolation"] == config.interpolation:
            row |= {f"test_{key}": value for key, value in (figures | sides).items()}
    return row


@functools.cache
def _parameters(model, classes):
    with torch.device("meta"):
        network = timm.create_model(model, num_classes=classes)
    return sum(parameter.numel() for parameter in network.parameters())


def main():
    """Writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", help="timm's results-imagenet.csv")
    table = list(rows(parser.parse_args().results))
    columns = dict.fromkeys(key for row in table for key in row)
    with FILE.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
    print(f"{FILE}: {len(table)} rows, timm {timm.__version__}")


if __name__ == "__main__":
    main()
