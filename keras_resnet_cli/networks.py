"""Commands that describe networks."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from keras_resnet_cli.options import Debug, Json, NetworkVersion, Prefix, output_file
from keras_resnet_cli.terminal import quiet, subpackage

NameOrFile = Annotated[
    str, typer.Argument(help="Name of a network, resnet50 for example, or a weights file.")
]
FileModel = Annotated[
    str | None,
    typer.Option(
        "--model", help="Name of the file's network, if it cannot be recognized from the file."
    ),
]
PictureSize = Annotated[
    int | None,
    typer.Option(help="Image size in pixels. \\[default: 224, or 32 for CIFAR networks]"),
]


def summary(
    network: NameOrFile,
    model: FileModel = None,
    image_size: PictureSize = None,
    prefix: Prefix = None,
    version: NetworkVersion = None,
    as_json: Json = False,
    debug: Debug = False,
):
    """Show a table of a network's stages: output sizes, channels, parameters, multiply-adds.

    [bold]Example:[/bold] keras-resnet summary resnet50
    """
    visualize = subpackage("visualize")
    with quiet():
        built = subpackage("conversion").named_network(
            network, model=model, version=version, prefix=prefix
        )
    if as_json:
        rows = [dataclasses.asdict(stage) for stage in visualize.summary(built, image_size)]
        print(json.dumps(rows, indent=2))
        return
    from rich.console import Console

    Console().print(visualize.summary_table(built, image_size))


def plot(
    network: NameOrFile,
    output: Annotated[
        Path | None,
        output_file("Image file to write, .svg or .png. \\[default: NAME.svg]", ".svg", ".png"),
    ] = None,
    detail: Annotated[
        str,
        typer.Option(help="Level of detail: block (one box for each residual block) or layer."),
    ] = "block",
    model: FileModel = None,
    image_size: PictureSize = None,
    prefix: Prefix = None,
    version: NetworkVersion = None,
    as_json: Json = False,
    debug: Debug = False,
):
    """Draw a diagram of a network, with shapes, parameters and multiply-adds.

    [bold]Example:[/bold] keras-resnet plot resnet50 -o resnet50.svg
    """
    visualize = subpackage("visualize")
    with quiet():
        built = subpackage("conversion").named_network(
            network, model=model, version=version, prefix=prefix
        )
    file = visualize.plot(built, output or f"{built.name}.svg", detail, image_size=image_size)
    print(json.dumps({"file": str(file)}, indent=2) if as_json else file)
