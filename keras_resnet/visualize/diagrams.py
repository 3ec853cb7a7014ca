"""Diagrams of networks, drawn by Graphviz through pydot."""

import shutil
import sys
from pathlib import Path

import keras

from keras_resnet.blocks import ResidualBlock
from keras_resnet.files import replacing

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


def plot(model, path, detail="block") -> Path:
    """Draws a network.

    Args:
        model: A functional model of this package.
        path: The picture to write: `.svg` or `.png`.
        detail: "block" for one box a residual block, its shortcut beside it: a solid line for the
            identity, a dashed one for a projection, as in the paper's figure 3. "layer" for every
            layer, the blocks as frames around theirs.

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
    graph = _new_graph(model)
    draw_block = {"block": _draw_block, "layer": _draw_block_layers}[detail]
    last = {}  # the node that an operation's output leaves from
    for operation, sources in _operations(model):
        draw = draw_block if isinstance(operation, ResidualBlock) else _draw_layer
        last[operation.name] = draw(graph, operation, [last[source] for source in sources])
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


def _new_graph(model):
    import pydot

    graph = pydot.Dot(
        graph_type="digraph", label=model.name, labelloc="t", fontname="Helvetica", ranksep="0.3"
    )
    graph.set_node_defaults(
        shape="box", style="filled,rounded", fontname="Helvetica", fontsize="11", fillcolor="white"
    )
    graph.set_edge_defaults(arrowsize="0.6")
    return graph


def _operations(model):
    """(operation, names of those before it) of a functional model, in order of computation."""
    seen = set()
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            operation = node.operation
            if operation.name not in seen:
                seen.add(operation.name)
                yield operation, [parent.operation.name for parent in node.parent_nodes]


def _shape(shape):
    return " x ".join("?" if size is None else str(size) for size in shape[1:])


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


def _draw_layer(graph, layer, sources):
    node = _node(
        graph,
        layer.name,
        _text(layer.name, _describe(layer), _shape(layer.output.shape)),
        type(layer).__name__,
    )
    for source in sources:
        _edge(graph, source, node)
    return node


def _draw_block(graph, block, sources):
    """One box and its addition, with the shortcut around the box."""
    convolutions = [layer for layer in block.main if isinstance(layer, keras.layers.Conv2D)]
    box = _node(
        graph,
        block.name,
        _text(block.name, *map(_describe, convolutions), _shape(block.output.shape)),
        type(block).__name__,
    )
    plus = _node(
        graph, f"{block.name}/add", _text("+"), shape="circle", width="0.25", fixedsize="true"
    )
    _edge(graph, box, plus)
    kind = "projection" if block.projection else "identity"
    for source in sources:
        _edge(graph, source, box)
        _edge(
            graph,
            source,
            plus,
            style="dashed" if block.projection else "solid",
            xlabel=_text(_describe(block.downsample_conv)) if block.projection else '""',
            tooltip=_text(kind),
            **{"class": kind},
            fontsize="9",
            fontname="Helvetica",
        )
    return plus


def _draw_block_layers(graph, block, sources):
    """A frame with every layer of the block."""
    import pydot

    frame = pydot.Cluster(
        block.name.replace(".", "_"),
        label=block.name,
        labeljust="l",
        style="rounded",
        color="#888888",
    )

    def chain(nodes, layers, style):
        for layer in layers:
            name, kind = f"{block.name}/{layer.name}", type(layer).__name__
            node = _node(frame, name, _text(layer.name, _describe(layer)), kind)
            for source in nodes:
                _edge(graph, source, node, style=style)
            nodes = [node]
            if kind == "BatchNormalization" and layer is not layers[-1]:
                nodes = [_node(frame, f"{node}/relu", _text("ReLU"))]
                _edge(graph, node, nodes[0])
        return nodes

    plus = _node(frame, f"{block.name}/add", _text("+", "ReLU", _shape(block.output.shape)))
    shortcut_style = "dashed" if block.projection else "solid"
    for node in chain(sources, block.main, "solid"):
        _edge(graph, node, plus)
    for node in chain(sources, block.shortcut, shortcut_style):
        _edge(graph, node, plus, style=shortcut_style)
    graph.add_subgraph(frame)
    return plus
