"""Tables of networks, with a line for each stage."""

import dataclasses

import keras
from rich.table import Table

from keras_resnet.blocks import ResidualBlock
from keras_resnet.builder import channels_first
from keras_resnet.visualize.counts import Part, brief, known_size, parts


@dataclasses.dataclass(frozen=True)
class Stage:
    """A stage of a network, with its size and cost for one image.

    Args:
        name: "stem", "layer1", ..., "head".
        blocks: Number of residual blocks.
        size: (height, width) of its output, or () if it has none.
        channels: Channels of its output.
        parameters: Number of trainable parameters.
        multiply_adds: Multiply-adds of its convolutions and dense layers.
        share: Fraction of the network's multiply-adds, 0 to 1.
    """

    name: str
    blocks: int
    size: tuple[int, ...]
    channels: int
    parameters: int
    multiply_adds: int
    share: float


def summary(model: keras.Model, image_size: int | None = None) -> list[Stage]:
    """Lists the stages of a network, with their sizes and costs.

    Args:
        model: A functional model of this package.
        image_size: Image size in pixels, if the model accepts any. Default: 224, or 32 for CIFAR
            networks.

    Raises:
        ValueError: if the model is not functional.

    Example:
    >>> stages = keras_resnet.visualize.summary(keras_resnet.ResNet50())
    >>> sum(stage.multiply_adds for stage in stages)
    4089184256
    """
    found = parts(model, image_size)
    total = sum(part.multiply_adds for part in found) or 1
    grouped: dict[str, list[Part]] = {}
    with_blocks = set()  # networks of which a block has been seen
    for part in found:
        if isinstance(part.operation, ResidualBlock):
            stage = part.name.rsplit(".", 1)[0]
            with_blocks.add(part.inside)
        else:
            stage = part.inside + ("head" if part.inside in with_blocks else "stem")
        grouped.setdefault(stage, []).append(part)
    return [
        _stage(name, members, total, channels_first(model)) for name, members in grouped.items()
    ]


def _stage(name, members, total, first):
    *size, channels = members[-1].shape
    if first:
        channels, *size = members[-1].shape
    blocks = sum(isinstance(part.operation, ResidualBlock) for part in members)
    parameters = sum(part.parameters for part in members)
    cost = sum(part.multiply_adds for part in members)
    return Stage(name, blocks, tuple(size), channels, parameters, cost, cost / total)


def summary_table(model: keras.Model, image_size: int | None = None) -> Table:
    """Makes a printable table of `summary`.

    Args:
        model: As for `summary`.
        image_size: As for `summary`.

    Returns:
        A `rich.table.Table`; `rich.print` shows it.

    Raises:
        ValueError: if the model is not functional.

    Example:
    >>> rich.print(keras_resnet.visualize.summary_table(keras_resnet.ResNet50()))  # doctest: +SKIP
    """
    stages = summary(model, image_size)
    image = " x ".join(map(str, known_size(model.input_shape[1:], model, image_size)))
    table = Table(title=f"{model.name}, an image of {image}")
    table.add_column("stage")
    for column in ("blocks", "output", "channels", "parameters", "multiply-adds", "share"):
        table.add_column(column, justify="right")

    def add(name, blocks, size, channels, parameters, multiply_adds, share):
        place = (" x ".join(map(str, size)), str(channels))
        cost = (f"{parameters:,}", brief(multiply_adds), f"{share:.1%}")
        table.add_row(name, str(blocks or ""), *place, *cost)

    for stage in stages:
        add(**vars(stage))
    table.add_section()
    blocks, parameters, multiply_adds = (
        sum(getattr(stage, quantity) for stage in stages)
        for quantity in ("blocks", "parameters", "multiply_adds")
    )
    add("all", blocks, (), "", parameters, multiply_adds, 1)
    return table
