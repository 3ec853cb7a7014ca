"""Options that several commands share."""

import functools
import inspect
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from keras_resnet_cli import terminal

Debug = Annotated[
    bool,
    typer.Option("--debug", callback=terminal.set_debug, help="Show the traceback of errors."),
]
Version = Annotated[
    bool,
    typer.Option(
        "--version", callback=terminal.show_version, is_eager=True, help="Show the version."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def output_file(about, *suffixes):
    """The option for a file to write, checked before any work is done.

    Args:
        about: The help text.
        *suffixes: Allowed suffixes; none to allow all.
    """

    def checked(path: Path | None):
        if path is not None and suffixes and not path.name.endswith(suffixes):
            raise ValueError(f"The file should end in {' or '.join(suffixes)}. Received: {path}")
        if path is not None and not path.parent.is_dir():
            raise ValueError(f"The folder {path.parent} does not exist. Create it first.")
        if path is not None and path.is_dir():
            raise ValueError(f"{path} is a folder. Name a file to write.")
        if path is not None:
            _try_to_write(path.parent)
        return path

    return typer.Option("--output", "-o", callback=checked, help=about)


def output_folder(about, *suffixes):
    """The option for a folder to create and write to, checked before any work is done.

    Args:
        about: The help text.
        *suffixes: Suffixes of files that are accepted instead of a folder.
    """

    def checked(path: Path | None):
        if path is not None:
            file = path.name.endswith(suffixes)
            if file and path.is_dir():
                raise ValueError(f"{path} is a folder. Name a file to write.")
            folder = path.parent if file else path
            there = next(one for one in (folder, *folder.parents) if one.exists())
            if not there.is_dir():
                raise ValueError(f"{there} is a file. Name a folder to write.")
            _try_to_write(there)
        return path

    return typer.Option("--output", "-o", callback=checked, help=about)


def _try_to_write(folder):
    """Raises a ValueError if no file can be created in a folder; permissions alone do not tell."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"The folder {folder} cannot be written to. Choose another with --output."
        ) from error


def image_files(about):
    """The argument for one or more images; an error at once if none of them exists."""

    def checked(found):
        check_there(found if isinstance(found, list) else [found])
        return found

    return typer.Argument(callback=checked, help=about)


def check_there(files):
    """Raises an error if none of some files exists."""
    if not any(Path(file).exists() for file in files):
        raise ValueError(f"There is no file {files[0]}. The current folder is {Path.cwd()}.")


COMMON = ("as_json", "debug")

# For the commands that use a trained network.
NEWEST = "\\[default: the newest finished one in runs]"
AS_TRAINED = "\\[default: as for the run or the weights]"
RunFolder = Annotated[Path | None, typer.Option(help=f"Run folder to use. {NEWEST}")]
NamedModel = Annotated[
    str | None,
    typer.Option(
        help="Name of the network of --weights, resnet50 for example. \\[default: recognized from "
        "the weights]"
    ),
]
Prefix = Annotated[
    str | None,
    typer.Option(
        help="Prefix of the network to use, if the file has several, teacher for example."
    ),
]
NetworkVersion = Annotated[
    str | None,
    typer.Option(
        help="Position of the stride in bottleneck blocks, if the file does not specify it: v1, on "
        "the first convolution (keras.applications, Caffe), or v1.5, on the second (torchvision, "
        "timm). \\[default: v1.5]"
    ),
]
NamedWeights = Annotated[
    str | None,
    typer.Option(
        help="Weights to use instead of a run: a file, a folder with a config.json, "
        "hf://owner/name, or imagenet."
    ),
]
ImageSize = Annotated[
    int | None,
    typer.Option(
        "--image-size",
        "--crop",
        help=f"Image size in pixels. {AS_TRAINED}",
    ),
]
Resize = Annotated[
    int | None,
    typer.Option(help=f"Length of the shorter side before the crop, in pixels. {AS_TRAINED}"),
]
Mean = Annotated[
    tuple[float, float, float] | None,
    typer.Option(
        help="Mean of the red, green and blue channels, for values in 0..1: 0.49 0.48 0.45. "
        "\\[default: as for the run or the weights, else ImageNet's]"
    ),
]
Std = Annotated[
    tuple[float, float, float] | None,
    typer.Option(
        help="Standard deviation of the red, green and blue channels, for values in 0..1. "
        "\\[default: as for the run or the weights, else ImageNet's]"
    ),
]
Interpolation = Annotated[
    str | None,
    typer.Option(help=f"Interpolation of the resizing: bilinear or bicubic. {AS_TRAINED}"),
]
CropMode = Annotated[
    str | None,
    typer.Option(
        help="How images are resized before the crop: center (shorter side), squash (both sides) "
        f"or border (longer side, padded). {AS_TRAINED}"
    ),
]


def with_parameters(function, command, options, *, without):
    """Gives a function a command's name, help and options, and additional options.

    Args:
        function: The function; it is called with all options by name.
        command: The command; its options take precedence over additional ones of the same name.
        options: The additional options, which come first.
        without: The argument of the command that the function makes from the additional options.
    """
    parameters = {option.name: option for option in options}
    parameters |= inspect.signature(command).parameters
    del parameters[without]
    # Required options first, options of all commands last.
    in_order = sorted(
        (one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in parameters.values()),
        key=lambda one: (one.default is not one.empty, one.name in COMMON),
    )
    function.__name__, function.__doc__ = command.__name__, command.__doc__
    function.__signature__ = inspect.Signature(in_order)
    return function


def with_network(command):
    """Gives a command the options for a trained network, and `network()`, which opens it."""
    options = inspect.signature(open_network).parameters

    def asked(**given):
        terminal.log_to_stderr()
        network = functools.partial(open_network, **{name: given.pop(name) for name in options})
        return command(network=network, **given)

    return with_parameters(asked, command, options.values(), without="network")


def open_network(
    run: RunFolder = None,
    model: NamedModel = None,
    weights: NamedWeights = None,
    image_size: ImageSize = None,
    resize: Resize = None,
    mean: Mean = None,
    std: Std = None,
    interpolation: Interpolation = None,
    crop_mode: CropMode = None,
    prefix: Prefix = None,
    version: NetworkVersion = None,
):
    """Opens a network from a run folder, by default the newest finished one, or from weights."""
    trained = terminal.subpackage("trained")
    if run is None and model is None and weights is None:
        run = trained.newest_run()
        print(terminal.printable(f"Using the newest finished run: {run}"), file=sys.stderr)
    options = {
        **{"crop": image_size, "resize": resize, "mean": mean, "std": std},
        **{"interpolation": interpolation, "crop_mode": crop_mode},
    }
    given = {name: value for name, value in options.items() if value is not None}
    return trained.open_network(
        run, model, weights, preprocessing=given, prefix=prefix, version=version
    )
