"""Weights files into models, and back."""

import logging
import sys

import numpy as np
import pytest
from torch_files import (
    state_dict_file,
)

import keras_resnet
from keras_resnet import weights
from keras_resnet.weights import CheckpointError
from keras_resnet.weights.architecture import recognise


def test_safetensors(tmp_path, resnet18_state):
    from safetensors.numpy import save_file

    save_file(resnet18_state, tmp_path / "w.safetensors")
    model = keras_resnet.ResNet18(weights=tmp_path / "w.safetensors", classes=7)
    for key, value in weights.to_state_dict(model).items():
        np.testing.assert_array_equal(value, resnet18_state[key])


def snapshot(model):
    return [variable.numpy() for variable in model.variables]


def test_strict_loading_names_everything_and_changes_nothing(tmp_path, resnet18_state):
    state = dict(resnet18_state)
    del state["layer2.0.conv1.weight"]
    state["layer9.0.conv1.weight"] = np.zeros(3, np.float32)
    state["fc.bias"] = np.zeros(8, np.float32)
    path = state_dict_file(tmp_path / "w.pth", state)
    model = keras_resnet.ResNet18(classes=7)
    before = snapshot(model)
    with pytest.raises(CheckpointError) as caught:
        weights.load(model, path)
    for part in ("layer2.0.conv1.weight", "layer9.0.conv1.weight", "fc.bias is (8,), not (7,)"):
        assert part in str(caught.value)
    for old, new in zip(before, snapshot(model), strict=True):
        np.testing.assert_array_equal(old, new)


def test_another_architecture_is_guessed(tmp_path, resnet18_state):
    path = state_dict_file(tmp_path / "w.pth", resnet18_state)
    with pytest.raises(CheckpointError, match="looks like a resnet18 with 7 classes"):
        keras_resnet.ResNet34(weights=path, classes=7)


def test_other_classes_keep_the_backbone(tmp_path, resnet18_state, caplog):
    path = state_dict_file(tmp_path / "w.pth", resnet18_state)
    with caplog.at_level(logging.INFO, "keras_resnet"):
        model = keras_resnet.ResNet18(weights=path, classes=5)
    assert [record.message.split(":")[0] for record in caplog.records] == ["w.pth has 7 classes"]
    state = weights.to_state_dict(model)
    assert state["fc.bias"].shape == (5,)
    np.testing.assert_array_equal(state["conv1.weight"], resnet18_state["conv1.weight"])
    with pytest.raises(CheckpointError, match="Pass classes=7"):
        keras_resnet.ResNet18(weights=path)
    model.save_weights(tmp_path / "m.weights.h5")
    assert keras_resnet.ResNet18(weights=tmp_path / "m.weights.h5", classes=9).output.shape[1] == 9


def test_no_top_ignores_the_head(tmp_path, resnet18_state, caplog):
    path = state_dict_file(tmp_path / "w.pth", resnet18_state)
    with caplog.at_level(logging.INFO, "keras_resnet"):
        model = keras_resnet.ResNet18(weights=path, include_top=False)
    assert caplog.text.count("its head (fc.weight, fc.bias) was not loaded") == 1
    assert weights.to_state_dict(model).keys() == resnet18_state.keys() - {"fc.weight", "fc.bias"}


def test_the_first_convolution_adapts_when_asked(tmp_path, resnet18_state):
    path = state_dict_file(tmp_path / "w.pth", resnet18_state)
    kernel = resnet18_state["conv1.weight"]
    for channels in (1, 6):
        model = keras_resnet.ResNet18(classes=7, input_shape=(None, None, channels))
        with pytest.raises(CheckpointError, match=r"(?s)first_conv='adapt'.*conv1\.weight"):
            weights.load(model, path)
        weights.load(model, path, first_conv="adapt")
        adapted = weights.to_state_dict(model)["conv1.weight"]
        # The same grey in all channels gives the same answer.
        np.testing.assert_allclose(adapted.sum(1), kernel.sum(1), atol=1e-5)
    other = {key: value for key, value in resnet18_state.items() if "layer4" not in key}
    with pytest.raises(CheckpointError, match=r"conv1\.weight is \(64, 3, 7, 7\)") as error:
        weights.load(model, state_dict_file(tmp_path / "other.pth", other))
    assert "adapt" not in str(error.value)  # which would not do


def test_a_damaged_keras_file(tmp_path):
    (tmp_path / "m.keras").write_bytes(b"PK\x03\x04 no")
    (tmp_path / "m.weights.h5").write_bytes(b"no")
    for name in ("m.keras", "m.weights.h5"):
        with pytest.raises(CheckpointError, match=name):
            keras_resnet.ResNet18(weights=tmp_path / name)


MEASURE = """
import re, sys
from pathlib import Path
import keras_resnet

def memory(kind):
    return int(re.search(rf"{kind}:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

model = keras_resnet.ResNet50()
first = None
for name in sys.argv[1:]:
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak, VmHWM, to what is used now
    before = memory("VmRSS")
    first = first or before
    keras_resnet.weights.load(model, name)
    share = 1024 / Path(name).stat().st_size
    print((before - first) * share, (memory("VmHWM") - before) * share)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_loading_takes_little_more_memory_than_the_file(run_python, tmp_path):
    model = keras_resnet.ResNet50()
    for name in ("w.pth", "w.safetensors"):
        weights.save(model, tmp_path / name)
    done = run_python("-c", MEASURE, "w.pth", "w.safetensors")
    rows = [line.split() for line in done.stdout.splitlines()]
    assert len(rows) == 2, done.stderr
    for kept, peak in rows:
        assert 0.1 < float(kept) + float(peak) < 1.3


@pytest.mark.parametrize("name", ["last.ckpt", "model_best.pth.tar", "weights"])
def test_a_file_is_taken_for_what_it_contains(name, tmp_path, resnet18_state):
    path = state_dict_file(tmp_path / name, resnet18_state)
    assert keras_resnet.ResNet18(weights=path, classes=7).output.shape == (None, 7)


def test_relatives_are_told_apart(resnet18_state):
    """A network with more in its blocks is not called by the name of the plain one."""
    state = {**resnet18_state, "layer1.0.se.fc1.weight": np.zeros(1, np.float32)}
    assert recognise(state).text == "a relative of resnet18 with 7 classes"
    assert recognise(state).variant is None
