"""Pooled features, pyramids, and freezing with a real training step."""

import copy
import pickle

import keras
import numpy as np
import pytest
from small_networks import NARROW, noise, small

import keras_resnet
from keras_resnet import features
from keras_resnet.blocks import BasicBlock
from keras_resnet.configs import CONFIGS, ResNetConfig
from keras_resnet.models import create


def moved_by_a_step(model, eagerly=True):
    """Returns the indices of the weights that a training step changes."""
    # Eagerly, since tracing takes longer than a few steps.
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", run_eagerly=eagerly)
    before = [np.array(keras.ops.convert_to_numpy(value)) for value in model.weights]
    model.train_on_batch(noise(4, 32, 32, 3), np.arange(4) % 3)
    return {
        number
        for number, (variable, value) in enumerate(zip(model.weights, before, strict=True))
        if (keras.ops.convert_to_numpy(variable) != value).any()
    }


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_pooled_features(data_format):
    """The classifier's input; for stages, blocks, levels and layers, the mean by NumPy."""
    model = small("basic", data_format=data_format)
    last = data_format == "channels_last"
    x = noise(2, 64, 64, 3) if last else noise(2, 3, 64, 64)
    pooled = features.pooled(model)
    fc = model.get_layer("fc")
    np.testing.assert_allclose(fc(pooled(x)), model(x), atol=1e-6)
    for layer, name in (("layer1", "layer1.0"), ("layer1.0", "layer1.0"), ("C3", "layer2.0")):
        maps = keras.Model(model.input, model.get_layer(name).output)(x)
        expected = keras.ops.convert_to_numpy(maps).mean((1, 2) if last else (2, 3))
        found = keras.ops.convert_to_numpy(features.pooled(model, layer)(x))
        np.testing.assert_allclose(found, expected, atol=1e-5)
    for layer in ("fc", "layer3", "layer"):
        with pytest.raises(
            ValueError, match=r"\(conv1, bn1, layer1, layer2\), or a level \(C1, C2"
        ):
            features.pooled(model, layer)
    outer = keras.Sequential([keras.Input(x.shape[1:]), model])
    with pytest.raises(ValueError, match=f"Pass {model.name}, the network inside"):
        features.pooled(outer)


@pytest.mark.parametrize("batch_norm", [True, False])
def test_what_is_frozen_does_not_move(batch_norm):
    config = ResNetConfig("basic", (1, 1, 2, 1), family=NARROW)
    model = create(config, classes=4, input_shape=(32, 32, 3))
    trained, kept = features.freeze(model, "layer3.0", batch_norm=batch_norm)
    assert trained + kept == model.count_params()
    moved = {model.weights[number].path for number in moved_by_a_step(model, eagerly=batch_norm)}
    free = {v.path for v in model.weights if v.path.startswith(("layer3.1", "layer4", "fc"))}
    if not batch_norm:
        free |= {v.path for v in model.weights if "bn" in v.path or "downsample.1" in v.path}
    assert moved == free


def by_file(name):
    def copied(model, folder):
        model.save(folder / name)
        return keras.saving.load_model(folder / name)

    return copied


COPIES = {
    "keras": by_file("m.keras"),
    "h5": by_file("m.h5"),
    "clone_model": lambda model, _: keras.models.clone_model(model),
    "config": lambda model, _: type(model).from_config(model.get_config()),
    "json": lambda model, _: keras.models.model_from_json(model.to_json()),
    "pickle": lambda model, _: pickle.loads(pickle.dumps(model)),  # noqa: S301 (our own data)
    "deepcopy": lambda model, _: copy.deepcopy(model),
}


def stock():
    """A model of Keras' own layers, whose copies keep what is frozen."""
    layers = [
        keras.Input((32, 32, 3)),
        keras.layers.Conv2D(4, 3),
        keras.layers.BatchNormalization(),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(3, "softmax"),
    ]
    layers[2].trainable = False
    return keras.Sequential(layers), {0, 1, 6, 7}


def until_a_stage():
    model = small("basic", input_shape=(32, 32, 3))
    features.freeze(model, "layer1")
    return model, {n for n, v in enumerate(model.weights) if v.path.startswith(("layer2", "fc"))}


def by_block():
    """A frozen block, except for one of its parts."""
    model = small("bottleneck", input_shape=(32, 32, 3), name_prefix="net_", drop_path=0.1)
    block = model.get_layer("net_layer2.0")
    block.trainable = False
    block.bn2.trainable = True
    kept = [v for v in block.weights if "bn2" not in v.path]
    return model, {n for n, v in enumerate(model.weights) if all(v is not k for k in kept)}


def nested():
    backbone = small("resnext", input_shape=(32, 32, 3), include_top=False, pooling="avg")
    backbone.trainable = False
    head = [keras.layers.Dropout(0.2), keras.layers.Dense(3, "softmax")]
    model = keras.Sequential([backbone, *head])
    return model, {len(model.weights) - 2, len(model.weights) - 1}


def with_attention():
    """A frozen stage, and a frozen layer in the attention of a later block."""
    model = small("squeezed", input_shape=(32, 32, 3))
    features.freeze(model, "layer1")
    model.get_layer("layer2.0").channel_attention.fc1.trainable = False
    kept = ("conv1", "bn1", "layer1", "layer2.0/se/fc1")
    return model, {n for n, v in enumerate(model.weights) if not v.path.startswith(kept)}


@pytest.mark.parametrize(
    "make",
    [
        by_block,
        nested,
        with_attention,
        *(pytest.param(f, marks=pytest.mark.slow) for f in (stock, until_a_stage)),
    ],
)
def test_a_copy_keeps_what_is_frozen(make, tmp_path):
    model, free = make()
    trained = [variable.shape for variable in model.trainable_weights]
    for name, copied in COPIES.items():
        again = copied(model, tmp_path)
        assert [variable.shape for variable in again.trainable_weights] == trained, name
        if name == "h5":
            assert moved_by_a_step(again) == free
    assert moved_by_a_step(model) == free


def test_a_copy_keeps_what_was_set_on_a_part(tmp_path):
    for name, copied in COPIES.items():
        model = small("basic", input_shape=(32, 32, 3), drop_path=0.2)
        assert not any("parts" in layer.get_config() for layer in model.layers)
        block = model.get_layer("layer2.0")
        block.conv1.kernel_regularizer = keras.regularizers.L2(0.5)
        block.conv2.dtype_policy = keras.DTypePolicy("mixed_bfloat16")
        block.bn1.momentum = 0.5
        block.dropper.rate = 0.25
        again = copied(model, tmp_path).get_layer("layer2.0")
        assert again.conv1.kernel_regularizer.l2 == 0.5, name
        assert again.conv2.compute_dtype == "bfloat16"
        assert again.bn1.momentum == 0.5
        assert again.dropper.rate == 0.25
        assert again.get_config() == block.get_config()
    folded = keras_resnet.export.fold(model, dtype="float32").get_layer("layer2.0")
    assert folded.conv2.compute_dtype == "float32"


def test_a_block_created_with_trainable_false_is_frozen():
    block = BasicBlock(8, projection=True, trainable=False)
    block.build((None, 8, 8, 3))
    assert block.trainable_weights == []
    x = noise(2, 8, 8, 3)
    y = [keras.ops.convert_to_numpy(block(x, training=training)) for training in (True, False)]
    np.testing.assert_array_equal(*y)
    with pytest.raises(ValueError, match=r"conv1, bn1, conv2, bn2.*Received: bn3"):
        BasicBlock(8, parts={"bn3": {"trainable": False}})


@pytest.mark.slow
def test_all_batch_normalization_is_frozen_as_in_keras_applications():
    """By the usual loop over `model.layers`, which are flat in keras.applications."""
    stock = keras.applications.ResNet50(weights=None)
    for layer in stock.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
    ours = keras_resnet.ResNet50(include_top=False, pooling="avg")
    model = keras.Sequential([ours, keras.layers.Dense(1000)])
    assert features.freeze_batch_norm(model) == 53
    # Convolutions in keras.applications have biases, with one number per channel.
    biases = sum(v.shape[0] for v in stock.trainable_weights if v.path.endswith("conv/bias"))
    numbers = [sum(int(np.prod(v.shape)) for v in m.trainable_weights) for m in (model, stock)]
    assert numbers[0] == numbers[1] - biases


def test_frozen_batch_normalization_does_not_move():
    model = small("basic", input_shape=(32, 32, 3))
    assert features.freeze_batch_norm(model) == 6
    moved = {model.weights[number].path for number in moved_by_a_step(model)}
    assert moved and not any("bn" in path or "downsample.1" in path for path in moved)


def test_freezing_reaches_networks_inside():
    """Freezing inside a nested model equals freezing the network alone, by any valid name."""
    alone = small("basic", include_top=False, pooling="avg")
    expected, _ = features.freeze(alone, "layer1")
    x = keras.Input((64, 64, 3))
    for until in ("layer1", "net/layer1", "inner/net/layer1.0"):
        backbone = small("basic", include_top=False, pooling="avg", name="net")
        inner = keras.Sequential([backbone, keras.layers.Dropout(0.5)], name="inner")
        model = keras.Model(x, keras.layers.Dense(2, use_bias=False)(inner(x)))
        assert features.freeze(model, until)[0] == expected + 2 * backbone.output.shape[-1]
    two = [small("basic", include_top=False, pooling="avg", name=f"net{n}") for n in (1, 2)]
    model = keras.Model(x, [net(x) for net in two])
    with pytest.raises(ValueError, match="2 layers or stages 'layer1', but net1/conv1"):
        features.freeze(model, "layer1")
    features.freeze(model, "net1/layer1")
    assert not two[0].get_layer("layer1.0").conv2.trainable
    assert two[1].get_layer("layer1.0").conv2.trainable


def test_all_layers_are_in_order():
    """In the order of torchvision's variables, with the layers inside blocks."""
    backbone = small("basic", include_top=False, pooling="avg")
    model = keras.Sequential([keras.Input((64, 64, 3)), backbone, keras.layers.Dense(2)])
    layers = features.all_layers(model)
    assert [layer.name for layer in layers if layer.weights][-7:-1] == [
        *("conv1", "bn1", "conv2", "bn2", "downsample.0", "downsample.1")
    ]
    assert not any(isinstance(layer, (BasicBlock, keras.Model)) for layer in layers)
    for layer in layers[:-1]:
        layer.trainable = False
    assert [v.shape for v in model.trainable_weights] == [(128, 2), (2,)]


def test_unknown_layers():
    model = keras_resnet.ResNet18(classes=4)
    with pytest.raises(ValueError, match="'layer5', but conv1, bn1, layer1, layer2"):
        features.freeze(model, "layer5")
    assert len(model.trainable_variables) == 62


@pytest.mark.parametrize(
    "data_format", ["channels_last", pytest.param("channels_first", marks=pytest.mark.slow)]
)
def test_pyramid(data_format):
    """Lin et al.'s C2 to C5: sizes and channels for an image of 352 pixels."""
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


DILATED = {
    "basic": ResNetConfig("basic", (1, 1, 2, 2)),
    "bottleneck": ResNetConfig("bottleneck", (1, 1, 2, 2)),
    "resnext": ResNetConfig("bottleneck", (1, 1, 2, 2), groups=32, width_per_group=4),
    "preactivation": ResNetConfig("bottleneck", (1, 1, 2, 2), preactivation=True),
    "v2": ResNetConfig("bottleneck", (2, 2, 2, 1), preactivation=True, like_applications=True),
    **{name: CONFIGS[name] for name in ("resnet18", "resnet50", "resnext50_32x4d")},
}


@pytest.mark.parametrize(
    "name, version",
    [
        *(("basic", "v1.5"), ("resnext", "v1.5"), ("v2", "v1.5")),
        pytest.param("preactivation", "v1.5", marks=pytest.mark.slow),
        pytest.param("bottleneck", "v1", marks=pytest.mark.slow),
        *(
            pytest.param(name, version, marks=pytest.mark.slow)
            for name in ("resnet18", "resnet50", "resnext50_32x4d")
            for version in ("v1", "v1.5")
        ),
    ],
)
def test_dilation_keeps_the_numbers(name, version):
    """The values of the strided network are found at every 2nd or 4th position."""
    networks = [
        create(DILATED[name], include_top=False, version=version, output_stride=output_stride)
        for output_stride in (32, 16, 8)
    ]
    strided, *dilated = networks
    x = np.random.default_rng(0).normal(size=(1, 161, 130, 3)).astype("float32")
    expected = keras.ops.convert_to_numpy(strided(x))
    for network, between in zip(dilated, (2, 4), strict=True):
        network.set_weights(strided.get_weights())
        found = keras.ops.convert_to_numpy(network(x))[:, ::between, ::between]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_pyramid_of_stages_that_stride_in_their_last_block():
    """A level ends before that block, as Keras users choose conv2_block3_1_relu for C2."""
    backbone = features.pyramid("resnet50v2", ("C1", "C2", "C3", "C4", "C5"))
    infos = backbone.feature_info
    assert [info.layer for info in infos] == [
        *("conv1", "layer1.1", "layer2.2", "layer3.4", "layer4.2")
    ]
    assert [info.channels for info in infos] == [64, 256, 512, 1024, 2048]
    assert [info.stride for info in infos] == [2, 4, 8, 16, 32]


def test_pyramid_of_a_cifar_network():
    backbone = features.pyramid("resnet20", ("C2", "C3", "C4"), input_shape=(32, 32, 3))
    assert [(info.channels, info.stride) for info in backbone.feature_info] == [
        (16, 1),
        (32, 2),
        (64, 4),
    ]


def test_invalid_pyramids():
    model = keras_resnet.ResNet18(include_top=False)
    inputs = keras.Input((64, 64, 3))
    two = [
        keras_resnet.ResNet18(include_top=False, input_tensor=inputs, name_prefix=f"{side}_")
        for side in ("left", "right")
    ]
    for arguments, said in (
        ((model, ("C2", "C6")), "C1, C2, C3, C4, C5. Received: levels=.'C2', 'C6'"),
        (
            (keras.Sequential([inputs, model]),),
            "a residual network, which this is not. Pass resnet18, the network inside",
        ),
        ((keras.Model(inputs, [net.output for net in two]),), "contains 2 residual networks"),
    ):
        with pytest.raises(ValueError, match=said):
            features.pyramid(*arguments)
    with pytest.raises(ValueError, match=r"already built.*output_stride"):
        features.pyramid(model, output_stride=8)
