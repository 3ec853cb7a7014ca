"""The command that trains."""

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from keras_resnet_cli.options import Debug
from keras_resnet_cli.terminal import log_to_stdout, room


def train(
    recipe: Annotated[
        str, typer.Option(help="flowers, fine_tune, cifar, imagenet_v1, imagenet_v2, or a file.")
    ] = "flowers",
    data: Annotated[
        str | None,
        typer.Option(
            help="A folder with train/ and val/, or of class folders; or the name of a data set "
            "of tensorflow-datasets. \\[default: the recipe's]"
        ),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Run folder.")] = Path(
        "runs/flowers"
    ),
    validation_split: Annotated[
        float | None, typer.Option(help="Share of the images that validate, if not apart.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="The network: resnet50.")] = None,
    weights: Annotated[
        str | None, typer.Option(help="What to start from: a file, or imagenet (a download).")
    ] = None,
    image_size: Annotated[int | None, typer.Option(help="Side in pixels.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Times through the images.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a step, on all devices.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="The highest.")] = None,
    precision: Annotated[
        str | None, typer.Option(help="float32, mixed_float16 or mixed_bfloat16.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Fixes all that is random.")] = None,
    max_bad: Annotated[
        float | None, typer.Option(help="Share of broken files that is borne.")
    ] = None,
    deterministic: Annotated[
        bool | None, typer.Option("--deterministic", help="The same bits each time.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any value of the recipe: --set augmentation.mixup=0.2"),
    ] = None,
    save_every: Annotated[
        int | None, typer.Option(help="Steps between checkpoints. \\[default: an epoch]", min=1)
    ] = None,
    devices: Annotated[int, typer.Option(help="GPUs that share each batch.", min=1)] = 1,
    coordinator: Annotated[
        str | None, typer.Option(help="HOST:PORT of the first process (KERAS_BACKEND=jax).")
    ] = None,
    processes: Annotated[int, typer.Option(help="How many processes train.", min=1)] = 1,
    process_id: Annotated[int, typer.Option(help="Which one this is, from 0.", min=0)] = 0,
    debug: Debug = False,
):
    """Train a network; run again after an interruption, it goes on.

    [bold]Example:[/bold] keras-resnet train --data photos --validation-split 0.2 --epochs 10
    """
    training = room("training")
    log_to_stdout()
    given = {
        "data": data,
        "validation_split": validation_split,
        "model": model,
        "weights": weights,
        "image_size": image_size,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "precision": precision,
        "seed": seed,
        "max_bad": max_bad,
        "deterministic": deterministic,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    changes |= dict(map(_assignment, set_ or ()))
    if Path(recipe).suffix == ".json":
        chosen = room("files").read_json(
            recipe,
            training.Recipe.from_config,
            advice="Mend it, or name a recipe: --recipe flowers.",
        )
    else:
        chosen = training.named_recipe(recipe)
    folder = training.train(
        chosen.changed(changes),
        output,
        placement=training.Placement(devices, coordinator, processes, process_id),
        save_every=save_every,
        command=shlex.join(["keras-resnet", *sys.argv[1:]]),
    )
    if process_id == 0:
        print(f"Next: {shlex.join(['keras-resnet', 'predict', 'IMAGE', '--run', str(folder)])}")


def _assignment(text):
    """The name and the value of --set name=value; a value that is no JSON is a string."""
    name, sign, value = text.partition("=")
    if not sign:
        raise ValueError(f"--set takes name=value. Received: {text!r}")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value
