"""Trains a residual network on CIFAR-10 with the recipe of He et al., section 4.2.

    python examples/train_cifar.py --model resnet20

It has 64,000 steps of SGD with a batch size of 128 (164 epochs) and a learning rate of 0.1 that is
divided by 10 after 32,000 and 48,000 steps; images are padded by 4 pixels, cropped and flipped.
Networks of 110 layers or more start with a lower learning rate.

CIFAR-10 comes from tensorflow-datasets, which downloads it (162 MB), or from --data, a folder with
train and val folders of class folders. --smoke runs two short epochs on random images.
"""

import contextlib
import sys
from pathlib import Path
from typing import Annotated

import typer

from keras_resnet_cli import in_words, log_to_stdout, quiet

PAPER = {"epochs": 164, "milestones": (82, 123)}  # of 391 steps each
SMOKE = {"data": "cifar10", "epochs": 2, "milestones": (1,), "batch_size": 16}


def recipe_changes(model, epochs=None):
    """Returns the changes to the recipe `cifar` for a network, and for a shorter training.

    Args:
        model: Name of a CIFAR network: resnet20.
        epochs: Number of epochs; the milestones are scaled accordingly.
    """
    changes = {"model": model, **PAPER}
    if epochs:
        milestones = (round(epochs * share / PAPER["epochs"]) for share in PAPER["milestones"])
        changes |= {"epochs": epochs, "milestones": tuple(milestones)}
    if int(model.removeprefix("resnet")) >= 110:
        changes["warmup_epochs"] = 1  # in the paper, 400 steps at a tenth of the learning rate
    return changes


def main(
    model: Annotated[
        str, typer.Option(help="resnet20, resnet32, resnet44, resnet56, resnet110 or resnet1202.")
    ] = "resnet20",
    data: Annotated[
        str, typer.Option(help="A folder, or the name of a tensorflow-datasets data set.")
    ] = "cifar10",
    epochs: Annotated[
        int | None, typer.Option(help="Number of epochs. [default: 164, as in the paper]", min=3)
    ] = None,
    batch_size: Annotated[int, typer.Option(min=2)] = 128,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="Do a short run on random images.")
    ] = False,
    output: Annotated[Path, typer.Option(help="Run folder to write.")] = Path("runs/cifar"),
):
    """Train a CIFAR network as in the paper, and write a run folder."""
    log_to_stdout()
    with quiet():
        from keras_resnet import training
        from keras_resnet.configs import CIFAR, CONFIGS

    names = [name for name, config in CONFIGS.items() if config.family is CIFAR]
    try:
        if model not in names:
            raise ValueError(f"model should be one of {', '.join(names)}. Received: {model!r}")
        changes = {**recipe_changes(model, epochs), "batch_size": batch_size, "data": data}
        context = contextlib.nullcontext()
        if smoke:
            import tensorflow_datasets

            changes |= SMOKE
            context = tensorflow_datasets.testing.mock_data(num_examples=48)
        with context:
            training.train(training.named_recipe("cifar", **changes, seed=seed), output)
    except (ValueError, OSError) as error:
        sys.exit(f"Error: {in_words(error)}")


if __name__ == "__main__":
    typer.run(main)
