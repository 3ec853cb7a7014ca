"""Reading files of torch.save as arrays, without torch."""

import pickle
import zipfile

import ml_dtypes
import numpy as np
import pytest
from torch_files import (
    CONTAINERS,
    Call,
    Global,
    Storage,
    legacy_file,
    state_dict_file,
    tar_file,
    tensor,
    zip_file,
)

import keras_resnet
from keras_resnet import weights
from keras_resnet.weights import CheckpointError


@pytest.mark.parametrize("write", CONTAINERS)
def test_all_containers(write, tmp_path, resnet18_state):
    path = state_dict_file(tmp_path / "w.pth", resnet18_state, write)
    read = weights.read_state_dict(path)
    assert read.keys() == resnet18_state.keys()
    for key, value in read.items():
        np.testing.assert_array_equal(value, resnet18_state[key])


@pytest.mark.real_data
@pytest.mark.parametrize("name, blocks", [("resnet20-12fca82f", 3), ("resnet56-4bfd9763", 9)])
def test_real_legacy_files(real_data, name, blocks):
    state = weights.read_state_dict(real_data / "cifar10" / f"{name}.th")
    assert state["conv1.weight"].shape == (16, 3, 3, 3)
    assert state["linear.weight"].shape == (10, 64)
    assert f"layer3.{blocks - 1}.bn2.running_var" in state
    parameters = [v for k, v in state.items() if "running" not in k]
    assert sum(v.size for v in parameters) == {3: 269722, 9: 853018}[blocks]
    assert all(np.isfinite(v).all() for v in state.values())
    with pytest.raises(CheckpointError, match=f"a resnet{6 * blocks + 2} with shortcut A and 10"):
        keras_resnet.ResNet18(weights=real_data / "cifar10" / f"{name}.th", classes=10)


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize(
    "kind, dtype",
    [
        ("Float", "float32"),
        ("Double", "float64"),
        ("Half", "float16"),
        ("BFloat16", ml_dtypes.bfloat16),
        ("Long", "int64"),
        ("Byte", "uint8"),
        ("Bool", "bool"),
    ],
)
def test_types_and_byte_orders(kind, dtype, order, tmp_path):
    values = np.array([0, 1, 1, 0, 1, 0], dtype)
    stored = values
    if order == "big" and values.itemsize > 1:
        stored = values.view(f"u{values.itemsize}").byteswap()
    path = zip_file(
        tmp_path / "w.pth",
        {"a": tensor(Storage(kind, "0", stored), (2, 3), (3, 1))},
        [Storage(kind, "0", stored)],
        order,
    )
    read = weights.read_state_dict(path)["a"]
    assert read.dtype == values.dtype
    np.testing.assert_array_equal(read, values.reshape(2, 3))


@pytest.mark.parametrize("write", CONTAINERS)
def test_shared_storages_offsets_strides_and_scalars(write, tmp_path):
    values = np.arange(24, dtype=np.float32)
    storage = Storage("Float", "7", values)
    read = weights.read_state_dict(
        write(
            tmp_path / "w.pth",
            {
                "offset": tensor(storage, (2, 3), (3, 1), 4),
                "channels_last": tensor(storage, (1, 3, 2, 4), (24, 1, 12, 3)),
                "scalar": tensor(storage, (), (), 23),
                "parameter": Call(
                    "torch._utils._rebuild_parameter", tensor(storage, (2,), (1,)), True, {}
                ),
            },
            [storage],
        )
    )
    np.testing.assert_array_equal(read["offset"], values[4:10].reshape(2, 3))
    expected = values.reshape(1, 2, 4, 3).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(read["channels_last"], expected)
    assert read["scalar"].shape == ()
    assert read["scalar"] == 23
    np.testing.assert_array_equal(read["parameter"], [0, 1])


def test_views_of_legacy_storages(tmp_path):
    values = np.arange(10, dtype=np.float32)
    view = Storage("Float", "0", values, (("1", 3, 4),))
    path = legacy_file(tmp_path / "w.pth", {"a": tensor(view, (4,), (1,))}, [view])
    np.testing.assert_array_equal(weights.read_state_dict(path)["a"], [3, 4, 5, 6])


@pytest.mark.parametrize(
    "wrapper", ["state_dict", "model_state_dict", "model", "net", "state", "student"]
)
def test_wrappers_and_prefixes(wrapper, tmp_path):
    storage = Storage("Float", "0", np.arange(6, dtype=np.float32))
    state = {"module._orig_mod.conv1.weight": tensor(storage, (2, 3), (3, 1))}
    namespace = Call("argparse.Namespace")
    scalar = Call("numpy.core.multiarray.scalar", Call("numpy.dtype", "f8", 0, 1), "x")
    moments = {"module._orig_mod.conv1.weight": {"exp_avg": tensor(storage, (2, 3), (3, 1))}}
    saved = {
        "acc": tensor(storage, (), ()),
        "criterion": {"weight": tensor(storage, (6,), (1,))},
        "optimizer": {"state": moments},
        wrapper: state,
        "best_state": state,  # the same network again
        "epoch": 3,
        "args": namespace,
        "best": scalar,
    }
    path = zip_file(tmp_path / "w.pth", saved, [storage])
    assert list(weights.read_state_dict(path)) == ["conv1.weight"]


@pytest.mark.parametrize(
    "saved, found",
    [
        ({"epoch": {"model": 2}}, 2),
        ({"student": 1, "teacher": 2}, r"2 networks.*prefix='student', prefix='teacher'"),
        ({"model": 1, "model_ema": 2}, r"2 networks.*prefix='model', prefix='model_ema'"),
        ({"a": {"model": 1}, "b": {"net": 2}}, r"prefix='a\.model', prefix='b\.net'"),
        ({str(number): number for number in range(300)}, "300 networks.*and 296 more"),
    ],
)
def test_of_several_networks_one_is_taken_or_none(saved, found, tmp_path):
    """Numbers stand for networks, whose first kernel starts with them."""
    storages = [Storage("Float", "0", np.arange(400, dtype=np.float32))]

    def network(value):
        if isinstance(value, dict):
            return {key: network(inner) for key, inner in value.items()}
        return {"conv1.weight": tensor(storages[0], (2,), (1,), value)}

    path = zip_file(tmp_path / "w.pth", network(saved), storages)
    if isinstance(found, int):
        assert weights.read_state_dict(path)["conv1.weight"][0] == found
        return
    with pytest.raises(CheckpointError, match=found) as caught:
        weights.read_state_dict(path)
    assert len(str(caught.value)) < 500
    for prefix, value in (("b.net", 2), ("b", 2), ("net", 2)):
        if "'b.net'" in str(caught.value):
            state = weights.read_state_dict(path, prefix=prefix)
            assert state["conv1.weight"][0] == value
    with pytest.raises(CheckpointError, match=r"no network at prefix='c'\. It has prefix="):
        weights.read_state_dict(path, prefix="c")


@pytest.mark.parametrize(
    "content, said",
    [
        (b"<!DOCTYPE html><html>not found</html>", "not a PyTorch, safetensors or Keras file"),
        (b"", "is empty"),
        (pickle.dumps({"a": 1}, 2), "a pickle, but not of torch.save"),
    ],
)
def test_files_of_other_kinds(content, said, tmp_path):
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=said):
        keras_resnet.ResNet18(weights=tmp_path / "w.pth")


def test_torchscript_modules_and_compressed_entries_are_refused(tmp_path):
    storage = Storage("Float", "0", np.zeros(1, np.float32))
    state = {"a": tensor(storage, (1,), (1,))}
    path = zip_file(tmp_path / "w.pth", state, [storage])
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("weights/constants.pkl", b"")
        archive.writestr("weights/code/net.py", b"", zipfile.ZIP_DEFLATED)
    assert list(weights.read_state_dict(path)) == ["a"]  # the compressed entry is not needed
    path = zip_file(path, state, [storage], compression=zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("weights/constants.pkl", b"")
    check_said(path, r"compressed.*torch\.save\(torch\.jit\.load\(path\)\.state_dict\(\), ")
    path = zip_file(path, state, [storage], compression=zipfile.ZIP_DEFLATED)
    check_said(path, r"compressed or encrypted\. Save it again with torch\.save")


@pytest.mark.parametrize("write", CONTAINERS)
@pytest.mark.parametrize("name", ["torchvision.models.resnet.ResNet", "flowers.net.FlowerNet"])
def test_pickled_modules_are_recognized(name, write, tmp_path):
    """With a class from a library or one defined by the user."""
    storage = Storage("Float", "0", np.zeros(1, np.float32))
    module = Call(name)
    module.state = {"_parameters": {"weight": tensor(storage, (1,), (1,))}, "_modules": {}}
    for saved in (module, {"epoch": 3, "model": module}):
        path = write(tmp_path / "w.pth", saved, [storage])
        check_said(path, rf"whole pickled nn\.Module.*{name}.*torch\.save\(model\.state_dict\(\), ")


def check_said(path, said):
    with pytest.raises(CheckpointError, match=said) as caught:
        weights.read_state_dict(path)
    assert "truncated" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("order", ["<", ">"])
def test_legacy_files_of_big_endian_machines(order, tmp_path):
    """torch itself wrote little-endian values there too; the counts show which order was used."""
    values = np.arange(6, dtype=np.float32)
    storage = Storage("Float", "0", values.astype(f"{order}f4"))
    state = {"a": tensor(storage, (2, 3), (3, 1))}
    path = legacy_file(tmp_path / "w.pth", state, [storage], order, little_endian=False)
    np.testing.assert_array_equal(weights.read_state_dict(path)["a"], values.reshape(2, 3))


def test_zip64(tmp_path, monkeypatch):
    """Python's zipfile writes zip64 records above a size limit, which is lowered here."""
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 20)
    values = np.arange(60, dtype=np.float32)
    storage = Storage("Float", "0", values)
    path = zip_file(tmp_path / "w.pth", {"a": tensor(storage, (60,), (1,))}, [storage])
    assert b"PK\x06\x06" in path.read_bytes()
    np.testing.assert_array_equal(weights.read_state_dict(path)["a"], values)


@pytest.mark.parametrize(
    "dtype", ["uint16", "uint32", "uint64", ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2]
)
@pytest.mark.parametrize("order", ["little", "big"])
def test_types_without_a_storage_class(dtype, order, tmp_path):
    values = np.array([0, 1, 2, 4], dtype)
    raw = values if order == "little" else values.view(f"u{values.itemsize}").byteswap()
    storage = Storage("Untyped", "0", np.frombuffer(raw.tobytes(), np.uint8))
    storage.kind = "storage.Untyped"
    stored = Call(
        "torch._utils._rebuild_tensor_v3",
        *(storage, 0, (4,), (1,), False, {}, Global(f"torch.{values.dtype.name}")),
    )
    path = zip_file(tmp_path / "w.pth", {"a": stored}, [storage], order)
    read = weights.read_state_dict(path)["a"]
    assert read.dtype == values.dtype
    np.testing.assert_array_equal(read.astype(float), values.astype(float))


@pytest.mark.parametrize("write", CONTAINERS)
def test_tensors_without_elements(write, tmp_path):
    storage = Storage("Float", "0", np.zeros(0, np.float32))
    path = write(tmp_path / "w.pth", {"a": tensor(storage, (0, 3), (3, 1))}, [storage])
    assert weights.read_state_dict(path)["a"].shape == (0, 3)


def test_files_of_python_2_and_torch_0_1(tmp_path):
    """An OrderedDict from a list of pairs, and parameters with the tensor in their state."""
    storage = Storage("Float", "3", np.arange(4, dtype=np.float32))
    parameter = Call("torch.nn.parameter.Parameter")
    parameter.state = (tensor(storage, (4,), (1,)), None, False, True, {})
    pairs = Call("collections.OrderedDict", [["conv1.weight", parameter]])
    path = tar_file(tmp_path / "w.pth", pairs, [storage])
    np.testing.assert_array_equal(weights.read_state_dict(path)["conv1.weight"], [0, 1, 2, 3])


@pytest.mark.real_data
def test_reading_imports_nothing_of_torch(real_data, run_imported):
    file = real_data / "cifar10" / "resnet20-12fca82f.th"
    done = run_imported(
        f"import sys, keras_resnet; print(len(keras_resnet.weights.read_state_dict({str(file)!r})))"
        "; print('torch' in sys.modules)",
    )
    assert done.stdout.split() == ["97", "False"], done.stderr


@pytest.mark.parametrize("shared", [1, 2, 3])
def test_a_network_that_is_held_twice_is_one(shared, tmp_path):
    """As when an attack keeps its target; two networks with shared first layers are different."""
    storages = [
        Storage("Float", str(number), np.full(1, number, np.float32)) for number in range(6)
    ]
    parts = ("conv1", "layer1.0.conv1", "layer2.0.conv1")
    state = {
        f"{name}.{part}.weight": tensor(
            storages[place + (offset if place >= shared else 0)], *KERNEL
        )
        for name, offset in (("model", 0), ("attacker.model", 3))
        for place, part in enumerate(parts)
    }
    path = zip_file(tmp_path / "w.pth", state, storages)
    if shared == len(parts):
        assert weights.read_state_dict(path)["layer2.0.conv1.weight"] == 2
    else:
        with pytest.raises(CheckpointError, match=r"prefix='model', prefix='attacker\.model'"):
            weights.read_state_dict(path)


KERNEL = (1,) * 4, (1,) * 4
