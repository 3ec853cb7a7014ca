"""The options that several commands take."""

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
    typer.Option("--debug", callback=terminal.set_debug, help="Show where in the code it failed."),
]
Version = Annotated[
    bool,
    typer.Option(
        "--version", callback=terminal.show_version, is_eager=True, help="Show the version."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def output_file(about, *suffixes):
    """The option that names a file to write: what cannot be is refused before any work is done.

    Args:
        about: The help.
        *suffixes: What its name may end in; none for anything.
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
    """The option that names a folder to write, which is made: what cannot be is refused, likewise.

    Args:
        about: The help.
        *suffixes: What the name of a file ends in that may be meant instead.
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
    """Refuses a folder in which no file can be made; its permissions do not tell of each."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(f"The folder {folder} cannot be written to.") from error


def image_files(about):
    """The argument that names one or more images: if none is there, that is said at once."""

    def checked(found):
        files = found if isinstance(found, list) else [found]
        if not any(file.exists() for file in files):
            raise ValueError(f"There is no file {files[0]}. The current folder is {Path.cwd()}.")
        return found

    return typer.Argument(callback=checked, help=about)


COMMON = ("as_json", "debug")

# Of the commands that take a trained network.
NEWEST = "\\[default: the newest finished one in runs]"
RunFolder = Annotated[Path | None, typer.Option(help=f"Folder of a training. {NEWEST}")]
NamedModel = Annotated[
    str | None,
    typer.Option(help="Of weights, the network: resnet50. \\[default: what they are of]"),
]
Prefix = Annotated[
    str | None, typer.Option(help="Which network, where the file has several: teacher.")
]
NetworkVersion = Annotated[
    str | None,
    typer.Option(
        help="Where its bottlenecks stride, if the file does not tell: v1 on the first "
        "convolution, as keras.applications and Caffe, v1.5 on the second. \\[default: v1.5]"
    ),
]
NamedWeights = Annotated[
    str | None,
    typer.Option(
        help="Or weights: a file, a folder with a config.json, hf://owner/name, imagenet."
    ),
]
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
Interpolation = Annotated[
    str | None,
    typer.Option(help="Of resizing: bilinear or bicubic. \\[default: the run's or weights']"),
]
CropMode = Annotated[
    str | None,
    typer.Option(
        help="What is resized: center, squash or border. \\[default: the run's or weights']"
    ),
]


def with_parameters(function, command, options, *, without):
    """Makes a command of a function: with a command's name, help and options, and with more.

    Args:
        function: What is called, with all of them by name.
        command: The command; an option of its own counts before another one of that name.
        options: The others, which come first.
        without: The argument of the command that the function makes of the others.
    """
    parameters = {option.name: option for option in options}
    parameters |= inspect.signature(command).parameters
    del parameters[without]
    # Required ones first, and last what all commands have.
    in_order = sorted(
        (one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in parameters.values()),
        key=lambda one: (one.default is not one.empty, one.name in COMMON),
    )
    function.__name__, function.__doc__ = command.__name__, command.__doc__
    function.__signature__ = inspect.Signature(in_order)
    return function


def with_network(command):
    """Gives a command the options that name a trained network, and `network()`, which opens it."""
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
    """The network that is meant: of the newest finished run, and then which is said, by default."""
    trained = terminal.room("trained")
    if run is None and model is None and weights is None:
        run = trained.newest_run()
        print(terminal.printable(f"The newest finished run is asked: {run}."), file=sys.stderr)
    options = {
        **{"crop": image_size, "resize": resize, "mean": mean, "std": std},
        **{"interpolation": interpolation, "crop_mode": crop_mode},
    }
    given = {name: value for name, value in options.items() if value is not None}
    return trained.open_network(
        run, model, weights, preprocessing=given, prefix=prefix, version=version
    )
