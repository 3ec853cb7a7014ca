"""Trains a residual network to classify flowers.

    python examples/train_flowers.py

Without arguments, it draws its own data set, so that it needs no network connection. With a folder
of photographs, it is the classic flower classification script:

    python examples/train_flowers.py --data-dir flower_photos --validation-split 0.1
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from keras_resnet_cli import in_words, log_to_stdout, quiet

DRAWN_NOTE = "These are drawings, not photographs: the accuracy only shows that training works."
DRAWN = {
    "model": "resnet18",
    "image_size": 64,
    "augmentation.crop_scale": (0.5, 1.0),
    "epochs": 8,
    "learning_rate": 5e-4,
    "schedule": "cosine",
}


def main(
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder of class folders, or with train/ and val/.")
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(help="Name of a tensorflow-datasets data set, for example tf_flowers."),
    ] = None,
    validation_split: Annotated[
        float | None, typer.Option(help="Fraction of the images to set aside for validation.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Name of the network. [default: resnet34; for the drawings resnet18]"),
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="Initial weights, a .pth file.")] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Image size in pixels. [default: 224; for the drawings 64]")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Number of epochs. [default: 15; for the drawings 8]", min=1)
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1)] = 16,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            help="Learning rate of Adam. [default: 1e-4; for the drawings 5e-4, with cosine decay]"
        ),
    ] = None,
    max_bad: Annotated[
        float, typer.Option(help="Maximum fraction of unreadable images, 0 to 1.")
    ] = 0.1,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    output: Annotated[Path, typer.Option(help="Run folder to write.")] = Path("runs/flowers"),
):
    """Train a residual network to classify flowers, and write a run folder."""
    log_to_stdout()
    with quiet():
        from keras_resnet import data, training

    chosen = {
        "data": str(data_dir.absolute()) if data_dir else dataset,
        "model": model,
        "image_size": image_size,
        "epochs": epochs,
        "learning_rate": learning_rate,
        "weights": weights and str(weights),
        "validation_split": validation_split,
        "max_bad": max_bad,
        "batch_size": batch_size,
        "seed": seed,
    }
    chosen = {name: value for name, value in chosen.items() if value is not None}
    note = None
    try:
        if "data" not in chosen:
            print(f"No --data-dir or --dataset: drawing five kinds of flowers. {DRAWN_NOTE}")
            drawn, note = data.drawn_flowers(output.parent / "drawn_flowers"), DRAWN_NOTE
            chosen = {"data": str(drawn), **DRAWN, **chosen}
        run = training.train(training.named_recipe("flowers", **chosen), output, note=note)
    except (ValueError, OSError) as error:
        sys.exit(f"Error: {in_words(error)}")
    print(f"Next: python examples/predict.py IMAGE --run {run}")


if __name__ == "__main__":
    typer.run(main)
