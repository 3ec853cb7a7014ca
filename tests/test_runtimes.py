"""Exports of features, and exports that replace their network in other functions."""

import json
import shutil

import keras
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from small_networks import NAMES, SUFFIXES, small, write_run

import keras_resnet
from keras_resnet import export, trained

pytestmark = pytest.mark.filterwarnings("ignore")  # warnings of the converters about their own code


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """60 pictures, enough to hold back a fifth for quantization."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for number in range(60):
        coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8))
        coarse.resize((40, 40)).save(folder / f"{number:02}.png")
    return folder


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """The network of a minimal run folder."""
    folder = tmp_path_factory.mktemp("runtimes") / "run"
    write_run(folder)
    return trained.open_network(folder)


def images_of(network, photos):
    contents = {file.name: file.read_bytes() for file in sorted(photos.iterdir())}
    return network.preprocessing.batch(contents)


def expected_of(network, layer, images):
    """Computes the output of a layer's last block with Keras, averaged over height and width."""
    if layer is None:
        return network.model.predict(images, verbose=0)
    block = network.model.get_layer({"layer1": "layer1.0", "avgpool": "layer2.0"}[layer])
    return keras.Model(network.model.input, block.output).predict(images, verbose=0).mean((1, 2))


def slow(*arguments):
    return pytest.param(*arguments, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    "format, layer",
    [
        ("onnx", "layer1"),
        *(slow(format, "avgpool") for format in ("saved_model", *SUFFIXES)),
        *(slow(format, None) for format in ("saved_model", *SUFFIXES)),
    ],
)
def test_an_export_answers_as_its_network(format, layer, network, photos, command_here):
    """Exported by the command into the run folder, where it is found, verified and compared."""
    options = ("--layer", layer) if layer else ()
    done = command_here("export", network.run.folder, "--format", format, *options, "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["layer"] == layer and said["tolerance"] == 1e-4
    (output,) = set(said["signature"]["tensor"]["outputs"]) - {"classes", "scores"}
    assert output == ("features" if layer else "probabilities")
    done = command_here("verify", said["path"], *sorted(photos.iterdir())[:3])
    assert done.returncode == 0, done.stderr
    assert ("the predicted class agrees" in done.stdout) == (layer is None)
    images = images_of(network, photos)
    expected = expected_of(network, layer, images)
    for runtime in (format, said["path"], "keras"):
        rows = trained.open_runtime(network, runtime, layer=layer)(images)
        assert rows.dtype == np.float32 and rows.shape == expected.shape
        np.testing.assert_allclose(rows, expected, rtol=0, atol=1e-4 * expected.max())


@pytest.mark.parametrize(
    "format, layer, options",
    [
        ("onnx", "avgpool", {"with_preprocessing": True}),
        slow("onnx", None, {}),
        slow("litert", "avgpool", {}),
        slow("litert", None, {}),
    ],
)
def test_the_error_of_int8_is_that_of_the_record(format, layer, options, network, photos, tmp_path):
    """On the images with which it was compared: those held back from calibration."""
    path = network.export(
        format,
        tmp_path / f"m{SUFFIXES[format]}",
        quantize="int8",
        calibration_data=photos,
        layer=layer,
        **options,
    )
    said = export.record.read(path)
    model = network.model if layer is None else keras_resnet.features.pooled(network.model, layer)
    pixels = export.calibration_images(model, photos, network.preprocessing, pixels=True)
    images = network.preprocessing.normalise(pixels[4::5]).numpy()
    rows = trained.open_runtime(network, path, layer=layer)(images)
    expected = expected_of(network, layer, images)
    error = np.abs(rows - expected).max() / expected.max()
    assert 1e-4 < error == pytest.approx(said["error"], rel=1e-3)
    assert said["compared_on"] == len(images) == 12
    if layer is None:
        assert said["agreement"] == np.mean(rows.argmax(1) == expected.argmax(1)) >= 0.95
    else:
        assert said["agreement"] is None


def test_embed_and_predict_by_an_export(network, photos, tmp_path, command_here):
    """Rows equal Keras' up to rounding; a folder cannot mix runtimes."""
    run, exported = ("--run", network.run.folder), tmp_path / "m.onnx"
    network.export("onnx", exported)
    network.export("onnx", tmp_path / "features.onnx", layer="avgpool")
    tables = {}
    for command, runtime in (("embed", tmp_path / "features.onnx"), ("predict", exported)):
        for name, chosen in (("keras", ()), ("onnx", ("--runtime", runtime))):
            done = command_here(command, photos, *run, *chosen, "-o", f"{command}_{name}")
            assert done.returncode == 0, done.stderr
            tables[command, name] = pq.read_table(tmp_path / f"{command}_{name}")
    for command, column in (("embed", "embedding"), ("predict", "top_probabilities")):
        tried, expected = (
            np.array(tables[command, name][column].to_pylist()) for name in ("onnx", "keras")
        )
        np.testing.assert_allclose(tried, expected, rtol=0, atol=1e-4 * expected.max())
        assert tables[command, "onnx"]["path"] == tables[command, "keras"]["path"]
    done = command_here("embed", photos, *run, "--runtime", exported, "-o", "other")
    assert done.returncode == 1 and "--layer avgpool" in done.stderr, done.stderr
    assert not any((tmp_path / "other").glob("*"))
    done = command_here("embed", photos, *run, "-o", "embed_onnx")
    assert done.returncode == 1 and "has parts of another job: export was" in done.stderr


def test_unsuitable_exports_are_refused(network, photos, tmp_path):
    """Exports of another layer, network, preprocessing or classes, and missing ones."""
    own = network.run.folder
    classes = network.export("onnx", tmp_path / "classes.onnx")
    features = network.export("onnx", tmp_path / "features.onnx", layer="layer1")
    with pytest.raises(ValueError, match=r"class_names=None|returns features"):
        export.onnx(network.model, tmp_path / "m.onnx", layer="layer1", class_names=NAMES)
    for runtime, layer, said in (
        (classes, "avgpool", "returns class probabilities, not the features of the layer avgpool"),
        (classes, "avgpool", f"keras-resnet export {own} --format onnx --layer avgpool"),
        (features, "avgpool", "the features of the layer layer1, not the features of the layer av"),
        (features, None, "the features of the layer layer1, not class probabilities"),
        ("openvino", "layer2", "no export to run with openvino: expected .*openvino_layer2"),
        ("saved_model", "layer2", "keras-resnet export .* --format saved_model --layer layer2"),
        ("tensorrt", None, "tensorrt is not an export: expected a .onnx, .tflite or .xml"),
        (tmp_path / "no.onnx", None, "does not exist"),
        ("keras", "layer9", "layer should be avgpool, a stage"),
    ):
        with pytest.raises(ValueError, match=said):
            trained.open_runtime(network, runtime, layer=layer)
    (own / "other").mkdir()
    for name in ("recipe.json", "class_indices.json", "best.keras"):
        shutil.copy(own / name, own / "other" / name)
    other = own / "other"
    (other / "class_indices.json").write_text(json.dumps(dict(enumerate("abc"))))
    with pytest.raises(ValueError, match="has other class names than"):
        trained.open_runtime(trained.open_network(other), classes)
    changed = trained.open_network(own, preprocessing={"resize": 40})
    with pytest.raises(ValueError, match=r"(?s)other preprocessing.*resize=40.*resize=36"):
        trained.open_runtime(changed, features, layer="layer1")
    small("cifar", seed=1).save(other / "best.keras")
    with pytest.raises(ValueError, match="from a model with other weights"):
        trained.open_runtime(trained.open_network(other), features, layer="layer1")
    features.write_bytes(features.read_bytes()[:-1])
    with pytest.raises(ValueError, match="it was modified or replaced"):
        trained.open_runtime(network, features, layer="layer1")
