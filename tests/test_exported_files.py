"""ONNX, LiteRT and OpenVINO files, run by their own runtimes."""

import json
import os
import re
import runpy
from pathlib import Path

import keras
import numpy as np
import pytest
from small_networks import CONFIGS, CONVOLUTIONS, SUFFIXES, noise, small, trained

import keras_resnet
from keras_resnet import data, export, features
from keras_resnet.configs import ResNetConfig
from keras_resnet.export import run_exported
from keras_resnet.models import create

pytestmark = pytest.mark.filterwarnings("ignore")  # warnings of the converters about their own code


def convolutions(path, multiplies=False):
    """Returns the number of groups of each convolution in a file, None for LiteRT.

    Also checks that batch normalization is folded: no multiplications are left, unless the network
    `multiplies`, as pre-activation and attention do.
    """
    if path.suffix == ".onnx":
        import onnx

        nodes = onnx.load(path).graph.node
        kinds = {"BatchNormalization", "Mul", "Sub"} & {node.op_type for node in nodes}
        assert bool(kinds) == multiplies
        convolved = [node for node in nodes if node.op_type == "Conv"]
        return [next(a.i for a in node.attribute if a.name == "group") for node in convolved]
    if path.suffix == ".tflite":
        from ai_edge_litert.interpreter import Interpreter

        operations = [row["op_name"] for row in Interpreter(str(path))._get_ops_details()]
        assert ("MUL" in operations) == multiplies
        return [None] * operations.count("CONV_2D")
    import openvino

    found = openvino.Core().read_model(path).get_ops()
    shapes = [
        (operation.get_type_name(), operation.input(1).get_partial_shape())
        for operation in found
        if operation.get_type_name() in ("Convolution", "GroupConvolution")
    ]
    return [shape[0].get_length() if kind[0] == "G" else 1 for kind, shape in shapes]


LARGE = ("resnet18", "resnet50", "resnext50_32x4d", "wide_resnet50_2")
# Of the plain networks, ResNeXt covers everything except the shortcuts of CIFAR networks.
FIRST = (
    *(("resnext", "onnx"), ("resnext", "litert"), ("cifar", "onnx")),
    *(("squeezed", "onnx"), ("squeezed", "litert"), ("efficient", "onnx"), ("efficient", "litert")),
)


@pytest.mark.parametrize(
    "family, format",
    [
        pytest.param(family, format, marks=[] if (family, format) in FIRST else [pytest.mark.slow])
        for family in (*CONFIGS, *LARGE)
        for format in SUFFIXES
    ],
)
def test_each_family(family, format, tmp_path):
    """Two batch sizes and two image sizes; each convolution is one operation."""
    if family in CONFIGS:
        model = small(family, classifier_activation=None)
    else:
        model = trained(keras_resnet.create(family, classes=3, classifier_activation=None))
    path = getattr(export, format)(model, tmp_path / f"m{SUFFIXES[format]}")
    companions = ["m.bin"] if format == "openvino" else []
    assert sorted(os.listdir(tmp_path)) == sorted(
        [path.name, f"{path.name}.export.json", *companions]
    )
    answer = run_exported.load(path)
    for batch, side in ((1, 64), (5, 64), (1, 96)):
        x = noise(batch, side, side, 3)
        expected = model(x).numpy()
        (name, found), *others = answer(x).items()
        assert name == "logits" and not others and found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    config = CONFIGS.get(family)
    groups = convolutions(path, bool(config and (config.preactivation or config.attention)))
    if config:
        assert len(groups) == CONVOLUTIONS[family]
        if format != "litert":
            assert sorted(groups)[-2:] == [config.groups] * 2


@pytest.mark.parametrize(
    "format",
    [
        pytest.param(format, marks=[] if format == "onnx" else [pytest.mark.slow])
        for format in ("saved_model", *SUFFIXES)
    ],
)
def test_a_process_without_this_package(format, run_python, tmp_path):
    """Each export runs in its own runtime, without importing this package."""
    model = small(input_shape=(64, 64, 3))
    x = noise(2, 64, 64, 3)
    np.save(tmp_path / "x.npy", x)
    path = getattr(export, format)(model, tmp_path / f"m{SUFFIXES.get(format, '')}")
    strange = {"keras_resnet"} if format == "saved_model" else {"keras_resnet", "tensorflow"}
    program = (
        f"import runpy, sys\nsys.argv[1:] = [{str(path)!r}, 'x.npy', 'out.npz']\n"
        f"runpy.run_path({run_exported.__file__!r}, run_name='__main__')\n"
        "loaded = {name.split('.')[0] for name in sys.modules}\n"
        f"assert not loaded & {strange!r}, loaded"
    )
    done = run_python("-c", program)
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "out.npz") as answers:
        np.testing.assert_allclose(answers["probabilities"], model(x), atol=1e-5)


@pytest.mark.slow
def test_an_onnx_export_frees_what_its_converter_copies(run_python):
    """Each pass of the converter copies the network; all copies of ResNet-50 together are 6 GiB."""
    done = run_python(
        "-c",
        "import keras_resnet\n"
        "keras_resnet.export.onnx(keras_resnet.ResNet50(), 'm.onnx')\n"
        "print(open('/proc/self/status').read())",
    )
    assert done.returncode == 0, done.stderr
    peak = int(re.search(r"VmHWM:\s+(\d+) kB", done.stdout)[1])
    assert peak / 2**20 < 4


def test_names_sizes_and_the_record(tmp_path):
    import onnx

    model = small("basic")
    preprocessing = keras_resnet.Preprocessing(36, 32)
    path = export.onnx(
        model,
        tmp_path / "m.onnx",
        preprocessing=preprocessing,
        class_names=["a", "b", "c"],
        image_size=32,
    )
    graph = onnx.load(path)
    onnx.checker.check_model(graph, full_check=True)
    sides = {
        tensor.name: [
            side.dim_param or side.dim_value for side in tensor.type.tensor_type.shape.dim
        ]
        for tensor in (*graph.graph.input, *graph.graph.output)
    }
    assert sides == {"images": ["batch", 32, 32, 3], "probabilities": ["batch", 3]}
    said = json.loads((tmp_path / "m.onnx.export.json").read_text())
    opset = next(entry.version for entry in graph.opset_import if not entry.domain)
    assert said["opset"] == opset == 17
    assert said["signature"] == {
        "tensor": {
            "inputs": {"images": {"dtype": "float32", "shape": [None, 32, 32, 3]}},
            "outputs": {"probabilities": {"dtype": "float32", "shape": [None, 3]}},
        }
    }
    assert said["class_names"] == ["a", "b", "c"] and said["preprocessing"]["resize"] == 36
    assert said["preprocessing_inside"] == "none" and said["error"] < 1e-5
    assert {"onnx", "onnxruntime", "tf2onnx"} < set(said["versions"])
    assert export.record.read(path) == said


def test_records_of_earlier_versions_are_read(tmp_path):
    """They were named export.json, and contained the name of their file."""
    path, other = tmp_path / "m.onnx", tmp_path / "other.onnx"
    export.onnx(small("cifar"), path, image_size=32)
    said = export.record.read(path)
    earlier = tmp_path / "export.json"
    export.record.place(path).rename(earlier)
    earlier.write_text(json.dumps({"file": "m.onnx", **said}))
    assert export.record.read(path)["files_sha256"] == said["files_sha256"]
    with pytest.raises(ValueError, match=r"other\.onnx has no record"):
        export.record.read(other)
    before = earlier.read_bytes()
    export.onnx(small("cifar", seed=1), path, image_size=32)
    assert earlier.read_bytes() == before
    assert export.record.read(path)["files_sha256"] != said["files_sha256"]


@pytest.mark.parametrize(
    "format",
    [
        pytest.param(format, marks=[] if format == "onnx" else [pytest.mark.slow])
        for format in SUFFIXES
    ],
)
def test_pyramids_and_backbones(format, tmp_path):
    backbone = small("basic", include_top=False)
    pyramid = features.pyramid(backbone, ("C2", "C3"))
    x = noise(2, 64, 64, 3)
    export_, suffix = getattr(export, format), SUFFIXES[format]
    found = run_exported.load(export_(pyramid, tmp_path / f"p{suffix}"))(x)
    assert set(found) == {"C2", "C3"}
    for name, value in pyramid(x).items():
        scale = np.abs(value).max()
        np.testing.assert_allclose(found[name], value, atol=1e-4 * scale)
    found = run_exported.load(export_(backbone, tmp_path / f"b{suffix}", image_size=64))(x)
    assert found["features"].shape == (2, 8, 8, 128)


@pytest.mark.slow
@pytest.mark.parametrize("groups", [1, 32])
def test_dilated_networks_of_any_size(groups, tmp_path):
    """In ONNX, Conv pads automatically only without dilation; each output has its own sizes."""
    import onnx
    from onnxruntime.tools.onnx_model_utils import make_dim_param_fixed

    config = ResNetConfig("bottleneck", (1, 1, 2), groups=groups, width_per_group=4)
    model = trained(create(config, include_top=False, output_stride=8))
    pyramid = features.pyramid(model, ("C2", "C4"))
    path = export.onnx(pyramid, tmp_path / "m.onnx")
    for side in (64, 96):
        x = noise(2, side, side + 32, 3)
        for name, value in run_exported.load(path)(x).items():
            expected = np.asarray(pyramid(x)[name])
            np.testing.assert_allclose(value, expected, atol=1e-4 * np.abs(expected).max())
    graph = onnx.load(path)
    for side in (1, 2):
        make_dim_param_fixed(graph.graph, f"side_{side}", 64)
    onnx.checker.check_model(graph, full_check=True)


def test_pixels_go_in_where_the_normalisation_is_inside(tmp_path):
    preprocessing = keras_resnet.Preprocessing(36, 32, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    normalised = (pixels / 255 - preprocessing.mean) / preprocessing.std
    for data_format in ("channels_last", "channels_first"):
        model = small("basic", data_format=data_format)
        turn = (
            (lambda x: x) if data_format == "channels_last" else (lambda x: x.transpose(0, 3, 1, 2))
        )
        path = export.onnx(
            model, tmp_path / "m.onnx", preprocessing=preprocessing, with_preprocessing=True
        )
        found = run_exported.load(path)(turn(pixels))["probabilities"]
        np.testing.assert_allclose(found, model(turn(normalised)), atol=1e-5)
    with pytest.raises(ValueError, match="pass preprocessing"):
        export.onnx(model, tmp_path / "m.onnx", with_preprocessing=True)


def test_random_layers_are_inactive(tmp_path):
    backbone = small("basic", input_shape=(64, 64, 3))
    model = keras.Sequential([keras.Input((64, 64, 3)), keras.layers.RandomFlip(), backbone])
    x = noise(2, 64, 64, 3)
    path = export.onnx(model, tmp_path / "m.onnx")
    found = run_exported.load(path)(x)["probabilities"]
    np.testing.assert_allclose(found, model(x, training=False), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["resnext", "resnext50_32x4d"])
def test_keras_own_exports_of_a_grouped_network_run(family, tmp_path, run_python):
    """With the convolution path chosen for this machine; a new process can load the files."""
    options = {"classes": 3, "input_shape": (32, 32, 3), "classifier_activation": None}
    model = (
        trained(keras_resnet.create(family, **options))
        if family not in CONFIGS
        else small(family, **options)
    )
    x = noise(1, 32, 32, 3)
    np.save(tmp_path / "x.npy", x)
    expected = model(x).numpy()
    scale = np.abs(expected).max()
    for network, name in ((model, "plain"), (export.fold(model), "folded")):
        network(x)  # Keras infers the inputs of a model from a call
        for suffix, format in ((".onnx", "onnx"), (".tflite", "litert")):
            path = tmp_path / f"{name}{suffix}"
            network.export(str(path), format=format, verbose=False)
            np.testing.assert_allclose(_run_keras_file(path, x), expected, atol=1e-5 * scale)
        network.export(str(tmp_path / name), verbose=False)
        done = run_python(
            "-c",
            "import numpy, tensorflow\n"
            f"model = tensorflow.saved_model.load({str(tmp_path / name)!r})\n"
            "numpy.save('y.npy', model.serve(numpy.load('x.npy')))",
        )
        assert done.returncode == 0, done.stderr
        np.testing.assert_allclose(np.load(tmp_path / "y.npy"), expected, atol=1e-5 * scale)


def _run_keras_file(path, x):
    """Runs a file that Keras exported, with its own names of inputs and outputs."""
    if path.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path)
        return session.run(None, {session.get_inputs()[0].name: x})[0]
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def metadata_of(path):
    """Reads the metadata of a file with the library of its format."""
    if path.suffix == ".onnx":
        import onnx

        return {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    if path.suffix == ".tflite":
        from ai_edge_litert import schema_py_generated as schema

        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes()))
        (entry,) = (entry for entry in model.metadata if entry.name == b"keras_resnet")
        return json.loads(bytes(model.buffers[entry.buffer].data))
    import openvino

    graph = openvino.Core().read_model(path)
    names = ("model", "preprocessing", "preprocessing_inside", "class_names")
    return {name: graph.get_rt_info(["keras_resnet", name]).astype(str) for name in names}


@pytest.mark.parametrize("format", SUFFIXES)
def test_files_contain_metadata(format, tmp_path):
    model = small("basic", input_shape=(32, 32, 3))
    used = keras_resnet.Preprocessing(36, 32, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    names = ["a \udce9", "雏菊", '"c"']  # a file name that is not valid Unicode
    path = tmp_path / f"m{SUFFIXES[format]}"
    getattr(export, format)(model, path, preprocessing=used, class_names=names)
    metadata = metadata_of(path)
    assert metadata["model"] == model.name
    said = {name: json.loads(metadata[name]) for name in metadata if name != "model"}
    assert said["class_names"] == names
    assert said["preprocessing_inside"] == "none"
    assert (said["preprocessing"]["resize"], said["preprocessing"]["crop"]) == (36, 32)
    assert said["preprocessing"]["mean"] == [0.1, 0.2, 0.3]
    assert said["preprocessing"]["std"] == [0.4, 0.5, 0.6]


def test_a_photograph_by_pillow_and_numpy_alone(tmp_path, monkeypatch):
    """The code in docs/export.md prepares images as the model needs them."""
    page = (Path(__file__).parents[1] / "docs" / "export.md").read_text()
    (block,) = (code for code in re.findall(r"```python\n(.*?)```", page, re.S) if "Image" in code)
    model, used = small("basic", input_shape=(64, 64, 3)), keras_resnet.Preprocessing(73, 64)
    monkeypatch.chdir(tmp_path)
    export.onnx(model, "flowers.onnx", preprocessing=used, class_names=["a", "b", "c"])
    (drawn,) = (data.drawn_flowers("drawn", train=1, val=0) / "train" / "rose").iterdir()
    drawn.rename("rose.jpg")
    Path("block.py").write_text(block)
    found = runpy.run_path("block.py")
    expected = model.predict_on_batch(used.batch({"": Path("rose.jpg").read_bytes()}))
    np.testing.assert_allclose(found["probabilities"], expected, atol=1e-3)


def test_rectangular_images(tmp_path):
    """The file takes images of the preprocessing's crop size; other sizes are rejected."""
    preprocessing = keras_resnet.Preprocessing((36, 45), (32, 40), interpolation="bicubic")
    options = {"preprocessing": preprocessing, "image_size": (32, 40)}
    path = export.onnx(small("cifar"), tmp_path / "m.onnx", **options)
    said = json.loads(path.with_name("m.onnx.export.json").read_text())
    assert said["signature"]["tensor"]["inputs"]["images"]["shape"] == [None, 32, 40, 3]
    assert said["preprocessing"]["crop"] == [32, 40]
    assert said["preprocessing"]["interpolation"] == "bicubic"
    with pytest.raises(ValueError, match="The image sizes differ"):
        export.onnx(small("cifar", input_shape=(32, 32, 3)), path, preprocessing=preprocessing)
