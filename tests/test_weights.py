"""Loading weights files into models, and saving them."""

import logging
import re
import sys
import zipfile

import keras
import numpy as np
import pytest
from small_networks import noise, small
from torch_files import (
    state_dict_file,
)

import keras_resnet
from keras_resnet import weights
from keras_resnet.conversion import named_network
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
    warned = [r.message for r in caplog.records if r.levelno == logging.WARNING]
    assert [message.split(":")[0] for message in warned] == ["w.pth has 7 classes"]
    assert "no config.json specifies the architecture; assuming resnet18" in caplog.text
    state = weights.to_state_dict(model)
    assert state["fc.bias"].shape == (5,)
    np.testing.assert_array_equal(state["conv1.weight"], resnet18_state["conv1.weight"])
    with pytest.raises(CheckpointError, match="Pass classes=7"):
        keras_resnet.ResNet18(weights=path)
    model.save_weights(tmp_path / "m.weights.h5")
    with caplog.at_level(logging.INFO, "keras_resnet"):
        model = keras_resnet.ResNet18(weights=tmp_path / "m.weights.h5", classes=9)
    assert model.output.shape[1] == 9
    assert "m.weights.h5: nothing in it specifies the architecture" in caplog.text


@pytest.fixture(scope="module")
def resnet20_state():
    return weights.to_state_dict(keras_resnet.ResNet20())


def without(state, *keys):
    return {key: value for key, value in state.items() if not key.startswith(keys)}


def message_of(path, model):
    """Returns the error message of loading, which has at most five lines."""
    with pytest.raises(CheckpointError) as caught:
        weights.load(model, path)
    message = str(caught.value)
    assert len(message.splitlines()) <= 5
    assert len(message) < 2500
    return message


@pytest.mark.parametrize(
    "file",
    [
        {"name": "resnet20", "shortcut": "B", "classes": 3},
        {"name": "resnet32", "include_top": False, "input_shape": (None, None, 1)},
    ],
)
def test_the_network_that_is_advised_fits(file, tmp_path):
    source = keras_resnet.create(file.pop("name"), **file)
    path = weights.save(source, tmp_path / "w.pth")
    message = message_of(path, keras_resnet.ResNet20())
    call = re.search(r"load it into (keras_resnet\.create\(.*?\))\.\n", message)[1]
    advised = eval(call, {"keras_resnet": keras_resnet})  # noqa: S307
    weights.load(advised, path)


@pytest.mark.parametrize("missing", [(), ("fc.bias",), ("fc.weight",), ("fc",)])
@pytest.mark.parametrize("channels", [3, 1])
def test_the_advice_on_a_head_and_channels_works(missing, channels, tmp_path, resnet20_state):
    path = state_dict_file(tmp_path / "w.pth", without(resnet20_state, "fc.none", *missing))
    model = keras_resnet.ResNet20(classes=3, input_shape=(32, 32, channels))
    message = message_of(path, model)
    said = re.search(r"keras_resnet\.weights\.load\(model, path, (.*?)\)", message)[1]
    weights.load(model, path, **dict(re.findall(r"(\w+)='(\w+)'", said)))


@pytest.mark.parametrize("name", ["fc.1", "head.fc", "last_linear", "classifier", "fc", "top"])
def test_heads_of_other_names(name, tmp_path, resnet20_state, caplog):
    """Another matrix, whose name is not that of a classifier, is ignored and reported."""
    heads = {f"{name}.{leaf}": resnet20_state[f"fc.{leaf}"] for leaf in ("weight", "bias")}
    backbone = without(resnet20_state, "fc")
    model = keras_resnet.ResNet20()
    other = {} if name == "top" else {"other.weight": np.zeros((5, 64), np.float32)}
    with caplog.at_level(logging.INFO, "keras_resnet"):
        weights.load(model, state_dict_file(tmp_path / "w.pth", {**backbone, **heads, **other}))
    assert ("ignored content: other." in caplog.text) == bool(other)
    for key, value in weights.to_state_dict(model).items():
        np.testing.assert_array_equal(value, resnet20_state[key])


@pytest.mark.parametrize(
    "head",
    [
        {"fc.0": (64, 64), "fc.2": (10, 64)},  # MoCo v2's projection
        {"one": (10, 64), "two": (10, 64)},
        {"fc": (10, 99)},
    ],
)
def test_heads_that_are_not_classifiers(head, tmp_path, resnet20_state):
    backbone = without(resnet20_state, "fc")
    heads = {f"{name}.weight": np.zeros(shape, np.float32) for name, shape in head.items()}
    path = state_dict_file(tmp_path / "w.pth", {**backbone, **heads})
    assert "head='skip'" in message_of(path, keras_resnet.ResNet20())
    with pytest.raises(CheckpointError, match=r"no classifier that was recognized\. Pass classes="):
        keras_resnet.ResNet20(weights=path)
    weights.load(keras_resnet.ResNet20(), path, head="skip")
    assert keras_resnet.ResNet20(weights=path, classes=10).output.shape == (None, 10)
    keras_resnet.ResNet20(weights=path, include_top=False)


def numbers(**shapes):
    """Random arrays by name, with `__` for dots."""
    rng = np.random.default_rng(0)
    return {
        name.replace("__", "."): rng.normal(size=shape).astype(np.float32)
        for name, shape in shapes.items()
    }


@pytest.mark.parametrize("prefix", ["", "model.backbone."])
@pytest.mark.parametrize("name", ["projection_head.fc", "projector.linear", "neck.fc", "p.fc"])
def test_a_projection_is_no_classifier(name, prefix, resnet20_state):
    """Even if the last part of its name is that of a classifier."""
    backbone = {prefix + key: value for key, value in without(resnet20_state, "fc").items()}
    state = {**backbone, **numbers(**{f"{name}.weight": (128, 64), f"{name}.bias": (128,)})}
    with pytest.raises(CheckpointError, match=r"2 missing from the file: fc\.bias, fc\.weight"):
        weights.load(keras_resnet.ResNet20(classes=12), state)
    weights.load(keras_resnet.ResNet20(classes=12), state, head="skip")


@pytest.mark.parametrize("prefix", ["", "model.backbone."])
@pytest.mark.parametrize("head", ["fc", "head", "model.classifier"])
@pytest.mark.parametrize("other", ["domain.classifier", "aux.fc", "model.backbone.aux.fc"])
def test_the_nearest_classifier_is_taken(other, head, prefix, resnet20_state):
    backbone = {prefix + key: value for key, value in without(resnet20_state, "fc").items()}
    if not prefix:
        head = head.removeprefix("model.")
    heads = {f"{head}.{leaf}": resnet20_state[f"fc.{leaf}"] for leaf in ("weight", "bias")}
    model = keras_resnet.ResNet20()
    weights.load(model, {**numbers(**{f"{other}.weight": (2, 64)}), **backbone, **heads})
    for key, value in weights.to_state_dict(model).items():
        np.testing.assert_array_equal(value, resnet20_state[key])


@pytest.mark.parametrize("prefix", ["", "backbone."])
@pytest.mark.parametrize(
    "head, between",
    [
        ("fc", {"fc1__weight": (64, 64), "fc1__bias": (64,)}),
        ("classifier", {f"bottleneck__{k}": (64,) for k in ("weight", "bias", "running_mean")}),
        ("head.fc", {"head__norm__weight": (64,), "head__norm__bias": (64,)}),
    ],
)
def test_layers_before_the_classifier_are_refused(head, between, prefix, resnet20_state, tmp_path):
    """Without them, the network would have other outputs, but its features are equal."""
    state = {prefix + key: value for key, value in without(resnet20_state, "fc").items()}
    state |= numbers(**between)
    state |= {f"{head}.{leaf}": resnet20_state[f"fc.{leaf}"] for leaf in ("weight", "bias")}
    names = ", ".join(sorted(key.replace("__", ".") for key in between))
    model = keras_resnet.ResNet20()
    with pytest.raises(CheckpointError) as error:
        weights.load(model, state)
    assert f"{len(between)} unused by the model: {names}" in str(error.value)
    assert "pass ignore=[" in str(error.value)
    call = weights.inspect(state_dict_file(tmp_path / "w.pth", state)).call
    part = names.partition(".")[0]
    assert f", ignore=['{part}.*']), which leaves out {part} ({len(between)})" in call
    weights.load(keras_resnet.ResNet20(), state, head="skip")
    weights.load(keras_resnet.ResNet20(include_top=False), state)
    weights.load(model, state, ignore=[f"{part}.*"])
    for key, value in weights.to_state_dict(model).items():
        np.testing.assert_array_equal(value, resnet20_state[key])


def test_layers_between_the_stages_are_refused(tmp_path, resnet20_state):
    """The network may need them, unlike those of a decoder, so ignoring them is explicit."""
    state = {}
    for key, value in resnet20_state.items():
        state[key] = value
        if key == "layer1.2.bn2.running_var":
            state["attention.weight"] = np.zeros((1, 16, 1, 1), np.float32)
    path = state_dict_file(tmp_path / "w.pth", state)
    message = message_of(path, keras_resnet.ResNet20())
    assert "1 unused by the model: attention.weight" in message and "ignore=" in message
    weights.load(keras_resnet.ResNet20(), path, ignore=["attention.*"])
    keras_resnet.ResNet20(weights=path, ignore=["attention.*"])


def test_a_small_stem_is_recognized(tmp_path, resnet18_state):
    state = {**resnet18_state, "conv1.weight": np.zeros((64, 3, 3, 3), np.float32)}
    path = state_dict_file(tmp_path / "w.pth", state)
    message = message_of(path, keras_resnet.ResNet18(classes=7))
    assert "a variant of resnet18 (with a 3x3 stem, not 7x7)" in message
    assert "adapt" not in message


def test_the_network_of_clip_is_recognized(tmp_path, resnet18_state):
    stem = {
        "visual.conv1.weight": np.zeros((32, 3, 3, 3), np.float32),
        "visual.conv2.weight": np.zeros((32, 32, 3, 3), np.float32),
        "visual.conv3.weight": np.zeros((64, 32, 3, 3), np.float32),
    }
    layers = {f"visual.{k}": v for k, v in resnet18_state.items() if k.startswith("layer")}
    pool = {"visual.attnpool.k_proj.weight": np.zeros((512, 512), np.float32)}
    path = state_dict_file(
        tmp_path / "w.pth", {"logit_scale": np.ones(1, "f4"), **stem, **layers, **pool}
    )
    message = message_of(path, keras_resnet.ResNet18(classes=7))
    assert "with a stem of three convolutions, as in CLIP" in message


def test_a_mapping_with_training_state(resnet20_state):
    """It also contains other values, and tensors of another library, here TensorFlow."""
    tensors = {key: keras.ops.convert_to_tensor(value) for key, value in resnet20_state.items()}
    saved = {"epoch": 3, "arch": "resnet20", "best": np.float32(0.9), "model": {"ema": tensors}}
    model = keras_resnet.ResNet20()
    weights.load(model, saved | {"optimizer": {"state": {0: {"step": 5}}, "groups": [{"lr": 1}]}})
    for key, value in weights.to_state_dict(model).items():
        np.testing.assert_array_equal(value, resnet20_state[key])


def test_files_that_fit_no_network(tmp_path, resnet20_state):
    """A file of another kind, a variant, and a file of the same network without some tensors."""
    others = {f"features.{number}.weight": np.zeros(1, np.float32) for number in range(3000)}
    long = {f"{'a' * 1000}.{number}": np.zeros(1, np.float32) for number in range(9)}
    relative = {**resnet20_state, "layer1.0.se.fc1.weight": np.zeros((4, 4), np.float32)}
    lost = without(resnet20_state, "layer2.0.conv1")
    model = keras_resnet.ResNet20()
    for state, said in (
        (others, "It looks like an unknown network of 3000 tensors: features"),
        (long, "It looks like an unknown network of 9 tensors: aaa"),
        (relative, "a variant of resnet20 (attention='se', squeezed=4) with 10 classes"),
        (
            lost,
            "a resnet20 with shortcut A and 10 classes, like the model, but some tensors",
        ),
    ):
        message = message_of(state_dict_file(tmp_path / "w.pth", state), model)
        assert said in message
        assert "choose another" in message
        assert "load it into" not in message


def test_a_head_without_a_bias_is_a_head(resnet20_state):
    state = without(resnet20_state, "fc.bias")
    assert recognise(state).text == "a resnet20 with shortcut A and 10 classes"


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".keras", ".weights.h5"])
@pytest.mark.parametrize("name", ["model_best.pth.tar", "weights.h5"])
def test_a_file_is_taken_for_what_it_contains(suffix, name, tmp_path):
    source, model = keras_resnet.ResNet20(), keras_resnet.ResNet20()
    path = weights.save(source, tmp_path / f"source{suffix}").rename(tmp_path / name)
    weights.load(model, path)
    expected = weights.to_state_dict(source)
    for state in (weights.to_state_dict(model), weights.read_state_dict(path)):
        for key, array in expected.items():
            np.testing.assert_array_equal(state[key], array)


def test_no_top_ignores_the_head(tmp_path, resnet18_state, caplog):
    path = state_dict_file(tmp_path / "w.pth", resnet18_state)
    with caplog.at_level(logging.INFO, "keras_resnet"):
        model = keras_resnet.ResNet18(weights=path, include_top=False)
    assert caplog.text.count("its head (fc.weight, fc.bias) was not loaded") == 1
    assert weights.to_state_dict(model).keys() == resnet18_state.keys() - {"fc.weight", "fc.bias"}


@pytest.fixture(scope="module")
def rgb_files(tmp_path_factory, resnet20_state):
    """A ResNet-20 for RGB images, in each format."""
    folder = tmp_path_factory.mktemp("rgb")
    path = state_dict_file(folder / "w.pth", resnet20_state)
    model = keras_resnet.ResNet20(weights=path)
    for name in ("w.safetensors", "w.keras", "w.weights.h5"):
        weights.save(model, folder / name)
    return folder


@pytest.mark.parametrize(
    "name, channels",
    [
        *(("w.pth", 6), ("w.safetensors", 1), ("w.keras", 6), ("w.weights.h5", 1)),
        *(
            pytest.param(name, channels, marks=pytest.mark.slow)
            for name, channels in (
                *(("w.pth", 1), ("w.safetensors", 6), ("w.keras", 1), ("w.weights.h5", 6)),
            )
        ),
    ],
)
def test_the_first_convolution_adapts_when_asked(name, channels, rgb_files, resnet20_state):
    kernel = resnet20_state["conv1.weight"]
    shape = {"input_shape": (32, 32, channels)}
    model = keras_resnet.ResNet20(**shape)
    advice = r"(?s)pass first_conv='adapt' to the builder or to weights\.load.*conv1\.weight"
    with pytest.raises(CheckpointError, match=advice):
        weights.load(model, rgb_files / name)
    weights.load(model, rgb_files / name, first_conv="adapt")
    built = keras_resnet.ResNet20(weights=rgb_files / name, first_conv="adapt", **shape)
    for network in (model, built):
        adapted = weights.to_state_dict(network)["conv1.weight"]
        # Equal channels give the same output as gray images.
        np.testing.assert_allclose(adapted.sum(1), kernel.sum(1), atol=1e-5)


def test_the_first_of_several_convolutions_adapts_too(tmp_path):
    rgb, grey = (small("squeezed", input_shape=(None, None, n)) for n in (3, 1))
    path = weights.save(rgb, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="pass first_conv='adapt' to the builder"):
        weights.load(grey, path)
    weights.load(grey, path, first_conv="adapt")
    x = noise(1, 32, 32, 1)
    expected = keras.ops.convert_to_numpy(rgb(x.repeat(3, -1)))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(grey(x)), expected, atol=1e-5)


def test_the_builder_says_how_to_adapt(rgb_files):
    with pytest.raises(CheckpointError, match="pass first_conv='adapt' to the builder"):
        keras_resnet.ResNet20(weights=rgb_files / "w.pth", input_shape=(64, 64, 1))
    with pytest.raises(ValueError, match="first_conv should be 'strict' or 'adapt'"):
        keras_resnet.ResNet18(first_conv="adopt")


def test_adapting_is_not_advised_where_it_would_not_do(tmp_path, resnet18_state):
    model = keras_resnet.ResNet18(classes=7, input_shape=(None, None, 6))
    other = {key: value for key, value in resnet18_state.items() if "layer4" not in key}
    with pytest.raises(CheckpointError, match=r"conv1\.weight is \(64, 3, 7, 7\)") as error:
        weights.load(model, state_dict_file(tmp_path / "other.pth", other))
    assert "adapt" not in str(error.value)  # it would not be sufficient


def test_a_damaged_keras_file(tmp_path):
    (tmp_path / "m.keras").write_bytes(b"PK\x03\x04 no")
    (tmp_path / "m.weights.h5").write_bytes(b"no")
    for name in ("m.keras", "m.weights.h5"):
        with pytest.raises(CheckpointError, match=name):
            keras_resnet.ResNet18(weights=tmp_path / name)


MEASURE = """
import ctypes, re, sys
from pathlib import Path
import keras_resnet

def memory(kind):
    return int(re.search(rf"{kind}:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

# Large blocks are returned to the system when freed (M_MMAP_THRESHOLD), so they do not count.
ctypes.CDLL(None).mallopt(-3, 2**17)
model = keras_resnet.ResNet18()
first = None
for name in sys.argv[1:]:
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak, VmHWM
    before = memory("VmRSS")
    first = first or before
    keras_resnet.weights.load(model, name)
    share = 1024 / Path(name).stat().st_size
    print((before - first) * share, (memory("VmHWM") - before) * share)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_loading_takes_little_more_memory_than_the_file(run_imported, tmp_path):
    model = keras_resnet.ResNet18()
    for name in ("w.pth", "w.safetensors"):
        weights.save(model, tmp_path / name)
    done = run_imported(MEASURE, "w.pth", "w.safetensors")
    rows = [line.split() for line in done.stdout.splitlines()]
    assert len(rows) == 2, done.stderr
    for kept, peak in rows:
        assert 0.1 < float(kept) + float(peak) < 1.3


def test_relatives_are_told_apart(resnet18_state):
    """A network with additional layers in its blocks is not taken for the plain one."""
    state = {**resnet18_state, "layer1.0.se.fc1.weight": np.zeros(1, np.float32)}
    assert (
        recognise(state).text == "a variant of resnet18 (attention='se', squeezed=1) with 7 classes"
    )
    assert recognise(state).variant is None


@pytest.mark.parametrize("version", ["v1", "v1.5"])
def test_ambiguous_names_need_the_version(version, caplog):
    """Those of maskrcnn_benchmark; basic blocks have no versions."""
    model = small("bottleneck", version=version)
    before = snapshot(model)
    state = {
        f"stem.{key}" if key.startswith(("conv1.", "bn1.")) else key: array + 1
        for key, array in weights.to_state_dict(model).items()
    }
    other = {"v1": "v1.5", "v1.5": "v1"}[version]
    for given, said in (
        (None, "maskrcnn_benchmark's, which two kinds of networks use: MSRA's.*Pass version='v1'"),
        (other, f"has version='{version}'. Build it with version='{other}'"),
    ):
        with pytest.raises(CheckpointError, match=said):
            weights.load(model, state, version=given)
    with pytest.raises(ValueError, match="version should be 'v1' or"):
        weights.load(model, state, version="v2")
    for old, new in zip(before, snapshot(model), strict=True):
        np.testing.assert_array_equal(old, new)
    weights.load(model, state, version=version)
    assert "BGR in 0..255" in caplog.text
    for old, new in zip(before, snapshot(model), strict=True):
        np.testing.assert_array_equal(old + 1, new)
    basic = small("basic")
    weights.load(basic, weights.to_state_dict(basic), version="v1")


@pytest.fixture(scope="module")
def of_versions(tmp_path_factory):
    """ResNet-50s with 3 classes, of both versions, in formats with and without the version."""
    folder = tmp_path_factory.mktemp("versions")
    for version in ("v1", "v1.5"):
        model = keras_resnet.ResNet50(classes=3, version=version)
        for suffix in (".safetensors", ".keras", ".weights.h5"):
            weights.save(model, folder / f"{version}{suffix}")
    return folder


@pytest.mark.parametrize("suffix", [".safetensors", ".keras"])
def test_a_file_says_its_version(suffix, of_versions):
    models = {v: keras_resnet.ResNet50(classes=3, version=v) for v in ("v1", "v1.5")}
    for version, other in (("v1", "v1.5"), ("v1.5", "v1")):
        path = of_versions / f"{version}{suffix}"
        before = snapshot(models[other])[0]
        with pytest.raises(CheckpointError, match=f"Build the model with version='{version}'"):
            weights.load(models[other], path)
        np.testing.assert_array_equal(before, snapshot(models[other])[0])
        weights.load(models[version], path)
        blocks = [layer for layer in named_network(path).layers if hasattr(layer, "version")]
        assert {block.version for block in blocks} == {version}


def test_files_without_their_version(of_versions, caplog):
    with caplog.at_level(logging.INFO, "keras_resnet"):
        named_network(of_versions / "v1.5.weights.h5")
    assert (
        "assuming resnet50 as in torchvision: ReLU, no anti-aliasing, version='v1.5'."
        in caplog.text
    )
    caplog.clear()
    with caplog.at_level(logging.INFO, "keras_resnet"):
        named_network(of_versions / "v1.keras")
    assert "assuming" not in caplog.text


@pytest.mark.parametrize(
    "config, said",
    [
        (b"{", "its config.json is not valid JSON"),
        (b"[" * 100_000, "its config.json is not valid JSON"),
        (b" " * (2**24 + 1), "its config.json has 16777217 bytes"),
        (b'{"class_name": "BottleneckBlock", "config": {"version": "v9"}}', None),
        (b'{"class_name": "BottleneckBlock", "config": 7}', None),
        (b"7", None),
    ],
)
def test_config_in_a_keras_file(config, said, tmp_path, rgb_files):
    """Nothing in it is instantiated, and unknown contents are ignored."""
    path = tmp_path / "w.keras"
    with zipfile.ZipFile(rgb_files / "w.keras") as source, zipfile.ZipFile(path, "w") as target:
        target.writestr("config.json", config)
        target.writestr("model.weights.h5", source.read("model.weights.h5"))
    model = keras_resnet.ResNet20()
    if said is None:
        weights.load(model, path)
    else:
        assert said in message_of(path, model)


@pytest.mark.parametrize("name", ["resnet50-0676ba61.pth", "resnet50-11ad3fa6.pth"])
def test_published_weights_are_of_one_version(name, tmp_path, of_versions):
    state = weights.read_state_dict(of_versions / "v1.5.safetensors")
    path = state_dict_file(tmp_path / name, state)
    with pytest.raises(
        CheckpointError, match=r"according to its name \(torchvision's resnet50 IMAGENET"
    ):
        keras_resnet.ResNet50(classes=3, weights=path, version="v1")
    keras_resnet.ResNet50(classes=3, weights=path)


def test_basic_blocks_have_no_version(tmp_path, resnet18_state):
    path = state_dict_file(tmp_path / "resnet18-f37072fd.pth", resnet18_state)
    keras_resnet.ResNet18(classes=7, weights=path, version="v1")
    named_network(path, version="v1")


@pytest.mark.parametrize(
    "name, said",
    [
        ("resnet20", "assuming resnet20 as in its paper: ReLU, no pooling before the last."),
        ("resnet18", "assuming resnet18 as in torchvision: ReLU, no anti-aliasing."),
        ("resnet50", "ReLU, no anti-aliasing, version='v1.5'."),
    ],
)
def test_what_is_assumed_is_said_by_family(name, said, tmp_path, caplog):
    path = weights.save(keras_resnet.create(name), tmp_path / "w.pth")
    with caplog.at_level(logging.INFO, "keras_resnet"):
        named_network(path)
    assert said in caplog.text


def test_advice_with_two_versions(tmp_path, of_versions):
    """The call is valid, and the other version is mentioned."""
    state = weights.read_state_dict(of_versions / "v1.5.safetensors")
    named = {f"stem.{k}" if k.startswith(("conv1.", "bn1.")) else k: state[k] for k in state}
    call = weights.inspect(state_dict_file(tmp_path / "w.pth", named)).call
    call, _, other = call.partition(", or with ")
    assert "version='v1'" in call and other == "version='v1.5'"
    eval(call, {"keras_resnet": keras_resnet})  # noqa: S307
