"""SavedModels, run by TensorFlow as a server does."""

import io
import os

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import keras_resnet
from keras_resnet import export
from keras_resnet.builder import build
from keras_resnet.configs import CONFIGS, ResNetConfig

NAMES = ["daisy", "rose", "tulip"]


# Grouped convolutions and bottlenecks, as a ResNeXt-50, in 4 blocks rather than 16.
SMALL = ResNetConfig("bottleneck", (1, 1, 1, 1), groups=32, width_per_group=4)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    model = build(SMALL, classes=3, input_shape=(64, 64, 3))
    preprocessing = keras_resnet.Preprocessing(73, 64)
    folder = tmp_path_factory.mktemp("export") / "model"
    version = export.saved_model(
        model, folder, preprocessing=preprocessing, class_names=NAMES, top_k=2
    )
    return model, preprocessing, version


def images():
    rng = np.random.default_rng(0)
    for (height, width), kind in (((80, 100), "JPEG"), ((64, 64), "PNG"), ((200, 70), "BMP")):
        stream = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(stream, kind)
        yield stream.getvalue()


def test_both_signatures_in_a_tf1_session(exported):
    """By tensor names, with the tag `serve`: what TensorFlow Serving does."""
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
            assert answer["classes"].tolist() == [[NAMES[i].encode() for i in row] for row in best]
            np.testing.assert_allclose(answer["scores"], np.sort(expected)[:, :0:-1], atol=1e-5)
    graph = (version / "saved_model.pb").read_bytes()
    assert b"_XlaMustCompile" not in graph


@pytest.mark.parametrize("onednn", ["0", "1"])
def test_a_new_process_answers_alike(onednn, exported, monkeypatch):
    """With oneDNN or without, and without XLA, which the graph does not name."""
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", onednn)
    model, preprocessing, version = exported
    content = list(images())
    expected = model(np.stack([preprocessing(one) for one in content]))
    answers = export.answers_in_new_process(version, content)
    np.testing.assert_allclose(answers["probabilities"], expected, rtol=1e-4, atol=1e-6)


def test_a_process_that_fails_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="could not be run"):
        export.answers_in_new_process(tmp_path / "9", [])


def test_versions_logits_and_backbones(tmp_path):
    classifier = keras_resnet.ResNet18(
        classes=3, input_shape=(32, 32, 3), classifier_activation=None
    )
    backbone = keras_resnet.ResNet18(include_top=False, input_shape=(32, 32, 3), pooling="avg")
    x = tf.random.stateless_normal((2, 32, 32, 3), (0, 0))
    for number, (model, key) in enumerate(
        ((classifier, "probabilities"), (backbone, "features")), start=1
    ):
        version = export.saved_model(model, tmp_path / "m")
        assert version == tmp_path / "m" / str(number)
        loaded = tf.saved_model.load(version)
        answer = loaded.signatures["serving_default"](images=x)[key]
        expected = tf.nn.softmax(model(x)) if key == "probabilities" else model(x)
        np.testing.assert_allclose(answer, expected, rtol=1e-4, atol=1e-5)
    assert sorted(entry.name for entry in (tmp_path / "m").iterdir()) == ["1", "2"]
    with pytest.raises(ValueError, match="3 classes"):
        export.saved_model(classifier, tmp_path / "m", class_names=["one"])


@pytest.fixture(
    scope="module",
    params=["small", pytest.param("resnext50_32x4d", marks=pytest.mark.slow)],
)
def resnext(request):
    """A ResNeXt of 3 classes that gives logits, an image, and the logits."""
    keras.utils.set_random_seed(0)
    config = SMALL if request.param == "small" else CONFIGS[request.param]
    model = build(config, classes=3, input_shape=(32, 32, 3), classifier_activation=None)
    x = np.random.default_rng(0).normal(size=(1, 32, 32, 3)).astype(np.float32)
    return model, x, model(x).numpy(), sum(config.depths)


def run_onnx(path, x):
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def run_litert(path, x):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


@pytest.mark.filterwarnings("ignore")  # tf2onnx and the LiteRT converter warn of their own code
def test_keras_own_exports_of_a_grouped_network_run(tmp_path):
    model = build(SMALL, classes=3, input_shape=(32, 32, 3), classifier_activation=None)
    x = np.random.default_rng(0).normal(size=(1, 32, 32, 3)).astype(np.float32)
    expected = model(x).numpy()
    model.export(tmp_path / "m.onnx", format="onnx", verbose=False)
    model.export(tmp_path / "m.tflite", format="litert", verbose=False)
    model.export(tmp_path / "saved", verbose=False)
    scale = np.abs(expected).max()
    loaded = tf.saved_model.load(tmp_path / "saved")
    np.testing.assert_allclose(loaded.serve(x), expected, atol=1e-5 * scale)
    np.testing.assert_allclose(run_onnx(tmp_path / "m.onnx", x), expected, atol=1e-5 * scale)
    np.testing.assert_allclose(run_litert(tmp_path / "m.tflite", x), expected, atol=1e-5 * scale)


@pytest.mark.filterwarnings("ignore")
def test_onnx_has_one_convolution_for_each(resnext, tmp_path):
    import onnx

    model, x, expected, blocks = resnext
    path = keras_resnet.export.onnx(model, tmp_path / "m.onnx")
    assert sorted(os.listdir(tmp_path)) == ["export.json", "m.onnx"]
    scale = np.abs(expected).max()
    np.testing.assert_allclose(run_onnx(path, x), expected, atol=1e-5 * scale)
    nodes = [node for node in onnx.load(path).graph.node if node.op_type == "Conv"]
    groups = [next(a.i for a in node.attribute if a.name == "group") for node in nodes]
    # A block has two of 1x1 and a grouped one; there are 4 projections, and the first one.
    assert sorted(groups) == [1] * (2 * blocks + 4 + 1) + [32] * blocks


@pytest.mark.filterwarnings("ignore")
def test_litert_has_one_convolution_for_each(resnext, tmp_path):
    from ai_edge_litert.interpreter import Interpreter

    model, x, expected, blocks = resnext
    path = keras_resnet.export.litert(model, tmp_path / "m.tflite")
    assert sorted(os.listdir(tmp_path)) == ["export.json", "m.tflite"]
    scale = np.abs(expected).max()
    np.testing.assert_allclose(run_litert(path, x), expected, atol=1e-5 * scale)
    with pytest.raises(ValueError, match="end in .tflite"):
        keras_resnet.export.litert(model, tmp_path / "m.bin")
    operations = [row["op_name"] for row in Interpreter(str(path))._get_ops_details()]
    assert operations.count("CONV_2D") == 3 * blocks + 4 + 1
