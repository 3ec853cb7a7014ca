"""The options that several commands take."""

from pathlib import Path
from typing import Annotated

import typer

from keras_resnet_cli import terminal

Debug = Annotated[
    bool,
    typer.Option("--debug", callback=terminal.set_debug, help="Show where in the code it failed."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]

# Of the commands that take a trained network.
RunFolder = Annotated[Path | None, typer.Option(help="Folder of a training.")]
NamedModel = Annotated[str | None, typer.Option(help="Or a network: resnet50.")]
NamedWeights = Annotated[str | None, typer.Option(help="And its weights.")]
ImageSize = Annotated[
    int | None, typer.Option(help="Side in pixels. \\[default: the run's, or the network's usual]")
]
Resize = Annotated[
    int | None,
    typer.Option(help="Shorter side before the crop. \\[default: the run's or weights']"),
]
