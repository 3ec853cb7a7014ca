"""Diagrams of networks, drawn by Graphviz through pydot."""

import shutil
import sys
from pathlib import Path

import keras

from keras_resnet.blocks import ResidualBlock
from keras_resnet.files import replacing
from keras_resnet.visualize.counts import brief, known_size, parts

# The Python package's program first: it needs no system package, and Graphviz 2.43 aborts on
# large graphs.
PROGRAMS = ("graphviz-pure", "dot")
FORMATS = (".svg", ".png")
COLOURS = {
    "Conv2D": "#cfe2f3",
    "BottleneckBlock": "#cfe2f3",
    "BasicBlock": "#cfe2f3",
    "BatchNormalization": "#d9ead3",
    "Dense": "#fce5cd",
    "InputLayer": "#eeeeee",
}


def plot(model, path, detail="block", *, image_size=None) -> Path:
    """Draws a network, with shapes, and each block's parameters and multiply-adds for one image.

    Args:
        model: A functional model of this package.
        path: The picture to write: `.svg` or `.png`.
        detail: "block" for one box a residual block, its shortcut beside it: a solid line for the
            identity, a dashed one where the shape changes, as in the paper's figure 3. "layer" for
            every layer, the blocks as frames around theirs.
        image_size: Side of the images in pixels, where the model takes any: by default 224, or 32
            of a CIFAR network.

    Returns:
        The path.

    Raises:
        ValueError: if `detail` or the format is another, or no program to draw with is found.
    """
    path = Path(path)
    if detail not in ("block", "layer"):
        raise ValueError(f"detail should be 'block' or 'layer'. Received: detail={detail!r}")
    if path.suffix not in FORMATS:
        raise ValueError(f"The picture should end in .svg or .png. Received: path={path}")
    program = _program()
    found = parts(model, image_size)
    graph = _new_graph(model, known_size(model.input_shape[1:], model, image_size), found)
    draw_block = {"block": _draw_block, "layer": _draw_block_layers}[detail]
    last: dict[str, str] = {}  # the node that an operation's output leaves from
    for part in found:
        draw = draw_block if isinstance(part.operation, ResidualBlock) else _draw_layer
        last[part.operation.name] = draw(graph, part, [last[source] for source in part.sources])
    with replacing(path) as temporary:
        graph.write(str(temporary), prog=program, format=path.suffix[1:])
    return path


def _program():
    beside_python = str(Path(sys.executable).parent)
    for name in PROGRAMS:
        found = shutil.which(name, path=beside_python) or shutil.which(name)
        if found:
            return found
    raise ValueError(
        "No program to draw diagrams with was found. Install the Python package graphviz-pure "
        "(pip install 'graphviz-pure<0.3'), or Graphviz, whose program is called dot."
    )


def _new_graph(model, image, found):
    import pydot

    parameters, multiply_adds = (
        brief(sum(getattr(part, name) for part in found))
        for name in ("parameters", "multiply_adds")
    )
    graph = pydot.Dot(
        graph_type="digraph",
        label=_text(
            f"{model.name}, an image of {_shape(image)}",
            f"{parameters} parameters, {multiply_adds} multiply-adds",
        ),
        labelloc="t",
        fontname="Helvetica",
        ranksep="0.3",
    )
    graph.set_node_defaults(
        shape="box", style="filled,rounded", fontname="Helvetica", fontsize="11", fillcolor="white"
    )
    graph.set_edge_defaults(arrowsize="0.6")
    return graph


def _shape(shape):
    return " x ".join(map(str, shape))


def _cost(part):
    return (
        f"{brief(part.parameters)} parameters" if part.parameters else "",
        f"{brief(part.multiply_adds)} multiply-adds" if part.multiply_adds else "",
    )


def _quoted(name):
    # Graphviz reads what is after a colon as a port.
    return f'"{name}"'


def _text(*lines):
    return '"' + "\\n".join(line for line in lines if line) + '"'


def _node(graph, name, label, kind="", **style):
    import pydot

    style.setdefault("fillcolor", COLOURS.get(kind, "white"))
    graph.add_node(pydot.Node(_quoted(name), label=label, **style))
    return name


def _edge(graph, source, target, **style):
    import pydot

    graph.add_edge(pydot.Edge(_quoted(source), _quoted(target), **style))


def _describe(layer):
    if isinstance(layer, keras.layers.Conv2D):
        height, width = layer.kernel_size
        return (
            f"{height}x{width} conv, {layer.filters}"
            + (f", /{layer.strides[0]}" if layer.strides[0] > 1 else "")
            + (f", {layer.groups} groups" if layer.groups > 1 else "")
            + (f", dilation {layer.dilation_rate[0]}" if layer.dilation_rate[0] > 1 else "")
        )
    return type(layer).__name__


def _draw_layer(graph, part, sources):
    layer = part.operation
    node = _node(
        graph,
        layer.name,
        _text(layer.name, _describe(layer), _shape(part.shape), *_cost(part)),
        type(layer).__name__,
    )
    for source in sources:
        _edge(graph, source, node)
    return node


def _draw_block(graph, part, sources):
    """One box and its addition, with the shortcut around the box; dashed if the shape changes."""
    block = part.operation
    convolutions = [layer for layer in block.main if isinstance(layer, keras.layers.Conv2D)]
    box = _node(
        graph,
        block.name,
        _text(block.name, *map(_describe, convolutions), _shape(part.shape), *_cost(part)),
        type(block).__name__,
    )
    plus = _node(
        graph, f"{block.name}/add", _text("+"), shape="circle", width="0.25", fixedsize="true"
    )
    _edge(graph, box, plus)
    kind, style, what = _shortcut(block)
    for source in sources:
        _edge(graph, source, box)
        _edge(
            graph,
            source,
            plus,
            style=style,
            xlabel=_text(f"  {what}" if what else ""),
            tooltip=_text(kind),
            **{"class": kind},
            fontsize="9",
            fontname="Helvetica",
        )
    return plus


def _shortcut(block):
    """Of a block's shortcut: its kind, how its line is drawn, and what it does, in words."""
    if block.projection:
        return "projection", "dashed", _describe(block.downsample_conv)
    steps = (
        f"/{block.strides}" if block.strides > 1 else "",
        f"{block.new_channels} channels of zeros" if block.new_channels else "",
    )
    if any(steps):
        return "padding", "dashed", ", ".join(filter(None, steps))
    return "identity", "solid", ""


def _draw_block_layers(graph, part, sources):
    """A frame with every layer of the block."""
    import pydot

    block = part.operation
    frame = pydot.Cluster(
        block.name.replace(".", "_"), label='""', style="rounded", color="#888888"
    )

    def chain(nodes, layers, style):
        shape = (1, *part.input_shape)
        for layer in layers:
            name, kind = f"{block.name}/{layer.name}", type(layer).__name__
            before, shape = shape, layer.compute_output_shape(shape)
            lines = (layer.name, _describe(layer), _shape(shape[1:]) if shape != before else "")
            node = _node(frame, name, _text(*lines), kind)
            for source in nodes:
                _edge(graph, source, node, style=style, weight="9")
            nodes = [node]
            if kind == "BatchNormalization" and layer is not layers[-1]:
                nodes = [_node(frame, f"{node}/relu", _text("ReLU"))]
                _edge(graph, node, nodes[0], weight="9")
        return nodes

    plus = _node(frame, f"{block.name}/add", _text("+", "ReLU", _shape(part.shape)))
    _, style, what = _shortcut(block)
    for node in chain(sources, block.main, "solid"):
        _edge(graph, node, plus)
    if what and not block.projection:  # it has no layers, but does something
        zeros = _node(frame, f"{block.name}/shortcut", _text(what))
        for source in sources:
            _edge(graph, source, zeros, style=style)
        sources = [zeros]
    for node in chain(sources, block.shortcut, style):
        _edge(graph, node, plus, style=style)
    # The frame's own label would lie under the lines that enter it.
    title = f"{block.name}/title"
    _node(frame, title, _text(block.name, *_cost(part)), shape="plaintext", style="solid")
    _edge(graph, f"{block.name}/{block.main[0].name}", title, style="invis")
    graph.add_subgraph(frame)
    return plus
