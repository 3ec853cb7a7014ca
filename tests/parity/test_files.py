"""Files of torch, timm and transformers, compared with these libraries."""

import re

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
import torchvision
import transformers

import keras_resnet  # isort: skip (torch comes first)
from randomised import NAMES, randomise
from torch_files import CONTAINERS, Storage, state_dict_file, tensor

from keras_resnet import weights
from keras_resnet.weights.registry import REGISTRY

pytestmark = pytest.mark.parity


def check_logits(ours, theirs):
    x = np.random.default_rng(0).normal(size=(2, 3, 97, 64)).astype(np.float32)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(x))
    expected = getattr(expected, "logits", expected).numpy()
    error = np.abs(ours.predict_on_batch(x.transpose(0, 2, 3, 1)) - expected).max()
    assert error / np.abs(expected).max() <= 1e-5


@pytest.mark.parametrize(
    "name, suffix",
    [
        *((name, ".safetensors") for name in NAMES),
        ("resnet18", ".bin"),
        ("resnext50_32x4d", ".bin"),
    ],
)
def test_timm(name, suffix, tmp_path):
    theirs = randomise(timm.create_model(name, num_classes=7))
    write = safetensors.torch.save_file if suffix == ".safetensors" else torch.save
    write(theirs.state_dict(), tmp_path / f"w{suffix}")
    ours = keras_resnet.create(
        name, weights=tmp_path / f"w{suffix}", classes=7, classifier_activation=None
    )
    check_logits(ours, theirs)


@pytest.mark.parametrize(
    "name, suffix",
    [
        *((f"resnet{depth}", ".safetensors") for depth in (18, 34, 50, 101, 152)),
        ("resnet34", ".bin"),
    ],
)
def test_transformers(name, suffix, tmp_path):
    config = keras_resnet.configs.CONFIGS[name]
    theirs = randomise(
        transformers.ResNetForImageClassification(
            transformers.ResNetConfig(
                layer_type=config.block,
                depths=config.depths,
                hidden_sizes=[config.filters(stage) for stage in range(4)],
                num_labels=7,
            )
        )
    )
    if suffix == ".bin":
        torch.save(theirs.state_dict(), tmp_path / "model.bin")
    else:
        theirs.save_pretrained(tmp_path)
    ours = keras_resnet.create(
        name, weights=tmp_path / f"model{suffix}", classes=7, classifier_activation=None
    )
    check_logits(ours, theirs)
    # The keys of the backbone alone have no prefix "resnet.".
    torch.save(theirs.resnet.state_dict(), tmp_path / "backbone.pth")
    keras_resnet.create(name, weights=tmp_path / "backbone.pth", include_top=False)


@pytest.mark.parametrize("name", ["resnet18", "resnext50_32x4d"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_saved_weights_go_back_to_torchvision(name, suffix, tmp_path):
    ours = keras_resnet.create(name, classes=7, classifier_activation=None)
    path = weights.save(ours, tmp_path / f"w{suffix}")
    theirs = torchvision.models.get_model(name, num_classes=7)
    if suffix == ".pth":
        state = torch.load(path, weights_only=True)
        mapped = torch.load(path, weights_only=True, mmap=True)
        assert all(torch.equal(mapped[key], value) for key, value in state.items())
        assert list(state) == list(theirs.state_dict())
    else:
        state = safetensors.torch.load_file(path)
    theirs.load_state_dict(state, strict=True)
    check_logits(ours, theirs.eval())
    for key, value in weights.to_state_dict(ours).items():
        assert value.tobytes() == state[key].numpy().tobytes()


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_convolutions_with_a_bias(name, tmp_path):
    """In a checkpoint like that of a training loop, with other tensors."""
    theirs = torchvision.models.get_model(name, num_classes=7)
    for module in theirs.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.bias = torch.nn.Parameter(torch.randn(module.out_channels))
    randomise(theirs)
    saved = {"acc": torch.tensor(0.5), "epoch": 3, "state": theirs.state_dict()}
    torch.save(saved, tmp_path / "w.pth")
    ours = keras_resnet.create(
        name, weights=tmp_path / "w.pth", classes=7, classifier_activation=None
    )
    check_logits(ours, theirs)


def test_the_advice_on_two_networks_works(tmp_path):
    student, teacher = (torchvision.models.resnet18(num_classes=7) for _ in range(2))
    checkpoint = {"student": student.state_dict(), "teacher": teacher.state_dict()}
    torch.save(checkpoint, tmp_path / "w.pth")
    with pytest.raises(weights.CheckpointError) as caught:
        weights.read_state_dict(tmp_path / "w.pth")
    for name in re.findall(r"prefix='(\w+)'", str(caught.value)):
        ours = keras_resnet.ResNet18(weights=tmp_path / "w.pth", classes=7, prefix=name)
        for key, value in weights.to_state_dict(ours).items():
            np.testing.assert_array_equal(value, checkpoint[name][key].numpy())


class OwnNet(torchvision.models.ResNet):
    """A network class defined by the user."""


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("kind", ["module", "legacy module"])
def test_the_advice_on_modules_works(kind, own, tmp_path):
    block = torchvision.models.resnet.BasicBlock
    kind_of = OwnNet if own else torchvision.models.ResNet
    model = randomise(kind_of(block, [2, 2, 2, 2], num_classes=7))
    path = tmp_path / "w.pth"
    torch.save(model, path, _use_new_zipfile_serialization=kind == "module")
    with pytest.raises(weights.CheckpointError, match=r"whole pickled nn\.Module") as caught:
        weights.read_state_dict(path)
    advice = re.search(r"torch\.save\(.*'weights\.pth'\)", str(caught.value))[0]
    there = advice.replace("'weights.pth'", "target")
    names = {"torch": torch, "model": model, "path": path, "target": tmp_path / "weights.pth"}
    eval(there, names)  # noqa: S307
    ours = keras_resnet.ResNet18(
        weights=tmp_path / "weights.pth", classes=7, classifier_activation=None
    )
    check_logits(ours, model)


def odd_tensors():
    base = torch.arange(48, dtype=torch.float32).reshape(2, 3, 2, 4)
    return {
        "channels_last": base.contiguous(memory_format=torch.channels_last),
        "view": base[1, :, 1],
        "transposed": base[0, 0].T,
        "scalar": torch.tensor(3),
        "parameter": torch.nn.Parameter(torch.ones(2, 2)),
        "empty": torch.zeros(0, 3),
        "ones": torch.ones(1, 1, 5)[:, :, 2:3],
        "half": base[0].half(),
        "bfloat16": base[0].bfloat16(),
        "double": base[0].double(),
        "bool": base[0] > 3,
        "complex": torch.complex(base[0], base[1]),
        **{
            name: base[0].to(getattr(torch, name))
            for name in ("int8", "uint8", "int16", "int32", "int64")
        },
    }


@pytest.mark.parametrize("legacy", [False, True])
def test_odd_tensors(legacy, tmp_path):
    theirs = odd_tensors()
    for name in ("uint16", "uint32", "uint64", "float8_e4m3fn", "float8_e5m2"):
        theirs[name] = torch.arange(4, dtype=torch.float32).to(getattr(torch, name))
    path = tmp_path / "w.pth"
    torch.save(theirs, path, _use_new_zipfile_serialization=not legacy)
    ours = weights.read_state_dict(path)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        value = value.detach()
        assert ours[name].shape == tuple(value.shape), name
        assert ours[name].dtype.name == str(value.dtype).removeprefix("torch."), name
        expected = value.to(torch.complex64) if name == "complex" else value.to(torch.float64)
        np.testing.assert_array_equal(ours[name].astype(expected.numpy().dtype), expected.numpy())


@pytest.mark.parametrize("write", CONTAINERS)
def test_files_written_without_torch_are_what_torch_reads(write, tmp_path):
    """Files of the other tests' writers, including tar, are valid for torch."""
    values = np.arange(24, dtype=np.float32)
    state = {"a": values.reshape(2, 3, 4), "b": values[:5].copy(), "c": values[:1].reshape(())}
    path = state_dict_file(tmp_path / "w.pth", state, write)
    theirs = torch.load(path, weights_only=False)
    assert theirs.keys() == state.keys()
    for name, value in weights.read_state_dict(path).items():
        np.testing.assert_array_equal(value, theirs[name].numpy())
    storage = Storage("Float", "7", values, (("8", 4, 12),))
    if write is not CONTAINERS[0]:  # only the older containers support views of storages
        path = write(tmp_path / "v.pth", {"v": tensor(storage, (3,), (2,), 1)}, [storage])
        np.testing.assert_array_equal(
            weights.read_state_dict(path)["v"], torch.load(path, weights_only=False)["v"].numpy()
        )


@pytest.mark.parametrize("row", REGISTRY, ids=lambda row: f"{row.model}-{row.name}")
def test_registry(row):
    theirs = torchvision.models.get_model_weights(row.model)[row.name]
    assert theirs.url == f"https://download.pytorch.org/models/{row.file}"
    metrics = theirs.meta["_metrics"]["ImageNet-1K"]
    assert (row.accuracy, row.top5_accuracy) == (metrics["acc@1"], metrics["acc@5"])
    assert (row.parameters, row.gflops) == (theirs.meta["num_params"], theirs.meta["_ops"])
    assert row.classes == len(theirs.meta["categories"])
    transform, preprocessing = theirs.transforms(), row.preprocessing
    assert (preprocessing.resize, preprocessing.crop) == (
        *transform.resize_size,
        *transform.crop_size,
    )
    assert list(preprocessing.mean) == transform.mean
    assert list(preprocessing.std) == transform.std
    assert transform.interpolation.value == row.interpolation
    size = theirs.meta["_file_size"] * 2**20
    assert size < row.max_bytes


def test_the_registry_is_complete():
    theirs = {
        (name, entry.name) for name in NAMES for entry in torchvision.models.get_model_weights(name)
    }
    assert {(row.model, row.name) for row in REGISTRY} == theirs
