"""Names what is on pictures, by a trained run.

python examples/predict.py rose.jpg --run runs/flowers
"""

import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from keras_resnet_cli import quiet


def main(
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    run: Annotated[Path, typer.Option(help="Folder of a training.")] = Path("runs/flowers"),
    top: Annotated[int, typer.Option(help="How many classes to show.", min=1)] = 5,
    output: Annotated[Path, typer.Option(help="Picture to write.")] = Path("prediction.png"),
):
    """Prints the most probable classes of each image and draws them beside it."""
    with quiet():
        from keras_resnet import decoding, training, visualize

    try:
        contents = [path.read_bytes() for path in images]
        trained = training.Run.open(run)
        probabilities = trained.predict(contents)
    except OSError as error:
        sys.exit(f"Error: {error.filename}: {error.strerror}")
    except ValueError as error:
        named = ", ".join(f"{number} is {path}" for number, path in enumerate(images))
        sys.exit(f"Error: {error} ({named})")
    answers = [
        [(trained.class_names[index], float(row[index])) for index in np.argsort(-row)[:top]]
        for row in probabilities
    ]
    for path, answer in zip(images, answers, strict=True):
        table = Table("class", "probability")
        for name, probability in answer:
            table.add_row(name, f"{probability:.4f}")
        print(path)
        Console().print(table)
    pictures = [decoding.decode(content).numpy() for content in contents]
    titles = [f"{path.name}: {answer[0][0]}" for path, answer in zip(images, answers, strict=True)]
    print(f"Drawn in {visualize.predictions(pictures, titles, answers, output)}.")


if __name__ == "__main__":
    typer.run(main)
