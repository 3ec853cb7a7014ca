"""Other contents of PyTorch checkpoints, beside weights or instead of them."""

import argparse
import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import operator
import pathlib
import pickle
import random
import re
import types
import uuid
import warnings
import zipfile

import numpy as np
import pytest
import torch
import torchvision

import keras_resnet  # isort: skip (torch comes first)
from randomised import randomise

from keras_resnet import weights

pytestmark = pytest.mark.parity


class Color(enum.Enum):
    RED = 1


class Flag(enum.IntFlag):
    A = 1


@dataclasses.dataclass
class Config:
    rate: float = 0.1
    nested: dict = dataclasses.field(default_factory=dict)


class Slots:
    __slots__ = ("a",)

    def __init__(self):
        self.a = 1


class Dict(dict):
    def __getattr__(self, name):
        return self[name]


class List(list):
    pass


class Text(str):
    pass


class ByKeyword:
    def __new__(cls, *, size):
        return super().__new__(cls)

    def __getnewargs_ex__(self):
        return (), {"size": 3}


class Callback:
    def on_epoch_end(self):
        """Does nothing."""


Point = collections.namedtuple("Point", "x y")
NET = torch.nn.Linear(2, 2)
COMPANIONS = {
    "datetime": datetime.datetime.now(datetime.UTC),
    "date": datetime.date.today(),
    "timedelta": datetime.timedelta(1),
    "decimal": decimal.Decimal("1.5"),
    "fraction": fractions.Fraction(1, 3),
    "complex": 1 + 2j,
    "set": {1, 2},
    "frozenset": frozenset({"a"}),
    "range": range(3),
    "slice": slice(1, 2),
    "bytes": b"abc",
    "bytearray": bytearray(b"abc"),
    "enum": Color.RED,
    "flag": Flag.A,
    "path": pathlib.Path("a"),
    "namespace": argparse.Namespace(lr=0.1),
    "simple namespace": types.SimpleNamespace(a=1),
    "dataclass": Config(),
    "slots": Slots(),
    "dict of its own": Dict(a=1, b=torch.ones(2)),
    "list of its own": List([1, 2]),
    "text of its own": Text("a"),
    "named tuple": Point(1, 2),
    "by keyword": ByKeyword(size=3),
    "callback": Callback(),
    "a class": Callback,
    "a function": datetime.datetime.now,
    "a method": Callback().on_epoch_end,
    "partial": functools.partial(int, base=2),
    "itemgetter": operator.itemgetter("a"),
    "regex": re.compile("a+"),
    "uuid": uuid.uuid4(),
    "random state": random.getstate(),
    "random": random.Random(1),  # noqa: S311
    "counter": collections.Counter("abc"),
    "defaultdict": collections.defaultdict(list, a=[1]),
    "deque": collections.deque([1], 3),
    "chain map": collections.ChainMap({"a": 1}),
    "numpy scalar": np.float64(1.5),
    "numpy array": np.arange(3),
    "numpy objects": np.array([{}, "a"], dtype=object),
    "numpy dates": np.array(["2020-01-01"], dtype="M8[D]"),
    "numpy dtype": np.dtype("f4"),
    "numpy random": np.random.RandomState(0),
    "generator": np.random.default_rng(0),
    "torch device": torch.device("cpu"),
    "torch dtype": torch.float16,
    "torch size": torch.Size([1, 2]),
    "optimizer": torch.optim.Adam(NET.parameters()),
    "schedule": torch.optim.lr_scheduler.StepLR(torch.optim.SGD(NET.parameters(), 0.1), 1),
    "loss": torch.nn.CrossEntropyLoss(torch.ones(7)),
    "a whole module": NET,
    "transform": torchvision.transforms.Compose([torchvision.transforms.ToTensor()]),
    "exception": ValueError("a"),
    "itself": None,
}
COMPANIONS["itself"] = Dict(COMPANIONS)
with warnings.catch_warnings(action="ignore"):
    COMPANIONS |= {
        "sparse": torch.eye(3).to_sparse(),
        "sparse csr": torch.eye(3).to_sparse_csr(),
        "quantized": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
    }


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return randomise(torchvision.models.resnet18(num_classes=7))


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support:UserWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("name", COMPANIONS)
def test_beside(name, legacy, tmp_path, caplog):
    state = {"conv1.weight": torch.arange(6.0)}
    saved = {"first": COMPANIONS[name], "state_dict": state, "last": [COMPANIONS[name]]}
    torch.save(saved, tmp_path / "w.pth", _use_new_zipfile_serialization=not legacy)
    read = weights.read_state_dict(tmp_path / "w.pth")
    np.testing.assert_array_equal(read["conv1.weight"], np.arange(6))
    assert sum("ignored content" in record.getMessage() for record in caplog.records) <= 1


def test_all_at_once(net, tmp_path, caplog):
    """In one file, with every pickle protocol that torch can write."""
    for protocol in (2, 4, 5):
        caplog.clear()
        saved = {**COMPANIONS, "state_dict": net.state_dict()}
        torch.save(saved, tmp_path / "w.pth", pickle_protocol=protocol)
        ours = keras_resnet.ResNet18(weights=tmp_path / "w.pth", classes=7)
        for key, value in weights.to_state_dict(ours).items():
            np.testing.assert_array_equal(value, net.state_dict()[key].numpy())
        (said,) = [r.getMessage() for r in caplog.records if "ignored content" in r.getMessage()]
        assert "'datetime.datetime'" in said and "more" in said


@pytest.mark.parametrize("kind", ["sparse", "quantized"])
@pytest.mark.parametrize("legacy", [False, True])
def test_unsupported_tensors(kind, legacy, net, tmp_path):
    """An error names them if they are needed; otherwise they are ignored."""
    state, path = net.state_dict(), tmp_path / "w.pth"
    odd = {
        "sparse": lambda tensor: tensor.to_sparse(),
        "quantized": lambda tensor: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8),
    }[kind]
    for key in ("layer2.0.conv2.weight", "fc.weight"):
        changed = {**state, key: odd(state[key])}
        torch.save(changed, path, _use_new_zipfile_serialization=not legacy)
        model = keras_resnet.ResNet18(classes=7)
        with pytest.raises(weights.CheckpointError, match=rf"{key} is .*rebuild.*to_dense") as said:
            weights.load(model, path)
        assert len(str(said.value).splitlines()) <= 5
        if key == "fc.weight":
            weights.load(model, path, head="skip")


def test_only_modules_are_called_modules(tmp_path):
    """Pickled optimizers and losses are not called modules in the message."""
    for kind in ("optimizer", "loss", "a whole module"):
        torch.save({"state": COMPANIONS[kind]}, tmp_path / "w.pth")
        with pytest.raises(weights.CheckpointError) as said:
            weights.read_state_dict(tmp_path / "w.pth")
        assert ("a whole pickled nn.Module" in str(said.value)) == (kind == "a whole module")
        assert "not executed" in str(said.value)


def test_a_mapping(net):
    expected = {key: value.numpy() for key, value in net.state_dict().items()}
    model = keras_resnet.ResNet18(classes=7)
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9).state_dict()
    training = {"epoch": 3, "arch": "resnet18", "best": torch.tensor(70.0), "optimizer": optimizer}
    for source in (
        *(expected, net.state_dict(), {f"module.{k}": v for k, v in expected.items()}),
        *({"epoch": 3, "state_dict": expected}, {**training, "state_dict": net.state_dict()}),
    ):
        for variable in model.variables:
            variable.assign(np.zeros(variable.shape))
        weights.load(model, source)
        for key, value in weights.to_state_dict(model).items():
            np.testing.assert_array_equal(value, expected[key])
    with pytest.raises(weights.CheckpointError, match="keys of the mapping should be strings"):
        weights.load(model, {1: 2})
    with pytest.raises(weights.CheckpointError, match="'arch' of the mapping is not an array"):
        weights.load(model, {**net.state_dict(), "arch": "resnet18"})
    with pytest.raises(weights.CheckpointError, match="contains no state_dict"):
        weights.load(model, {"epoch": 3, "state_dict": {}})


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
@pytest.mark.parametrize("kind", ["trace", "script", "freeze"])
def test_torchscript(kind, net, tmp_path):
    """Tensors are read as from any file; frozen modules have none."""
    script = (
        torch.jit.script(net) if kind != "trace" else torch.jit.trace(net, torch.ones(1, 3, 64, 64))
    )
    if kind == "freeze":
        script = torch.jit.freeze(script)
    torch.jit.save(script, tmp_path / "w.pt")
    if kind == "freeze":
        with pytest.raises(weights.CheckpointError, match=r"torch\.save\(model\.state_dict"):
            weights.read_state_dict(tmp_path / "w.pt")
        return
    ours = keras_resnet.ResNet18(weights=tmp_path / "w.pt", classes=7)
    for key, value in weights.to_state_dict(ours).items():
        np.testing.assert_array_equal(value, net.state_dict()[key].numpy())


def test_other_formats_are_recognized(net, tmp_path):
    path = tmp_path / "w.bin"
    kernel = {"resnet/root_block/standardized_conv2d/kernel": np.ones(3)}
    with path.open("wb") as file:
        np.savez(file, **kernel)
    check_said(path, "an .npz file of BiT")
    with path.open("wb") as file:
        np.savez(file, a=np.ones(3))
    check_said(path, "an .npz file of NumPy.*dict(numpy.load(path))")
    path.write_bytes(b"\x81\xa6params\x81\xa5conv1")
    check_said(path, "it is a msgpack file, as written by flax")
    path.write_bytes(b"\0" * 40 + bytes.fromhex("57fb808b247547db"))
    check_said(path, "a checkpoint of TensorFlow.*TF-slim")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w/archive_format", "pt2")
    check_said(path, "a .pt2 of torch.export.*torch.export.load(path)")
    path.write_bytes(pickle.dumps({"a": 1}))
    check_said(path, "a pickle, but not of torch.save or of NumPy arrays")


def check_said(path, said):
    with pytest.raises(
        weights.CheckpointError, match=re.sub(r"(?<!\.)([().])(?!\*)", r"\\\1", said)
    ):
        weights.read_state_dict(path)
