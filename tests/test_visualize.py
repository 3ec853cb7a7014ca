"""Pictures: that they are written, and say what they should."""

import io
import json
import re

import keras
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

import keras_resnet
from keras_resnet import visualize
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
        assert dashed == 2 * changes  # to the zeros, to the addition
    else:
        assert dashed == 3 * changes  # to the convolution, to its BN, to the addition
    # Of every block, as published: the parameters of layer1.1, two or three convolutions.
    parameters = {"resnet18": "74.0 k", "resnet20": "4.67 k", "resnext50_32x4d": "71.2 k"}
    assert f"{parameters.get(name, '70.4 k')} parameters" in svg
    assert svg.count("multiply&#45;adds") >= blocks + 2  # the title's and the head's
    assert [file.name for file in tmp_path.iterdir()] == ["model.svg"]


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


@pytest.mark.parametrize(
    "row",
    [
        # A basic block and a grouped bottleneck: the others are rows with other numbers.
        pytest.param(
            row, id=row.file, marks=[] if row.model in ("resnet18", "resnext50_32x4d") else SLOW
        )
        for row in keras_resnet.list_weights()
    ],
)
def test_multiply_adds_are_the_published_ones(row, models={}):  # noqa: B006 (built once)
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
    """The multiply-adds of the paper's table 6 layout, counted from its section 4.2."""
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
    assert "11,176,512" in text  # torchvision's count less fc's 513,000
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
        (("summary", "resnet_50"), "Did you mean 'resnet50'"),
        (("summary", "missing.pth"), "missing.pth does not exist"),
    ):
        done = command_here(*arguments)
        assert done.returncode == 1
        assert said in done.stderr
