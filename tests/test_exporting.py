"""Exporting and verifying runs and weights with the command."""

import csv
import hashlib
import json
import pickle

import keras
import numpy as np
import pytest
from PIL import Image
from small_networks import NAMES, noise, small, tiny_rows, write_run

import keras_resnet
from keras_resnet import export, trained, training, weights
from keras_resnet.export import run_exported


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder with the files that exports read."""
    folder = tmp_path_factory.mktemp("exporting") / "run"
    write_run(folder)
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for number in range(3):
        pixels = rng.integers(0, 256, (50 + number, 40, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    (folder / "broken.jpg").write_text("no image")
    return folder


@pytest.fixture
def tiny():
    """Replaces resnet18 and resnet20 by tiny networks."""
    with tiny_rows():
        yield


INT8 = ("--quantize", "int8", "--calibration-data")


def slow(*arguments):
    return pytest.param(*arguments, marks=pytest.mark.slow)


@pytest.mark.filterwarnings("ignore")  # warnings of the converters about their own code
@pytest.mark.parametrize(
    "options, path, inside",
    [
        (("--warmup", "--top", 2, "--no-fold"), "saved_model/1", "all"),
        (("--format", "onnx"), "onnx/model.onnx", "none"),
        (
            ("--format", "onnx", "--with-preprocessing", *INT8),
            "onnx_int8/model.onnx",
            "normalisation",
        ),
        slow(("--format", "litert"), "litert/model.tflite", "none"),
        slow(
            ("--format", "litert", "--quantize", "dynamic"), "litert_dynamic/model.tflite", "none"
        ),
        slow(("--format", "litert", *INT8), "litert_int8/model.tflite", "none"),
        slow(("--format", "openvino"), "openvino/model.xml", "none"),
    ],
    ids=lambda value: value if isinstance(value, str) and "/" in value else "",
)
def test_every_format_of_a_run(options, path, inside, run, photos, command_here):
    images = sorted(photos.glob("*.png"))
    model = trained.Network.from_run(run).model
    digest = hashlib.sha256((run / "best.keras").read_bytes()).hexdigest()
    done = command_here("export", run, *options, *([photos] if options[-3:] == INT8 else []))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith(f"{run / path}: compared with the model on ")
    said = export.record.read(run / path)
    assert said["preprocessing_inside"] == inside
    assert said["class_names"] == NAMES and said["preprocessing"]["mean"] == [0.5, 0.4, 0.3]
    assert said["source"] == {"file": "best.keras", "sha256": digest}
    side = None if path.startswith("saved_model") else 32
    assert said["signature"]["tensor"]["inputs"]["images"]["shape"] == [None, side, side, 3]
    done = command_here("verify", run / path, *images, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["images"] == 3 and found["agreement"] == 1
    assert found["error"] < (1e-4 if said["tolerance"] else 0.2)
    if "--warmup" in options:
        assert (run / path / "assets.extra/tf_serving_warmup_requests").is_file()
    if path == "onnx/model.onnx":
        x = noise(2, 32, 32, 3)
        found = run_exported.load(run / path)(x)["probabilities"]
        np.testing.assert_allclose(found, model(x), atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_a_file_of_weights(tmp_path, photos, command_here, tiny):
    """The number of classes is that of the head; no training is needed."""
    model = keras_resnet.ResNet20(classes=7)
    weights.save(model, tmp_path / "w.pth")
    named = ("--model", "resnet20", "--weights", "w.pth")
    done = command_here(
        *("export", *named, "--image-size", 64, "--any-size"),
        *("--format", "onnx", "-o", "out/m.onnx", "--json"),
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["path"] == "out/m.onnx" and said["class_names"] == list(map(str, range(7)))
    assert said["preprocessing"]["resize"] == said["preprocessing"]["crop"] == 64
    assert said["signature"]["tensor"]["inputs"]["images"]["shape"] == [None, None, None, 3]
    image = photos / "0.png"
    done = command_here("verify", "out/m.onnx", image, *named)
    assert done.returncode == 0, done.stderr
    other = weights.save(keras_resnet.ResNet20(classes=7), tmp_path / "other.pth")
    for arguments, message in (
        (("verify", "out/m.onnx", image, *named[:3], other), "with other weights"),
        (("verify", "out/m.onnx", image), "no finished run in runs"),
        (("verify", "out/m.onnx", photos / "broken.jpg", *named), "broken.jpg cannot be decoded"),
        (("verify", "m.onnx", image, *named), "m.onnx does not exist"),
        (("verify", photos, image, *named), "is not an export"),
        (("export", *named, "--format", "onnx"), "output is missing"),
        (("export", *named, "--format", "tflite", "-o", "x"), "format should be one of"),
        (
            ("export", *named, "--format", "onnx", "--no-fold", "-o", "x.onnx"),
            "fold needs the format",
        ),
        (("export", *named, "--quantize", "int8", "-o", "x"), "quantize needs the format"),
        (
            ("export", *named, "--format", "onnx", "--quantize", "dynamic", "-o", "x.onnx"),
            "quantize",
        ),
        (
            ("export", *named, "--format", "onnx", "--quantize", "int8", "-o", "x.onnx"),
            "--calibration-data",
        ),
        (("export", "nowhere"), "is not a run folder"),
        (("export",), "no finished run in runs"),
    ):
        done = command_here(*arguments)
        assert done.returncode == 1, arguments
        last = done.stderr.splitlines()[-1]
        assert last.startswith("Error: ") and message in last, done.stderr
    content = (tmp_path / "out/m.onnx").read_bytes()
    (tmp_path / "out/m.onnx").write_bytes(content[: len(content) // 2])
    done = command_here("verify", "out/m.onnx", image, *named)
    assert done.returncode == 1 and "out/m.onnx does not match" in done.stderr, done.stderr
    (tmp_path / "out/m.onnx.export.json").write_text('{"format": "on')
    done = command_here("verify", "out/m.onnx", image, *named)
    assert done.returncode == 1 and "out/m.onnx.export.json is damaged" in done.stderr, done.stderr
    there = sorted(entry.name for entry in (tmp_path / "out").iterdir())
    assert there == ["m.onnx", "m.onnx.export.json"]


def test_predictions_with_a_weights_file(tmp_path, photos, command_here, tiny):
    model = keras_resnet.ResNet20(classes=4)
    weights.save(model, tmp_path / "w.pth")
    images = sorted(photos.glob("*.png"))[:2]
    named = ("--model", "resnet20", "--weights", "w.pth")
    done = command_here("predict", *images, *named, "--json")
    assert done.returncode == 0, done.stderr
    inputs = keras_resnet.Preprocessing(32, 32).batch({i: i.read_bytes() for i in images})
    for row, expected in zip(json.loads(done.stdout), model.predict(inputs), strict=True):
        assert row["classes"] == [str(index) for index in np.argsort(-expected)]
        np.testing.assert_allclose(row["probabilities"], -np.sort(-expected), atol=1e-6)
    done = command_here("predict", *images, "--model", "resnet20")
    assert "Pass either run or weights" in done.stderr
    weights.save(keras_resnet.ResNet20(include_top=False), tmp_path / "w.pth")
    assert "has no classifier" in command_here("predict", *images, *named).stderr


@pytest.mark.real_data
@pytest.mark.slow
def test_preprocessing_of_a_weights_file(real_data, command_here, tmp_path):
    """Without options, compared with the reference logits; else with NumPy's normalisation."""
    cifar = real_data / "cifar10"
    with np.load(cifar / "cifar10_test_0_499.npz") as arrays:
        x, y = arrays["x"], arrays["y"]
    with np.load(cifar / "reference_logits_0_499.npz") as arrays:
        reference = arrays["resnet20"]
    weights_file = cifar / "resnet20-12fca82f.th"
    network = keras_resnet.ResNet20(weights=weights_file, classifier_activation=None)
    named = ("--model", "resnet20", "--weights", weights_file)
    data = ("--data", cifar / "cifar10_test_0_499.npz", "-o", "answers.csv")
    accuracies = []
    for mean, std in (
        (None, None),
        ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
        ((0, 0, 0), (1, 1, 1)),
    ):
        given = ("--mean", *mean, "--std", *std) if mean else ()
        done = command_here("evaluate", *named, *data, *given)
        assert done.returncode == 0, done.stderr
        logits = reference
        if mean:
            logits = network.predict(((x / 255 - mean) / std).astype(np.float32), verbose=0)
        accuracies.append(float((logits.argmax(1) == y).mean()))
        assert f"top-1 {accuracies[-1]:.4f}" in done.stdout
        (line,) = done.stderr.splitlines()
        assert ("ImageNet's" in line) == (mean is None) and "resized to 32 px" in line
        expected = np.exp(logits - logits.max(1, keepdims=True))
        expected = (expected / expected.sum(1, keepdims=True)).max(1)
        with (tmp_path / "answers.csv").open(newline="") as file:
            answers = [float(row["probability"]) for row in csv.DictReader(file)]
        np.testing.assert_allclose(answers, expected, atol=1e-4)
    assert accuracies[0] == 0.91 and accuracies[2] < 0.8
    Image.fromarray(x[0]).save(tmp_path / "0.png")
    for command in ("predict", "explain"):
        done = command_here(command, "0.png", *named, *given, "--crop", 32, "--json")
        found = json.loads(done.stdout)
        found = found[0]["probabilities"][0] if command == "predict" else found["probability"]
        assert found == pytest.approx(answers[0], abs=1e-4)


@pytest.mark.parametrize(
    "given, said",
    [
        (("--std", 0, 1, 1), "each more than 0"),
        (("--std", "nan", 1, 1), "std should be 3 numbers"),
        (("--mean", "inf", 0, 0), "mean should be 3 numbers"),
        (("--mean", 123.7, 116.3, 103.5), "each 0 to 1"),
        (("--crop", 0), "side in pixels"),
        (("--resize", 2**40), "side in pixels"),
        (("--interpolation", "lanczos"), "one of bilinear, bicubic"),
        (("--crop-mode", "centre"), "one of center, squash, border"),
    ],
)
def test_invalid_preprocessing_options(given, said, run, photos, command_here):
    for command in (("predict", photos / "0.png"), ("explain", photos / "0.png"), ("export",)):
        named = ("--run", run) if len(command) == 2 else (run,)
        done = command_here(*command, *named, *given)
        assert done.returncode == 1 and said in done.stderr, done.stderr
    for values in ((0.5, 0.5), (0.5, 0.5, "0.5"), 0.5, None):
        with pytest.raises(ValueError, match="mean should be 3 numbers"):
            trained.open_network(run, preprocessing={"mean": values})


def test_the_images_size_changes_nothing_else(run, tiny):
    """The run's own size changes nothing; another size keeps mean and std."""
    usual = trained.open_network(run).preprocessing
    assert trained.open_network(run, preprocessing={"crop": 32}).preprocessing == usual
    assert trained.open_network(run, preprocessing={"resize": 40}).preprocessing.resize == 40
    model = keras_resnet.ResNet18(classes=3)
    weights.save(model, run / "w.pth")
    named = {"model": "resnet18", "weights": run / "w.pth"}
    other = trained.open_network(**named, preprocessing={"crop": 64})
    assert other.preprocessing == keras_resnet.Preprocessing(73, 64)
    given = keras_resnet.Preprocessing(70, 64, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    assert trained.open_network(**named, preprocessing=given).preprocessing == given
    assert other.class_names is None and other.model.output_shape == (None, 3)


@pytest.mark.parametrize(
    "options, said",
    [
        (
            "mean=[103.5, 116.3, 123.7], std=[1.0, 1.0, 1.0], to_rgb=False",
            "to_rgb=False, for values",
        ),
        ("mean=[0, 0, 0], std=[51, 51, 51]", "BGR without to_rgb"),
        ("mean=[0, 0, 0], std=[51, 51, 51], to_rgb=True), dict(to_rgb=False", "to_rgb=True, for"),
        ("mean=[0, 0], std=[51, 51], to_rgb=True", "to_rgb=True, for values"),
        ("mean=[51, 102, 127.5], std=[51.0, 25.5, 102], to_rgb=True", None),
        ("mean=[51, 102, 127.5], std=[51.0, 25.5, 102], bgr_to_rgb=True", None),
    ],
)
def test_preprocessing_in_openmmlab_configs(options, said, tmp_path, caplog):
    """RGB values are used; others, or several different ones, are rejected and quoted."""
    state = weights.to_state_dict(keras_resnet.ResNet18(classes=3))
    named = {f"backbone.{key}".replace("backbone.fc", "head.fc"): state[key] for key in state}
    config = f"model = dict(backbone=dict(type='ResNet', depth=18))\nimages = dict({options})\n"
    path = tmp_path / "w.pkl"
    path.write_bytes(pickle.dumps({"meta": {"config": config}, "state_dict": named}))
    if said is None:
        opened = trained.open_network(weights=path).preprocessing
        np.testing.assert_allclose(opened.mean, (0.2, 0.4, 0.5))
        np.testing.assert_allclose(opened.std, (0.2, 0.1, 0.4))
        assert (opened.resize, opened.crop) == (256, 224)
        return
    with pytest.raises(weights.CheckpointError, match=f"{said}.*pass mean and std"):
        trained.open_network(weights=path)
    given = {"mean": (0.1, 0.2, 0.3)}
    opened = trained.open_network(weights=path, preprocessing=given)
    assert opened.preprocessing.mean == given["mean"] and "BGR is not supported" in caplog.text


def test_ambiguous_preprocessing_of_maskrcnn_benchmark(tmp_path):
    """Its names are used for MSRA weights, which take BGR, and torchvision weights with RGB."""
    state = weights.to_state_dict(keras_resnet.ResNet18(classes=3))
    named = {f"stem.{k}" if k.startswith(("conv1.", "bn1.")) else k: state[k] for k in state}
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(named))
    with pytest.raises(
        weights.CheckpointError,
        match=r"different preprocessing than most networks: .*BGR in 0\.\.255",
    ):
        trained.open_network(weights=tmp_path / "w.pkl")
    opened = trained.open_network(weights=tmp_path / "w.pkl", version="v1.5")
    assert opened.preprocessing == keras_resnet.Preprocessing()


def test_keras_applications_take_bgr(tmp_path):
    theirs = keras.applications.ResNet50(weights=None, classes=3, input_shape=(64, 64, 3))
    theirs.save_weights(tmp_path / "theirs.weights.h5")
    named = {"weights": tmp_path / "theirs.weights.h5", "version": "v1"}
    with pytest.raises(weights.CheckpointError, match=r"preprocess_input: BGR in 0\.\.255"):
        trained.open_network(**named)
    given = keras_resnet.Preprocessing()
    assert trained.open_network(**named, preprocessing=given).preprocessing == given


def test_weights_of_several_networks(run, tmp_path):
    """`prefix` selects one of them, as `version` does if names are ambiguous."""
    state = weights.to_state_dict(keras_resnet.ResNet20(classes=3))
    average = {key: array + 1 for key, array in state.items()}
    (tmp_path / "w.pkl").write_bytes(pickle.dumps({"state_dict": state, "ema": average}))
    named = {"model": "resnet20", "weights": tmp_path / "w.pkl"}
    with pytest.raises(weights.CheckpointError, match="prefix='state_dict', prefix='ema'"):
        trained.open_network(**named)
    opened = trained.open_network(**named, prefix="ema", version="v1.5")
    for key, value in weights.to_state_dict(opened.model).items():
        np.testing.assert_array_equal(value, average[key])
    with pytest.raises(ValueError, match="prefix and version may be passed too"):
        trained.open_network(run, prefix="ema")


@pytest.mark.slow
def test_many_images_are_verified_in_batches(run, photos):
    version = trained.open_network(run).export("saved_model")
    content = (photos / "0.png").read_bytes()
    images = {str(number): content for number in range(40)}
    found = export.verify(version, images, trained.Network.from_run(run).model)
    assert found.images == 40 and found.error < 1e-5 and found.agreement == 1


@pytest.mark.filterwarnings("ignore")  # warnings of the converter about its own code
def test_different_outputs_exit_with_1(run, photos, command_here, monkeypatch):
    path = trained.open_network(run).export("onnx")
    load = run_exported.load

    def wrong(path):
        return lambda inputs: {
            name: value if name == "classes" else value * np.float32(1.01)
            for name, value in load(path)(inputs).items()
        }

    monkeypatch.setattr(run_exported, "load", wrong)
    done = command_here("verify", path, photos / "0.png")
    assert done.returncode == 1
    assert "does not reproduce the model's outputs" in done.stderr


def test_calibration_images(photos, tmp_path):
    preprocessing, model = keras_resnet.Preprocessing(36, 32), small("basic")
    (tmp_path / "sub" / "a.jpg").mkdir(parents=True)
    for file in photos.iterdir():
        (tmp_path / "sub" / file.name).write_bytes(file.read_bytes())

    def images(model, folder=tmp_path, **options):
        return export.calibration_images(model, folder, preprocessing, **options)

    found = images(model)
    assert found.shape == (3, 32, 32, 3) and found.dtype == np.float32
    np.testing.assert_array_equal(found, images(model))
    pixels = images(model, number=2, pixels=True)
    assert pixels.shape == (2, 32, 32, 3) and pixels.dtype == np.uint8
    np.testing.assert_allclose(preprocessing.normalise(pixels), found[:2], atol=1e-6)
    other = small("basic", include_preprocessing=True, data_format="channels_first")
    found = images(other, number=2)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, pixels.transpose(0, 3, 1, 2))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="has no images"):
        images(model, tmp_path / "empty")
    with pytest.raises(ValueError, match="does not exist"):
        images(model, tmp_path / "absent")


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.filterwarnings("ignore")
def test_quantised_networks_agree_on_photographs(real_data, tmp_path):
    """Trained on real photographs; on others, at least 95 % of the best classes agree."""
    recipe = training.named_recipe(
        "flowers", data=str(real_data / "flowers"), model="resnet18", image_size=96, epochs=6
    )
    folder = training.train(recipe.changed({"learning_rate": 3e-4}), tmp_path / "run")
    photographs = sorted((real_data / "flowers" / "val").rglob("*.jpg"))
    for format in ("onnx", "litert"):
        path = trained.open_network(folder).export(
            format,
            quantize="int8",
            calibration_data=real_data / "flowers" / "train",
        )
        found = trained.verify_export(path, photographs)
        assert found.images == 100 and found.agreement >= 0.95
