"""Commands that run a trained network on images."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from keras_resnet_cli import bulk
from keras_resnet_cli.options import (
    Debug,
    Json,
    check_there,
    image_files,
    output_file,
    output_folder,
    with_network,
)
from keras_resnet_cli.terminal import printable, subpackage

Flip = Annotated[
    bool,
    typer.Option(
        "--flip",
        help="Average the predictions for each image and its mirror image; takes twice as long.",
    ),
]


@with_network
def evaluate(
    network,
    data: Annotated[
        str,
        typer.Option(
            help="A folder, a .csv or .parquet file, a .npz file with x and y, or the name of a "
            "tensorflow-datasets data set. Of a folder with train/ and val/, val/ is used; of the "
            "run's own training data, the images set aside for validation."
        ),
    ],
    output: Annotated[
        Path | None, output_file("CSV file to write, with the prediction for each image.")
    ] = None,
    flip: Flip = False,
    as_json: Json = False,
    debug: Debug = False,
):
    """Report top-1 and top-5 accuracy on labelled images; mAP and F1 for several labels.

    [bold]Example:[/bold] keras-resnet evaluate --run runs/flowers --data photos
    """
    chosen = network()
    found = chosen.evaluate(data, flip=flip)
    if output:
        found.write(output)
    summary = {
        "images": len(found.rows),
        "counted": found.counted,
        "trained": found.trained,
        "left_out": len(found.skipped),
        **_at_the_usual_size(network, chosen, data, flip),
    }
    summary |= _figures(found)
    if hasattr(found, "of_classes"):
        summary["classes"] = found.of_classes
    if as_json:
        print(json.dumps({**summary, "skipped": found.skipped}, indent=2))
        return
    print(found)
    for name, figures in getattr(found, "of_classes", {}).items():
        ap, f1 = (
            "none  " if figures[key] is None else f"{figures[key]:.4f}"
            for key in ("average_precision", "f1")
        )
        print(printable(f"  AP {ap}, F1 {f1}  {name}"))
    if found.counted:
        print(f"Images used: {found.counted}.")
    if "usual_image_size" in summary:
        name, key = ("top-1", "top1") if "top1" in summary else ("mAP", "mean_average_precision")
        print(
            f"At the usual image size, {summary['usual_image_size']}: {name} "
            f"{summary[f'usual_{key}']:.4f}. The change of size: "
            f"{summary[key] - summary[f'usual_{key}']:+.4f}."
        )


def _at_the_usual_size(network, chosen, data, flip):
    """With --image-size, returns the accuracy without it, for comparison."""
    if network.keywords["image_size"] is None:
        return {}
    usual = network(image_size=None, resize=None)
    if usual.preprocessing.sides == chosen.preprocessing.sides:
        return {}
    size = usual.preprocessing.crop
    figures = _figures(usual.evaluate(data, flip=flip))
    return {"usual_image_size": size, **{f"usual_{key}": figures[key] for key in figures}}


def _figures(found):
    """The accuracies of an evaluation, or what stands for them where labels are several."""
    if hasattr(found, "top1"):
        return {"top1": found.top1, "top5": found.top5}
    return found.figures


@with_network
@bulk.with_settings
def predict(
    network,
    settings,
    images: Annotated[
        list[str],
        typer.Argument(help=f"Image files, or folders of them. With --output: {bulk.INPUTS}"),
    ],
    top: Annotated[
        int | None,
        typer.Option(
            help="Number of classes to show. \\[default: 5; of several labels, those that reach "
            "their thresholds]",
            min=1,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        output_folder("Folder to write, of Parquet files. An interrupted command is resumed."),
    ] = None,
    flip: Flip = False,
    as_json: Json = False,
    debug: Debug = False,
):
    """Classify images, and show the most probable classes of each, or write them to Parquet files.

    [bold]Example:[/bold] keras-resnet predict rose.jpg --run runs/flowers
    """
    if output is not None:
        if flip:
            raise ValueError("flip is not supported with output: remove one of them.")
        bulk.run("predict", network(), images, output, as_json, top=top or 5, **settings)
        return
    if settings:
        raise ValueError(f"{next(iter(settings))} needs a folder to write: pass output.")
    check_there(images)
    skipped, rows = subpackage("data").Skipped(), []
    for file, answer in network().predict(images, top=top, skipped=skipped, flip=flip):
        if as_json:
            names, probabilities = zip(*answer, strict=True) if answer else ((), ())
            rows.append({"file": str(file), "classes": names, "probabilities": probabilities})
            continue
        print(printable(f"{file}:"))
        for name, probability in answer:
            print(printable(f"  {probability:.4f}  {name}"))
    if as_json:
        print(json.dumps(rows, indent=2))
    if skipped:
        raise ValueError(f"{len(skipped)} images could not be classified; they are named above.")


@with_network
def explain(
    network,
    image: Annotated[Path, image_files("An image file.")],
    class_: Annotated[
        str | None,
        typer.Option("--class", help="Class to explain. \\[default: the predicted class]"),
    ] = None,
    layer: Annotated[
        str | None,
        typer.Option(
            help="Layer with the feature map to use, layer3.1 for example. \\[default: the last "
            "block]"
        ),
    ] = None,
    output: Annotated[
        Path | None,
        output_file(
            "Image file to write. \\[default: NAME_explained.png]", ".png", ".jpg", ".svg", ".pdf"
        ),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
):
    """Show which parts of an image a prediction is based on (Grad-CAM).

    [bold]Example:[/bold] keras-resnet explain rose.jpg --run runs/flowers
    """
    found = network().explain(image, output, class_name=class_, layer=layer)
    if as_json:
        print(json.dumps({**dataclasses.asdict(found), "picture": str(found.picture)}, indent=2))
    else:
        print(printable(f"{found.picture}: {found.class_name}, {found.probability:.4f}"))
