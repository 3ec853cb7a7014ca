"""The networks: parameter counts, names, arguments, saving."""

import inspect
import json
from pathlib import Path

import keras
import numpy as np
import pytest
from golden.rule import array

import keras_resnet
from keras_resnet.configs import CONFIGS, ResNetConfig
from keras_resnet.models import create
from keras_resnet.weights.architecture import Architecture, recognise
from keras_resnet.weights.assigning import assign

GOLDEN = Path(__file__).parent / "golden"
KEYS = json.loads((GOLDEN / "state_dict_keys.json").read_text())
LOGITS = np.load(GOLDEN / "logits.npz")
# Trainable parameters with 1,000 classes: He et al., and torchvision's table of models.
PARAMETERS = {
    "resnet18": 11689512,
    "resnet34": 21797672,
    "resnet50": 25557032,
    "resnet101": 44549160,
    "resnet152": 60192808,
    "resnext50_32x4d": 25028904,
    "resnext101_32x8d": 88791336,
    "resnext101_64x4d": 83455272,
    "wide_resnet50_2": 68883240,
    "wide_resnet101_2": 126886696,
}
SMALLEST = ("resnet18", "resnet50", "resnext50_32x4d")
SMALL = {"classes": 7, "input_shape": (64, 64, 3)}


def images(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def answer(model, x):
    """Returns a model's outputs as NumPy arrays, with any backend."""
    return keras.tree.map_structure(keras.ops.convert_to_numpy, model(x))


def test_the_list_of_models():
    cifar = [f"resnet{depth}" for depth in (20, 32, 44, 56, 110, 1202)]
    assert keras_resnet.list_models()[:16] == [*PARAMETERS, *cifar]
    assert keras_resnet.list_models("seresnet*") == [
        name for name in CONFIGS if name.startswith("seresnet")
    ]
    assert keras_resnet.list_models("resnet101[!v]") == ["resnet101c", "resnet101d", "resnet101s"]
    assert keras_resnet.list_models("resnet51") == []
    published = keras_resnet.list_models(pretrained=True)
    assert [name for name in PARAMETERS if name in published] == [*PARAMETERS]
    assert not set(published) & {*cifar, "resnet200"}


def test_a_row_is_all_that_a_variant_needs(monkeypatch, tmp_path):
    """A row adds the name, the public function, the weights and the backbone."""
    row = ResNetConfig("bottleneck", (1, 2), width_per_group=32, paper="A note.", builder="TinyNet")
    monkeypatch.setitem(CONFIGS, "tiny", row)
    assert "tiny" in keras_resnet.list_models()
    assert "Reference: A note." in keras_resnet.TinyNet.__doc__
    model = keras_resnet.TinyNet(classes=7)
    assert model.name == "tiny"
    file = keras_resnet.weights.save(model, tmp_path / "tiny.pth")
    assert recognise(keras_resnet.weights.read_state_dict(file)).variant == "tiny"
    again = keras_resnet.create("tiny", classes=7, weights=file)
    np.testing.assert_array_equal(again.get_weights()[-1], model.get_weights()[-1])
    assert list(keras_resnet.features.pyramid("tiny", ("C2", "C3")).output) == ["C2", "C3"]


@pytest.fixture(
    scope="module",
    params=[
        # The smallest of each kind; the others differ only in their numbers.
        name if name in SMALLEST else pytest.param(name, marks=pytest.mark.slow)
        for name in PARAMETERS
    ],
)
def network(request):
    """(name, model, state_dict) of each network, with 7 classes and values by golden/rule.py."""
    name = request.param
    model = keras_resnet.create(name, classes=7, classifier_activation=None)
    shapes = {key: a.shape for key, a in keras_resnet.weights.to_state_dict(model).items()}
    state = {key: array(key, shape) for key, shape in shapes.items()}
    assign(model, state, "the rule")
    return name, model, state


@pytest.mark.parametrize("size", [(64, 64), (65, 97)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_golden_logits(network, size):
    name, model, _ = network
    expected = LOGITS[f"{name}/{size[0]}x{size[1]}"]
    logits = answer(model, array("images", (2, 3, *size)).transpose(0, 2, 3, 1))
    assert np.abs(logits - expected).max() <= 1e-5 * np.abs(expected).max()


def test_parameters(network):
    name, model, _ = network
    features = model.get_layer("fc").kernel.shape[0]
    parameters = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
    parameters += (1000 - 7) * (features + 1)
    assert parameters == PARAMETERS[name]
    published = [row for row in keras_resnet.list_weights(name) if row.classes == 1000]
    assert {row.parameters for row in published} == {parameters}


def test_every_architecture_is_known_by_its_keys(network):
    name, _, state = network
    assert recognise(state) == Architecture(f"a {name} with 7 classes", name, 7, 3)


def test_variable_paths_are_state_dict_keys(network):
    name, model, state = network
    leaves = {
        "kernel": "weight",
        "gamma": "weight",
        "beta": "bias",
        "bias": "bias",
        "moving_mean": "running_mean",
        "moving_variance": "running_var",
    }
    paths = []
    for variable in model.variables:
        path, leaf = variable.path.rsplit("/", 1)
        paths.append(f"{path}/{leaves[leaf]}".replace("/", "."))
    # torchvision's keys for the networks in the golden files
    keys = [key for key in KEYS.get(name, state) if not key.endswith("num_batches_tracked")]
    assert paths == keys


def test_signature_is_that_of_keras_applications():
    ours = list(inspect.signature(keras_resnet.ResNet50).parameters.values())
    theirs = list(inspect.signature(keras.applications.ResNet50).parameters)
    positional = [p.name for p in ours if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert positional == theirs
    assert all(p.kind is p.KEYWORD_ONLY for p in ours[len(positional) :])
    with pytest.raises(TypeError, match="pooing"):
        keras_resnet.ResNet50(pooing="avg")


@pytest.mark.parametrize(
    "arguments, shape",
    [
        ({}, (None, 1000)),
        ({"classes": 7}, (None, 7)),
        ({"include_top": False}, (None, None, None, 512)),
        ({"include_top": False, "input_shape": (96, 65, 1)}, (None, 3, 3, 512)),
        ({"include_top": False, "input_shape": (None, None, 4)}, (None, None, None, 512)),
        ({"include_top": False, "pooling": "avg"}, (None, 512)),
        ({"include_top": False, "pooling": "max"}, (None, 512)),
        ({"include_top": False, "input_shape": (64, 64, 3), "output_stride": 8}, (None, 8, 8, 512)),
    ],
)
def test_output_shapes(arguments, shape):
    assert create(ResNetConfig("basic", (1, 1, 1, 1)), **arguments).output.shape == shape


def test_the_last_layer_is_the_head_with_its_activation():
    for activation in ("softmax", None, "sigmoid"):
        model = keras_resnet.ResNet18(**SMALL, classifier_activation=activation)
        assert isinstance(model.layers[-1], keras.layers.Dense)
        assert model.layers[-1].activation is keras.activations.get(activation)
    assert np.allclose(answer(keras_resnet.ResNet18(**SMALL), images(2, 64, 64, 3)).sum(1), 1)


def test_input_tensor():
    inputs = keras.Input((80, 80, 3))
    scaled = keras.layers.Rescaling(2.0)(inputs)
    model = keras_resnet.ResNet18(input_tensor=scaled, classes=7)
    plain = keras_resnet.ResNet18(classes=7)
    plain.set_weights(model.get_weights())
    x = images(2, 80, 80, 3)
    assert model.input is inputs
    np.testing.assert_allclose(answer(model, x), answer(plain, 2 * x), rtol=1e-5, atol=1e-6)


def test_two_networks_in_one_graph_with_prefixes(tmp_path):
    inputs = keras.Input((64, 64, 3))
    branches = [
        keras_resnet.ResNet18(
            include_top=False, input_tensor=inputs, pooling="avg", name_prefix=f"{side}_"
        )
        for side in ("left", "right")
    ]
    joined = keras.Model(inputs, [branch.output for branch in branches])
    assert len({layer.name for layer in joined.layers}) == len(joined.layers)
    plain = keras_resnet.ResNet18(include_top=False, pooling="avg")
    plain.save(tmp_path / "plain.keras")
    keras_resnet.weights.load(branches[1], tmp_path / "plain.keras")
    x = images(1, 64, 64, 3)
    np.testing.assert_allclose(answer(joined, x)[1], answer(plain, x), rtol=1e-5, atol=1e-6)


def test_include_preprocessing_takes_pixels():
    model = keras_resnet.ResNet18(**SMALL, include_preprocessing=True)
    plain = keras_resnet.ResNet18(**SMALL)
    plain.set_weights(model.get_weights())
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    expected = answer(plain, keras_resnet.preprocess_input(pixels))
    np.testing.assert_allclose(answer(model, pixels), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "name", ["resnet18", pytest.param("resnext50_32x4d", marks=pytest.mark.slow)]
)
def test_channels_first_equals_channels_last(name):
    last = keras_resnet.create(name, **SMALL)
    first = keras_resnet.create(
        name, classes=7, input_shape=(3, 64, 64), data_format="channels_first"
    )
    first.set_weights(last.get_weights())
    x = images(2, 64, 64, 3)
    found = answer(first, x.transpose(0, 3, 1, 2))
    np.testing.assert_allclose(found, answer(last, x), rtol=1e-4, atol=1e-6)


def test_mixed_precision_keeps_the_head_in_float32():
    model = keras_resnet.ResNet18(**SMALL, dtype="mixed_float16")
    plain = keras_resnet.ResNet18(**SMALL)
    plain.set_weights(model.get_weights())
    block = model.get_layer("layer1.0")
    assert block.conv1.compute_dtype == block.bn1.compute_dtype == "float16"
    x = images(2, 64, 64, 3)
    y = model(x)
    assert keras.backend.standardize_dtype(y.dtype) == "float32"
    np.testing.assert_allclose(answer(model, x), answer(plain, x), atol=0.02)


def test_zero_init_residual_makes_blocks_identities():
    model = keras_resnet.ResNet18(**SMALL, zero_init_residual=True)
    block = model.get_layer("layer1.1")
    x = np.abs(images(2, 16, 16, 64))
    np.testing.assert_array_equal(answer(block, x), x)


# Identity and projection blocks with groups, like a small ResNeXt.
SMALL_RESNEXT = ResNetConfig("bottleneck", (2, 1, 1, 1), groups=32, width_per_group=4)


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(CONFIGS["resnet18"], marks=pytest.mark.slow, id="resnet18"),
        pytest.param(SMALL_RESNEXT, id="small resnext"),
        pytest.param(CONFIGS["resnext50_32x4d"], marks=pytest.mark.slow, id="resnext50_32x4d"),
    ],
)
def test_saving_in_this_process(config, tmp_path):
    model = create(config, **SMALL, dropout=0.1, drop_path=0.1)
    x = images(2, 64, 64, 3)
    expected = answer(model, x)
    model.save(tmp_path / "m.keras")
    model.save_weights(tmp_path / "m.weights.h5")
    copies = [
        keras.saving.load_model(tmp_path / "m.keras"),
        keras.Model.from_config(model.get_config()),
        keras.models.clone_model(model),
        keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(model)),
    ]
    for copy in copies[1:]:
        copy.load_weights(tmp_path / "m.weights.h5")
    for file in ("m.keras", "m.weights.h5"):
        copies.append(create(config, **SMALL))
        keras_resnet.weights.load(copies[-1], tmp_path / file)
    for copy in copies:
        np.testing.assert_array_equal(answer(copy, x), expected)
        assert [v.path for v in copy.trainable_variables] == [
            v.path for v in model.trainable_variables
        ]


def test_saving_in_a_fresh_process(tmp_path, run_imported):
    model = create(SMALL_RESNEXT, **SMALL)
    x = images(2, 64, 64, 3)
    model.save(tmp_path / "m.keras")
    np.save(tmp_path / "x.npy", x)
    done = run_imported(
        "import keras_resnet, keras, numpy as np\n"
        "model = keras.saving.load_model('m.keras')\n"
        "np.save('y.npy', keras.ops.convert_to_numpy(model(np.load('x.npy'))))",
    )
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "y.npy")
    np.testing.assert_allclose(found, answer(model, x), rtol=1e-5, atol=1e-7)


def test_every_parameter_of_a_trained_resnext_moves():
    model = create(SMALL_RESNEXT, classes=3, input_shape=(32, 32, 3))
    model.compile("sgd", "sparse_categorical_crossentropy")
    before = [np.array(value) for value in map(keras.ops.convert_to_numpy, model.variables)]
    model.fit(images(4, 32, 32, 3), np.array([0, 1, 2, 0]), verbose=0, batch_size=4)
    for variable, old in zip(model.variables, before, strict=True):
        if "seed" not in variable.path:
            assert np.abs(keras.ops.convert_to_numpy(variable) - old).max() > 0, variable.path


@pytest.mark.parametrize(
    "arguments, said",
    [
        ({"classes": 0}, "classes=0"),
        ({"classes": 2.5}, "classes=2.5"),
        ({"pooling": "sum", "include_top": False}, "pooling='sum'"),
        ({"input_shape": (31, 64, 3)}, "at least 32x32"),
        ({"input_shape": (64, 64)}, r"\(height, width, channels\)"),
        ({"input_shape": (64, 64, None)}, "known number of channels"),
        ({"output_stride": 4}, "output_stride=4"),
        ({"version": "v2"}, "version='v2'"),
        ({"shortcut": "A"}, "CIFAR"),
        ({"drop_path": 1.0}, "drop_path=1.0"),
        ({"input_tensor": np.zeros((1, 64, 64, 3))}, "Keras tensor"),
        ({"weights": "missing.pth"}, "missing.pth does not exist"),
        ({"weights": "IMAGENET1K_V9"}, "IMAGENET1K_V1"),
    ],
)
def test_bad_arguments(arguments, said):
    with pytest.raises(ValueError, match=said):
        keras_resnet.ResNet18(**arguments)


def test_unknown_names():
    with pytest.raises(ValueError, match="Did you mean resnet50"):
        keras_resnet.create("resnet_50")
    with pytest.raises(ValueError, match="There is no model"):
        keras_resnet.create(SMALL_RESNEXT, weights="imagenet")
    with pytest.raises(AttributeError, match="ResNet5000"):
        keras_resnet.ResNet5000  # noqa: B018 (the lookup raises)


def test_decode_predictions():
    preds = np.zeros((2, 1000))
    preds[0, 9], preds[1, 21] = 0.9, 0.8
    decoded = keras_resnet.decode_predictions(preds, top=2)
    assert decoded[0][0] == ("n01518878", "ostrich", pytest.approx(0.9))
    assert decoded[1][0][:2] == ("n01608432", "kite")
    assert [len(answer) for answer in decoded] == [2, 2]
    with pytest.raises(ValueError, match=r"\(2, 5\)"):
        keras_resnet.decode_predictions(np.zeros((2, 5)))


def test_preprocess_input_leaves_its_argument_alone():
    pixels = np.random.default_rng(0).uniform(0, 255, (1, 4, 4, 3)).astype(np.float32)
    kept = pixels.copy()
    # Keras' own "torch" mode is the reference.
    expected = keras.applications.densenet.preprocess_input(pixels.copy())
    np.testing.assert_allclose(keras_resnet.preprocess_input(pixels), expected, atol=1e-5)
    first = keras_resnet.preprocess_input(pixels.transpose(0, 3, 1, 2), "channels_first")
    np.testing.assert_allclose(first.transpose(0, 2, 3, 1), expected, atol=1e-5)
    np.testing.assert_array_equal(pixels, kept)
