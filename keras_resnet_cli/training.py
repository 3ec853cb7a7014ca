"""The command that trains."""

import ast
import importlib.util
import inspect
import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from keras_resnet_cli.options import Debug, output_folder, with_parameters
from keras_resnet_cli.terminal import log_to_stdout, room

# What of a recipe has an option of its own.
OPTIONS = {
    "data": str,
    "validation_split": float,
    "model": str,
    "weights": str,
    "image_size": int,
    "epochs": int,
    "batch_size": int,
    "learning_rate": float,
    "precision": str,
    "seed": int,
    "max_bad": float,
    "deterministic": bool,
}


def _help_of_fields():
    """The help of a recipe's fields, from its source: to import it takes TensorFlow's seconds."""
    package = importlib.util.find_spec("keras_resnet")
    assert package and package.origin  # noqa: S101 (it is installed along with the command)
    source = Path(package.origin).with_name("training") / "recipe.py"
    return {
        ast.unparse(node.target): ast.literal_eval(node.value.args[2])
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8")))
        if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Call)
    }


def with_recipe(command):
    """Gives a command the options that change a recipe, and {name: value} of those given."""

    def asked(**given):
        changes = {name: given.pop(name) for name in OPTIONS}
        changes = {name: value for name, value in changes.items() if value is not None}
        return command(changes=changes, **given)

    about = _help_of_fields()
    options = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                kind | None,
                typer.Option(f"--{name.replace('_', '-')}", help=about[name], show_default=False),
            ],
        )
        for name, kind in OPTIONS.items()
    ]
    return with_parameters(asked, command, options, without="changes")


@with_recipe
def train(
    changes,
    recipe: Annotated[
        str, typer.Option(help="flowers, fine_tune, cifar, imagenet_v1, imagenet_v2, or a file.")
    ] = "flowers",
    output: Annotated[Path, output_folder("Run folder.")] = Path("runs/flowers"),
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
    changes |= dict(map(_assignment, set_ or ()))
    if Path(recipe).suffix == ".json":
        chosen = room("files").read_json(
            recipe,
            training.Recipe.from_config,
            advice="Mend it, or name a recipe: --recipe flowers.",
        )
    else:
        chosen = training.named_recipe(recipe)
    try:
        folder = training.train(
            chosen.changed(changes),
            output,
            distribution=training.Distribution(devices, coordinator, processes, process_id),
            save_every=save_every,
            command=shlex.join(["keras-resnet", *sys.argv[1:]]),
        )
    except KeyboardInterrupt:  # a line says where it stopped
        raise typer.Exit(130) from None
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
