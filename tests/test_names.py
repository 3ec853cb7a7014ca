"""Parameter names of other libraries, and the files of keras.applications."""

import keras
import numpy as np
import pytest
from ml_dtypes import bfloat16
from torch_files import state_dict_file

import keras_resnet
from keras_resnet import weights
from keras_resnet.conversion import convert
from keras_resnet.weights import CheckpointError
from keras_resnet.weights.names import biases_into_means, renamed


@pytest.mark.parametrize(
    "theirs, ours",
    [
        ("resnet.embedder.embedder.convolution.weight", "resnet.conv1.weight"),
        ("embedder.embedder.normalization.running_var", "bn1.running_var"),
        (
            "resnet.encoder.stages.0.layers.0.shortcut.convolution.weight",
            "resnet.layer1.0.downsample.0",
        ),
        ("encoder.stages.3.layers.2.shortcut.normalization.bias", "layer4.2.downsample.1.bias"),
        ("encoder.stages.2.layers.22.layer.2.convolution.weight", "layer3.22.conv3.weight"),
        ("m.encoder.stages.1.layers.0.layer.0.normalization.bias", "m.layer2.0.bn1.bias"),
        ("layer2.0.shortcut.1.running_mean", "layer2.0.downsample.1.running_mean"),
        ("module.encoder.layer1.0.conv1.weight", "encoder.layer1.0.conv1.weight"),
        ("layer1._orig_mod.0.module.conv1.weight", "layer1.0.conv1.weight"),
        ("layer1.0.model.conv1.weight", "layer1.0.conv1.weight"),
        ("res2.0.conv3.norm.running_var", "res2.0.bn3.running_var"),
        (
            "backbone.bottom_up.res2.0.shortcut.norm.bias",
            "backbone.bottom_up.res2.0.downsample.1.bias",
        ),
        (
            "backbone.bottom_up.res2.0.shortcut.weight",
            "backbone.bottom_up.res2.0.downsample.0.weight",
        ),
        ("conv1_w", "stem.conv1.weight"),
        ("res_conv1_bn_s", "stem.bn1.weight"),
        ("res4_22_branch2c_w", "res4.22.conv3.weight"),
        ("res2_0_branch2a_bn_b", "res2.0.bn1.bias"),
        ("res2_0_branch1_bn_s", "res2.0.downsample.1.weight"),
        ("res2_0_branch1_w", "res2.0.downsample.0.weight"),
        ("fc1000_b", "fc.bias"),
        ("layer1.0.conv1.weight", "layer1.0.conv1.weight"),
        ("features.init_block.conv.bn.running_var", "features.bn1.running_var"),
        ("features.init_block.conv.conv.weight", "features.conv1.weight"),
        ("features.stage2.unit10.body.conv3.bn.bias", "features.stage2.9.bn3.bias"),
        ("features.stage1.unit1.body.conv1.conv.weight", "features.stage1.0.conv1.weight"),
        ("features.stage1.unit1.identity_conv.bn.bias", "features.stage1.0.downsample.1.bias"),
        ("features.stage1.unit1.identity_conv.conv.weight", "features.stage1.0.downsample.0"),
        ("module.backbone.body.stem.bn1.bias", "backbone.body.stem.bn1.bias"),
        ("layer1.0.bn1._mean", "layer1.0.bn1.running_mean"),
        ("bn1._variance", "bn1.running_var"),
    ],
)
def test_names(theirs, ours):
    (name,) = renamed({theirs: np.zeros(1)})[0]
    assert name.startswith(ours)


def test_counts_are_dropped():
    state = {"bn1.num_batches_tracked": 1, "n_averaged": 2, "bn1.bias": 3}
    assert renamed(state)[0] == {"bn1.bias": 3}


def test_names_that_would_collide_are_kept():
    state = {"conv1.weight": 1, "module.conv1.weight": 2}
    assert renamed(state)[0] == state


def test_biases_go_into_the_means(resnet18_state, tmp_path):
    """The stem is compared with Keras' own layers, the rest with the formula of normalization."""
    rng = np.random.default_rng(0)
    state = dict(resnet18_state)
    kernels = [key for key, value in state.items() if value.ndim == 4]
    for key in kernels:
        bias = rng.normal(size=len(state[key])).astype(np.float32)
        state[key.replace("weight", "bias")] = bias
    assert len(kernels) == 20
    path = state_dict_file(tmp_path / "w.pth", state)
    model = keras_resnet.ResNet18(weights=path, classes=7, input_shape=(32, 32, 3))
    loaded = weights.to_state_dict(model)
    for key in kernels:
        norm = key.replace("conv", "bn").replace("downsample.0", "downsample.1")
        mean = norm.replace("weight", "running_mean")
        expected = state[mean] - state[key.replace("weight", "bias")]
        np.testing.assert_array_equal(loaded[mean], expected)
    x = rng.normal(size=(2, 32, 32, 3)).astype(np.float32)
    convolution = keras.layers.Conv2D(64, 7, 2)
    norm = keras.layers.BatchNormalization(epsilon=1e-5)
    norm(convolution(padded := keras.ops.pad(x, ((0, 0), (3, 3), (3, 3), (0, 0)))))
    kernel = state["conv1.weight"].transpose(2, 3, 1, 0)
    convolution.set_weights([kernel, state["conv1.bias"]])
    leaves = ("weight", "bias", "running_mean", "running_var")
    norm.set_weights([state[f"bn1.{leaf}"] for leaf in leaves])
    expected = np.asarray(norm(convolution(padded)))
    stem = keras.Model(model.input, model.get_layer("bn1").output)
    assert np.abs(stem(x) - expected).max() <= 1e-5 * np.abs(expected).max()


def test_biases_of_another_type_go_into_the_means():
    state = {"conv1.bias": np.ones(2, np.float16), "bn1.running_mean": np.full(2, 3, bfloat16)}
    (mean,) = biases_into_means(state).values()
    assert mean.value().dtype == np.float32 and mean.value().tolist() == [2, 2]


def test_other_biases_stay():
    """Without a running mean of equal size, a bias is kept and reported as unused."""
    bias, mean = np.zeros(2), np.zeros(3)
    for state in ({"conv1.bias": bias}, {"conv1.bias": bias, "bn1.running_mean": mean}):
        assert biases_into_means(state).keys() == state.keys()


def applications_model(name, **arguments):
    """Returns a network of keras.applications with random statistics and biases."""
    model = getattr(keras.applications, name)(weights=None, **arguments)
    generator = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            size = layer.gamma.shape[0]
            layer.set_weights(
                [generator.uniform(low, high, size) for low, high in ((0.8, 1.2), (-0.1, 0.1)) * 2]
            )
            layer.moving_mean.assign(generator.normal(0, 0.1, size))
            layer.moving_variance.assign(generator.uniform(0.5, 1.5, size))
        elif isinstance(layer, keras.layers.Conv2D) and layer.use_bias:
            layer.bias.assign(generator.normal(0, 0.1, layer.bias.shape))
    return model


@pytest.fixture(scope="module")
def resnet50():
    return applications_model(
        "ResNet50", input_shape=(64, 64, 3), classes=7, classifier_activation=None
    )


@pytest.mark.parametrize(
    "file",
    ["w.weights.h5", *(pytest.param(file, marks=pytest.mark.slow) for file in ("w.h5", "w.keras"))],
)
def test_files_of_keras_applications(file, resnet50, tmp_path):
    """ResNet50 in three formats, compared with the original network."""
    if file == "w.weights.h5":
        resnet50.save_weights(tmp_path / file)
    else:
        resnet50.save(tmp_path / file)
    ours = keras_resnet.ResNet50(
        version="v1", weights=tmp_path / file, classes=7, classifier_activation=None
    )
    check_equal(ours, resnet50, 64)
    other = keras_resnet.ResNet50(version="v1", weights=tmp_path / file, classes=3)
    assert other.output.shape == (None, 3)


@pytest.fixture(scope="module")
def resnet50v2():
    return applications_model(
        "ResNet50V2", input_shape=(64, 96, 3), classes=7, classifier_activation=None
    )


@pytest.mark.parametrize(
    "file",
    ["w.weights.h5", *(pytest.param(file, marks=pytest.mark.slow) for file in ("w.h5", "w.keras"))],
)
def test_files_of_keras_applications_v2(file, resnet50v2, tmp_path):
    """Pre-activation, with strides, biases and zeros in the places of these networks."""
    if file == "w.weights.h5":
        resnet50v2.save_weights(tmp_path / file)
    else:
        resnet50v2.save(tmp_path / file)
    arguments = {"classes": 7, "classifier_activation": None}
    ours = keras_resnet.ResNet50V2(weights=tmp_path / file, **arguments)
    assert ours.count_params() == resnet50v2.count_params()
    check_equal(ours, resnet50v2, 64, 96)
    again = keras_resnet.weights.save(ours, tmp_path / "ours.pth")
    check_equal(keras_resnet.ResNet50V2(weights=again, **arguments), resnet50v2, 64, 96)


def test_preprocessing_of_keras_applications_v2():
    pixels = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3)).astype(np.float32)
    model = keras_resnet.ResNet50V2(include_preprocessing=True, include_top=False)
    expected = keras.applications.resnet_v2.preprocess_input(pixels.copy())
    np.testing.assert_allclose(model.get_layer("preprocessing")(pixels), expected, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ResNet101", "ResNet152", "ResNet101V2", "ResNet152V2"])
def test_deeper_files_of_keras_applications(name, tmp_path):
    theirs = applications_model(name, include_top=False, pooling="avg")
    theirs.save_weights(tmp_path / "w.weights.h5")
    ours = keras_resnet.create(
        name.lower(),
        version=None if name.endswith("V2") else "v1",
        weights=tmp_path / "w.weights.h5",
        include_top=False,
        pooling="avg",
    )
    check_equal(ours, theirs)


def check_equal(ours, theirs, height=224, width=None):
    x = np.random.default_rng(1).normal(size=(2, height, width or height, 3)).astype(np.float32)
    expected = np.asarray(theirs(x))
    assert np.abs(ours(x) - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.slow
def test_keras_applications_needs_version_1(tmp_path):
    theirs = keras.applications.ResNet50(weights=None, include_top=False)
    theirs.save_weights(tmp_path / "w.weights.h5")
    with pytest.raises(CheckpointError, match="version='v1'"):
        keras_resnet.ResNet50(weights=tmp_path / "w.weights.h5", include_top=False)
    with pytest.raises(CheckpointError, match=r"a resnet50 .*keras_resnet\.create\('resnet50'"):
        keras_resnet.ResNet18(weights=tmp_path / "w.weights.h5")
    theirs.save(tmp_path / "w.keras")
    with pytest.raises(CheckpointError, match="version='v1'"):
        convert(tmp_path / "w.keras", tmp_path / "w.pth")
    model = keras_resnet.ResNet50(version="v1")
    with pytest.raises(CheckpointError, match=r"2 missing from the file: fc\.bias, fc\.weight"):
        weights.load(model, tmp_path / "w.weights.h5")
