"""Reading files of torch.save without torch, and loading them into models."""

import io
import logging
import os
import pickle
import struct
import zipfile

import ml_dtypes
import numpy as np
import pytest
from golden.rule import array

import keras_resnet
from keras_resnet import weights
from keras_resnet.weights import CheckpointError, torch_file


class Global:
    """Pickles as the bare name of a global."""

    def __init__(self, name):
        self.name = name


class Call:
    """Pickles as a call of a global."""

    def __init__(self, name, *args):
        self.function, self.args = Global(name), args


class Storage:
    """Pickles as a persistent id."""

    def __init__(self, kind, key, values, view=()):
        self.kind, self.key, self.values, self.view = kind, key, values, view


class TorchPickler(pickle._Pickler):
    """Writes what torch.save writes, opcode by opcode; Python's own pickler is the engine."""

    def persistent_id(self, value):
        if isinstance(value, Storage):
            kind = Global(f"torch.{value.kind}Storage")
            return ("storage", kind, value.key, "cpu", len(value.values), *value.view)
        return None

    def save(self, value, save_persistent_id=True):
        if isinstance(value, Global):
            module, name = value.name.rsplit(".", 1)
            self.write(f"c{module}\n{name}\n".encode())
        elif isinstance(value, Call):
            self.save(value.function)
            self.save(value.args)
            self.write(pickle.REDUCE)
        else:
            super().save(value, save_persistent_id)


def pickled(value):
    stream = io.BytesIO()
    TorchPickler(stream, protocol=2).dump(value)
    return stream.getvalue()


def tensor(storage, shape, strides, offset=0, function="_rebuild_tensor_v2"):
    return Call(f"torch._utils.{function}", storage, offset, shape, strides, False, {})


def zip_file(path, value, storages, order=None, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("weights/data.pkl", pickled(value))
        if order:
            archive.writestr("weights/byteorder", order)
        for storage in storages:
            archive.writestr(f"weights/data/{storage.key}", storage.values.tobytes())
        archive.writestr("weights/version", "3\n")
    return path


def legacy_file(path, value, storages):
    info = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    parts = [torch_file.LEGACY_MAGIC, 1001, info, value, [s.key for s in storages]]
    content = b"".join(pickled(part) for part in parts)
    for storage in storages:
        content += struct.pack("<q", len(storage.values)) + storage.values.tobytes()
    path.write_bytes(content)
    return path


def contiguous(shape):
    return tuple(int(np.prod(shape[axis + 1 :])) for axis in range(len(shape)))


def state_dict_file(path, state, write=zip_file):
    storages = [
        Storage("Float", str(number), values.ravel())
        for number, values in enumerate(state.values())
    ]
    tensors = {
        key: tensor(storage, values.shape, contiguous(values.shape))
        for (key, values), storage in zip(state.items(), storages, strict=True)
    }
    return write(path, tensors, storages)


@pytest.fixture
def resnet18_state():
    shapes = weights.to_state_dict(keras_resnet.ResNet18(classes=7))
    return {key: array(key, value.shape) for key, value in shapes.items()}


@pytest.mark.parametrize("write", [zip_file, legacy_file])
def test_both_containers(write, tmp_path, resnet18_state):
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
    with pytest.raises(CheckpointError, match=f"a CIFAR resnet{6 * blocks + 2} with 10 classes"):
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


@pytest.mark.parametrize("write", [zip_file, legacy_file])
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


@pytest.mark.parametrize("wrapper", ["state_dict", "model_state_dict", "model", "net"])
def test_wrappers_and_prefixes(wrapper, tmp_path):
    storage = Storage("Float", "0", np.arange(6, dtype=np.float32))
    state = {"module._orig_mod.conv1.weight": tensor(storage, (2, 3), (3, 1))}
    namespace = Call("argparse.Namespace")
    scalar = Call("numpy.core.multiarray.scalar", Call("numpy.dtype", "f8", 0, 1), "x")
    saved = {wrapper: state, "epoch": 3, "args": namespace, "best": scalar}
    path = zip_file(tmp_path / "w.pth", saved, [storage])
    assert list(weights.read_state_dict(path)) == ["conv1.weight"]


def test_safetensors(tmp_path, resnet18_state):
    from safetensors.numpy import save_file

    save_file(resnet18_state, tmp_path / "w.safetensors")
    model = keras_resnet.ResNet18(weights=tmp_path / "w.safetensors", classes=7)
    for key, value in weights.to_state_dict(model).items():
        np.testing.assert_array_equal(value, resnet18_state[key])


def test_an_attack_is_refused_and_runs_nothing(tmp_path):
    mark = tmp_path / "ran"
    for name in ("os.system", "posix.system", "builtins.eval", "subprocess.Popen"):
        storage = Storage("Float", "0", np.zeros(1, np.float32))
        attack = {"a": tensor(storage, (1,), (1,)), "b": Call(name, f"touch {mark}")}
        for write in (zip_file, legacy_file):
            with pytest.raises(CheckpointError, match=f"{name}.*nothing of it was run"):
                weights.read_state_dict(write(tmp_path / "w.pth", attack, [storage]))
    path = tmp_path / "w.pth"
    path.write_bytes(pickle.dumps(OsSystem(f"touch {mark}"), 2))
    with pytest.raises(CheckpointError, match="posix.system"):
        weights.read_state_dict(path)
    assert not mark.exists()


class OsSystem:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize(
    "shape, strides, offset",
    [
        ((7,), (1,), 0),
        ((2, 3), (4, 1), 0),
        ((6,), (1,), 1),
        ((2,), (2**61,), 0),
        ((2**61, 2**61), (1, 1), 0),
        ((6,), (-1,), 5),
        ((-1,), (1,), 0),
        ((1,), (1,), -1),
        ((3, 3), (0, 1), 0),
        ((True,), (1,), 0),
        ("6", (1,), 0),
        ((2, 3), (1,), 0),
    ],
)
def test_tensors_beyond_their_storage_are_refused(shape, strides, offset, tmp_path):
    storage = Storage("Float", "0", np.arange(6, dtype=np.float32))
    path = zip_file(tmp_path / "w.pth", {"a": tensor(storage, shape, strides, offset)}, [storage])
    with pytest.raises(CheckpointError):
        weights.read_state_dict(path)


def test_a_storage_shorter_than_it_claims_is_refused(tmp_path):
    claimed = Storage("Float", "0", np.zeros(1000, np.float32))
    held = Storage("Float", "0", np.zeros(6, np.float32))
    state = {"a": tensor(claimed, (1000,), (1,))}
    for write in (zip_file, legacy_file):
        with pytest.raises(CheckpointError, match="bytes"):
            weights.read_state_dict(write(tmp_path / "w.pth", state, [held]))


def test_a_nested_key_that_takes_for_ever_is_refused(tmp_path):
    key = ()
    for _ in range(200):
        key = (key, key)
    bomb = pickled(["placeholder"])[:2] + b"}" + pickled(key)[2:-1] + b"Ns."
    with zipfile.ZipFile(tmp_path / "w.pth", "w") as archive:
        archive.writestr("w/data.pkl", bomb)
    with pytest.raises(CheckpointError, match="tuple as the key"):
        weights.read_state_dict(tmp_path / "w.pth")


@pytest.mark.parametrize("write", [zip_file, legacy_file])
def test_every_truncation_is_refused(write, tmp_path):
    storage = Storage("Float", "0", np.arange(60, dtype=np.float32))
    path = write(tmp_path / "w.pth", {"conv1.weight": tensor(storage, (60,), (1,))}, [storage])
    content = path.read_bytes()
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match="w.pth"):
            weights.read_state_dict(path)


@pytest.mark.parametrize(
    "content, said",
    [
        (b"<!DOCTYPE html><html>not found</html>", "not a PyTorch file"),
        (b"", "is empty"),
        (pickle.dumps({"a": 1}, 2), "not one of torch.save"),
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
    with pytest.raises(CheckpointError, match="TorchScript.*state_dict"):
        weights.read_state_dict(path)
    module = Call("torchvision.models.resnet.ResNet")
    with pytest.raises(CheckpointError, match="nn.Module.*state_dict"):
        weights.read_state_dict(zip_file(path, module, []))
    with pytest.raises(CheckpointError, match="compressed"):
        weights.read_state_dict(zip_file(path, state, [storage], compression=zipfile.ZIP_DEFLATED))


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


@pytest.mark.parametrize("name", keras_resnet.list_models())
def test_every_architecture_is_known_by_its_keys(name):
    from keras_resnet.weights.state_dict import guess

    state = weights.to_state_dict(keras_resnet.create(name, classes=5))
    assert guess(state) == f"a {name} with 5 classes"


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
        with pytest.raises(CheckpointError, match="conv1.weight"):
            weights.load(model, path)
        weights.load(model, path, first_conv="adapt")
        adapted = weights.to_state_dict(model)["conv1.weight"]
        # The same grey in all channels gives the same answer.
        np.testing.assert_allclose(adapted.sum(1), kernel.sum(1), atol=1e-5)


def test_a_damaged_keras_file(tmp_path):
    (tmp_path / "m.keras").write_bytes(b"PK\x03\x04 no")
    (tmp_path / "m.weights.h5").write_bytes(b"no")
    for name in ("m.keras", "m.weights.h5"):
        with pytest.raises(CheckpointError, match=name):
            keras_resnet.ResNet18(weights=tmp_path / name)
