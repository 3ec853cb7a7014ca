"""Commands for folders of images."""

import dataclasses
import json
import logging
from pathlib import Path
from typing import Annotated

import typer

from keras_resnet_cli.options import Debug, Json, output_folder
from keras_resnet_cli.terminal import printable, progress, subpackage


def shards(
    directory: Annotated[Path, typer.Argument(help="A folder of class folders, or a table.")],
    output: Annotated[Path, output_folder("Folder to write.")],
    number: Annotated[int, typer.Option("--shards", help="Number of files.", min=1)] = 128,
    seed: Annotated[int, typer.Option(help="Random seed of the order of the images.")] = 0,
    max_side: Annotated[
        int | None,
        typer.Option(
            help="Maximum length of the longer side in pixels; larger images are resized and saved "
            "as JPEG.",
            min=1,
        ),
    ] = None,
    quality: Annotated[
        int | None,
        typer.Option(help="JPEG quality of resized images. \\[default: 90]", min=1, max=100),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
):
    """Convert a folder of images to TFRecord files. An interrupted conversion is resumed.

    Unreadable images are skipped and listed.

    [bold]Example:[/bold] keras-resnet shards photos -o photos_shards --shards 128
    """
    data = subpackage("data")
    logging.getLogger("keras_resnet").setLevel(logging.ERROR)  # they are listed below
    with progress("writing shards") as on_progress:
        skipped = data.write_shards(
            directory,
            output,
            shards=number,
            seed=seed,
            max_side=max_side,
            quality=quality,
            on_progress=on_progress,
        )
    written = len(list(output.rglob("*.tfrecord")))
    if as_json:
        found = {"directory": str(output), "shards": written, "skipped": skipped.reasons}
        print(json.dumps(found, indent=2))
        return
    for name, reason in skipped.reasons.items():
        print(printable(f"skipped: {name}: {reason}"))
    print(f"{output}: {written} shards, {len(skipped)} images skipped")


def check_data(
    directory: Annotated[
        Path,
        typer.Argument(
            help="A folder of class folders, a .csv or .parquet file with the columns file and "
            "label(s), or a folder with train and val parts of these kinds."
        ),
    ],
    as_json: Json = False,
    debug: Debug = False,
):
    """Find unreadable images, and images that are in both train/ and val/.

    Exits with 1 if there are any.

    [bold]Example:[/bold] keras-resnet check-data photos
    """
    data = subpackage("data")
    with progress("checking images") as on_progress:
        found = data.check_data(directory, on_progress=on_progress)
    if as_json:
        print(json.dumps(dataclasses.asdict(found), indent=2))
    else:
        for part, classes in found.counts.items():
            for name, count in classes.items():
                print(printable(f"{count:9,}  {part + '/' if part else ''}{name}"))
        print(f"{found.total:9,}  images")
        for file, reason in found.bad.items():
            print(printable(f"unreadable: {file}: {reason}"))
        for file, reason in found.unread.items():
            print(printable(f"unsupported format: {file}: {reason}"))
        for files in found.duplicates:
            print(printable(f"in both train and val: {', '.join(files)}"))
        print(f"{len(found.bad):9,}  unreadable")
        print(f"{len(found.unread):9,}  in formats that TensorFlow does not read: convert them")
        print(f"{len(found.duplicates):9,}  in both train and val")
        print(f"{found.ignored:9,}  other files, ignored")
    if found.bad or found.unread or found.duplicates:
        raise typer.Exit(1)
