"""Fine-tunes a trained network on your photographs: the head first, then the last stages.

    python examples/fine_tune.py --data photos --validation-split 0.2 --weights resnet18.pth

Without weights, it first trains a network on drawings of flowers, so it runs without a download.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer
from train_flowers import DRAWN, DRAWN_NOTE

from keras_resnet_cli import in_words, log_to_stdout, quiet


def main(
    data: Annotated[str, typer.Option(help="Folder of class folders, or with train/ and val/.")],
    validation_split: Annotated[
        float | None, typer.Option(help="Fraction of the images to set aside for validation.")
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="Weights file, or imagenet (downloaded). [default: trained on drawn flowers]"
        ),
    ] = None,
    model: Annotated[str, typer.Option(help="Name of the network.")] = "resnet18",
    image_size: Annotated[int, typer.Option(help="Image size in pixels.")] = 64,
    head_epochs: Annotated[
        int, typer.Option(help="Number of epochs that train only the head.")
    ] = 5,
    epochs: Annotated[
        int, typer.Option(help="Number of epochs that train the last stages and the head.")
    ] = 10,
    output: Annotated[Path, typer.Option(help="Run folder to write.")] = Path("runs/fine_tune"),
):
    """Fine-tune a residual network, and write a run folder."""
    log_to_stdout()
    with quiet():
        from keras_resnet import data as keras_resnet_data
        from keras_resnet import training

    try:
        if weights is None:
            print(f"No --weights: training on drawn flowers first. {DRAWN_NOTE}")
            drawn = keras_resnet_data.drawn_flowers(output.parent / "drawn_flowers")
            recipe = training.named_recipe("flowers", data=str(drawn)).changed(DRAWN)
            recipe = recipe.changed({"model": model, "image_size": image_size})
            backbone = output.parent / "drawn_backbone"
            if not (backbone / "report.md").exists():  # otherwise it exists from an earlier run
                backbone = training.train(recipe, backbone, note=DRAWN_NOTE)
            weights = str(backbone / "best.pth")
        recipe = training.named_recipe(
            "fine_tune",
            data=data,
            validation_split=validation_split,
            weights=weights,
            model=model,
            image_size=image_size,
            head_epochs=head_epochs,
            epochs=epochs,
        )
        run = training.train(recipe, output)
    except (ValueError, OSError) as error:
        sys.exit(f"Error: {in_words(error)}")
    print(f"Next: keras-resnet predict IMAGE --run {run}")


if __name__ == "__main__":
    typer.run(main)
