"""Commands that write Parquet files for many images."""

import dataclasses
import inspect
import json
from pathlib import Path
from typing import Annotated

import typer

from keras_resnet_cli.options import Debug, Json, output_folder, with_network, with_parameters
from keras_resnet_cli.terminal import printable, progress, subpackage

INPUTS = (
    "Images: folders, files, globs ('photos/**/*.jpg'), .txt files with a path or URL per line, "
    ".tfrecord and .parquet files or folders of them, .npz files, tensorflow-datasets names, URLs "
    "(s3://bucket/photos)."
)


def with_settings(command):
    """Adds the options of `bulk.Settings` to a command, which gets the given ones as `settings`."""
    options = inspect.signature(_settings).parameters

    def asked(**given):
        settings = {name: given.pop(name) for name in options}
        settings = {name: value for name, value in settings.items() if value not in (None, False)}
        return command(settings=settings, **given)

    return with_parameters(asked, command, options.values(), without="settings")


def _settings(
    column: Annotated[
        str | None,
        typer.Option(
            help="Column of Parquet inputs with image files or paths. \\[default: the only column "
            "of bytes, else path, file, filename, file_name or url]"
        ),
    ] = None,
    sha256: Annotated[
        bool, typer.Option("--sha256", help="Add a column with the hash of each image file.")
    ] = False,
    runtime: Annotated[
        str | None,
        typer.Option(
            help="What runs the network: keras; saved_model, onnx, openvino or litert, for the "
            "export in the run folder; or the path of an export, 8-bit ones too. \\[default: keras]"
        ),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Number of images per batch. \\[default: 32]", min=1)
    ] = None,
    rows_per_part: Annotated[
        int | None, typer.Option(help="Number of rows per file. \\[default: 8192]", min=1)
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(
            help="Number of processes that share the work. Start each with its --process-id.",
            min=1,
        ),
    ] = None,
    process_id: Annotated[
        int | None, typer.Option(help="Index of this process, from 0.", min=0)
    ] = None,
    engine: Annotated[
        str | None, typer.Option(help="Run on an engine: ray (needs the ray extra).")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            help="Address of the Ray cluster, auto for example. \\[default: a new one on this "
            "machine]"
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Number of Ray actors. \\[default: one per machine]", min=1),
    ] = None,
):
    """The options of both commands."""


def run(function, network, images, output, as_json, **options):
    """Runs `bulk.embed` or `bulk.predict` by its name, and reports."""
    bulk = subpackage("bulk")
    with progress(f"writing {output}", "images") as on_progress:
        done = getattr(bulk, function)(network, images, output, on_progress=on_progress, **options)
    if as_json:
        print(json.dumps({**dataclasses.asdict(done), "folder": str(done.folder)}, indent=2))
        return
    speed = f"{done.computed / done.seconds:,.0f} images/s" if done.computed else "all there before"
    print(
        printable(
            f"{done.folder}: {done.rows:,} rows in {done.parts:,} files, {done.errors:,} images "
            f"could not be read; {speed}"
        )
    )


@with_network
@with_settings
def embed(
    network,
    settings,
    images: Annotated[list[str], typer.Argument(help=INPUTS)],
    output: Annotated[Path, output_folder("Folder to write, of Parquet files.")],
    layer: Annotated[
        str,
        typer.Option(
            help="Layer whose features are written, averaged over height and width: avgpool (those "
            "that the classifier uses), layer3, layer3.0 or C4."
        ),
    ] = "avgpool",
    normalize: Annotated[
        bool, typer.Option("--normalize", help="Divide each embedding by its L2 norm.")
    ] = False,
    dtype: Annotated[
        str, typer.Option(help="Type of the numbers: float32 or float16.")
    ] = "float32",
    as_json: Json = False,
    debug: Debug = False,
):
    """Write the embeddings of many images to Parquet files. An interrupted command is resumed.

    Images that cannot be read get a row with the reason.

    [bold]Example:[/bold] keras-resnet embed photos --run runs/flowers -o embeddings
    """
    options = {"layer": layer, "normalize": normalize, "dtype": dtype, **settings}
    run("embed", network(), images, output, as_json, **options)
