"""Pre-activation networks: the papers' parameter counts, timm's names, dropout inside blocks."""

import dataclasses

import keras
import numpy as np
import pytest
from small_networks import CONFIGS as SMALL
from small_networks import check_copies, noise, small

from keras_resnet import features, visualize, weights
from keras_resnet.configs import CONFIGS
from keras_resnet.models import create
from keras_resnet.preactivation import PreactivationBasicBlock

WIDE = SMALL["wide_cifar"]


def numbers(variables):
    return sum(int(np.prod(variable.shape)) for variable in variables)


@pytest.mark.parametrize(
    "name, millions",
    [
        ("preact_resnet110", 1.7),
        ("preact_resnet164", 1.7),
        ("wrn_16_8", 11.0),
        ("wrn_40_2", 2.2),
        pytest.param("wrn_28_10", 36.5, marks=pytest.mark.slow),
        pytest.param("preact_resnet1001", 10.2, marks=pytest.mark.slow),
    ],
)
def test_parameters_are_those_of_the_papers(name, millions):
    """He et al., 2016b, table 4, which counts kernels; Zagoruyko and Komodakis, tables 4 and 5."""
    kernels = [v for v in create(name).trainable_variables if v.path.endswith("kernel")]
    assert round(numbers(kernels) / 1e6, 1) == millions


def test_depths_are_those_of_the_names():
    """Convolutions and the last matrix; projections are not counted (He et al., 2015)."""
    for name, config in CONFIGS.items():
        if name.startswith(("preact", "wrn")):
            layers = {"basic": 2, "bottleneck": 3}[config.block] * sum(config.depths) + 2
            # Wide ResNets count the projections of their three stages, but not the last matrix.
            layers += 2 if name.startswith("wrn") else 0
            assert str(layers) in name.replace("resnet", "_").split("_")


def test_names_are_those_of_timm():
    """Variables are named as in other networks, on which the rest of the package relies."""
    model = small("preactivation", input_shape=(32, 32, 3))
    state = weights.to_state_dict(model)
    first = "stages.0.blocks.0"
    assert {key.rpartition(".")[0] for key in state} >= {
        *(
            "stem.conv1",
            "stem.norm2",
            "stem.conv3",
            f"{first}.norm1",
            f"{first}.conv1",
            f"{first}.norm3",
            f"{first}.conv3",
        ),
        *(f"{first}.downsample.conv", "stages.1.blocks.0.conv2", "norm", "head.fc"),
    }
    assert state["head.fc.weight"].shape == (3, 512, 1, 1)
    assert model.get_layer("layer1.0").bn1.moving_mean.path == "layer1.0/bn1/moving_mean"


@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_saving_and_cloning(shortcut, tmp_path):
    model = create(WIDE, classes=3, shortcut=shortcut, drop_path=0.1, dropout=0.3)
    check_copies(model, noise(2, 32, 32, 3), tmp_path)


def test_the_last_normalization_belongs_to_the_backbone(tmp_path):
    """Its width is that of the features, like layers that some files have before the head."""
    path = weights.save(small("preactivation"), tmp_path / "w.pth")
    expected = weights.read_state_dict(path)
    for changed in ({"include_top": False}, {"classes": 7}):
        model = create(SMALL["preactivation"], **changed)
        weights.load(model, path, head="skip")
        for key, array in weights.to_state_dict(model).items():
            assert key.startswith("head.") or np.array_equal(array, expected[key]), key


def test_biases_are_not_moved_into_the_normalization_before_them(tmp_path):
    """In a basic block it has as many channels, and the same number in its name."""
    config = dataclasses.replace(SMALL["applications"], block="basic")
    model = create(config, classes=3)
    model.set_weights([np.full(v.shape, 0.1) for v in model.weights])
    weights.save(model, tmp_path / "w.pth")
    again = create(config, classes=3, weights=tmp_path / "w.pth")
    for one, other in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_inspect_knows_the_last_normalization(tmp_path):
    path = weights.save(create("wrn_16_8"), tmp_path / "w.safetensors")
    call = f"keras_resnet.create('wrn_16_8', classes=10, weights={str(path)!r})"
    assert weights.inspect(path).call == call


def test_dropout_of_a_wide_network_is_between_its_convolutions():
    model = create(WIDE, classes=3, dropout=0.5)
    layers = features.all_layers(model)
    rates = [layer.rate for layer in layers if isinstance(layer, keras.layers.Dropout)]
    assert rates == [0.5] * 2  # one per block, and none before the head
    block = PreactivationBasicBlock(8, dropout=0.5)
    x = noise(4, 8, 8, 8)
    block(x)
    block.conv2.kernel.assign(np.zeros(block.conv2.kernel.shape))
    # With a zero kernel after the dropout, only the shortcut is left.
    np.testing.assert_array_equal(block(x, training=True), x)
    block.conv2.kernel.assign(np.ones(block.conv2.kernel.shape))
    assert np.abs(block(x, training=True) - block(x, training=True)).max() > 0.01
    np.testing.assert_array_equal(block(x), block(x))


def test_diagrams(tmp_path):
    """A ReLU follows each normalization, and none follows an addition."""
    model = small("wide_cifar")
    assert ">each behind BN, ReLU:<" in visualize.plot(model, tmp_path / "blocks.svg").read_text()
    svg = visualize.plot(model, tmp_path / "layers.svg", "layer").read_text()
    assert svg.count(">ReLU<") == svg.count(">BatchNormalization<") == 5


def test_zero_init_residual_makes_blocks_identities():
    block = PreactivationBasicBlock(8, zero_init_residual=True)
    x = noise(2, 8, 8, 8)
    np.testing.assert_array_equal(block(x), x)


def test_freezing_and_mixed_precision():
    model = small("preactivation", dtype="mixed_float16", input_shape=(32, 32, 3))
    trained, _ = features.freeze(model, "layer1", batch_norm=False)
    frozen = [v.path for v in model.non_trainable_variables if v.path.endswith("kernel")]
    assert frozen[0] == "conv1.0/kernel" and frozen[-1].startswith("layer1.1/")
    assert trained == numbers(model.trainable_variables)
    model.compile("sgd", "sparse_categorical_crossentropy", jit_compile=True)
    assert np.isfinite(model.train_on_batch(noise(4, 32, 32, 3), np.arange(4) % 3))
