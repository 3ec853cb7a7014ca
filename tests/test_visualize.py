"""Pictures are written and have the right content."""

import io
import json
import re
import xml.etree.ElementTree as ElementTree

import keras
import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.font_manager import fontManager
from PIL import Image
from rich.console import Console

import keras_resnet
from keras_resnet import visualize
from keras_resnet.visualize import charts, fonts
from keras_resnet.visualize.counts import brief

SLOW = pytest.mark.slow


@pytest.fixture(
    scope="module",
    params=["resnet18", "resnext50_32x4d", "resnet20", pytest.param("resnet152", marks=SLOW)],
)
def network(request):
    return request.param, keras_resnet.create(request.param)


@pytest.mark.parametrize("detail", ["block", "layer"])
def test_diagrams(network, detail, tmp_path):
    name, model = network
    config = keras_resnet.configs.CONFIGS[name]
    path = visualize.plot(model, tmp_path / "model.svg", detail)
    svg = path.read_text()
    assert svg.lstrip().startswith("<?xml")
    for text in ("layer1.0", "layer3.1", "an image of ", "fc"):
        assert text in svg
    dashed = svg.count("stroke-dasharray")
    blocks = sum(config.depths)
    changes = {"resnet18": 3, "resnet20": 2}.get(name, 4)
    if detail == "block":
        assert dashed == changes
        assert len(re.findall('class="edge identity"', svg)) == blocks - changes
    elif name == "resnet20":
        assert dashed == 2 * changes  # to the zeros, and to the addition
    else:
        assert dashed == 3 * changes  # to the convolution, to its BN, and to the addition
    # The published parameter count of layer1.1, with two or three convolutions.
    parameters = {"resnet18": "74.0 k", "resnet20": "4.67 k", "resnext50_32x4d": "71.2 k"}
    assert f"{parameters.get(name, '70.4 k')} parameters" in svg
    assert svg.count("multiply&#45;adds") >= blocks + 2  # those of the title and of the head
    assert [file.name for file in tmp_path.iterdir()] == ["model.svg"]


@pytest.mark.parametrize("detail", ["block", "layer"])
def test_text_stays_in_its_box(network, detail, tmp_path):
    """In the widest font named in the file, as measured by matplotlib."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    _, model = network
    path = visualize.plot(model, tmp_path / "model.svg", detail)
    tree = ElementTree.parse(path)  # noqa: S314 (written above)
    boxes = 0
    for group in tree.iter("{http://www.w3.org/2000/svg}g"):
        texts = group.findall("{*}text")
        outline = group.find("{*}path")
        if group.get("class") != "node" or outline is None or not texts:
            continue
        across = [float(x) for x in re.findall(r"(-?[\d.]+),-?[\d.]+", outline.get("d"))]
        for text in texts:
            families = text.get("font-family").split(",")
            assert families == ["Helvetica", "Arial", "DejaVu Sans", "sans-serif"]
            size = float(text.get("font-size"))
            drawn = TextPath((0, 0), text.text, size, FontProperties(family=families[2:3]))
            assert drawn.get_extents().width < max(across) - min(across), text.text
            boxes += 1
    assert boxes > 30


def test_a_diagram_of_a_backbone_as_png(tmp_path):
    model = keras_resnet.ResNet18(include_top=False)
    path = visualize.plot(model, tmp_path / "model.png")
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.height > 1000


def test_bad_diagrams(tmp_path, monkeypatch):
    model = keras_resnet.ResNet18(include_top=False)
    with pytest.raises(ValueError, match="detail='all'"):
        visualize.plot(model, tmp_path / "m.svg", "all")
    with pytest.raises(ValueError, match=r".svg or .png"):
        visualize.plot(model, tmp_path / "m.pdf")
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    with pytest.raises(ValueError, match="pip install 'graphviz-pure"):
        visualize.plot(model, tmp_path / "m.svg")
    assert not list(tmp_path.iterdir())


def test_charts(tmp_path):
    values = [0.3, 0.6, 0.9]
    history = dict.fromkeys(("loss", "val_loss", "accuracy", "val_accuracy"), values)
    pictures = [
        visualize.curves(history, tmp_path / "curves.png"),
        visualize.confusion_matrix(np.eye(5, dtype=int), "abcde", tmp_path / "matrix.png"),
        visualize.predictions(
            [np.zeros((20, 30, 3), np.uint8)],
            ["picture"],
            [[("rose", 0.9), ("tulip", 0.1)]],
            tmp_path / "p.png",
        ),
    ]
    for picture in pictures:
        with Image.open(picture) as image:
            assert np.asarray(image.convert("L")).std() > 5


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are saved, as matplotlib objects."""
    figures = []

    def keep(figure, path):
        figures.append(figure)
        return save_figure(figure, path)

    save_figure = charts.save_figure
    monkeypatch.setattr(charts, "save_figure", keep)
    return figures


@pytest.mark.parametrize("epochs", [1, 2, 90])
def test_epochs_are_whole(epochs, drawn, tmp_path):
    values = list(np.linspace(0.95, 0.2, epochs))
    history = dict.fromkeys(("loss", "val_loss", "accuracy", "val_accuracy"), values)
    visualize.curves(history, tmp_path / "curves.png")
    for axes in drawn[0].axes:
        low, high = axes.get_xlim()
        ticks = [label.get_text() for label in axes.get_xticklabels()]
        shown = [t for t, x in zip(ticks, axes.get_xticks(), strict=True) if low <= x <= high]
        assert shown and set(shown) <= {str(epoch) for epoch in range(1, epochs + 1)}
        assert len(shown) == len(set(shown)) <= 11
        assert axes.get_ylim()[0] == 0 and axes.get_ylim()[1] > 1.03 * max(values)


ROSE = "\U0010fff0"  # in a private use area: no installed font has it


@pytest.fixture
def rose_font(tmp_path, monkeypatch):
    """Installs a font with the character ROSE only."""
    builder = FontBuilder(1000)
    builder.setupGlyphOrder([".notdef", "rose"])
    builder.setupCharacterMap({ord(ROSE): "rose"})
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 700), (700, 700), (700, 0)):
        pen.lineTo(corner)
    pen.closePath()
    builder.setupGlyf(dict.fromkeys((".notdef", "rose"), pen.glyph()))
    builder.setupHorizontalMetrics(dict.fromkeys((".notdef", "rose"), (800, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Roses", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(tmp_path / "roses.ttf")
    monkeypatch.setattr(fontManager, "ttflist", [*fontManager.ttflist])
    fontManager.addfont(tmp_path / "roses.ttf")
    fonts._installed.cache_clear()
    yield
    fonts._installed.cache_clear()


def test_names_in_a_script_that_a_font_has(rose_font, drawn, tmp_path):
    names = ["daisy", f"a {ROSE}", "وردة"]
    visualize.confusion_matrix(np.eye(3, dtype=int), names, tmp_path / "matrix.png")
    (axes,) = drawn[0].axes
    assert [label.get_text() for label in axes.get_xticklabels()] == names
    assert axes.get_xticklabels()[1].get_fontfamily()[-1] == "Roses"


def test_names_that_no_font_has(drawn, tmp_path):
    """matplotlib warns about characters that it cannot draw; here, warnings are errors."""
    picture = np.zeros((20, 30, 3), np.uint8)
    names = ["daisy", ROSE, "5$ and 6$"]
    visualize.confusion_matrix(np.eye(3, dtype=int), names, tmp_path / "matrix.png")
    visualize.gallery([picture], [f"{ROSE}, taken for daisy"], tmp_path / "gallery.png")
    answer = [(ROSE, 0.9), ("daisy", 0.1)]
    visualize.predictions([picture], [ROSE], [answer], tmp_path / "predictions.png")
    visualize.explanation(picture, np.zeros((20, 30)), f"{ROSE} 0.9", tmp_path / "explanation.png")
    (matrix,), (gallery,), (_, bars) = (figure.axes for figure in drawn)
    labels = [label.get_text() for label in matrix.get_yticklabels()]
    assert labels == ["daisy", "1: \\U0010fff0", "5$ and 6$"]
    assert gallery.get_title() == "\\U0010fff0, taken for daisy"
    assert [label.get_text() for label in bars.get_yticklabels()] == ["\\U0010fff0", "daisy"]


@pytest.mark.parametrize(
    "row",
    [
        # A basic block and a grouped bottleneck; the others differ only in their numbers.
        pytest.param(
            row, id=row.file, marks=[] if row.model in ("resnet18", "resnext50_32x4d") else SLOW
        )
        for row in keras_resnet.list_weights()
        if row.gflops
    ],
)
def test_multiply_adds_are_the_published_ones(row, models={}):  # noqa: B006 (a cache)
    if row.model not in models:
        models.clear()
        models[row.model] = keras_resnet.create(row.model)
    stages = visualize.summary(models[row.model], row.crop)
    total = sum(stage.multiply_adds for stage in stages)
    assert total / 1e9 == pytest.approx(row.gflops, rel=0.005)
    assert sum(stage.parameters for stage in stages) == row.parameters
    assert sum(stage.share for stage in stages) == pytest.approx(1)
    assert [stage.size for stage in stages] == [*((side, side) for side in (56, 56, 28, 14, 7)), ()]


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_summary_of_a_cifar_network(data_format):
    """Multiply-adds of the layout in section 4.2 of the paper."""
    stages = visualize.summary(keras_resnet.ResNet20(data_format=data_format))
    per_pixel = [
        3 * 16 * 9,
        6 * 16 * 16 * 9,
        (16 * 32 + 5 * 32 * 32) * 9,
        (32 * 64 + 5 * 64 * 64) * 9,
    ]
    expected = [count * side**2 for count, side in zip(per_pixel, (32, 32, 16, 8), strict=True)]
    assert [stage.multiply_adds for stage in stages] == [*expected, 640]
    assert [stage.size for stage in stages] == [(32, 32), (32, 32), (16, 16), (8, 8), ()]
    assert [stage.channels for stage in stages] == [16, 16, 32, 64, 10]


def test_a_table_says_what_is_summed():
    model = keras_resnet.ResNet18(include_top=False)
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(visualize.summary_table(model, 96))
    text = console.export_text()
    assert "resnet18, an image of 96 x 96 x 3" in text
    assert "11,176,512" in text  # torchvision's count minus the 513,000 of fc
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_what_is_nested_is_counted():
    backbone = keras_resnet.ResNet18(include_top=False, pooling="avg")
    model = keras.Sequential([keras.Input((64, 64, 3)), backbone, keras.layers.Dense(3)])
    nested, alone = (
        sum(stage.multiply_adds for stage in visualize.summary(net, 64))
        for net in (model, backbone)
    )
    assert nested == alone + 512 * 3
    with pytest.raises(ValueError, match=r"functional keras\.Model"):
        visualize.summary(keras.layers.Dense(3))


@pytest.mark.parametrize(
    "number, said",
    [(0, "0"), (999, "999"), (9996, "10.0 k"), (999_600, "1.00 M"), (25_557_032, "25.6 M")],
)
def test_numbers_in_brief(number, said):
    assert brief(number) == said


def test_commands(command_here, tmp_path):
    done = command_here("summary", "resnet50", "--json")
    assert sum(row["multiply_adds"] for row in json.loads(done.stdout)) == 4089184256
    assert "269,722" in command_here("summary", "resnet20").stdout
    assert command_here("plot", "resnet20", "-o", "m.svg").stdout == "m.svg\n"
    assert (tmp_path / "m.svg").read_text().count("layer") >= 9
    keras_resnet.weights.save(keras_resnet.ResNet20(classes=3), tmp_path / "w.pth")
    assert "195" in command_here("summary", "w.pth").stdout  # fc: 64 x 3 + 3
    for arguments, said in (
        (("plot", "resnet20", "--detail", "all"), "detail='all'"),
        (("summary", "resnet_50"), "Did you mean resnet50"),
        (("summary", "missing.pth"), "missing.pth does not exist"),
    ):
        done = command_here(*arguments)
        assert done.returncode == 1
        assert said in done.stderr


def test_networks_inside_of_a_model():
    """Each has its own stages, and all parameters are counted once."""
    inputs = keras.Input((32, 32, 3))
    options = {"include_top": False, "pooling": "avg", "name": "net"}
    nets = [keras_resnet.create(name, **options) for name in ("resnet20", "resnet32", "resnet20")]
    outputs = []
    for number, net in enumerate(nets):  # Keras needs distinct names of layers in a model
        outputs.append(keras.Sequential([inputs, net], name=f"s{number}")(inputs))
    model = keras.Model(inputs, keras.layers.Dense(7)(keras.layers.Concatenate()(outputs)))
    stages = {stage.name: stage for stage in visualize.summary(model)}
    assert sum(stage.parameters for stage in stages.values()) == sum(
        int(np.prod(weight.shape)) for weight in model.trainable_weights
    )
    assert stages["head"].parameters == (3 * 64 + 1) * 7
    own = ["layer1", "layer2", "layer3"]
    inside = sorted({name.rpartition("/")[0] for name in stages})
    assert len(inside) == 3 and inside[0] == ""
    for above, net in zip(inside, nets, strict=True):
        expected = {stage.name: stage.parameters for stage in visualize.summary(net)}
        for name in own:
            assert stages[f"{above}/{name}".lstrip("/")].parameters == expected[name]
    first = keras_resnet.ResNet20(include_top=False, pooling="avg")
    one = keras.Sequential([first, keras.layers.Dense(5, name="conv1")])
    names = [stage.name for stage in visualize.summary(one)]
    assert names == ["stem", *own, "head"]
