"""Classifies images with a trained network.

python examples/predict.py rose.jpg --run runs/flowers
"""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from keras_resnet_cli import in_words, quiet


def main(
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    run: Annotated[
        Path | None, typer.Option(help="Run folder to use. [default: the newest in runs]")
    ] = None,
    top: Annotated[int, typer.Option(help="Number of classes to show.", min=1)] = 5,
    output: Annotated[Path, typer.Option(help="Image file to write.")] = Path("prediction.png"),
):
    """Print the most probable classes of each image, and draw them next to it."""
    with quiet():
        from keras_resnet import decoding, trained, visualize

    try:
        run = run or trained.newest_run()
        print(f"Run folder: {run}")
        answers = dict(trained.Network.from_run(run).predict(images, top=top))
    except (ValueError, OSError) as error:
        sys.exit(f"Error: {in_words(error)}")
    for path, answer in answers.items():
        table = Table("class", "probability")
        for name, probability in answer:
            table.add_row(name, f"{probability:.4f}")
        print(path)
        Console().print(table)
    pictures = [decoding.decode(path.read_bytes()).numpy() for path in answers]
    titles = [f"{path.name}: {answer[0][0]}" for path, answer in answers.items()]
    print(f"Drawn in {visualize.predictions(pictures, titles, answers.values(), output)}.")


if __name__ == "__main__":
    typer.run(main)
