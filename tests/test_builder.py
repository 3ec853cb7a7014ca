"""Properties that are inferred from a network's layers."""

import keras
import numpy as np
import pytest
from small_networks import small

from keras_resnet.builder import channels_first, family_of
from keras_resnet.configs import CIFAR, IMAGENET


def test_families_are_told_by_blocks_and_stems():
    assert family_of(small("cifar")) is CIFAR
    assert family_of(small("basic", include_top=False)) is IMAGENET
    other = keras.applications.VGG16(weights=None, include_top=False)  # starts with block1_conv1
    assert family_of(other) is IMAGENET


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_data_format_of_the_model_overrides_the_global_one(data_format):
    """Pixels are normalised along the channel axis of the model."""
    arguments = {"include_preprocessing": True, "data_format": data_format}
    x = np.random.default_rng(0).integers(0, 256, (2, 32, 48, 3)).astype("float32")
    x = x if data_format == "channels_last" else x.transpose(0, 3, 1, 2)
    expected = small("basic", **arguments)(x)
    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_first")
    try:
        model = small("basic", **arguments)
        assert channels_first(model) == (data_format == "channels_first")
        np.testing.assert_allclose(model(x), expected, atol=1e-5)
    finally:
        keras.config.set_image_data_format(before)


def test_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match="three channels"):
        small("basic", include_preprocessing=True, input_shape=(32, 32, 4))
    with pytest.raises(ValueError, match="does not match the shape of input_tensor"):
        small("basic", input_tensor=keras.Input((32, 32, 3)), input_shape=(32, 32))
