"""Commands that export networks and verify exports."""

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
from keras_resnet_cli.terminal import log_to_stdout, quiet, subpackage


@with_network
def export(
    network,
    run: Annotated[Path | None, typer.Argument(help=f"Run folder to export. {NEWEST}")] = None,
    format_: Annotated[
        str,
        typer.Option("--format", help="Format: saved_model, onnx, litert or openvino."),
    ] = "saved_model",
    output: Annotated[
        Path | None,
        output_folder(
            "File to write, or for a SavedModel the folder of its versions. \\[default: in the run "
            "folder]",
            *(".onnx", ".tflite", ".xml"),
        ),
    ] = None,
    layer: Annotated[
        str | None,
        typer.Option(
            help="Export the features of a layer instead of the classifier, averaged over height "
            "and width: avgpool (those that the classifier takes), layer3, layer3.0 or C4."
        ),
    ] = None,
    no_fold: Annotated[
        bool,
        typer.Option(
            "--no-fold", help="SavedModel: do not fold batch normalization into convolutions."
        ),
    ] = False,
    top: Annotated[
        int | None,
        typer.Option(help="SavedModel: number of classes in each response. \\[default: 5]", min=1),
    ] = None,
    warmup: Annotated[
        bool,
        typer.Option("--warmup", help="SavedModel: add warm-up requests for TensorFlow Serving."),
    ] = False,
    any_size: Annotated[
        bool,
        typer.Option("--any-size", help="ONNX, LiteRT and OpenVINO: accept images of any size."),
    ] = False,
    with_preprocessing: Annotated[
        bool,
        typer.Option(
            "--with-preprocessing",
            help="ONNX: include the normalization; the input is pixel values, 0 to 255.",
        ),
    ] = False,
    quantize: Annotated[
        str | None,
        typer.Option(help="Quantization: int8 (ONNX and LiteRT) or dynamic (LiteRT)."),
    ] = None,
    calibration_data: Annotated[
        Path | None,
        typer.Option(
            "--calibration-data",
            "--representative-data",
            help="For int8: a folder of images like those that the network will see.",
        ),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
):
    """Export a network, run the export and compare its outputs with the model's.

    export.json, in the export or next to it, describes inputs, outputs and the difference.

    [bold]Example:[/bold] keras-resnet export runs/flowers --format onnx
    """
    if not as_json:
        log_to_stdout()
    options = {
        "layer": layer,
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
    subpackage("trained.exporting").check(format_, output, given)
    opened = network()
    with quiet():  # the runtimes print banners
        path = opened.export(format_, output, **given)
    record = subpackage("export.record").read(path)
    if as_json:
        print(json.dumps({"path": str(path), **record}, indent=2))
    else:
        print(f"{path}: {_compared(record['compared_on'], record['error'], record['agreement'])}")


def verify(
    path: Annotated[
        Path, typer.Argument(help="Version folder of a SavedModel, or .onnx, .tflite or .xml file.")
    ],
    images: Annotated[list[Path], image_files("Image files.")],
    run: Annotated[
        Path | None,
        typer.Option(
            help="Run folder to compare with. \\[default: the one that contains the export, else "
            "the newest finished one in runs]"
        ),
    ] = None,
    model: NamedModel = None,
    weights: NamedWeights = None,
    as_json: Json = False,
    debug: Debug = False,
):
    """Compare the outputs of an exported network with those of its model.

    Exits with 1 if they differ by more than rounding errors, or, if quantized, if the predicted
    class differs for more than 5 % of the images, or features by half of the largest.

    [bold]Example:[/bold] keras-resnet verify runs/flowers/onnx/model.onnx rose.jpg tulip.jpg
    """
    trained = subpackage("trained")
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
    """Describes a comparison with the model."""
    same = "" if agreement is None else f", and the predicted class agrees for {agreement:.1%}"
    return (
        f"compared with the model on {images} image{'s' * (images > 1)}, the largest difference is "
        f"{error:.1e} of the largest output{same}."
    )
