"""Commands that search in embeddings."""

import json
from pathlib import Path
from typing import Annotated

import typer

from keras_resnet_cli.options import Debug, Json, image_files, with_network
from keras_resnet_cli.terminal import printable, progress, subpackage


@with_network
def similar(
    network,
    images: Annotated[list[Path], image_files("Image files, or folders of them.")],
    index: Annotated[Path, typer.Option(help="Folder of embeddings, which `embed` wrote.")],
    top: Annotated[int, typer.Option(help="Number of images to show.", min=1)] = 10,
    runtime: Annotated[str, typer.Option(help="What runs the network, as for `embed`.")] = "keras",
    as_json: Json = False,
    debug: Debug = False,
):
    """Find the most similar images of a folder of embeddings, by cosine similarity.

    The network has to be the one that computed the embeddings.

    [bold]Example:[/bold] keras-resnet similar rose.jpg --index embeddings --run runs/flowers
    """
    skipped, rows = subpackage("data").Skipped(), []
    opened = subpackage("bulk").Index(index)
    for file, found in opened.similar(network(), images, top=top, runtime=runtime, skipped=skipped):
        if as_json:
            rows.append({"file": str(file), "similar": _rows(found)})
        else:
            _print(file, found)
    if as_json:
        print(json.dumps(rows, indent=2))
    if skipped:
        raise ValueError(f"{len(skipped)} images could not be decoded; they are named above.")


def duplicates(
    index: Annotated[Path, typer.Argument(help="Folder of embeddings, which `embed` wrote.")],
    threshold: Annotated[
        float, typer.Option(help="Least cosine similarity, at most 1.", max=1)
    ] = 0.95,
    as_json: Json = False,
    debug: Debug = False,
):
    """Find images that occur several times in a folder of embeddings, or nearly.

    Each group starts with its first image, to which the others are similar.

    [bold]Example:[/bold] keras-resnet duplicates embeddings --threshold 0.98
    """
    opened = subpackage("bulk").Index(index, approximate=True)
    with progress("searching", "images") as on_progress:
        groups = opened.duplicates(threshold, on_progress=on_progress)
    if as_json:
        rows = [{"file": group.path, "duplicates": _rows(group.copies)} for group in groups]
        print(json.dumps(rows, indent=2))
        return
    for group in groups:
        _print(group.path, group.copies)
    copies = sum(len(group.copies) for group in groups)
    print(f"{len(opened):,} images, {copies:,} duplicates of {len(groups):,} images")


def _print(file, found):
    print(printable(f"{file}:"))
    for path, similarity in found:
        print(printable(f"  {similarity:.4f}  {path}"))


def _rows(found):
    return [{"file": path, "similarity": similarity} for path, similarity in found]
