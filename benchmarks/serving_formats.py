"""Measures speed and size of the export formats, compared with torchvision and the Keras model.

    python benchmarks/serving_formats.py [MODEL] [--batch 1 16] [--size 224] [--json] [--quick]

Each format is exported once and run by its own runtime in a separate process, in float32 except for
int8, with one thread per processor and the same settings of the memory allocator; they take turns,
and the medians of at least three rounds are reported. The floor is the speed of the multiply-adds
alone in float32, like a large matrix product, measured in the same rounds. Needs the parity, export
and openvino extras.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path

import numpy as np
from contest import TORCHVISION, contest
from rich.console import Console
from rich.table import Table

from keras_resnet_cli import quiet

CALIBRATION = 8  # number of images of noise; ranges do not affect the time


def export_all(name, size, folder):
    """Writes each format; returns {label: path}."""
    with quiet():
        import keras_resnet
        from keras_resnet import export

    model = keras_resnet.create(name, classifier_activation=None)
    shape = (CALIBRATION, size, size, 3)
    data = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    fixed = {"image_size": size}
    int8 = {**fixed, "quantize": "int8", "calibration_data": data}
    return {
        "SavedModel": export.saved_model(model, folder / "plain", fold=False),
        "SavedModel, folded": export.saved_model(model, folder / "folded"),
        "ONNX": export.onnx(model, folder / "model.onnx", **fixed),
        "ONNX, int8": export.onnx(model, folder / "int8.onnx", **int8),
        "OpenVINO": export.openvino(model, folder / "model.xml", **fixed),
        "LiteRT": export.litert(model, folder / "model.tflite", **fixed),
        "LiteRT, int8": export.litert(model, folder / "int8.tflite", **int8),
    }


def megabytes(path):
    """Returns the size of an export, including all its files."""
    files = [path]
    if path.is_dir():
        files = [file for file in path.rglob("*") if file.is_file()]
    elif path.suffix == ".xml":
        files.append(path.with_suffix(".bin"))
    return sum(file.stat().st_size for file in files) / 1e6


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="resnet50")
    parser.add_argument("--batch", type=int, nargs="*", default=[1, 16])
    parser.add_argument("--size", type=int, default=224, help="image size in pixels (224)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--quick", action="store_true", help="ResNet-18, batch 2, 64 px, 1 round")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.model, arguments.batch = "resnet18", [2]
        arguments.size, arguments.rounds = 64, 1
    threads = len(os.sched_getaffinity(0))
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        formats = export_all(arguments.model, arguments.size, Path(folder))
        labels = {str(path): label for label, path in formats.items()}
        sizes = {label: megabytes(path) for label, path in formats.items()}
        for batch in arguments.batch:
            found = contest(
                [*TORCHVISION, "keras_resnet", *labels],
                arguments.model,
                "inference",
                batch,
                arguments.size,
                threads,
                arguments.rounds,
            )
            for row in found:
                name = labels.get(row["contestant"], row["contestant"].split(" at ")[0])
                entry = rows.setdefault(name, {"contestant": name, "megabytes": sizes.get(name)})
                entry[batch] = {
                    key: row[key] for key in ("images_per_second", "ratio_to_torchvision")
                }
    if arguments.json:
        print(json.dumps(list(rows.values()), indent=1))
        return
    table = Table(title=f"{arguments.model}, {arguments.size} px, {threads} threads")
    table.add_column("contestant", no_wrap=True)
    table.add_column("MB", justify="right")
    for batch in arguments.batch:
        table.add_column(f"batch {batch}: images/s", justify="right")
        table.add_column("to torchvision", justify="right")
    for row in rows.values():
        cells = [row["contestant"], f"{row['megabytes']:.1f}" if row["megabytes"] else ""]
        for batch in arguments.batch:
            cells.append(f"{row[batch]['images_per_second']:.1f}")
            cells.append(f"{row[batch]['ratio_to_torchvision']:.2f}")
        table.add_row(*cells)
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
