"""Trains on ImageNet with one of torchvision's recipes.

    python examples/train_imagenet.py --recipe imagenet_v1 --data imagenet_shards

The data is a folder of shards (keras-resnet shards IMAGENET -o imagenet_shards), a folder with
train and val folders of class folders, or imagenet2012 of tensorflow-datasets. --smoke runs two
short epochs on random images, to check that everything works before a training of several days.
"""

import contextlib
import sys
from pathlib import Path
from typing import Annotated

import typer

from keras_resnet_cli import in_words, log_to_stdout, quiet

SMOKE = {
    "model": "resnet18",
    "data": "imagenet2012",
    "image_size": 64,
    "resize": 73,
    "epochs": 2,
    "batch_size": 16,
    "milestones": (1,),
    "warmup_epochs": 0,
}


def main(
    recipe: Annotated[str, typer.Option(help="imagenet_v1 or imagenet_v2.")] = "imagenet_v1",
    data: Annotated[
        str, typer.Option(help="A folder, or the name of a tensorflow-datasets data set.")
    ] = "imagenet2012",
    model: Annotated[str, typer.Option(help="Name of the network.")] = "resnet50",
    precision: Annotated[
        str, typer.Option(help="float32, mixed_float16 or mixed_bfloat16.")
    ] = "float32",
    devices: Annotated[int, typer.Option(help="Number of GPUs that share each batch.", min=1)] = 1,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="Do a short run on random images.")
    ] = False,
    output: Annotated[Path, typer.Option(help="Run folder to write.")] = Path("runs/imagenet"),
):
    """Train a residual network on ImageNet, and write a run folder."""
    log_to_stdout()
    with quiet():
        from keras_resnet import training

    try:
        chosen = training.named_recipe(recipe, data=data, model=model, precision=precision)
        context = contextlib.nullcontext()
        if smoke:
            import tensorflow_datasets

            keep = {} if chosen.schedule == "step" else {"milestones": ()}
            chosen = chosen.changed({**SMOKE, "train_size": chosen.train_size and 48, **keep})
            context = tensorflow_datasets.testing.mock_data(num_examples=48)
        with context:
            training.train(chosen, output, distribution=training.Distribution(devices))
    except (ValueError, OSError) as error:
        sys.exit(f"Error: {in_words(error)}")


if __name__ == "__main__":
    typer.run(main)
