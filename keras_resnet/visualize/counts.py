"""Shapes, parameters and multiply-adds of the parts of a network."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import keras

from keras_resnet.attention import ChannelAttention
from keras_resnet.blocks import ResidualBlock
from keras_resnet.builder import family_of
from keras_resnet.layers import Shape

LEARNT = ("kernel", "bias", "gamma", "beta")  # without moving statistics, as usual


@dataclasses.dataclass(frozen=True)
class Part:
    """A layer or block of a network, for images of one size.

    Args:
        name: Name of the layer; with that of its model if another layer has the same name.
        operation: The layer.
        sources: Names of the parts whose outputs are its inputs.
        input_shape: Shape of its first input, without the batch size; () for an input.
        shape: Shape of its output.
        parameters: Number of trainable parameters.
        multiply_adds: Multiply-adds of its convolutions and dense layers for one image, like
            torchvision's GFLOPS.
        inside: "resnet18/" in a nested network if its layers' names are not unique; else "".
    """

    name: str
    operation: keras.Operation
    sources: tuple[str, ...]
    input_shape: tuple[int, ...]
    shape: tuple[int, ...]
    parameters: int
    multiply_adds: int
    inside: str = ""


def parts(model: keras.Model, image_size: int | None = None) -> list[Part]:
    """Lists the parts of a functional model and of nested models, in order of computation.

    Args:
        model: A functional model with one input.
        image_size: Image size in pixels, if the model accepts any. Default: 224, or 32 for CIFAR
            networks.

    Raises:
        ValueError: if the model is not functional, or its input is not an image.
    """
    if not getattr(model, "outputs", None):
        raise ValueError(
            "model should be a functional keras.Model, like those that the builders return. "
            f"Received: model={model!r}"
        )
    found: dict[str, Part] = {}
    _add_parts(found, model, image_size)
    return list(found.values())


def _add_parts(found, model, image_size, taken=None):
    """Adds a model's parts, {name: part}; returns the name of the last one.

    Args:
        found: The parts before it.
        model: The model.
        image_size: As for `parts`.
        taken: For a nested model, the name of the part that is its input.
    """
    # As a functional model, since the config of a Sequential has no connections.
    graph = keras.Model(model.inputs, model.outputs)
    operations = {operation.name: operation for operation in graph.operations}
    names: dict[str, str] = {}
    for layer in graph.get_config()["layers"]:
        operation = operations[layer["name"]]
        sources = tuple(names[source] for source in _taken(layer["inbound_nodes"][:1]))
        if taken and not sources:
            name = taken
        elif _is_chained(operation):
            name = _add_inside(found, operation, image_size, sources[0])
        else:
            name = operation.name
            if name in found:
                name = f"{model.name}/{name}"
            found[name] = _part(name, operation, sources, found, model, image_size)
        names[operation.name] = name
    return name


def _add_inside(found, model, image_size, taken):
    """Adds the parts of a nested model; arguments and result as for `_add_parts`."""
    own = {taken: found[taken]}
    last = _add_parts(own, model, image_size, taken)
    del own[taken]
    inside, number = "", 1
    while any(inside + name in found for name in own):
        inside, number = f"{model.name}{f'_{number}' if number > 1 else ''}/", number + 1
    for name, part in own.items():
        sources = tuple(one if one == taken else inside + one for one in part.sources)
        found[inside + name] = dataclasses.replace(
            part, name=inside + name, sources=sources, inside=inside + part.inside
        )
    return taken if last == taken else inside + last


def _is_chained(operation):
    """Whether it is a model with one input and one output, whose parts can replace it."""
    ends = (getattr(operation, "inputs", None), getattr(operation, "outputs", None))
    return isinstance(operation, keras.Model) and all(end and len(end) == 1 for end in ends)


def _part(name, operation, sources, found, model, image_size):
    incoming = [(1, *found[source].shape) for source in sources]
    shape = _output_shape(operation, incoming, model, image_size)
    taken = incoming[0] if incoming else ()
    variables = getattr(operation, "variables", ())
    numbers = (math.prod(v.shape) for v in variables if v.path.split("/")[-1] in LEARNT)
    cost = multiply_adds(operation, taken) if taken else 0
    return Part(name, operation, sources, taken[1:], shape[1:], sum(numbers), cost)


def _taken(nodes: Any) -> Iterator[str]:
    """Yields the names of layers whose outputs are inputs of nodes in a model's config."""
    if isinstance(nodes, dict):
        if "keras_history" in nodes:
            yield nodes["keras_history"][0]
        nodes = nodes.values()
    elif not isinstance(nodes, list | tuple):
        return
    for node in nodes:
        yield from _taken(node)


def _output_shape(operation, incoming, model, image_size):
    if not incoming:
        return (1, *known_size(operation.output.shape[1:], model, image_size))
    if isinstance(operation, keras.layers.Layer):
        return operation.compute_output_shape(incoming[0] if len(incoming) == 1 else incoming)
    return operation.compute_output_spec(*map(keras.KerasTensor, incoming)).shape


def known_size(shape: Shape, model: keras.Model, image_size: int | None = None) -> tuple[int, ...]:
    """Replaces the dynamic dimensions in the shape of an image."""
    size = image_size or family_of(model).image_size
    return tuple(size if side is None else side for side in shape)


def multiply_adds(layer: keras.Operation, input_shape: Shape) -> int:
    """Returns the multiply-adds of a layer for an input of this shape."""
    if isinstance(layer, ResidualBlock):
        total = 0
        for path in (layer.main, layer.shortcut):
            shape = input_shape
            for part in path:
                total += multiply_adds(part, shape)
                shape = part.compute_output_shape(shape)
        return total
    if isinstance(layer, keras.Model):
        return sum(part.multiply_adds for part in parts(layer, input_shape[2]))
    if isinstance(layer, ChannelAttention):
        return layer.multiply_adds
    if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense):
        outputs = math.prod(layer.compute_output_shape(input_shape)[1:])
        return outputs * math.prod(layer.kernel.shape[:-1])
    return 0


def brief(number: int) -> str:
    """Formats a number with three digits and a unit prefix: 25.6 M."""
    for unit, letter in ((10**12, " T"), (10**9, " G"), (10**6, " M"), (10**3, " k")):
        if number >= 0.9995 * unit:
            return f"{number / unit:#.3g}".rstrip(".") + letter
    return str(number)
