"""Commands about networks for other systems."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from keras_resnet_cli.options import (
    NEWEST,
    Debug,
    Json,
    NamedModel,
    NamedWeights,
    image_files,
    output_folder,
    with_network,
)
from keras_resnet_cli.terminal import log_to_stdout, quiet, room


@with_network
def export(
    network,
    run: Annotated[Path | None, typer.Argument(help=f"Folder of a training. {NEWEST}")] = None,
    format_: Annotated[
        str, typer.Option("--format", help="saved_model, onnx, litert or openvino.")
    ] = "saved_model",
    output: Annotated[
        Path | None,
        output_folder(
            "The folder of a SavedModel's versions, or the file. \\[default: in the run folder]",
            *(".onnx", ".tflite", ".xml"),
        ),
    ] = None,
    no_fold: Annotated[
        bool, typer.Option("--no-fold", help="SavedModel: keep batch normalization.")
    ] = False,
    top: Annotated[
        int | None,
        typer.Option(help="SavedModel: how many classes an answer names. \\[default: 5]", min=1),
    ] = None,
    warmup: Annotated[
        bool,
        typer.Option("--warmup", help="SavedModel: add requests for TensorFlow Serving to start."),
    ] = False,
    any_size: Annotated[
        bool, typer.Option("--any-size", help="Files: take images of any size.")
    ] = False,
    with_preprocessing: Annotated[
        bool, typer.Option("--with-preprocessing", help="ONNX: take pixels, 0 to 255.")
    ] = False,
    quantize: Annotated[
        str | None, typer.Option(help="ONNX and LiteRT: int8; LiteRT: dynamic.")
    ] = None,
    calibration_data: Annotated[
        Path | None,
        typer.Option(
            "--calibration-data",
            "--representative-data",
            help="For int8: a folder of images as it will see.",
        ),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
):
    """Export a network for other systems, and compare its answers with the model's.

    Beside the export or in it, export.json says what it takes, gives and differs by.

    [bold]Example:[/bold] keras-resnet export runs/flowers --format onnx
    """
    if not as_json:
        log_to_stdout()
    options = {
        "top_k": top,
        "warmup": warmup,
        "any_size": any_size,
        "with_preprocessing": with_preprocessing,
        "quantize": quantize,
        "calibration_data": calibration_data,
    }
    given = {name: value for name, value in options.items() if value}
    if no_fold:
        given["fold"] = False
    room("trained.exporting").check(format_, output, given)
    opened = network()
    with quiet():  # the runtimes greet
        path = opened.export(format_, output, **given)
    record = room("export.record").read(path)
    if as_json:
        print(json.dumps({"path": str(path), **record}, indent=2))
    else:
        print(f"{path}: {_compared(record['compared_on'], record['error'], record['agreement'])}")


def verify(
    path: Annotated[
        Path, typer.Argument(help="A SavedModel's version folder, a .onnx, .tflite or .xml file.")
    ],
    images: Annotated[list[Path], image_files("Image files.")],
    run: Annotated[
        Path | None,
        typer.Option(help="Folder of a training. \\[default: that it lies in, or the newest]"),
    ] = None,
    model: NamedModel = None,
    weights: NamedWeights = None,
    as_json: Json = False,
    debug: Debug = False,
):
    """Have an exported network and its model answer the same images.

    Ends with 1 if they differ by more than rounding explains, or, quantised, on the best class of
    more than 5 %.

    [bold]Example:[/bold] keras-resnet verify runs/flowers/onnx/model.onnx rose.jpg tulip.jpg
    """
    trained = room("trained")
    if not as_json:
        log_to_stdout()
    with quiet():
        found = trained.verify_export(path, images, run=run, model=model, weights=weights)
    if as_json:
        print(json.dumps(dataclasses.asdict(found), indent=2))
    else:
        print(f"{path}: {_compared(found.images, found.error, found.agreement)}")
    found.check(path)


def _compared(images, error, agreement):
    """A comparison with the model, in words."""
    same = "" if agreement is None else f", the best class is the same on {agreement:.1%}"
    return (
        f"beside the model on {images} image{'s' * (images > 1)}, the largest difference is "
        f"{error:.1e} of the largest value{same}."
    )
