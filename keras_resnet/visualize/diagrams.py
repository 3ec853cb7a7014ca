"""Diagrams of networks, drawn with Graphviz via pydot."""

import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import keras
import pydot

from keras_resnet.attention import (
    ChannelAttention,
    EfficientChannelAttention,
    SqueezeExcitation,
)
from keras_resnet.blocks import ResidualBlock
from keras_resnet.files import replacing
from keras_resnet.pooling import AveragePooling2D, BlurPool2D
from keras_resnet.preactivation import PreactivationBlock
from keras_resnet.visualize.counts import brief, known_size, parts

# The program of the Python package is preferred: it needs no system package, and Graphviz 2.43
# aborts on large graphs.
PROGRAMS = ("graphviz-pure", "dot")
FORMATS = (".svg", ".png")
FONT = "Helvetica"
# SVGs are laid out for the widest font that a viewer may use.
WIDEST = "DejaVu Sans"
FAMILIES = f"{FONT},Arial,{WIDEST},sans-serif"
COLOURS = {
    "Conv2D": "#cfe2f3",
    "BottleneckBlock": "#cfe2f3",
    "BasicBlock": "#cfe2f3",
    "PreactivationBottleneckBlock": "#cfe2f3",
    "PreactivationBasicBlock": "#cfe2f3",
    "BatchNormalization": "#d9ead3",
    "Dense": "#fce5cd",
    "InputLayer": "#eeeeee",
    "SqueezeExcitation": "#fff2cc",
    "EfficientChannelAttention": "#fff2cc",
}
WORDS: dict[type, str] = {
    SqueezeExcitation: "squeeze-and-excitation",
    EfficientChannelAttention: "efficient channel attention",
    AveragePooling2D: "2x2 average",
    BlurPool2D: "blur",
}


def plot(
    model: keras.Model,
    path: str | os.PathLike[str],
    detail: str = "block",
    *,
    image_size: int | None = None,
) -> Path:
    """Draws a diagram of a network, with shapes, parameters and multiply-adds for one image.

    Args:
        model: A functional model of this package.
        path: Image file to write, `.svg` or `.png`.
        detail: "block" for one box per residual block, with its shortcut: a solid line for the
            identity, a dashed one where the shape changes, as in the paper's figure 3. "layer" for
            every layer, with a frame around each block.
        image_size: Image size in pixels, if the model accepts any. Default: 224, or 32 for CIFAR
            networks.

    Returns:
        The path.

    Raises:
        ValueError: if `detail` or the format is unknown, or no drawing program is found.
    """
    path = Path(path)
    if detail not in ("block", "layer"):
        raise ValueError(f"detail should be 'block' or 'layer'. Received: detail={detail!r}")
    if path.suffix not in FORMATS:
        raise ValueError(f"The file name should end in .svg or .png. Received: path={path}")
    program = _program()
    found = parts(model, image_size)
    image = _shape(known_size(model.input_shape[1:], model, image_size))
    parameters = brief(sum(part.parameters for part in found))
    multiply_adds = brief(sum(part.multiply_adds for part in found))
    diagram = _Diagram(
        f"{model.name}, an image of {image}",
        f"{parameters} parameters, {multiply_adds} multiply-adds",
        font=WIDEST if path.suffix == ".svg" else FONT,
    )
    draw_block = {"block": _draw_block, "layer": _draw_block_layers}[detail]
    last: dict[str, str] = {}  # the box with an operation's output
    for part in found:
        draw = draw_block if isinstance(part.operation, ResidualBlock) else _draw_layer
        last[part.name] = draw(diagram, part, [last[source] for source in part.sources])
    with replacing(path) as temporary:
        diagram.graph.write(str(temporary), prog=program, format=path.suffix[1:])
        if path.suffix == ".svg":
            svg = temporary.read_text("utf-8").replace(f'="{WIDEST}"', f'="{FAMILIES}"')
            temporary.write_text(svg, "utf-8")
    return path


def _program():
    beside_python = str(Path(sys.executable).parent)
    for name in PROGRAMS:
        found = shutil.which(name, path=beside_python) or shutil.which(name)
        if found:
            return found
    raise ValueError(
        "No program to draw diagrams was found. Install the Python package graphviz-pure (pip "
        "install 'graphviz-pure<0.3'), or Graphviz, whose program is called dot."
    )


class _Diagram:
    """Boxes and arrows. New boxes are added to `frame`: the whole graph, or that of a block."""

    def __init__(self, *title: str, font: str) -> None:
        self.graph = self.frame = pydot.Dot(
            graph_type="digraph", label=_text(*title), labelloc="t", fontname=font, ranksep="0.3"
        )
        self.graph.set_node_defaults(
            shape="box", style="filled,rounded", fontname=font, fontsize="11", fillcolor="white"
        )
        self.graph.set_edge_defaults(arrowsize="0.6", fontname=font, fontsize="9")

    def box(self, name: str, *lines: str, kind: str = "", **style: Any) -> str:
        """Adds a box with lines of text, in the color of a kind of layer; returns its name."""
        style = {"fillcolor": COLOURS.get(kind, "white"), **style}
        self.frame.add_node(pydot.Node(_quoted(name), label=_text(*lines), **style))
        return name

    def arrows(self, sources: Iterable[str], target: str, **style: Any) -> None:
        """Adds arrows from several boxes to another one."""
        for source in sources:
            self.graph.add_edge(pydot.Edge(_quoted(source), _quoted(target), **style))


def _shape(shape):
    return " x ".join(map(str, shape))


def _cost(part):
    return (
        f"{brief(part.parameters)} parameters" if part.parameters else "",
        f"{brief(part.multiply_adds)} multiply-adds" if part.multiply_adds else "",
    )


def _quoted(name):
    # Unquoted, Graphviz would read the text after a colon as a port.
    return f'"{name}"'


def _text(*lines):
    return '"' + "\\n".join(line for line in lines if line) + '"'


def _told(path):
    """Lists the layers of a path that are named in a block's box."""
    return [
        layer
        for layer in path
        if not isinstance(layer, keras.layers.BatchNormalization | keras.layers.Identity)
    ]


def _describe(layer):
    if type(layer) in WORDS:
        stride = getattr(layer, "strides", 1)
        return WORDS[type(layer)] + (f", /{stride}" if stride > 1 else "")
    if not isinstance(layer, keras.layers.Conv2D):
        return type(layer).__name__
    height, width = layer.kernel_size
    return (
        f"{height}x{width} conv, {layer.filters}"
        + (f", /{layer.strides[0]}" if layer.strides[0] > 1 else "")
        + (f", {layer.groups} groups" if layer.groups > 1 else "")
        + (f", dilation {layer.dilation_rate[0]}" if layer.dilation_rate[0] > 1 else "")
    )


def _draw_layer(diagram, part, sources):
    layer = part.operation
    lines = (layer.name, _describe(layer), _shape(part.shape), *_cost(part))
    box = diagram.box(part.name, *lines, kind=type(layer).__name__)
    diagram.arrows(sources, box)
    return box


def _draw_block(diagram, part, sources):
    """Draws a box and the addition, with the shortcut, dashed if the shape changes."""
    block = part.operation
    before = "each behind BN, ReLU:" if isinstance(block, PreactivationBlock) else ""
    told = map(_describe, _told(block.main))
    lines = (block.name, before, *told, _shape(part.shape), *_cost(part))
    box = diagram.box(part.name, *lines, kind=type(block).__name__)
    plus = diagram.box(f"{part.name}/add", "+", shape="circle", width="0.25", fixedsize="true")
    kind, line, what = _shortcut(block)
    diagram.arrows([box], plus)
    diagram.arrows(sources, box)
    label = _text(f"  {what}" if what else "")
    names = {"tooltip": _text(kind), "class": kind}
    diagram.arrows(sources, plus, style=line, xlabel=label, **names)
    return plus


def _shortcut(block):
    """Returns the kind of a block's shortcut, its line style and its description."""
    if block.projection:
        return "projection", "dashed", ", ".join(map(_describe, _told(block.shortcut)))
    steps = (
        f"/{block.strides}" if block.strides > 1 else "",
        f"{block.new_channels} channels of zeros" if block.new_channels else "",
    )
    if any(steps):
        return "padding", "dashed", ", ".join(filter(None, steps))
    return "identity", "solid", ""


def _draw_block_layers(diagram, part, sources):
    """Draws a frame with every layer of the block."""
    block = part.operation
    diagram.frame = pydot.Cluster(
        part.name.replace(".", "_").replace("/", "_"), label='""', style="rounded", color="#888888"
    )

    def chain(before, layers, line):
        last = [layer for layer in layers if not isinstance(layer, ChannelAttention)][-1:]
        shape = (1, *part.input_shape)
        for layer in layers:
            name, kind = f"{part.name}/{layer.name}", type(layer).__name__
            taken, shape = shape, layer.compute_output_shape(shape)
            size = _shape(shape[1:]) if shape != taken else ""
            diagram.box(name, layer.name, _describe(layer), size, kind=kind)
            diagram.arrows(before, name, style=line, weight="9")
            before = [name]
            if kind == "BatchNormalization" and layer not in last:
                before = [diagram.box(f"{name}/relu", "ReLU")]
                diagram.arrows([name], before[0], weight="9")
        return before

    before = isinstance(block, PreactivationBlock)
    plus = diagram.box(f"{part.name}/add", "+", "" if before else "ReLU", _shape(part.shape))
    _, line, what = _shortcut(block)
    diagram.arrows(chain(sources, block.main, "solid"), plus)
    if before and block.shares_activation:
        sources = [f"{part.name}/{block.main[0].name}/relu"]
    if what and not block.projection:  # an operation without layers
        zeros = diagram.box(f"{part.name}/shortcut", what)
        diagram.arrows(sources, zeros, style=line)
        sources = [zeros]
    diagram.arrows(chain(sources, block.shortcut, line), plus, style=line)
    # Not the frame's own label, which lines into the frame would cross.
    name = f"{part.name}/title"
    title = diagram.box(name, block.name, *_cost(part), shape="plaintext", style="solid")
    diagram.arrows([f"{part.name}/{block.main[0].name}"], title, style="invis")
    diagram.graph.add_subgraph(diagram.frame)
    diagram.frame = diagram.graph
    return plus
