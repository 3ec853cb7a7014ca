"""SavedModels, run by TensorFlow as a server does."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import keras_resnet
from keras_resnet import export

NAMES = ["daisy", "rose", "tulip"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    model = keras_resnet.ResNeXt50_32x4d(classes=3, input_shape=(64, 64, 3))
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


def test_a_new_process_answers_alike(exported):
    model, preprocessing, version = exported
    content = list(images())
    expected = model(np.stack([preprocessing(one) for one in content]))
    answers = export.probabilities_in_new_process(version, content)
    np.testing.assert_allclose(answers, expected, rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="could not be run"):
        export.probabilities_in_new_process(version.parent / "9", content)


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


@pytest.mark.filterwarnings("ignore")  # tf2onnx and the LiteRT converter warn of their own code
def test_keras_own_exports_of_a_grouped_network_run(tmp_path):
    import onnxruntime
    from ai_edge_litert.interpreter import Interpreter

    model = keras_resnet.ResNeXt50_32x4d(classes=3, input_shape=(32, 32, 3))
    x = np.random.default_rng(0).normal(size=(1, 32, 32, 3)).astype(np.float32)
    expected = model(x).numpy()
    model.export(tmp_path / "m.onnx", format="onnx", verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    (answer,) = session.run(None, {session.get_inputs()[0].name: x})
    np.testing.assert_allclose(answer, expected, atol=1e-4)
    model.export(tmp_path / "m.tflite", format="litert", verbose=False)
    interpreter = Interpreter(str(tmp_path / "m.tflite"))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    answer = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    np.testing.assert_allclose(answer, expected, atol=1e-4)
