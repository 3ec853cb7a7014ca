"""SavedModels, run by TensorFlow as by a server."""

import concurrent.futures
import io
import json
import os
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from hostile_images import many_scans
from PIL import Image
from small_networks import noise, small

import keras_resnet
from keras_resnet import export, features

PREPROCESSING = keras_resnet.Preprocessing(73, 64)
NAMES = ["daisy", "rose & co", "tülip\nred"]
READ = ["daisy", "rose & co", "tülip red"]  # one line each


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    model = small(input_shape=(64, 64, 3))
    preprocessing = keras_resnet.Preprocessing(73, 64)
    folder = tmp_path_factory.mktemp("export") / "model"
    version = export.saved_model(
        model, folder, preprocessing=preprocessing, class_names=NAMES, top_k=2
    )
    return model, preprocessing, version


def encode(pixels, kind, **options):
    stream = io.BytesIO()
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    picture.save(stream, kind, **options)
    return stream.getvalue()


def pixels(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def images():
    for shape, kind in (((80, 100, 3), "JPEG"), ((64, 64, 3), "PNG"), ((200, 70, 3), "BMP")):
        yield encode(pixels(*shape), kind)


def test_both_signatures_in_a_tf1_session(exported):
    """By tensor names, with the tag `serve`, like TensorFlow Serving."""
    model, preprocessing, version = exported
    content = list(images())
    normalised = np.stack([preprocessing(one) for one in content])
    expected = model(normalised).numpy()
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], str(version))
        for name, key, feed in (
            ("serving_default", "image_bytes", content),
            ("tensor", "images", normalised),
        ):
            signature = loaded.signature_def[name]
            outputs = {key: info.name for key, info in signature.outputs.items()}
            answer = session.run(outputs, {signature.inputs[key].name: feed})
            np.testing.assert_allclose(answer["probabilities"], expected, rtol=1e-4, atol=1e-6)
            best = expected.argsort(1)[:, ::-1][:, :2]
            assert answer["classes"].tolist() == [[READ[i].encode() for i in row] for row in best]
            np.testing.assert_allclose(answer["scores"], np.sort(expected)[:, :0:-1], atol=1e-5)
    graph = (version / "saved_model.pb").read_bytes()
    assert b"_XlaMustCompile" not in graph and b"FusedBatchNorm" not in graph
    assert (version / "assets" / "class_names.txt").read_text("utf-8").splitlines() == READ
    # Weights are stored once: files are as large as the weights of the folded network.
    values = sum(file.stat().st_size for file in (version / "variables").iterdir())
    assert values < 1.05 * 4 * model.count_params()


def test_export_json(exported):
    _, _, version = exported
    said = json.loads((version / "export.json").read_text("utf-8"))
    assert said["format"] == "saved_model" and said["class_names"] == READ
    assert said["preprocessing"] == {
        "resize": 73,
        "crop": 64,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "exif": False,
        "interpolation": "bilinear",
        "crop_mode": "center",
    }
    assert said["signature"]["serving_default"]["inputs"] == {
        "image_bytes": {"dtype": "string", "shape": [None]}
    }
    assert said["signature"]["tensor"]["inputs"] == {
        "images": {"dtype": "float32", "shape": [None, 64, 64, 3]}
    }
    assert said["signature"]["tensor"]["outputs"]["classes"] == {
        "dtype": "string",
        "shape": [None, 2],
    }
    assert said["versions"]["tensorflow"] == tf.__version__ and said["error"] < 1e-5
    assert re.fullmatch("[0-9a-f]{64}", said["weights_sha256"]) and said["source"] is None


@pytest.mark.slow
@pytest.mark.parametrize("onednn", ["0", "1"])
def test_outputs_in_a_new_process(onednn, exported, monkeypatch):
    """With and without oneDNN, and without XLA, which the graph does not need."""
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", onednn)
    model, preprocessing, version = exported
    content = list(images())
    expected = model(np.stack([preprocessing(one) for one in content]))
    answers = export.answers_in_new_process(version, content)
    np.testing.assert_allclose(answers["probabilities"], expected, rtol=1e-4, atol=1e-6)


def test_a_process_that_fails_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="could not be run"):
        export.answers_in_new_process(tmp_path / "9", [])


@pytest.fixture(scope="module")
def serve(exported):
    """Returns a function from encoded images to the probabilities of `serving_default`."""
    loaded = tf.saved_model.load(exported[2])
    return lambda content: loaded.signatures["serving_default"](
        image_bytes=tf.constant(content, tf.string)
    )["probabilities"].numpy()


def bmp(picture):
    return encode(picture, "BMP")


UNUSUAL = {
    "one pixel": encode(pixels(1, 1, 3), "PNG"),
    "10000x1": encode(pixels(1, 10_000, 3), "PNG"),
    "1x10000": encode(pixels(10_000, 1, 3), "JPEG"),
    "CMYK": encode(Image.fromarray(pixels(70, 90, 4), "CMYK"), "JPEG"),
    "16 bits": encode(Image.fromarray(pixels(70, 90).astype(np.uint16) * 257), "PNG"),
    "grey": encode(pixels(70, 90), "JPEG"),
    "alpha": encode(pixels(70, 90, 4), "PNG"),
    "palette": encode(Image.fromarray(pixels(70, 90, 3)).quantize(16), "PNG"),
    "animated GIF": encode(
        Image.fromarray(pixels(70, 90, 3)),
        "GIF",
        save_all=True,
        append_images=[Image.new("RGB", (90, 70))],
    ),
    "WebP": encode(pixels(70, 90, 3), "WEBP", lossless=True),
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_unusual_images_are_answered(name, exported, serve):
    """As Pillow decodes the first frame, alone and in a batch with images of other sizes."""
    model, preprocessing, _ = exported
    content = UNUSUAL[name]
    (answer,) = serve([content])
    batch = serve([next(images()), content])
    assert np.isfinite(batch).all()
    np.testing.assert_allclose(batch[1], answer, rtol=1e-4, atol=1e-6)
    picture = Image.open(io.BytesIO(content))
    if picture.mode == "I;16":
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    theirs = preprocessing(encode(picture.convert("RGB"), "PNG"))
    tolerance = 0.05 if name == "CMYK" else 1e-3  # TensorFlow uses another formula for CMYK
    np.testing.assert_allclose(answer, model(theirs[None])[0], atol=tolerance)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no image",
        b"\xff\xd8\xff\xe0",
        encode(pixels(80, 100, 3), "JPEG")[:500],
        encode(pixels(80, 100, 3), "PNG")[:500],
        encode(pixels(80, 100, 3), "BMP")[:500],
        encode(pixels(80, 100, 3), "WEBP")[:50],
        encode(pixels(80, 100, 3), "TIFF"),
        encode(
            Image.fromarray(pixels(80, 100, 3)),
            "WEBP",
            save_all=True,
            append_images=[Image.new("RGB", (100, 80))],
        ),
        many_scans(Image.new("L", (3000, 3000)), 500),
    ],
    ids=[
        *("empty", "text", "JPEG's head", "JPEG", "PNG", "BMP", "WebP", "TIFF", "animated WebP"),
        "many scans",
    ],
)
def test_invalid_images_are_errors(content, exported, serve):
    """The error has a message, and the next request succeeds."""
    with pytest.raises(tf.errors.InvalidArgumentError) as raised:
        serve([next(images()), content])
    assert len(raised.value.message) > 10
    assert serve([next(images())]).shape == (1, 3)


def test_versions_logits_and_backbones(tmp_path):
    classifier = small("basic", classifier_activation=None)
    backbone = small("basic", include_top=False, pooling="avg")
    x = noise(2, 32, 32, 3)
    for number, (model, key) in enumerate(
        ((classifier, "probabilities"), (backbone, "features")), start=1
    ):
        version = export.saved_model(model, tmp_path / "m")
        assert version == tmp_path / "m" / str(number)
        loaded = tf.saved_model.load(version)
        expected = tf.nn.softmax(model(x)) if key == "probabilities" else model(x)
        signatures = {"serving_default", "tensor"} | ({key} - {"probabilities"})
        assert set(loaded.signatures) == signatures
        for name in signatures:
            answer = loaded.signatures[name](images=tf.constant(x))[key]
            np.testing.assert_allclose(answer, expected, rtol=1e-4, atol=1e-5)
    assert sorted(entry.name for entry in (tmp_path / "m").iterdir()) == ["1", "2"]


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ({}, {"class_names": ["one"]}, "each of the model's 3 classes"),
        ({}, {"class_names": "abc"}, "each of the model's 3 classes"),
        ({}, {"class_names": ["a", "\n", "c"]}, "should not contain empty names"),
        ({}, {"top_k": 0}, "top_k should be 1 or more"),
        (
            {"include_top": False},
            {"class_names": ["one"]},
            "returns features, not class probabilities",
        ),
        ({"input_shape": (48, 48, 3)}, {"preprocessing": PREPROCESSING}, "image sizes differ"),
        ({"input_shape": (64, 64, 1)}, {"preprocessing": PREPROCESSING}, "expects 1 channels"),
    ],
)
def test_invalid_arguments(arguments, options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        export.saved_model(small("basic", **arguments), tmp_path / "m", **options)
    assert not (tmp_path / "m").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file"):
        export.saved_model(small("basic"), tmp_path / "file")


@pytest.mark.parametrize(
    "arguments",
    [
        {"include_preprocessing": True, "data_format": "channels_first"},
        pytest.param({"include_preprocessing": True}, marks=pytest.mark.slow),
        pytest.param({"data_format": "channels_first"}, marks=pytest.mark.slow),
        pytest.param({"classifier_activation": "sigmoid"}, marks=pytest.mark.slow),
    ],
)
def test_images_are_prepared_as_the_model_takes_them(arguments, tmp_path):
    """Pixels if the model normalises itself; channels first if the model has that format."""
    model = small("basic", **arguments)
    version = export.saved_model(model, tmp_path, preprocessing=PREPROCESSING)
    content = next(images())
    if "include_preprocessing" in arguments:
        x = PREPROCESSING.pixels(content).numpy().astype(np.float32)
    else:
        x = PREPROCESSING(content).numpy()
    x = x.transpose(2, 0, 1) if "data_format" in arguments else x
    loaded = tf.saved_model.load(version)
    answer = loaded.signatures["serving_default"](image_bytes=tf.constant([content]))
    np.testing.assert_allclose(answer["probabilities"], model(x[None]), rtol=1e-4, atol=1e-6)
    assert export.verify(version, {"image": content}, model).error < 1e-5
    path = tmp_path / "m.onnx"
    if "include_preprocessing" in arguments:
        with pytest.raises(ValueError, match="already contains a normalization"):
            export.onnx(model, path, preprocessing=PREPROCESSING, with_preprocessing=True)


@pytest.mark.slow
def test_names_that_were_changed_are_found(tmp_path):
    model = small("basic")
    version = export.saved_model(
        model, tmp_path, preprocessing=PREPROCESSING, class_names=["a", "b", "c"]
    )
    images_ = {"image": next(images())}
    assert export.verify(version, images_, model).agreement == 1
    said = (version / "export.json").read_text()
    for names, message in (
        (["b", "a", "c"], "the class names in export.json"),
        (["a"], "3 classes, but export.json has names for 1"),
        (["a", "b", "c", "d"], "3 classes, but export.json has names for 4"),
    ):
        changed = json.loads(said) | {"class_names": names}
        (version / "export.json").write_text(json.dumps(changed))
        with pytest.raises(ValueError, match=message):
            export.verify(version, images_, model)
    (version / "export.json").write_text(said)
    (version / "assets" / "class_names.txt").write_text("b\na\nc\n")
    with pytest.raises(ValueError, match="its sha256 differs"):
        export.verify(version, images_, model)


@pytest.mark.slow
def test_concurrent_exports_and_leftovers(tmp_path):
    """Several processes can export at once; leftovers of killed ones are removed after a day."""
    left, fresh = tmp_path / ".old.unfinished", tmp_path / ".new.unfinished"
    for folder in (left, fresh, tmp_path / "²"):
        folder.mkdir()
    os.utime(left, (0, 0))
    model = small("basic")
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        written = list(pool.map(lambda _: export.saved_model(model, tmp_path), range(2)))
    assert {version.name for version in written} == {"1", "2"}
    assert {entry.name for entry in tmp_path.iterdir()} == {"1", "2", "²", ".new.unfinished"}


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [(8, "relu"), (1,)], ids=str)
def test_embeddings_are_no_classes(arguments, tmp_path):
    backbone = small("basic", include_top=False, pooling="avg")
    model = keras.Sequential([backbone, keras.layers.Dense(*arguments)])
    version = export.saved_model(model, tmp_path)
    said = json.loads((version / "export.json").read_text())
    assert said["class_names"] is None
    assert set(said["signature"]["tensor"]["outputs"]) == {"features"}


@pytest.mark.slow
def test_a_pyramid_in_half_precision_answers_in_float32(tmp_path):
    model = small("basic", include_top=False, dtype="mixed_float16")
    pyramid = features.pyramid(model, ("C2", "C3"))
    version = export.saved_model(pyramid, tmp_path, fold=False)
    assert b"FusedBatchNorm" in (version / "saved_model.pb").read_bytes()
    loaded = tf.saved_model.load(version)
    answers = loaded.signatures["features"](images=tf.constant(noise(1, 64, 64, 3)))
    shapes = {name: (value.dtype.name, tuple(value.shape)) for name, value in answers.items()}
    assert shapes == {"C2": ("float32", (1, 16, 16, 64)), "C3": ("float32", (1, 8, 8, 128))}


def test_a_version_is_there_whole_or_not_at_all(tmp_path, monkeypatch):
    """Failures leave nothing; other entries are ignored; wrong outputs are detected."""
    (tmp_path / "7").mkdir()
    (tmp_path / "notes").write_text("")
    model = small("basic")
    folded = export.fold(model)
    folded.layers[-1].set_weights([weight * 1.1 for weight in folded.layers[-1].get_weights()])
    with monkeypatch.context() as patch:
        patch.setattr(export.folding, "fold", lambda model: folded)
        with pytest.raises(ValueError, match="does not reproduce the model's outputs"):
            export.saved_model(model, tmp_path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["7", "notes"]
    assert export.saved_model(model, tmp_path) == tmp_path / "8"
