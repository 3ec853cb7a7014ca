"""Pictures: that they are written, and say what they should."""

import re

import numpy as np
import pytest
from PIL import Image

import keras_resnet
from keras_resnet import visualize


@pytest.fixture(scope="module", params=["resnet18", "resnext50_32x4d", "resnet152"])
def network(request):
    return request.param, keras_resnet.create(request.param, input_shape=(224, 224, 3))


@pytest.mark.parametrize("detail", ["block", "layer"])
def test_diagrams(network, detail, tmp_path):
    name, model = network
    path = visualize.plot(model, tmp_path / "model.svg", detail)
    svg = path.read_text()
    assert svg.lstrip().startswith("<?xml")
    for text in ("layer1.0", "layer4.1", "112 x 112 x 64", "fc"):
        assert text in svg
    dashed = svg.count("stroke-dasharray")
    blocks = sum(keras_resnet.configs.CONFIGS[name].depths)
    projections = 3 if name == "resnet18" else 4
    if detail == "block":
        assert dashed == projections
        assert len(re.findall('class="edge identity"', svg)) == blocks - projections
    else:
        assert dashed == 3 * projections  # to the convolution, to its BN, to the addition
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
