"""Quantized ONNX and LiteRT files."""

import numpy as np
import pytest
import tensorflow as tf
from small_networks import CONVOLUTIONS, SUFFIXES, noise, small

import keras_resnet
from keras_resnet import export
from keras_resnet.export import run_exported

pytestmark = pytest.mark.filterwarnings("ignore")  # warnings of the converters about their own code


@pytest.mark.parametrize(
    "kind, name",
    [
        ("onnx", "resnext"),
        *(
            pytest.param(kind, name, marks=pytest.mark.slow)
            for kind, name in (
                *(("litert", "resnext"), ("litert dynamic", "resnext"), ("onnx pixels", "resnext")),
                *(("onnx", "squeezed"), ("onnx", "efficient"), ("onnx", "preactivation")),
                *(("litert", "squeezed"), ("litert", "efficient"), ("litert", "preactivation")),
            )
        ),
    ],
)
def test_quantised(kind, name, tmp_path):
    """8-bit kernels with a scale per channel, also for grouped convolutions."""
    format = kind.split()[0]
    model = small(name, classes=7, classifier_activation=None)
    options = {"quantize": "int8", "calibration_data": noise(16, 64, 64, 3)}
    if kind == "litert dynamic":
        options = {"quantize": "dynamic"}
    if kind == "onnx pixels":
        pixels = np.random.default_rng(0).integers(0, 256, (16, 64, 64, 3), np.uint8)
        options |= {
            "calibration_data": pixels,
            "with_preprocessing": True,
            "preprocessing": keras_resnet.Preprocessing(),
        }
    path = getattr(export, format)(model, tmp_path / f"m{SUFFIXES[format]}", **options)
    assert path.stat().st_size < (0.3 if name == "resnext" else 0.4) * 4 * model.count_params()
    said = export.record.read(path)
    assert said["quantize"] == options["quantize"] and said["tolerance"] is None
    assert said["error"] < 0.1
    for batch in (1, 5):
        x = noise(batch, 64, 64, 3)
        expected = model(x).numpy()
        if kind == "onnx pixels":
            x = np.random.default_rng(1).integers(0, 256, (batch, 64, 64, 3), np.uint8)
            expected = model(keras_resnet.preprocess_input(x)).numpy()
        found = run_exported.load(path)(x)["logits"]
        np.testing.assert_allclose(found, expected, atol=0.1 * np.abs(expected).max())
    assert _scales(path) > 1
    assert len(_integer_convolutions(path)) == CONVOLUTIONS[name]


def _scales(path):
    """Returns the largest number of scales of a kernel."""
    if path.suffix == ".onnx":
        import onnx

        graph = onnx.load(path).graph
        names = {n.input[1] for n in graph.node if n.op_type == "DequantizeLinear"}
        return max(np.prod(i.dims) for i in graph.initializer if i.name in names)
    from ai_edge_litert.interpreter import Interpreter

    details = Interpreter(str(path)).get_tensor_details()
    return max(len(tensor["quantization_parameters"]["scales"]) for tensor in details)


def _integer_convolutions(path):
    """Returns the convolutions with int8 kernels."""
    if path.suffix == ".onnx":
        import onnx

        graph = onnx.load(path).graph
        made = {n.output[0]: n for n in graph.node}
        types = {i.name: i.data_type for i in graph.initializer}
        kernels = [made[n.input[1]].input[0] for n in graph.node if n.op_type == "Conv"]
        return [kernel for kernel in kernels if types[kernel] == onnx.TensorProto.INT8]
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    types = {t["index"]: t["dtype"] for t in interpreter.get_tensor_details()}
    rows = [r for r in interpreter._get_ops_details() if r["op_name"] == "CONV_2D"]
    return [row for row in rows if types[row["inputs"][1]] is np.int8]


def test_a_quantised_network_with_different_predictions_warns(tmp_path, caplog):
    """The predictions on held-back images differ: exporting warns, and `verify` fails."""
    model = small("basic", seed=2, classes=50, classifier_activation=None)
    narrow = 1e-3 * noise(60, 64, 64, 3)  # the range of other images is much larger
    narrow[4::5] = noise(12, 64, 64, 3)
    path = export.onnx(model, tmp_path / "m.onnx", quantize="int8", calibration_data=narrow)
    assert "95% is required of a quantized network" in caplog.text
    assert export.record.read(path)["agreement"] < 0.95
    rng = np.random.default_rng(0)
    images = {
        str(n): tf.io.encode_png(rng.integers(0, 256, (64, 64, 3), np.uint8)).numpy()
        for n in range(12)
    }
    preprocessing = keras_resnet.Preprocessing(64, 64)
    with pytest.raises(ValueError, match="predicts the same class as the model on"):
        export.verify(path, images, model, preprocessing=preprocessing).check("It")


@pytest.mark.parametrize("format", ["onnx", "litert"])
def test_deprecated_name_of_calibration_data(format, tmp_path):
    """It works with a warning; here, the check of another argument then fails."""
    path = tmp_path / f"m{SUFFIXES[format]}"
    with (
        pytest.warns(FutureWarning, match="representative_data was renamed: pass calibration_data"),
        pytest.raises(ValueError, match=r"calibration_data needs quantize='int8'\. Received"),
    ):
        getattr(export, format)(small("cifar"), path, representative_data=noise(2, 32, 32, 3))
