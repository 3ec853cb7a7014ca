"""Blocks that torchvision does not have: attention, deep stems, anti-aliasing."""

import keras
import numpy as np
import pytest
from small_networks import CONFIGS, noise, small, trained

import keras_resnet
from keras_resnet import configs, weights
from keras_resnet.weights.architecture import recognise
from keras_resnet.weights.state_dict import arrays_by_key

KINDS = ("squeezed", "efficient", "senet", "preactivation", "applications", "wide_cifar")


@pytest.fixture(autouse=True)
def rows(monkeypatch):
    """Registers the small networks by name."""
    for kind in KINDS:
        monkeypatch.setitem(configs.CONFIGS, kind, CONFIGS[kind])


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".keras", ".weights.h5"])
@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_loaded(kind, suffix, tmp_path):
    model = trained(keras_resnet.create(kind, classes=3))
    path = weights.save(model, tmp_path / f"w{suffix}")
    loaded = keras_resnet.create(kind, classes=3, weights=path)
    x = noise(1, 64, 64, 3)
    np.testing.assert_array_equal(loaded(x), model(x))
    if suffix == ".keras":
        np.testing.assert_array_equal(keras.models.load_model(path)(x), model(x))
    # A prefix and additional entries do not matter.
    state = {f"ema.{key}": value for key, value in weights.to_state_dict(model).items()}
    loaded = keras_resnet.create(kind, classes=3, weights=None)
    weights.load(loaded, {**state, "step": np.ones(1)})
    np.testing.assert_array_equal(loaded(x), model(x))


@pytest.mark.parametrize("kind", KINDS)
def test_known_by_its_keys(kind):
    model = keras_resnet.create(kind, classes=3)
    blurs = CONFIGS[kind].anti_aliasing
    found = recognise(arrays_by_key(model), blurs)
    assert (found.variant, found.classes, found.channels) == (kind, 3, 3)
    if blurs:
        assert recognise(arrays_by_key(model)).variant is None


@pytest.mark.parametrize("suffix", [".safetensors", ".keras"])
@pytest.mark.parametrize(
    "name, other, said",
    [
        ("resnetblur18", "resnet18", "blurs before downsampling"),
        ("resnet18", "resnetblur18", "has no anti-aliasing"),
    ],
)
def test_anti_aliasing_is_saved_with_the_weights(name, other, said, suffix, tmp_path):
    path = weights.save(keras_resnet.create(name, classes=3), tmp_path / f"w{suffix}")
    keras_resnet.create(name, classes=3, weights=path)
    with pytest.raises(weights.CheckpointError, match=said):
        keras_resnet.create(other, classes=3, weights=path)
    assert f"'{name}'" in weights.inspect(path).call


def test_a_hub_folder_of_a_blurring_network(tmp_path):
    model = keras_resnet.create("resnetblur18", classes=3)
    weights.save_hub(model, tmp_path)
    assert weights.inspect(tmp_path).architecture.variant == "resnetblur18"
    with pytest.raises(weights.CheckpointError, match="blurs before downsampling"):
        keras_resnet.ResNet18(classes=3, weights=tmp_path)


def test_anti_aliasing_has_no_version():
    with pytest.raises(ValueError, match="Networks with anti-aliasing have no version 'v1'"):
        keras_resnet.create("resnetaa50", version="v1")


@pytest.mark.parametrize("kind", KINDS[:-1])
def test_levels(kind):
    pyramid = keras_resnet.features.pyramid(kind, ("C1", "C2", "C3"), input_shape=(65, 97, 3))
    assert [info.stride for info in pyramid.feature_info] == [2, 4, 8]
    assert pyramid.feature_info[0].channels == 64
    maps = pyramid(noise(1, 65, 97, 3))
    for name, expected in pyramid.output.items():
        assert maps[name].shape[1:] == expected.shape[1:]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("format", ["channels_first", "channels_last"])
def test_trains_in_both_formats_and_in_half_precision(kind, format):
    model = small(kind, data_format=format, dtype="mixed_float16", drop_path=0.1)
    model.compile("sgd", "sparse_categorical_crossentropy")
    shape = (3, 32, 32) if format == "channels_first" else (32, 32, 3)
    before = [weight.numpy().copy() for weight in model.trainable_weights]
    model.train_on_batch(noise(4, *shape), np.array([0, 1, 2, 0]))
    for one, other in zip(before, model.trainable_weights, strict=True):
        assert (one != other.numpy()).any(), other.path


def test_names_are_timms():
    """Variants have the names that timm gives them."""
    for name in ("resnet50d", "seresnext26t_32x4d", "ecaresnetlight", "senet154", "resnetrs420"):
        assert name in keras_resnet.list_models()
