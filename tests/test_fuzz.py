"""Thousands of damaged and malicious files: read, or rejected with a CheckpointError.

pytest -m slow tests/test_fuzz.py --hypothesis-show-statistics
"""

import json
import os
import pickle
import sys
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from torch_files import CONTAINERS, Call, Storage, tensor, zip_file

import keras_resnet
from keras_resnet import weights

CASES = int(os.environ.get("KERAS_RESNET_FUZZ_CASES", "1000"))  # for each kind of file
# Events that reading does not need: https://docs.python.org/3/library/audit_events.html
FORBIDDEN = ("compile", "exec", "os.system", "os.exec", "subprocess", "socket", "ctypes", "import")
watched = []


def watch(event, arguments):
    if watched and event.startswith(FORBIDDEN):
        watched.append((event, arguments))


def safetensors_file(path, value, storages):
    save_file({"conv1.weight": storages[0].values}, path)
    return path


def pickle_file(path, value, storages):
    """Writes a pickle of NumPy arrays like those of detectron2."""
    arrays = {"stem.conv1.weight": storages[0].values, "fc.bias": storages[2].values}
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "somebody"}, 2))
    return path


def module():
    made = Call("__torch__.Module")
    made.state = {}
    return made


def script_file(path, value, storages):
    """Writes a TorchScript archive with tensors in nested modules."""
    net = module()
    for name, held in value["state_dict"].items():
        *parents, leaf = name.split(".")
        owner = net
        for parent in parents:
            owner = owner.state.setdefault(parent, module())
        owner.state[leaf] = held
    zip_file(path, net, storages)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("weights/constants.pkl", b"\x80\x02).")
        archive.writestr("weights/code/__torch__.py", "class Module(Module): ...")
    return path


def checkpoint(path, write):
    """Writes a small file with the usual contents of checkpoints."""
    storages = [
        Storage("Float", "0", np.arange(24, dtype=np.float32)),
        Storage("Long", "1", np.arange(1, dtype=np.int64)),
        Storage("Half", "2", np.arange(6, dtype=np.float16)),
    ]
    state = {
        "module.conv1.weight": tensor(storages[0], (2, 3, 2, 2), (12, 4, 2, 1)),
        "module.bn1.num_batches_tracked": tensor(storages[1], (), ()),
        "module.layer1.0.conv2.weight": tensor(storages[2], (1, 2, 3, 1), (6, 3, 1, 1)),
        "module.fc.bias": Call("torch._utils._rebuild_parameter", tensor(storages[0], (2,), (5,))),
    }
    saved = {"state_dict": state, "epoch": 3, "args": Call("argparse.Namespace"), "best": [0.5]}
    return write(path, saved, storages)


@st.composite
def changes(draw):
    """Draws a list of (kind, place from 0 to 1, bytes or length)."""
    change = st.one_of(
        st.tuples(st.just("flip"), st.floats(0, 1), st.integers(0, 7)),
        st.tuples(st.just("set"), st.floats(0, 1), st.binary(min_size=1, max_size=9)),
        st.tuples(st.just("insert"), st.floats(0, 1), st.binary(min_size=1, max_size=20)),
        st.tuples(st.just("delete"), st.floats(0, 1), st.integers(1, 40)),
        st.tuples(st.just("copy"), st.floats(0, 1), st.floats(0, 1)),
        st.tuples(st.just("cut"), st.floats(0, 1), st.none()),
    )
    return draw(st.lists(change, min_size=1, max_size=6))


def changed(content, steps):
    content = bytearray(content)
    for kind, place, what in steps:
        at = int(place * max(len(content) - 1, 0))
        if kind == "flip" and content:
            content[at] ^= 1 << what
        elif kind == "set":
            content[at : at + len(what)] = what
        elif kind == "insert":
            content[at:at] = what
        elif kind == "delete":
            del content[at : at + what]
        elif kind == "copy":
            start = int(what * len(content))
            content[at : at + 30] = content[start : start + 30]
        elif kind == "cut":
            del content[at:]
    return bytes(content)


@pytest.fixture(scope="module")
def model():
    return keras_resnet.ResNet18(classes=2)


@pytest.mark.slow
@pytest.mark.parametrize("write", [*CONTAINERS, safetensors_file, pickle_file, script_file])
def test_mutations(write, tmp_path_factory, model):
    path = tmp_path_factory.mktemp("fuzz") / "w.pth"
    content = checkpoint(path, write).read_bytes()
    weights.read_state_dict(path)  # imports modules on first use
    sys.addaudithook(watch)
    outcomes = {"read": 0, "refused": 0}

    @settings(
        max_examples=CASES,
        deadline=2000,  # milliseconds per file
        database=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(changes())
    def read(steps):
        path.write_bytes(changed(content, steps))
        watched.append("on")
        try:
            state = weights.read_state_dict(path)
            outcomes["read"] += 1
            for array in state.values():
                array.tobytes()  # every element is inside the file
            weights.load(model, path, head="skip", first_conv="adapt")
        except weights.CheckpointError:
            outcomes["refused"] += 1
        finally:
            events = watched[1:]
            watched.clear()
        assert not events

    read()
    print(f"\n{write.__name__}: {outcomes}")
    assert outcomes["refused"] > CASES / 10


@pytest.mark.slow
@pytest.mark.parametrize("write", [*CONTAINERS, pickle_file, script_file])
def test_every_byte_of_a_small_file(write, tmp_path):
    """Each byte is changed in three ways, one at a time."""
    path = tmp_path / "w.pth"
    content = checkpoint(path, write).read_bytes()
    for at in range(len(content)):
        for value in {content[at] ^ 1, content[at] ^ 0x80, 0xFF} - {content[at]}:
            path.write_bytes(content[:at] + bytes([value]) + content[at + 1 :])
            try:
                weights.read_state_dict(path)
            except weights.CheckpointError:
                pass


@pytest.mark.slow
def test_random_pickles(tmp_path):
    """Sequences of opcodes and allowed names, which get further than flipped bits."""
    from keras_resnet.weights.pytorch.known_names import GLOBALS

    names = [b"c%s\n%s\n" % tuple(n.encode() for n in name.rsplit(".", 1)) for name in GLOBALS]
    parts = st.sampled_from(
        [
            *(bytes([opcode]) for opcode in b"(0NQR)]}aestulb\x81\x85\x86\x87\x88\x89\x93\x94"),
            *(b"K" + bytes([number]) for number in (0, 1, 2, 6, 255)),
            *(opcode + bytes([number]) for opcode in (b"q", b"h") for number in range(4)),
            b"J\xff\xff\xff\xff",
            b"\x8a\x08" + b"\x7f" * 8,
            b"X\x07\x00\x00\x00storage",
            b"X\x01\x00\x00\x000",
            b"X\x03\x00\x00\x00cpu",
            b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
            b"X\x01\x00\x00\x000X\x00\x00\x00\x00K\x06tQ",
            *names,
        ]
    )
    path = tmp_path / "w.pth"
    numbers = np.arange(6, dtype=np.float32).tobytes()

    @settings(max_examples=CASES, deadline=2000, database=None, derandomize=True)
    @given(st.lists(parts, min_size=3, max_size=40))
    def read(opcodes):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("w/data.pkl", b"\x80\x02" + b"".join(opcodes) + b".")
            archive.writestr("w/data/0", numbers)
        try:
            weights.read_state_dict(path)
        except weights.CheckpointError:
            pass

    read()


PARTS = (
    *("layer", "stage", "res", "unit1", *"1230", "01", "\u0663", ".", ".", "9" * 5000),
    *("conv1", "conv3", "bn1", "bn3", "downsample.0", ".weight", ".bias", ".running_var"),
    *(".0.conv1.weight", ".1.bn2.weight", "_orig", "_mask", ".weight_g", ".weight_v"),
    *("module.", "model.", "_orig_mod.", "encoder_q.", "fc", "head.fc", "stem.conv1", "stem.bn1"),
    *("init_block.conv.conv", "body.", "identity_conv.bn", "shortcut.norm", "conv1.norm"),
    *("encoder.stages.0.layers.0.layer.0.convolution", "res2_0_branch2a_w", "conv1_w"),
)
SHAPES = ((), (0,), (64,), (7, 64), (4, 4, 1, 1), (64, 3, 7, 7), (64, 64, 3, 3), (2,) * 5)
NAMED = st.dictionaries(
    st.lists(st.sampled_from(PARTS), min_size=1, max_size=8).map("".join),
    st.sampled_from(SHAPES).map(np.zeros),
    min_size=1,
    max_size=14,
)


SOME = pytest.mark.parametrize("cases", [50, pytest.param(CASES, marks=pytest.mark.slow)])


@SOME
def test_names(cases, model):
    """Names of meaningful parts, in nested dicts."""
    keys = st.sampled_from(("state_dict", "ema", "a.b", ""))
    nested = st.recursive(NAMED, lambda held: st.dictionaries(keys, held, max_size=3), max_leaves=4)

    @settings(max_examples=cases, deadline=2000, database=None, derandomize=True)
    @given(nested, st.sampled_from((None, "", "ema", "encoder_q", "layer")))
    def load(held, prefix):
        with pytest.raises(weights.CheckpointError):
            weights.load(model, held, prefix=prefix, version="v1.5")

    load()


@SOME
def test_configs(cases, tmp_path):
    """A config.json beside a file, with known keys and values of any type."""
    path = weights.save(keras_resnet.ResNet20(), tmp_path / "w.safetensors")
    names = st.sampled_from(
        (
            *("architecture", "model_args", "global_pool", "pretrained_cfg", "mean", "crop_pct"),
            *("model_type", "architectures", "hidden_act", "layer_type", "backbone"),
            *("backbone_config", "downsample_in_bottleneck", "downsample_in_first_stage"),
        )
    )
    values = st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=9))
        | st.sampled_from(("resnet", "resnet18", "resnetblur18", "gelu", "bottleneck", "vit")),
        lambda held: st.lists(held, max_size=3) | st.dictionaries(names, held, max_size=3),
        max_leaves=6,
    )

    @settings(max_examples=cases, deadline=2000, database=None, derandomize=True)
    @given(st.dictionaries(names, values, max_size=8))
    def inspect(config):
        (tmp_path / "config.json").write_text(json.dumps(config))
        try:
            weights.inspect(path)
        except weights.CheckpointError as error:
            assert "config.json" in str(error) and len(str(error)) < 2000

    inspect()
