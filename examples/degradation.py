"""Shows why shortcuts are needed: without them, a deeper network is harder to train.

With pre-activation blocks, whose shortcuts are identities, even 1,001 layers can be trained.

    python examples/degradation.py

On 480 drawings of five flowers with 16 x 16 pixels, the training losses after 300 steps were 0.88
(plain, 20 layers), 1.58 (plain, 56), 0.21 (residual, 20), 1.40 (residual, 56), 0.50
(pre-activation, 56) and 0.47 (pre-activation, 1,001); the loss of guessing is 1.61. The network of
1,001 layers took 5 GB, and on 2 busy CPU cores, 11 minutes for tracing with TensorFlow, then 2
seconds per step; the others took a minute each.
Sources: He et al., https://arxiv.org/abs/1512.03385, section 4.2, figure 6, and
https://arxiv.org/abs/1603.05027, section 3.
"""

import dataclasses
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from keras_resnet_cli import in_words, quiet

with quiet():
    import keras
    import numpy as np
    from keras import ops
    from rich.console import Console
    from rich.table import Table

    import keras_resnet
    from keras_resnet.configs import CONFIGS
    from keras_resnet.drawn_flowers import KINDS, draw
    from keras_resnet.visualize.charts import save_figure

NETWORKS = (
    *(("plain", 20), ("plain", 56), ("residual", 20), ("residual", 56)),
    *(("pre-activation", 56), ("pre-activation", 1001)),
)
LINES = {"plain": "--", "residual": "-", "pre-activation": "-"}
COLOURS = {"plain": "#c44e52", "residual": "#4a86c5", "pre-activation": "#55a868"}


class PlainBlock(keras_resnet.blocks.BasicBlock):
    """A basic block without a shortcut."""

    def finish(self, y, inputs, training):
        """Applies the last ReLU, without adding the shortcut."""
        return ops.relu(y)


def build(kind, depth, side, classes):
    """Builds a network of one of the three kinds, with the paper's widths."""
    config = CONFIGS[f"resnet{depth}" if depth < 1001 else "preact_resnet1001"]
    if kind == "pre-activation":
        config = dataclasses.replace(config, preactivation=True)
    network = keras_resnet.create(config, input_shape=(side, side, 3), classes=classes)
    return plain(network) if kind == "plain" else network


def plain(network):
    """Builds the same network without shortcuts, with as many parameters, newly initialised."""

    def clone(layer):
        block = isinstance(layer, keras_resnet.blocks.BasicBlock)
        return (PlainBlock if block else type(layer)).from_config(layer.get_config())

    return keras.models.clone_model(network, clone_function=clone)


def drawn_images(count, side=32):
    """Returns drawings of flowers as pixels (count, side, side, 3) and classes (count,)."""
    labels = np.arange(count) % len(KINDS)
    drawings = (draw(KINDS[label], f"degradation/{n}")[0] for n, label in enumerate(labels))
    return np.stack([np.asarray(drawing.resize((side, side))) for drawing in drawings]), labels


def read_images(file):
    """Reads the arrays x, uint8 (count, 32, 32, 3), and y, class indices, from a .npz file."""
    with np.load(file) as arrays:
        missing = [name for name in ("x", "y") if name not in arrays]
        if missing:
            raise ValueError(f"{file} should have arrays x and y, but has {list(arrays)}.")
        pixels, labels = arrays["x"], arrays["y"]
    if pixels.dtype != np.uint8 or pixels.shape[1:] != (32, 32, 3) or not len(pixels):
        raise ValueError(
            f"x of {file} should be uint8 (count, 32, 32, 3). Received: {pixels.dtype} "
            f"{pixels.shape}"
        )
    if labels.shape != (len(pixels),) or labels.dtype.kind not in "iu" or labels.min() < 0:
        raise ValueError(
            f"y of {file} should be {len(pixels)} class indices, integers from 0. Received: "
            f"{labels.dtype} {labels.shape}"
        )
    return pixels, labels


def train(network, images, labels, epochs, batch_size, learning_rate, jit_compile="auto"):
    """Trains with SGD with momentum; returns the training loss of each epoch."""
    steps = -(-len(images) // batch_size) * epochs
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay(
        [steps // 2, steps * 3 // 4], [learning_rate, learning_rate / 10, learning_rate / 100]
    )
    optimizer = keras_resnet.training.SGD(schedule, momentum=0.9, decay=1e-4)
    network.compile(optimizer, "sparse_categorical_crossentropy", jit_compile=jit_compile)
    started = time.monotonic()
    history = network.fit(images, labels, batch_size, epochs, verbose=0).history["loss"]
    print(f"{network.name}: loss {history[-1]:.3f} after {time.monotonic() - started:.0f} s")
    return history


def plot(losses, path):
    """Draws the losses of all networks: plain ones dashed, deeper ones thicker."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2))
    axes = figure.subplots()
    for name, values in losses.items():
        kind, depth = name.rsplit("-", 1)
        axes.plot(
            range(1, len(values) + 1),
            values,
            LINES[kind],
            color=COLOURS[kind],
            linewidth={"20": 1.2, "56": 2.4}.get(depth, 3.6),
            label=name,
        )
    axes.set(xlabel="epoch", ylabel="training loss")
    axes.set_ylim(0)
    axes.grid(alpha=0.3)
    axes.legend(
        ncols=4 if len(losses) < 5 else 3,
        loc="lower center",
        bbox_to_anchor=(0.5, 1),
        frameon=False,
    )
    return save_figure(figure, path)


def main(
    data: Annotated[
        Path | None,
        typer.Option(help="A .npz file: x, uint8 (n, 32, 32, 3), and y. [default: drawn flowers]"),
    ] = None,
    images: Annotated[int, typer.Option(help="Number of training images.", min=10)] = 480,
    side: Annotated[int, typer.Option(help="Image size in pixels.", min=8)] = 16,
    epochs: Annotated[int, typer.Option(min=1)] = 10,
    batch_size: Annotated[int, typer.Option(min=2)] = 16,
    learning_rate: Annotated[
        float, typer.Option(help="Learning rate in the first half of training.")
    ] = 0.02,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    output: Annotated[Path, typer.Option(help="Image file to write.")] = Path("degradation.png"),
):
    """Trains plain, residual and pre-activation networks and compares their training."""
    try:
        pixels, labels = read_images(data) if data else drawn_images(images, side)
    except (ValueError, OSError) as error:
        sys.exit(f"Error: {in_words(error)}")
    inputs = keras_resnet.preprocess_input(pixels)
    losses, parameters = {}, {}
    for kind, depth in NETWORKS:
        keras.utils.set_random_seed(seed)
        network = build(kind, depth, inputs.shape[1], int(labels.max()) + 1)
        network.name = f"{kind}-{depth}"
        losses[network.name] = train(
            # XLA would take a long time to compile a thousand layers.
            *(network, inputs, labels, epochs, batch_size, learning_rate),
            jit_compile=False,
        )
        parameters[network.name] = network.count_params()
    table = Table("network", "parameters", "first loss", "last loss")
    for name, values in losses.items():
        table.add_row(name, f"{parameters[name]:,}", f"{values[0]:.3f}", f"{values[-1]:.3f}")
    Console().print(table)
    print(f"Drawn in {plot(losses, output)}.")


if __name__ == "__main__":
    typer.run(main)
