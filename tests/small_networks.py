"""Small networks of each family, with batch statistics like those of trained networks."""

import contextlib
import dataclasses
import json

import keras
import numpy as np
import pytest

from keras_resnet import configs
from keras_resnet.configs import CIFAR, IMAGENET, ResNetConfig
from keras_resnet.models import create

CONFIGS = {
    "basic": ResNetConfig("basic", (1, 1)),
    "bottleneck": ResNetConfig("bottleneck", (1, 1)),
    "resnext": ResNetConfig("bottleneck", (1, 1), groups=32, width_per_group=4),
    "wide": ResNetConfig("bottleneck", (1, 1), width_per_group=128),
    "cifar": ResNetConfig("basic", (1, 1), family=CIFAR),
    "squeezed": ResNetConfig(
        "basic", (1, 1), stem=(24, 32, 64), avg_down=True, anti_aliasing="blur", attention="se"
    ),
    "efficient": ResNetConfig("bottleneck", (1, 1), anti_aliasing="avg", attention="eca"),
    "senet": ResNetConfig(
        *("bottleneck", (1, 1), 32, 4),
        **{"stem": (32, 32, 64), "stem_pool": "conv", "attention": "se", "reduction": 4},
        **{"reduce_first": 2, "down_kernel": 3},
    ),
    "preactivation": ResNetConfig(
        "bottleneck", (2, 1), stem=(24, 32, 64), avg_down=True, preactivation=True
    ),
    "applications": ResNetConfig("bottleneck", (2, 1), preactivation=True, like_applications=True),
    "wide_cifar": ResNetConfig(
        *("basic", (1, 1), 1, 128, CIFAR),
        **{"preactivation": True, "shortcut": "B", "dropout_inside": True},
    ),
}
NARROW = dataclasses.replace(IMAGENET, widths=(8, 16, 24, 32))
# Tiny versions with one block per stage, for tests of training and other work around a network.
TINY = {
    "resnet18": ResNetConfig("basic", (1, 1, 1, 1), family=NARROW, builder="ResNet18"),
    "resnet20": ResNetConfig("basic", (1, 1, 1), family=CIFAR, builder="ResNet20"),
}
# File suffixes of the export formats.
SUFFIXES = {"onnx": ".onnx", "litert": ".tflite", "openvino": ".xml"}
CONVOLUTIONS = {
    "basic": 6,
    "bottleneck": 9,
    "resnext": 9,
    "wide": 9,
    "cifar": 5,
    "preactivation": 14,
    "applications": 12,
    "wide_cifar": 7,
    **{"squeezed": 12, "efficient": 11, "senet": 16},
}


NAMES = ["daisy", "rose", "tulip"]  # the classes of `write_run`


@contextlib.contextmanager
def tiny_rows():
    """Replaces resnet18 and resnet20 by the networks of TINY in this process."""
    with pytest.MonkeyPatch.context() as patch:
        for name, config in TINY.items():
            patch.setitem(configs.CONFIGS, name, config)
        yield


def write_run(folder):
    """Writes the parts of a run folder that exports read, with an untrained network."""
    folder.mkdir()
    small("cifar").save(folder / "best.keras")
    (folder / "class_indices.json").write_text(json.dumps(dict(enumerate(NAMES))))
    recipe = {"resize": 36, "image_size": 32, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}
    (folder / "recipe.json").write_text(json.dumps(recipe))


def small(family="resnext", seed=0, **arguments):
    """Returns a network of `CONFIGS`, with 3 classes by default."""
    keras.utils.set_random_seed(seed)
    return trained(create(CONFIGS[family], **{"classes": 3, **arguments}), seed)


def trained(model, seed=0):
    """Gives batch normalization random weights and statistics, as if the model were trained."""
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        leaf = variable.path.split("/")[-1]
        if leaf in ("moving_variance", "gamma"):
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
        elif leaf in ("moving_mean", "beta"):
            variable.assign(rng.normal(0, 0.1, variable.shape))
    return model


def noise(batch, *shape):
    """Returns random values like those of normalised images."""
    return np.random.default_rng(1).normal(size=(batch, *shape)).astype(np.float32)


def check_copies(model, x, folder):
    """Checks that a clone of a model and its saved and loaded copy have equal outputs."""
    expected = keras.ops.convert_to_numpy(model(x))
    model.save(folder / "m.keras")
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    for other in (copy, keras.saving.load_model(folder / "m.keras")):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(other(x)), expected)
