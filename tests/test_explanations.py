"""Grad-CAM compared with class activation maps, and the pictures of explanations."""

import keras
import numpy as np
import pytest
from PIL import Image
from small_networks import noise, small

import keras_resnet
from keras_resnet import visualize


def class_activation_map(model, image, class_index, block):
    """Zhou et al., 2016: feature maps weighted by the head, which equals Grad-CAM there."""
    maps = keras.Model(model.input, model.get_layer(block).output)(image[None])
    maps = keras.ops.convert_to_numpy(maps)[0]
    heat = maps @ keras.ops.convert_to_numpy(model.layers[-1].kernel)[:, class_index]
    heat = np.maximum(heat, 0) / heat.max()
    return keras.ops.convert_to_numpy(
        keras.ops.image.resize(heat[..., None].astype("float32"), image.shape[:2], "bilinear")
    )[..., 0]


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", None])
def test_at_the_last_stage_it_is_the_class_activation_map(activation):
    model = small("basic", classifier_activation=activation, name_prefix="net_", dropout=0.5)
    image = noise(1, 64, 80, 3)[0]
    for class_index in range(3):
        expected = class_activation_map(model, image, class_index, "net_layer2.0")
        heat = visualize.grad_cam(model, image, class_index)
        assert heat.shape == (64, 80)
        np.testing.assert_allclose(heat, expected, atol=1e-5)
    best = int(np.argmax(keras.ops.convert_to_numpy(model(image[None]))))
    np.testing.assert_array_equal(
        visualize.grad_cam(model, image[None]), visualize.grad_cam(model, image, best)
    )


def test_channels_first_sees_the_same():
    last = small("bottleneck")
    first = small("bottleneck", data_format="channels_first")
    first.set_weights(last.get_weights())
    image = noise(1, 64, 64, 3)[0]
    for layer in ("layer1.0", "layer2.0"):
        np.testing.assert_allclose(
            visualize.grad_cam(first, image.transpose(2, 0, 1), 1, layer=layer),
            visualize.grad_cam(last, image, 1, layer=layer),
            atol=1e-4,
        )


def nested(backbone, head):
    return keras.Sequential([backbone, head])


def functional(backbone, head):
    inputs = keras.Input((64, 64, 3))
    return keras.Model(inputs, keras.layers.Activation("softmax")(head(backbone(inputs))))


def twice(backbone, head):
    return functional(keras.Sequential([backbone, keras.layers.Dropout(0.5)], name="inner"), head)


@pytest.mark.parametrize(
    "wrap", [twice, *(pytest.param(wrap, marks=pytest.mark.slow) for wrap in (nested, functional))]
)
def test_a_network_inside_of_a_model_is_explained_as_by_itself(wrap, tmp_path):
    flat = small("basic", input_shape=(64, 64, 3))
    backbone = keras.Model(flat.input, flat.get_layer("avgpool").output, name="backbone")
    head = keras.layers.Dense(3, None if wrap is functional else "softmax", name="top")
    model = wrap(backbone, head)
    head.set_weights(flat.layers[-1].get_weights())
    image = noise(1, 64, 64, 3)[0]
    place = "inner/backbone/" if wrap is twice else "backbone/"
    for layer in (None, "layer1.0"):
        expected = visualize.grad_cam(flat, image, 1, layer=layer)
        assert expected.max() > 0.5
        for name in {layer, layer and place + layer}:
            found = visualize.grad_cam(model, image, 1, layer=name)
            np.testing.assert_allclose(found, expected, atol=1e-5)
    visualize.feature_maps(model, image, "layer1.0", tmp_path / "maps.png")
    visualize.first_kernels(model, tmp_path / "kernels.png")
    answers = [keras.ops.convert_to_numpy(model(image[None])) for _ in range(2)]
    np.testing.assert_array_equal(*answers)


def test_heat_map_of_a_class_without_evidence_is_zero():
    model = small("basic")
    kernel = keras.ops.convert_to_numpy(model.layers[-1].kernel).copy()
    kernel[:, 0] = -1  # outputs of the last ReLU are positive
    model.layers[-1].kernel.assign(kernel)
    heat = visualize.grad_cam(model, noise(1, 64, 64, 3)[0], 0)
    np.testing.assert_array_equal(heat, np.zeros((64, 64)))


@pytest.mark.parametrize(
    "file, count",
    [
        ("resnet20-12fca82f.th", 20),
        pytest.param("resnet56-4bfd9763.th", 40, marks=pytest.mark.slow),
    ],
)
def test_the_heat_map_covers_the_object(file, count, real_data):
    """For networks trained on CIFAR-10: occluding hot pixels matters more (Zeiler, 2013)."""
    folder = real_data / "cifar10"
    model = keras_resnet.create(file.split("-")[0], weights=folder / file, classes=10)
    with np.load(folder / "cifar10_test_0_499.npz") as images:
        x, labels = keras_resnet.preprocess_input(images["x"][:count]), images["y"][:count]
    covered = {"hot": x.copy(), "cold": x.copy()}
    for index, label in enumerate(labels):
        heat = visualize.grad_cam(model, x[index], int(label))
        order = np.argsort(heat.ravel())
        for name, places in (("cold", order[:300]), ("hot", order[-300:])):
            covered[name].reshape(len(x), -1, 3)[index, places] = 0
    hot, cold = (
        model.predict(covered[name], verbose=0)[np.arange(count), labels].mean()
        for name in ("hot", "cold")
    )
    assert hot < cold - 0.1


def test_a_heat_map_over_a_picture():
    picture = np.full((4, 6, 3), 100, np.uint8)
    heat = np.zeros((4, 6), np.float32)
    heat[2, 3] = 1
    over = visualize.overlay(picture, heat)
    assert over.dtype == np.uint8
    assert tuple(over[0, 0]) == (50, 50, 52)  # half of inferno's darkest color, (0, 0, 4)
    assert tuple(over[2, 3]) == (176, 177, 132)  # half of its brightest color, (252, 254.6, 164)
    with pytest.raises(ValueError, match=r"\(4, 6, 3\).*\(3, 6\)"):
        visualize.overlay(picture, heat[1:])


@pytest.mark.parametrize("channels", [3, pytest.param(5, marks=pytest.mark.slow)])
def test_pictures(tmp_path, channels):
    model = small("basic", input_shape=(64, 64, channels))
    image = noise(1, 64, 64, channels)[0]
    pictures = [
        visualize.explanation(
            np.zeros((64, 64, 3), np.uint8),
            visualize.grad_cam(model, image),
            "daisy 0.97",
            tmp_path / "e.png",
        ),
        visualize.feature_maps(model, image, "layer1.0", tmp_path / "m.png", count=11),
        visualize.first_kernels(model, tmp_path / "k.png"),
    ]
    for picture in pictures:
        with Image.open(picture) as drawn:
            assert min(drawn.size) > 200
            assert np.asarray(drawn.convert("L")).std() > 5
    with Image.open(tmp_path / "k.png") as drawn:  # kernels have colors for three channels only
        pixels = np.asarray(drawn.convert("RGB")).astype(int)
    assert (np.abs(pixels[..., 0] - pixels[..., 2]).max() > 50) == (channels == 3)


def test_a_network_without_our_blocks():
    inputs = keras.Input((32, 32, 3))
    maps = keras.layers.Conv2D(4, 3, name="maps")(inputs)
    pooled = keras.layers.GlobalAveragePooling2D()(maps)
    model = keras.Model(inputs, keras.layers.Dense(2, "softmax")(pooled))
    image = np.random.default_rng(0).normal(size=(32, 32, 3))
    with pytest.raises(ValueError, match="pass layer"):
        visualize.grad_cam(model, image)
    assert visualize.grad_cam(model, image, layer="maps").shape == (32, 32)


def test_bad_arguments(tmp_path):
    model = small("basic", input_shape=(64, 64, 3))
    image = noise(1, 64, 64, 3)[0]
    backbone = small("basic", include_top=False)
    for call, said in (
        (lambda: visualize.grad_cam(backbone, image), "last layer is a Dense layer, fc"),
        (lambda: visualize.grad_cam(model, image, 3), "0 to 2. Received: class_index=3"),
        (lambda: visualize.grad_cam(model, image, layer="layer9"), "no layer 'layer9'.*conv1"),
        (
            lambda: visualize.grad_cam(model, image, layer="avgpool"),
            "avgpool should have one feature map as its output. Its output is .1, 128",
        ),
        (lambda: visualize.grad_cam(model, image[1:]), r"\(64, 64, 3\).*\(63, 64, 3\)"),
        (lambda: visualize.grad_cam(model, image[0]), r"shape \(64, 3\)"),
        (lambda: visualize.feature_maps(model, image, "fc", tmp_path / "m.png"), "fc has no feat"),
        (
            lambda: visualize.first_kernels(keras.Sequential([keras.Input((3,))]), "k.png"),
            "no layer conv1",
        ),
    ):
        with pytest.raises(ValueError, match=said):
            call()
    assert list(tmp_path.iterdir()) == []
