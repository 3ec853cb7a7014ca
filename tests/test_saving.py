"""Saving weights, bit for bit."""

import struct
import zipfile

import keras
import pytest

import keras_resnet
from keras_resnet import weights
from keras_resnet.weights.saving import SAVED_SUFFIXES


@pytest.fixture(scope="module")
def model():
    return keras_resnet.ResNet20(classes=7)


@pytest.mark.parametrize("suffix", SAVED_SUFFIXES)
def test_round_trip(suffix, model, tmp_path):
    path = weights.save(model, tmp_path / f"w{suffix}")
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    check_equal(model, keras_resnet.ResNet20(classes=7, weights=path))


@pytest.mark.parametrize(
    "dtype",
    [
        *("bfloat16", "mixed_float16"),
        *(pytest.param(dtype, marks=pytest.mark.slow) for dtype in ("float16", "float64")),
    ],
)
def test_round_trip_of_types(dtype, tmp_path):
    model = keras_resnet.ResNet20(classes=7, dtype=dtype, name_prefix="left_")
    for suffix in (".pth", ".safetensors"):
        path = weights.save(model, tmp_path / f"w{suffix}")
        stored = weights.read_state_dict(path)
        assert stored["bn1.num_batches_tracked"].shape == ()  # as in PyTorch
        stored = stored["conv1.weight"]
        assert stored.dtype.name == ("float32" if dtype == "mixed_float16" else dtype)
        check_equal(model, keras_resnet.ResNet20(classes=7, dtype=dtype, weights=path))


def check_equal(model, other):
    expected, state = weights.to_state_dict(model), weights.to_state_dict(other)
    assert state.keys() == expected.keys()
    for key, value in state.items():
        assert value.dtype == expected[key].dtype
        assert value.tobytes() == expected[key].tobytes(), key


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    model = keras_resnet.ResNet20(classes=7)
    path = weights.save(model, tmp_path / "w.pth")
    before = path.read_bytes()
    kernel = model.get_layer("conv1").kernel
    kernel.assign(keras.ops.zeros(kernel.shape))
    monkeypatch.setattr("zipfile.ZipFile.writestr", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        weights.save(model, path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["w.pth"]


@pytest.mark.parametrize("name, said", [("w.onnx", "should end in one of"), ("no/w.pth", "Create")])
def test_invalid_paths(name, said, model, tmp_path):
    with pytest.raises(ValueError, match=said):
        weights.save(model, tmp_path / name)


def test_numbers_lie_aligned_in_the_file(model, tmp_path):
    """torch.load(mmap=True) needs it; PyTorch's own writer aligns to 64 bytes."""
    path = weights.save(model, tmp_path / "w.pth")
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        for entry in archive.infolist():
            start = entry.header_offset + 30
            start += sum(struct.unpack("<2H", content[start - 4 : start]))
            assert start % 64 == 0
