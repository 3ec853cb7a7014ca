"""Comparisons with torch and torchvision."""

import numpy as np
import pytest
import torch
import torchvision

import keras_resnet  # isort: skip (torch comes first)
import keras
import tensorflow as tf
from PIL import Image
from randomised import NAMES, randomise

from keras_resnet.preprocessing import Preprocessing

pytestmark = pytest.mark.parity


def relative_error(ours, theirs):
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def torch_model(name, **arguments):
    """Returns a torchvision model with random weights and random batch statistics."""
    torch.manual_seed(0)
    return randomise(torchvision.models.get_model(name, num_classes=7, **arguments))


def both(name, tmp_path, legacy=False, torch_arguments=None, **arguments):
    """Returns this package's network, loaded from a file, and torchvision's with equal weights."""
    theirs = torch_model(name, **(torch_arguments or {}))
    path = tmp_path / "weights.pth"
    torch.save(theirs.state_dict(), path, _use_new_zipfile_serialization=not legacy)
    ours = keras_resnet.create(
        name, weights=path, classes=7, classifier_activation=None, **arguments
    )
    path.unlink()
    return ours, theirs


def images(height, width, batch=2, dtype=np.float32, seed=0):
    values = np.random.default_rng(seed).normal(size=(batch, 3, height, width)).astype(dtype)
    return values.transpose(0, 2, 3, 1), torch.from_numpy(values)


@pytest.mark.parametrize("name", NAMES)
def test_logits(name, tmp_path):
    ours, theirs = both(name, tmp_path, legacy=name in ("resnet18", "resnext50_32x4d"))
    for size in ((224, 224), (193, 257)):
        x, x_torch = images(*size, batch=1)
        with torch.no_grad():
            expected = theirs(x_torch).numpy()
        assert relative_error(ours(x).numpy(), expected) <= 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_trainable_parameters(name):
    theirs = torchvision.models.get_model(name)
    ours = keras_resnet.create(name)
    expected = sum(parameter.numel() for parameter in theirs.parameters())
    assert sum(np.prod(variable.shape) for variable in ours.trainable_variables) == expected
    state = theirs.state_dict()
    shapes = {key: value.shape for key, value in keras_resnet.weights.to_state_dict(ours).items()}
    assert shapes == {k: tuple(v.shape) for k, v in state.items() if "num_batches" not in k}


@pytest.mark.parametrize("name", ["resnet18", "resnext50_32x4d"])
def test_channels_first(name, tmp_path):
    ours, theirs = both(name, tmp_path, data_format="channels_first")
    _, x_torch = images(65, 97)
    with torch.no_grad():
        expected = theirs(x_torch).numpy()
    assert relative_error(ours(x_torch.numpy()).numpy(), expected) <= 1e-5


@pytest.mark.parametrize("output_stride", [16, 8])
@pytest.mark.parametrize("name", ["resnet50", "resnext50_32x4d"])
def test_output_stride(name, output_stride, tmp_path):
    dilate = [False, output_stride == 8, True]
    ours, theirs = both(
        name,
        tmp_path,
        torch_arguments={"replace_stride_with_dilation": dilate},
        output_stride=output_stride,
    )
    x, x_torch = images(97, 65)
    with torch.no_grad():
        expected = theirs(x_torch).numpy()
    assert relative_error(ours(x).numpy(), expected) <= 1e-5


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnext50_32x4d"])
def test_gradients_and_running_statistics(name, tmp_path):
    """Of a training step, in float64, since rounding in float32 causes errors of up to 1e-4."""
    ours, theirs = both(name, tmp_path, dtype="float64")
    theirs = theirs.double().train()
    x, x_torch = images(64, 64, batch=4, dtype=np.float64)
    labels = np.array([0, 3, 5, 6])
    with tf.GradientTape() as tape:
        logits = ours(x, training=True)
        loss = tf.reduce_mean(
            tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
        )
    paths = [variable.path for variable in ours.trainable_variables]
    gradients = tape.gradient(loss, [variable.value for variable in ours.trainable_variables])
    torch.nn.functional.cross_entropy(theirs(x_torch), torch.from_numpy(labels)).backward()
    expected = {key: parameter.grad.numpy() for key, parameter in theirs.named_parameters()}
    assert len(paths) == len(expected)
    leaves = {"kernel": "weight", "gamma": "weight", "beta": "bias", "bias": "bias"}
    for path, gradient in zip(paths, gradients, strict=True):
        *layers, leaf = path.split("/")
        axes = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[gradient.ndim]
        theirs_gradient = expected[".".join([*layers, leaves[leaf]])]
        assert relative_error(gradient.numpy().transpose(axes), theirs_gradient) <= 1e-4, path
    state = {key: value.numpy() for key, value in theirs.state_dict().items()}
    for key, value in keras_resnet.weights.to_state_dict(ours).items():
        assert relative_error(value, state[key]) <= 1e-6, key


def test_float32_gradients_are_no_worse_than_torchs(tmp_path):
    """With the fast paths, both libraries in float32 are compared with torch in float64.

    The best of five batches counts: if rounding moves an activation across ReLU's kink, the
    gradient jumps (in either library, by 1e-3 to 1e-2); wrong gradients are wrong in every batch.
    """
    ours, theirs = both("resnet18", tmp_path)
    kernel = next(v for v in ours.trainable_variables if v.path == "layer1.0/conv1/kernel")
    labels = np.arange(8) % 7
    theirs.train()

    def torch_gradient(x):
        theirs.zero_grad()
        torch.nn.functional.cross_entropy(theirs(x), torch.from_numpy(labels)).backward()
        return theirs.layer1[0].conv1.weight.grad.numpy().copy()

    our_errors, their_errors = [], []
    for seed in range(5):
        x, x_torch = images(32, 32, batch=8, seed=seed)
        single = torch_gradient(x_torch)
        theirs.double()
        exact = torch_gradient(x_torch.double())
        theirs.float()
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(
                    labels=labels, logits=ours(x, training=True)
                )
            )
        gradient = tape.gradient(loss, kernel.value).numpy().transpose(3, 2, 0, 1)
        our_errors.append(relative_error(gradient, exact))
        their_errors.append(relative_error(single, exact))
    assert min(our_errors) <= max(2e-5, 3 * min(their_errors)), (our_errors, their_errors)


@pytest.mark.parametrize("groups", [1, 4])
def test_initialisation(groups):
    """Standard deviations and bounds of initial weights equal torch's."""
    name = "resnet50" if groups == 1 else "resnext50_32x4d"
    keras.utils.set_random_seed(0)
    ours = keras_resnet.weights.to_state_dict(keras_resnet.create(name, zero_init_residual=True))
    torch.manual_seed(0)
    theirs = torchvision.models.get_model(name, zero_init_residual=True).state_dict()
    for key, value in ours.items():
        expected = theirs[key].numpy()
        if value.ndim > 1:
            assert np.std(value) == pytest.approx(np.std(expected), rel=0.05), key
            assert abs(value.mean()) < 4 * np.std(expected) / value.size**0.5, key
        elif "fc" not in key:
            assert np.array_equal(value, expected), key
    assert np.abs(ours["fc.bias"]).max() <= 2048**-0.5
    assert np.abs(ours["fc.weight"]).max() == pytest.approx(2048**-0.5, rel=1e-3)


@pytest.mark.real_data
@pytest.mark.parametrize("resize, crop", [(256, 224), (232, 224), (73, 64), (40, 64)])
def test_pixels(real_data, resize, crop):
    transform = torchvision.transforms.Compose(
        [torchvision.transforms.Resize(resize), torchvision.transforms.CenterCrop(crop)]
    )
    pixels = tf.function(Preprocessing(resize, crop).pixels)
    files = sorted((real_data / "imagenet").glob("*.JPEG"))
    assert len(files) == 100
    for file in files:
        expected = np.asarray(transform(Image.open(file).convert("RGB")), np.float32)
        difference = np.abs(pixels(tf.constant(file.read_bytes())).numpy() - expected)
        assert difference.max() <= 1, file
        assert difference.mean() <= 0.3, file


def test_class_names_are_torchvisions():
    weights = torchvision.models.ResNet50_Weights.IMAGENET1K_V1
    from keras_resnet.preprocessing import imagenet_classes

    assert [name for _, name in imagenet_classes()] == weights.meta["categories"]
