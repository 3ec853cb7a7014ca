"""Commands about networks, trained or not."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from keras_resnet_cli.options import Debug, Json, NetworkVersion, Prefix, output_file
from keras_resnet_cli.terminal import quiet, room

NameOrFile = Annotated[str, typer.Argument(help="A network, resnet50, or a file of weights.")]
FileModel = Annotated[
    str | None, typer.Option("--model", help="Of a file: the network, if it does not tell.")
]
PictureSize = Annotated[
    int | None, typer.Option(help="Side of the images in pixels. \\[default: 224, or CIFAR's 32]")
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
    """Show a network's stages: sizes, channels, parameters, multiply-adds.

    [bold]Example:[/bold] keras-resnet summary resnet50
    """
    visualize = room("visualize")
    with quiet():
        built = room("conversion").named_network(
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
        output_file("A .svg or .png file. \\[default: NAME.svg]", ".svg", ".png"),
    ] = None,
    detail: Annotated[
        str, typer.Option(help="block: a box a residual block; layer: every layer.")
    ] = "block",
    model: FileModel = None,
    image_size: PictureSize = None,
    prefix: Prefix = None,
    version: NetworkVersion = None,
    as_json: Json = False,
    debug: Debug = False,
):
    """Draw a network, with shapes, parameters and multiply-adds.

    [bold]Example:[/bold] keras-resnet plot resnet50 -o resnet50.svg
    """
    visualize = room("visualize")
    with quiet():
        built = room("conversion").named_network(
            network, model=model, version=version, prefix=prefix
        )
    file = visualize.plot(built, output or f"{built.name}.svg", detail, image_size=image_size)
    print(json.dumps({"file": str(file)}, indent=2) if as_json else file)
