"""Freezing, by a real step."""

import keras
import numpy as np
import pytest

import keras_resnet
from keras_resnet import features


def moved_by_a_step(model):
    rng = np.random.default_rng(0)
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    before = [np.array(variable) for variable in model.weights]
    model.train_on_batch(rng.normal(size=(4, 32, 32, 3)).astype("float32"), np.arange(4))
    return {
        variable.path
        for variable, value in zip(model.weights, before, strict=True)
        if (np.array(variable) != value).any()
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
