"""Converts a model's variables to the names and layout of a PyTorch state_dict.

A variable's path is its key: `layer1.0/conv1/kernel` is `layer1.0.conv1.weight`. Pre-activation
networks, which are not in torchvision, are saved with timm's names.
"""

import re

import keras
import numpy as np

from keras_resnet.blocks import BottleneckBlock, ResidualBlock
from keras_resnet.preactivation import PreactivationBlock, PreactivationBottleneckBlock

LEAVES = {
    "kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "bias": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
# Permutations of axes from PyTorch to Keras, and back, by the number of axes.
TO_KERAS = {4: (2, 3, 1, 0), 3: (2, 1, 0), 2: (1, 0)}
TO_TORCH = {4: (3, 2, 0, 1), 3: (2, 1, 0), 2: (1, 0), 1: (0,)}


def variables_by_key(model: keras.Model) -> dict[str, keras.Variable]:
    """Returns the model's variables by the keys of torchvision's state_dict, without prefix."""
    paths = {variable.path: variable for variable in model.variables}
    # The prefix is determined from the stem's convolution, which is not in a block.
    stems = filter(None, (re.fullmatch(r"([^/]*)conv1(\.0)?/kernel", path) for path in paths))
    prefix = next((stem[1] for stem in stems), "")
    keys = {}
    for path, variable in paths.items():
        *layers, leaf = path.split("/")
        if leaf in LEAVES:  # not the random state of dropout
            keys[".".join([*layers, LEAVES[leaf]]).removeprefix(prefix)] = variable
    return keys


def version_of(model: keras.Model) -> str | None:
    """Returns a model's `version`, as for the builders; None without bottlenecks."""
    kinds = (BottleneckBlock, PreactivationBottleneckBlock)
    blocks = [layer for layer in model.layers if isinstance(layer, kinds)]
    return blocks[0].version if blocks else None


def anti_aliasing_of(model: keras.Model) -> str:
    """Returns a model's `anti_aliasing`, as for `ResNetConfig`; "none" for None."""
    blocks = [layer for layer in model.layers if isinstance(layer, ResidualBlock)]
    return next((block.anti_aliasing for block in blocks if block.anti_aliasing), "none")


def output_stride_of(model: keras.Model) -> int:
    """Returns a model's `output_stride`, as for the builders."""
    blocks = [layer for layer in model.layers if isinstance(layer, ResidualBlock)]
    return 32 // max((block.dilation_rate for block in blocks), default=1)


def to_state_dict(model: keras.Model) -> dict[str, np.ndarray]:
    """Returns the model's weights with PyTorch's names and layout.

    Args:
        model: A model of this package.

    Returns:
        Arrays by name: convolutions (out, in / groups, height, width), dense layers (out, in). For
        pre-activation networks, names and shapes are those of timm's resnetv2, where `head.fc` is a
        convolution.
    """
    state = arrays_by_key(model)
    if not any(isinstance(layer, PreactivationBlock) for layer in model.layers):
        return state
    if "fc.weight" in state:
        state["fc.weight"] = state["fc.weight"][:, :, None, None]
    return {_name_of_timm(key): array for key, array in state.items()}


def arrays_by_key(model: keras.Model) -> dict[str, np.ndarray]:
    """Returns the model's weights in PyTorch's layout, with the names of this package."""
    return {
        key: to_torch(keras.ops.convert_to_numpy(variable))
        for key, variable in variables_by_key(model).items()
    }


def _name_of_timm(key):
    """Converts `layer1.0.bn1.weight` to timm's `stages.0.blocks.0.norm1.weight`."""
    key = key.replace("fc.", "head.fc.").replace(".downsample.0.", ".downsample.conv.")
    key = re.sub(r"^conv1\.(?=[wb])", "stem.conv.", key)
    kinds = ("conv", "norm")  # of a deep stem, by their positions in a sequence
    key = re.sub(r"^conv1\.(\d)", lambda m: f"stem.{kinds[int(m[1]) % 3]}{int(m[1]) // 3 + 1}", key)
    return re.sub(
        r"^layer(\d)\.(\d+)\.(?:bn(?=\d))?",
        lambda m: f"stages.{int(m[1]) - 1}.blocks.{m[2]}.{'norm' if m[0].endswith('bn') else ''}",
        key,
    )


def to_torch(array: np.ndarray) -> np.ndarray:
    """Transposes a NumPy array from Keras' to PyTorch's order of axes, as a view."""
    return np.transpose(array, TO_TORCH[array.ndim])
