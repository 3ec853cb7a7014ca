"""Every layout in `layouts` is written by torch and loaded: features and logits are equal."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

import keras_resnet  # isort: skip (torch comes first)
from layouts import LAYOUTS
from randomised import randomise

from keras_resnet import weights

pytestmark = pytest.mark.parity
# Layouts that differ in bottlenecks are tested with one.
NETWORKS = {
    name: "resnet50" if "version" in how else "resnet18" for name, (*_, how, _) in LAYOUTS.items()
}
PICKLES = ("detectron2", "caffe2", "paddle")
IMAGES = np.random.default_rng(0).normal(size=(2, 3, 65, 64)).astype(np.float32)


@pytest.fixture(scope="module")
def networks():
    """Networks of torch, with ours without and with a head."""
    made = {}
    for name in {*NETWORKS.values()}:
        torch.manual_seed(0)
        theirs = randomise(torchvision.models.get_model(name, num_classes=7))
        options = {"classifier_activation": None, "classes": 7}
        made[name] = (
            theirs,
            keras_resnet.create(name, include_top=False, pooling="avg"),
            keras_resnet.create(name, **options),
        )
    return made


@pytest.fixture(scope="module")
def expected(networks):
    answers = {}
    for name, (theirs, _, _) in networks.items():
        with torch.no_grad():
            pooled = torch.nn.Sequential(*[*theirs.children()][:-1], torch.nn.Flatten())
            images = torch.from_numpy(IMAGES)
            answers[name] = pooled(images).numpy(), theirs(images).numpy()
    return answers


def check(answer, wanted):
    assert np.abs(answer - wanted).max() <= 1e-5 * np.abs(wanted).max()


def check_equal(model, wanted):
    check(model.predict_on_batch(IMAGES.transpose(0, 2, 3, 1)), wanted)


def write(saved, path):
    if path.suffix == ".pkl":
        path.write_bytes(pickle.dumps(saved))
    else:
        torch.save(saved, path)
    return path


ROWS: dict[str, str] = {}  # rows of the table in docs/weights.md
TABLE = Path(__file__).parents[2] / "docs" / "weights.md"
HEADING = (
    "| written by | its network is in | its classifier | how it is loaded |\n"
    "| --- | --- | --- | --- |\n"
)
# Layouts whose suggested call is run too, which takes seconds.
CALLED = ("moco_v2", "dino", "fastai", "detectron2", "sequential", "mean_teacher")


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout(name, networks, expected, tmp_path):
    project, has_head, how, make = LAYOUTS[name]
    theirs, without_top, with_top = networks[NETWORKS[name]]
    path = write(make(theirs), tmp_path / ("w.pkl" if name in PICKLES else "w.pth"))
    prefix = {"prefix": how["prefix"]} if "prefix" in how else {}
    options = prefix | ({"version": how["version"]} if "version" in how else {})
    if prefix:
        with pytest.raises(
            weights.CheckpointError, match=r"contains 2 networks\. Choose one"
        ) as said:
            weights.read_state_dict(path)
        assert len(str(said.value).splitlines()) <= 5
    clear(without_top)
    if "version" in how:
        with pytest.raises(weights.CheckpointError, match=r"two kinds of networks use.*Pass ver"):
            weights.load(without_top, path)
        with pytest.raises(weights.CheckpointError, match=r"Build it with version='v1'\."):
            weights.load(without_top, path, version="v1")
        assert not any(np.any(variable) for variable in without_top.variables)
    weights.load(without_top, path, **options)
    pooled, logits = expected[NETWORKS[name]]
    check_equal(without_top, pooled)
    clear(with_top)
    if has_head:
        weights.load(with_top, path, **options)
        check_equal(with_top, logits)
    else:
        with pytest.raises(weights.CheckpointError, match="head='skip'"):
            weights.load(with_top, path, **options)
        weights.load(with_top, path, head="skip", **options)
        check_equal(features_of(with_top), pooled)

    found = weights.inspect(path, **prefix)
    assert NETWORKS[name] in found.architecture.text and NETWORKS[name] in found.call
    head = found.head.partition(";")[0]
    if "classes" in how:
        assert not has_head or head.startswith("none")
        head = "found by its number of rows, `classes=7`"
    else:
        assert has_head == (not head.startswith("none"))
        head = f"`{head}`" if has_head else ""
    arguments = "".join(f", {key}={value!r}" for key, value in how.items() if key != "classes")
    where = found.layout.partition("under ")[2].partition(";")[0].strip("'")
    ROWS[name] = f"| {project} | {where and f'`{where}`'} | {head} | `weights=path{arguments}` |\n"
    if name in CALLED:
        ours = eval(found.call, {"keras_resnet": keras_resnet})  # noqa: S307
        images = IMAGES.transpose(0, 2, 3, 1)
        answer = ours.predict_on_batch(images)
        if "include_top=False" in found.call:
            check(answer.mean((1, 2)), pooled)
        else:
            exponential = np.exp(logits - logits.max(1, keepdims=True))
            check(answer, exponential / exponential.sum(1, keepdims=True))


def test_the_table():
    """KERAS_RESNET_WRITE_TABLE=1 updates it."""
    if len(ROWS) < len(LAYOUTS):
        pytest.skip("the table needs the results of all layouts")
    before, heading, rest = TABLE.read_text().partition(HEADING)
    assert heading
    after = rest[rest.index("\n\n") :]
    table = before + heading + "".join(ROWS.values()).rstrip("\n") + after
    if os.environ.get("KERAS_RESNET_WRITE_TABLE"):
        TABLE.write_text(table)
    assert TABLE.read_text() == table


def rcnn(net):
    """Like faster-rcnn.pytorch (jwyang), where the last stage is in another module."""
    state = torch.nn.Sequential(*[*net.children()][:7]).state_dict()
    state = {f"RCNN_base.{key}": value for key, value in state.items()}
    top = {f"RCNN_top.0.{key}": value for key, value in net.layer4.state_dict().items()}
    return {"model": state | top, "class_agnostic": False}


def emptied(net):
    """Like DeepSpeed's ZeRO-3, where weights are in other files."""
    return {"module": {key: torch.empty(0) for key in net.state_dict()}}


def in_three_dimensions(_):
    return torchvision.models.video.r3d_18(weights=None, num_classes=7).state_dict()


@pytest.mark.parametrize(
    "make, said",
    [
        (rcnn, "stages of (2, 2, 2) blocks"),
        (emptied, "empty tensors"),
        (in_three_dimensions, "for video or volumes"),
    ],
)
def test_incomplete_networks_are_reported(make, said, networks, tmp_path):
    theirs, _, with_top = networks["resnet18"]
    path = write(make(theirs), tmp_path / "w.pth")
    with pytest.raises(weights.CheckpointError) as error:
        weights.load(with_top, path)
    assert said in str(error.value) and len(str(error.value).splitlines()) <= 5


def clear(model):
    for variable in model.variables:
        variable.assign(np.zeros(variable.shape))


def features_of(model):
    import keras

    return keras.Model(model.input, model.layers[-2].output)


def test_there_are_at_least_25_layouts():
    assert len(LAYOUTS) >= 25
