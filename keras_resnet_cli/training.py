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
from keras_resnet_cli.terminal import log_to_stdout, subpackage

# Fields of a recipe with their own options.
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
    """Reads the help of a recipe's fields from its source; an import would import TensorFlow."""
    package = importlib.util.find_spec("keras_resnet")
    assert package and package.origin  # noqa: S101 (it is installed along with the command)
    source = Path(package.origin).with_name("training") / "recipe.py"
    return {
        ast.unparse(node.target): ast.literal_eval(node.value.args[2])
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8")))
        if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Call)
    }


def with_recipe(command):
    """Gives a command options for fields of a recipe, and `changes`, the values of those given."""

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
        str,
        typer.Option(
            help="Recipe: flowers, fine_tune, fine_tune_layers, cifar, imagenet_v1, imagenet_v2, "
            "a1, a2, a3, or a .json file."
        ),
    ] = "flowers",
    output: Annotated[Path, output_folder("Run folder to write.")] = Path("runs/flowers"),
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Set any field of the recipe: --set augmentation.mixup=0.2"),
    ] = None,
    save_every: Annotated[
        int | None,
        typer.Option(
            help="Steps between checkpoints. \\[default: only at the end of each epoch]", min=1
        ),
    ] = None,
    devices: Annotated[int, typer.Option(help="Number of GPUs that share each batch.", min=1)] = 1,
    coordinator: Annotated[
        str | None,
        typer.Option(
            help="Address of the first process, HOST:PORT, for distributed training "
            "(KERAS_BACKEND=jax)."
        ),
    ] = None,
    processes: Annotated[
        int, typer.Option(help="Number of processes in distributed training.", min=1)
    ] = 1,
    process_id: Annotated[int, typer.Option(help="Index of this process, from 0.", min=0)] = 0,
    debug: Debug = False,
):
    """Train a network. Running the same command again resumes an interrupted training.

    [bold]Example:[/bold] keras-resnet train --data photos --validation-split 0.2 --epochs 10
    """
    training = subpackage("training")
    log_to_stdout()
    changes |= dict(map(_assignment, set_ or ()))
    if Path(recipe).suffix == ".json":
        chosen = subpackage("files").read_json(
            recipe,
            training.Recipe.from_config,
            advice="Correct it, or choose a named recipe: --recipe flowers.",
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
    """Parses --set name=value; a value that is not valid JSON is a string."""
    name, sign, value = text.partition("=")
    if not sign:
        raise ValueError(f"--set expects name=value. Received: {text!r}")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value
