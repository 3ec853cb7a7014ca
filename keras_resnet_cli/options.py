"""The options that several commands take."""

import sys
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
NEWEST = "\\[default: the newest finished one in runs]"
RunFolder = Annotated[Path | None, typer.Option(help=f"Folder of a training. {NEWEST}")]
NamedModel = Annotated[str | None, typer.Option(help="Or a network: resnet50.")]
NamedWeights = Annotated[str | None, typer.Option(help="And its weights.")]
ImageSize = Annotated[
    int | None,
    typer.Option(
        "--image-size",
        "--crop",
        help="Side in pixels. \\[default: the run's, or the network's usual]",
    ),
]
Resize = Annotated[
    int | None,
    typer.Option(help="Shorter side before the crop. \\[default: the run's or weights']"),
]
Mean = Annotated[
    tuple[float, float, float] | None,
    typer.Option(
        help="Of red, green and blue, scaled to 0..1: 0.49 0.48 0.45. \\[default: the run's or "
        "weights'; if nobody knows, ImageNet's]"
    ),
]
Std = Annotated[
    tuple[float, float, float] | None, typer.Option(help="Their standard deviation, likewise.")
]


def preprocessing(image_size, resize, mean, std):
    """What is given of a `Preprocessing`."""
    given = {"crop": image_size, "resize": resize, "mean": mean, "std": std}
    return {name: value for name, value in given.items() if value is not None}


def chosen_run(run, model, weights):
    """The run that is meant: the newest finished one, and then which is said, if none is named."""
    if run is None and model is None and weights is None:
        run = terminal.room("training").newest_run()
        print(terminal.printable(f"The newest finished run is asked: {run}."), file=sys.stderr)
    return run
