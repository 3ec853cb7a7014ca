"""Failed or damaged exports: an error says why, and existing files are kept."""

import json
import os
import resource
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_networks import SUFFIXES, noise, small

import keras_resnet
from keras_resnet import export, weights
from keras_resnet.export import comparison

pytestmark = pytest.mark.filterwarnings("ignore")  # warnings of the converters about their own code


def slow(*names):
    return [pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.parametrize("format", ["onnx", *slow("saved_model", "litert")])
def test_a_wrong_export_of_a_saturated_network_is_refused(format, tmp_path, monkeypatch):
    """Its probabilities are all near 0 or 1, which hides small errors in earlier layers."""
    model = small("basic")
    head = model.layers[-1]
    head.set_weights([values * 1000 for values in head.get_weights()])
    best = np.max(model(comparison.sample((64, 64, 3), "float32")), axis=1)
    assert np.median(best) > 0.999
    right = export.folding._folded
    monkeypatch.setattr(
        export.folding, "_folded", lambda *layers: [values * 1.005 for values in right(*layers)]
    )
    with pytest.raises(ValueError, match="does not reproduce the model's outputs"):
        getattr(export, format)(model, tmp_path / f"m{SUFFIXES.get(format, '')}")
    assert not list(tmp_path.glob("m*/*"))


@pytest.mark.parametrize("format", ["onnx", *slow("saved_model", "litert", "openvino")])
def test_a_damaged_file_is_not_verified(format, tmp_path):
    model, preprocessing = small("basic"), keras_resnet.Preprocessing(36, 32)
    path = getattr(export, format)(model, tmp_path / f"m{SUFFIXES.get(format, '')}")
    images = {"grey": tf.io.encode_png(np.full((40, 40, 3), 128, np.uint8)).numpy()}
    export.verify(path, images, model, preprocessing=preprocessing).check(path)
    file = next(path.glob("variables/*.data*")) if path.is_dir() else path
    file = file.with_suffix(".bin") if file.suffix == ".xml" else file
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match="its sha256 differs"):
        export.verify(path, images, model, preprocessing=preprocessing)
    # If the record is changed to match, running the file fails with one line.
    file.write_bytes(content[: len(content) // 2])
    change_record(path, files_sha256=export.record.file_hashes(path))
    with pytest.raises(ValueError, match=r"m[^ ]* cannot be run: ") as error:
        export.verify(path, images, model, preprocessing=preprocessing)
    assert "\n" not in str(error.value)


def change_record(path, **changes):
    place = export.record.place(path)
    place.write_text(json.dumps(json.loads(place.read_text()) | changes))


def test_names_of_other_classes_are_not_verified(tmp_path):
    """In files, without class names of their own, the number is checked; see also SavedModels."""
    model, preprocessing = small("cifar"), keras_resnet.Preprocessing(36, 32)
    path = export.onnx(model, tmp_path / "m.onnx", preprocessing=preprocessing)
    images = {"grey": tf.io.encode_png(np.full((40, 40, 3), 128, np.uint8)).numpy()}
    assert export.verify(path, images, model).agreement == 1
    for names in (["a"], ["a", "b", "c", "d"], None):
        change_record(path, class_names=names)
        with pytest.raises(
            ValueError, match=f"3 classes, but export.json has names for {len(names or ())}"
        ):
            export.verify(path, images, model)


def test_errors_of_the_new_process_are_one_line(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"no model")
    with pytest.raises(
        ValueError, match=r"m\.onnx could not be run: .*INVALID_PROTOBUF.*"
    ) as error:
        export.answers_in_new_process(tmp_path / "m.onnx", noise(1, 64, 64, 3))
    assert "\n" not in str(error.value)


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "writer",
    [
        *("onnx", ".pth", ".safetensors", ".weights.h5", ".keras"),
        *slow("saved_model", "litert", "openvino"),
    ],
)
def test_a_full_disk_leaves_what_was_there(writer, tmp_path):
    """The kernel rejects the write, for which each library has its own exception."""
    model = small("cifar")
    path = tmp_path / f"m{SUFFIXES.get(writer, writer if writer.startswith('.') else '')}"

    def write():
        return (
            weights.save(model, path) if writer[0] == "." else getattr(export, writer)(model, path)
        )

    write()
    before = contents(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (max(map(len, before.values())) // 2, limits[1]))
    try:
        with pytest.raises(OSError, match=r"File too large|the disk may be full") as error:
            write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(path) in str(error.value)
    assert contents(tmp_path) == before


def test_a_disk_full_while_writing_the_record_keeps_the_existing_file(tmp_path, monkeypatch):
    path = export.onnx(small("cifar"), tmp_path / "m.onnx")
    before = contents(tmp_path)
    monkeypatch.setattr(export.record, "write_text", lambda path, text: (tmp_path / "a/b").touch())
    with pytest.raises(FileNotFoundError):
        export.onnx(small("cifar", seed=1), path)
    assert contents(tmp_path) == before


def test_a_record_that_cannot_be_written_leaves_no_file(tmp_path):
    with pytest.raises(OSError, match="absent"):
        export.onnx(small("basic"), tmp_path / "m.onnx", source=tmp_path / "absent")
    assert os.listdir(tmp_path) == []
    (tmp_path / "saved_model.pb").write_text("")
    with pytest.raises(ValueError, match="is a SavedModel"):
        export.onnx(small("basic"), tmp_path / "m.onnx")


def test_a_wrong_file_is_never_written(tmp_path, monkeypatch):
    """The existing file is kept, and the error says what is wrong."""
    model = small("basic")
    target = tmp_path / "m.onnx"
    target.write_text("before")
    original = keras.Model.export

    def broken(self, path, **options):
        original(self, path, **options)
        content = open(path, "rb").read()
        open(path, "wb").write(content[: len(content) // 2])

    def wrong(self, path, **options):
        self.set_weights([1.1 * weight for weight in self.get_weights()])
        original(self, path, **options)

    for fault in (broken, wrong):
        monkeypatch.setattr(keras.Model, "export", fault)
        with pytest.raises(Exception) as raised:  # an error of the runtime or of the package
            export.onnx(model, target)
        assert fault is broken or "does not reproduce the model's" in str(raised.value)
        assert os.listdir(tmp_path) == ["m.onnx"] and target.read_text() == "before"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, f: export.onnx(m, f / "m.bin"), "end in .onnx"),
        (lambda m, f: export.litert(m, f / "m.onnx"), "end in .tflite"),
        (lambda m, f: export.onnx(m, f / "no" / "m.onnx"), "does not exist"),
        (lambda m, f: export.onnx(m, f / "m.onnx", quantize="int4"), "'int8'"),
        (lambda m, f: export.litert(m, f / "m.tflite", quantize="int4"), "one of"),
        (lambda m, f: export.onnx(m, f / "m.onnx", quantize="int8"), "calibration_data"),
        (
            lambda m, f: export.litert(
                m, f / "m.tflite", quantize="int8", calibration_data=noise(2, 8, 8, 4)
            ),
            "Received: an array of float32",
        ),
        (
            lambda m, f: export.onnx(m, f / "m.onnx", calibration_data=noise(2, 64, 64, 3)),
            "needs quantize='int8'",
        ),
        (
            lambda m, f: export.onnx(
                m, f / "m.onnx", quantize="int8", calibration_data=np.ones((9, 64, 64, 3), int)
            ),
            "Received: an array of int64",
        ),
        (
            lambda m, f: export.litert(
                m, f / "m.tflite", quantize="int8", calibration_data=np.zeros((9, 64, 64, 3))
            ),
            "constant images",
        ),
        (
            lambda m, f: export.onnx(
                m,
                f / "m.onnx",
                quantize="int8",
                calibration_data=np.full((9, 64, 64, 3), np.nan),
            ),
            "NaN or infinite",
        ),
        (lambda m, f: export.onnx(m, f / "m.onnx", class_names=["a"]), "3 classes"),
        (lambda m, f: export.onnx(m, f / "m.onnx", image_size=16), "at least 32"),
        (
            lambda m, f: export.onnx(
                m, f / "m.onnx", image_size=96, preprocessing=keras_resnet.Preprocessing(73, 64)
            ),
            "image sizes differ",
        ),
    ],
)
def test_invalid_arguments_of_exports(call, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        call(small("basic"), tmp_path)
    assert os.listdir(tmp_path) == []


def test_without_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    with pytest.raises(ImportError, match=r"pip install 'keras3-resnet\[export\]'"):
        export.onnx(small("basic"), tmp_path / "m.onnx")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ImportError, match=r"pip install 'keras3-resnet\[openvino\]'"):
        export.openvino(small("basic"), tmp_path / "m.xml")
