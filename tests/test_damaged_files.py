"""Damaged files: they are either usable, or an error names them."""

import json
import zipfile

import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf
from small_networks import small

from keras_resnet import Preprocessing, weights
from keras_resnet.data import DataError, tfrecords
from keras_resnet.export import record
from keras_resnet.files import read_json
from keras_resnet.trained.fingerprint import Fingerprint
from keras_resnet.trained.run import Run
from keras_resnet.weights import description

IMAGE = tf.io.encode_png(np.zeros((30, 40, 3), np.uint8)).numpy()
RUN = {
    "class_indices.json": {"0": "a", "1": "b", "2": "c"},
    "recipe.json": {
        **{"resize": 36, "image_size": 32, "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]},
        **{"exif": False, "data": "photos", "validation_split": 0.2, "seed": 0},
    },
}
RECORD = {
    **{"format": "onnx", "weights_sha256": "0" * 64, "class_names": ["a", "b"], "file": "m.onnx"},
    "preprocessing_inside": "none",
    "preprocessing": {"resize": 36, "crop": 32, "mean": [0.5] * 3, "std": [0.2] * 3, "exif": True},
}
HUB = {
    "timm/config.json": {
        **{"architecture": "resnet18", "label_names": ["a", "b"]},
        "pretrained_cfg": {
            **{"input_size": [3, 32, 48], "crop_pct": 0.9, "crop_mode": "squash"},
            **{"mean": [0.5] * 3, "std": [0.2] * 3, "interpolation": "bicubic"},
        },
    },
    "mine/config.json": {"keras_resnet": {"preprocessing": {"resize": 36, "crop": 32}}},
    "transformers/config.json": {
        **{"model_type": "resnet", "architectures": ["ResNetForImageClassification"]},
        "id2label": {"0": "a", "1": "b"},
    },
    "transformers/preprocessor_config.json": {
        **{"image_processor_type": "BitImageProcessor", "resample": 3, "do_center_crop": True},
        **{"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}},
        **{"image_mean": [0.5] * 3, "image_std": [0.2] * 3, "do_rescale": True},
    },
}
SHARDS = {"content": "0" * 64, "shards": 1, "class_names": ["a"], "counts": [0], "skipped": {}}


def damaged(values):
    """Yields damaged contents of a JSON file with an object."""
    text = json.dumps(values).encode()
    yield from (b"", b"\xff\xfe", text[: len(text) // 2], text + b"x", b"{}")
    yield from (b"[]", b"null", b"1", b'"daisy"', b"1" * 5000)
    yield from (b"[" * 100_000, b'{"a": ' * 100_000)
    for name, value in values.items():
        others = [None, -1, 2**70, float("nan"), 0.5, "x", [], [None], ["x"], {"a": 1}, True]
        if isinstance(value, dict):
            others += [{**value, key: other} for key in value for other in list(others)]
        if isinstance(value, list):
            others += [[*value[1:], other] for other in list(others)] + [[*value, *value]]
        yield json.dumps({key: kept for key, kept in values.items() if key != name}).encode()
        yield from (json.dumps({**values, name: other}).encode() for other in others)


def check(path, values, read, use, error, advice):
    """Reads all damaged contents: the result can be used, or the error names the file."""
    path.write_text(json.dumps(values))
    use(read())
    refused = 0
    for content in damaged(values):
        path.write_bytes(content)
        try:
            found = read()
        except error as said:
            assert str(path) in str(said) and advice in str(said), content[:300]
            refused += 1
        else:
            use(found)
    assert refused > 20
    with path.open("wb") as file:
        file.truncate(2**40)  # a sparse file, without data on the disk
    with pytest.raises(error, match="larger than 67,108,864 bytes"):
        read()


def is_names(values):
    return len(values) > 0 and all(isinstance(value, str) for value in values)


@pytest.mark.parametrize("name", RUN)
def test_files_of_a_run(name, tmp_path):
    (tmp_path / "best.keras").touch()
    for file, values in RUN.items():
        (tmp_path / file).write_text(json.dumps(values))

    def use(run):
        assert is_names(run.class_names)
        found = run.preprocessing.batch({"image": IMAGE})
        assert found.shape == (1, *[run.preprocessing.crop] * 2, 3) and np.isfinite(found).all()
        assert isinstance(run.preprocessing.exif, bool)

    read = lambda: Run.open(tmp_path)  # noqa: E731
    check(tmp_path / name, RUN[name], read, use, ValueError, "train again")
    (tmp_path / name).write_text('{\n  "0": daisy\n}')
    with pytest.raises(ValueError, match=f"{name} is damaged: line 2, column 8"):
        read()


def test_record_of_an_export(tmp_path):
    def use(said):
        assert said["class_names"] is None or is_names(said["class_names"])
        preprocessing = record.preprocessing_of(said)
        assert preprocessing is None or np.isfinite(preprocessing.batch({"image": IMAGE})).all()

    read = lambda: record.read(tmp_path / "m.onnx")  # noqa: E731
    check(tmp_path / "m.onnx.export.json", RECORD, read, use, ValueError, "xport")


@pytest.mark.parametrize("name", HUB)
def test_files_of_a_hub_repository(name, tmp_path):
    """Hugging Face repositories: the descriptions of preprocessing and classes."""
    file = name.rpartition("/")[2]
    for other in ("config.json", file):
        (tmp_path / other).write_text(json.dumps(HUB.get(f"transformers/{other}")))

    def read():
        return weights.preprocessing_of(tmp_path), description.class_names_of(tmp_path)

    def use(found):
        preprocessing, names = found
        assert preprocessing is None or np.isfinite(preprocessing.batch({"image": IMAGE})).all()
        assert names is None or is_names(names)

    error = weights.CheckpointError
    check(tmp_path / file, HUB[name], read, use, error, "Download it again")


def test_index_of_shards(tmp_path):
    (tmp_path / "00000-of-00001.tfrecord").touch()

    def read():
        try:
            return tfrecords(tmp_path)
        except DataError as error:
            if str(tmp_path / "shards.json") in str(error):
                raise
            return None  # a valid index of other shards: the error is about the shards

    check(tmp_path / "shards.json", SHARDS, read, lambda _: None, DataError, "keras-resnet shards")


def test_run_with_another_network(tmp_path):
    for file, values in RUN.items():
        (tmp_path / file).write_text(json.dumps(values))
    small(classes=4).save(tmp_path / "best.keras")
    with pytest.raises(
        ValueError, match=r"class_indices\.json names 3 classes, and best\.keras has 4"
    ):
        Run.open(tmp_path).model()


def test_run_with_another_image_size(tmp_path):
    for file, values in RUN.items():
        (tmp_path / file).write_text(json.dumps(values))
    small(classes=3, input_shape=(64, 64, 3)).save(tmp_path / "best.keras")
    with pytest.raises(
        ValueError, match=r"recipe\.json has images of 32 px, and best\.keras takes"
    ):
        Run.open(tmp_path).model()


def test_network_of_a_run(tmp_path):
    """Truncated, empty, another file, a changed byte, or a zip archive with other contents."""
    for file, values in RUN.items():
        (tmp_path / file).write_text(json.dumps(values))
    best = tmp_path / "best.keras"
    small(classes=3, input_shape=(32, 32, 3)).save(best)
    run, whole = Run.open(tmp_path), best.read_bytes()
    assert run.model().count_params()
    contents = [b"", b"no zip", whole[:-9], whole[: len(whole) // 2]]
    contents += [whole.replace(b"BottleneckBlock", b"BottleneckBlick")]  # a wrong CRC-32
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("config.json", "{}")
    with zipfile.ZipFile(best) as parts, zipfile.ZipFile(tmp_path / "class.zip", "w") as archive:
        for name in parts.namelist():
            archive.writestr(name, parts.read(name).replace(b"BottleneckBlock", b"Stranger"))
    contents += [(tmp_path / name).read_bytes() for name in ("other.zip", "class.zip")]
    for content in contents:
        best.write_bytes(content)
        with pytest.raises(ValueError, match="train again") as found:
            run.model()
        assert str(best) in str(found.value) and "not found" not in str(found.value)
        assert len(str(found.value)) < 600


@pytest.mark.parametrize(
    "said", ["[" * 100_000, '{"classes": [], "groups": [["a", 1e400]]}', "[1]"]
)
def test_fingerprint_of_data(said, tmp_path):
    arrays = {part: np.zeros(1, np.uint64) for part in ("train", "val")}
    safetensors.numpy.save_file(arrays, tmp_path / "data.safetensors", {"listed": said})
    with pytest.raises(DataError, match=r"data\.safetensors cannot be read"):
        Fingerprint.read(tmp_path)


def test_long_values_are_shortened(tmp_path):
    (tmp_path / "my.json").write_text(json.dumps({"std": "x" * 10_000}))
    with pytest.raises(ValueError, match=r"my\.json is invalid") as found:
        read_json(tmp_path / "my.json", lambda said: Preprocessing(**said), advice="Mend it.")
    assert len(str(found.value)) < 1000 and str(found.value).endswith("Mend it.")


def test_recipe_file(tmp_path, command_here):
    for text, said in (
        ('{"epochs": 3,}', "my.json is damaged: line 1, column"),
        (
            '{"epoch": 3}',
            "my.json is invalid: A recipe has no field epoch. Did you mean",
        ),
        ('{"epochs": "many"}', "my.json is invalid"),
        ("[]", "my.json is invalid: expected an object"),
    ):
        (tmp_path / "my.json").write_text(text)
        done = command_here("train", "--recipe", "my.json", "--data", "photos")
        assert done.returncode == 1 and said in done.stderr, done.stderr
