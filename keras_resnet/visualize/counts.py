"""What the parts of a network cost: shapes, parameters, multiply-adds."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import keras

from keras_resnet.attention import ChannelAttention
from keras_resnet.blocks import ResidualBlock
from keras_resnet.builder import family_of
from keras_resnet.layers import Shape

LEARNT = ("kernel", "bias", "gamma", "beta")  # not the moving statistics, as everywhere in tables


@dataclasses.dataclass(frozen=True)
class Part:
    """A layer or block of a network, for images of one size.

    Args:
        name: The layer's; within the model around it too, where another one has that name.
        operation: The layer.
        sources: Names of those whose outputs it takes.
        input_shape: Of what it takes first for one image, without the batch; () of an input.
        shape: Of its output.
        parameters: How many numbers it learns.
        multiply_adds: Of its convolutions and dense layers, for one image; torchvision's GFLOPS.
        inside: "resnet18/" in a second network of that name in a model; else "".
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
    """The parts of a functional model, and of those that it is made of, in order of computation.

    Args:
        model: A functional model with one input.
        image_size: Side of the images in pixels, where the model takes any: by default 224, or 32
            of a CIFAR network.

    Raises:
        ValueError: if the model is not functional, or takes something other than images.
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
        found: Those of what comes before.
        model: The model.
        image_size: As of `parts`.
        taken: The name of the part that it takes, of a model inside of another one.
    """
    # The same layers in a model of Keras' own class: a Sequential's config has no connections.
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
    """Adds the parts of a model inside of another; arguments and result as of `_add_parts`."""
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
    """Whether it is a model from one tensor to another, whose parts can be shown in its place."""
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
    """Names of the layers whose outputs go into nodes of a model's config."""
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
    """The shape of an image, with a number for every side that may vary."""
    size = image_size or family_of(model).image_size
    return tuple(size if side is None else side for side in shape)


def multiply_adds(layer: keras.Operation, input_shape: Shape) -> int:
    """Multiplications with additions that a layer does for an input of this shape."""
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
    """A number in three digits and a letter: 25.6 M."""
    for unit, letter in ((10**12, " T"), (10**9, " G"), (10**6, " M"), (10**3, " k")):
        if number >= 0.9995 * unit:
            return f"{number / unit:#.3g}".rstrip(".") + letter
    return str(number)
