"""Commands about folders of images."""

import dataclasses
import json
import logging
from pathlib import Path
from typing import Annotated

import typer

from keras_resnet_cli.options import Debug, Json, output_folder
from keras_resnet_cli.terminal import printable, progress, room


def shards(
    directory: Annotated[Path, typer.Argument(help="A folder of class folders.")],
    output: Annotated[Path, output_folder("The folder to write.")],
    number: Annotated[int, typer.Option("--shards", help="How many files.", min=1)] = 128,
    seed: Annotated[int, typer.Option(help="Fixes the order of the images.")] = 0,
    max_side: Annotated[
        int | None,
        typer.Option(
            help="Store images whose longer side exceeds this many pixels smaller, as JPEG.", min=1
        ),
    ] = None,
    quality: Annotated[
        int | None, typer.Option(help="Of those JPEGs; 90 by default.", min=1, max=100)
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
):
    """Write a folder of images as TFRecord files; run again, it goes on where it was.

    Images that cannot be decoded are left out and named.

    [bold]Example:[/bold] keras-resnet shards photos -o photos_shards --shards 128
    """
    data = room("data")
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
        print(printable(f"Left out {name}: {reason}."))
    print(f"{output}: {written} shards, {len(skipped)} images left out")


def check_data(
    directory: Annotated[
        Path, typer.Argument(help="A folder with train/ and val/, or of class folders.")
    ],
    as_json: Json = False,
    debug: Debug = False,
):
    """Find the images that cannot be used, and those that both train and validate.

    Ends with 1 if there are any.

    [bold]Example:[/bold] keras-resnet check-data photos
    """
    data = room("data")
    with progress("checking images") as on_progress:
        found = data.check_data(directory, on_progress=on_progress)
    if as_json:
        print(json.dumps({**dataclasses.asdict(found), "total": found.total}, indent=2))
    else:
        for part, classes in found.counts.items():
            for name, count in classes.items():
                print(printable(f"{count:9,}  {part + '/' if part else ''}{name}"))
        print(f"{found.total:9,}  images")
        for file, reason in found.bad.items():
            print(printable(f"bad: {file}: {reason}"))
        for file, reason in found.unread.items():
            print(printable(f"not read: {file}: {reason}"))
        for files in found.duplicates:
            print(printable(f"the same image in train and val: {', '.join(files)}"))
        print(f"{len(found.bad)} bad, {len(found.duplicates)} that both train and validate")
        print(f"{len(found.unread)} of kinds that TensorFlow does not read; convert them")
        print(f"{found.ignored} files that are no images, which are ignored")
    if found.bad or found.unread or found.duplicates:
        raise typer.Exit(1)
