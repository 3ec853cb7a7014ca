"""Pyramids, and freezing by a real step."""

import keras
import numpy as np
import pytest

import keras_resnet
from keras_resnet import features


def moved_by_a_step(model):
    rng = np.random.default_rng(0)
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    before = [np.array(keras.ops.convert_to_numpy(value)) for value in model.weights]
    model.train_on_batch(rng.normal(size=(4, 32, 32, 3)).astype("float32"), np.arange(4))
    return {
        variable.path
        for variable, value in zip(model.weights, before, strict=True)
        if (keras.ops.convert_to_numpy(variable) != value).any()
    }


@pytest.mark.parametrize("batch_norm", [True, False])
def test_what_is_frozen_does_not_move(batch_norm):
    model = keras_resnet.ResNet18(classes=4, input_shape=(32, 32, 3))
    trained, kept = features.freeze(model, "layer3.0", batch_norm=batch_norm)
    assert trained + kept == model.count_params()
    moved = moved_by_a_step(model)
    free = {v.path for v in model.weights if v.path.startswith(("layer3.1", "layer4", "fc"))}
    if not batch_norm:
        free |= {v.path for v in model.weights if "bn" in v.path or "downsample.1" in v.path}
    assert moved == free


def test_what_is_no_layer():
    model = keras_resnet.ResNet18(classes=4)
    with pytest.raises(ValueError, match="'layer5', but conv1, bn1, layer1, layer2"):
        features.freeze(model, "layer5")
    assert len(model.trainable_variables) == 62


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_pyramid(data_format):
    """The sizes and channels of Lin et al.'s C2 to C5 for a picture of 352 pixels."""
    shape = (352, 352, 3) if data_format == "channels_last" else (3, 352, 352)
    backbone = features.pyramid("resnet50", input_shape=shape, data_format=data_format)
    assert {
        info.name: (info.layer, info.channels, info.stride) for info in backbone.feature_info
    } == {
        "C2": ("layer1.2", 256, 4),
        "C3": ("layer2.3", 512, 8),
        "C4": ("layer3.5", 1024, 16),
        "C5": ("layer4.2", 2048, 32),
    }
    for name, side, channels in zip(
        ("C2", "C3", "C4", "C5"), (88, 44, 22, 11), (256, 512, 1024, 2048), strict=True
    ):
        expected = (side, side, channels) if shape[2] == 3 else (channels, side, side)
        assert backbone.output[name].shape == (None, *expected)
    assert list(backbone.output) == ["C2", "C3", "C4", "C5"]


def test_pyramid_of_a_model_shares_its_weights():
    model = keras_resnet.ResNet18(classes=4, name_prefix="body_")
    backbone = features.pyramid(model, ("C1", "C3"))
    assert [info.layer for info in backbone.feature_info] == ["body_relu", "body_layer2.1"]
    x = np.random.default_rng(0).normal(size=(1, 64, 64, 3)).astype("float32")
    maps = backbone(x)
    until = keras.Model(model.input, model.get_layer("body_layer2.1").output)
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(maps["C3"]), keras.ops.convert_to_numpy(until(x))
    )
    assert maps["C1"].shape == (1, 32, 32, 64)
    assert {v.path for v in backbone.variables} < {v.path for v in model.variables}


@pytest.mark.parametrize("output_stride, strides", [(16, [4, 8, 16, 16]), (8, [4, 8, 8, 8])])
def test_strides_of_a_dilated_pyramid(output_stride, strides):
    backbone = features.pyramid("resnet18", output_stride=output_stride, input_shape=(64, 64, 3))
    assert [info.stride for info in backbone.feature_info] == strides
    assert [64 // map_.shape[1] for map_ in backbone.output.values()] == strides


def test_pyramid_of_a_cifar_network():
    backbone = features.pyramid("resnet20", ("C2", "C3", "C4"), input_shape=(32, 32, 3))
    assert [(info.channels, info.stride) for info in backbone.feature_info] == [
        (16, 1),
        (32, 2),
        (64, 4),
    ]


def test_what_makes_no_pyramid():
    model = keras_resnet.ResNet18(include_top=False)
    inputs = keras.Input((64, 64, 3))
    two = [
        keras_resnet.ResNet18(include_top=False, input_tensor=inputs, name_prefix=f"{side}_")
        for side in ("left", "right")
    ]
    for arguments, said in (
        ((model, ("C2", "C6")), "C1, C2, C3, C4, C5. Received: levels=.'C2', 'C6'"),
        ((keras.Sequential([inputs, model]),), "a residual network, which this is not"),
        ((keras.Model(inputs, [net.output for net in two]),), "holds 2 residual networks"),
    ):
        with pytest.raises(ValueError, match=said):
            features.pyramid(*arguments)
    with pytest.raises(ValueError, match=r"built already.*output_stride"):
        features.pyramid(model, output_stride=8)
