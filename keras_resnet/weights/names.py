"""The names that other libraries give to the weights of a residual network.

torchvision's are the rule: everything else is renamed to them on loading.
"""

import re

import numpy as np

from keras_resnet.weights.errors import CheckpointError

# Counts that only training needs: of batches, and of averaged models.
DROPPED = ("num_batches_tracked", "n_averaged")


def _next(match):
    return f"{int(match[1]) + 1}{match[2]}"


# Pattern and replacement, applied in order to every name.
RENAMES = (
    # Hugging Face's ResNetForImageClassification and ResNetModel, which count from 0.
    (r"^resnet\.", ""),
    (r"^embedder\.embedder\.convolution\.", "conv1."),
    (r"^embedder\.embedder\.normalization\.", "bn1."),
    (r"^encoder\.stages\.(\d)\.layers(\.\d{1,4}\.)", lambda match: f"layer{_next(match)}"),
    (r"\.shortcut\.convolution\.", ".downsample.0."),
    (r"\.shortcut\.normalization\.", ".downsample.1."),
    (r"\.layer\.(\d)\.convolution(\.)", lambda match: f".conv{_next(match)}"),
    (r"\.layer\.(\d)\.normalization(\.)", lambda match: f".bn{_next(match)}"),
    (r"^classifier\.1\.", "fc."),
    # The CIFAR networks of akamaster/pytorch_resnet_cifar10.
    (r"^linear\.", "fc."),
    (r"\.shortcut\.([01])\.", r".downsample.\1."),
)


def as_torchvision(state: dict[str, np.ndarray], source: object) -> dict[str, np.ndarray]:
    """`state` under torchvision's names and as its network has it, without what is `DROPPED`.

    Raises:
        CheckpointError: if two names become one.
    """
    renamed = {}
    for key, array in state.items():
        if key.endswith(DROPPED):
            continue
        for pattern, replacement in RENAMES:
            key = re.sub(pattern, replacement, key)
        if key in renamed:
            raise CheckpointError(
                f"{source} holds {key[:80]} twice, under the names of two libraries. Save the one "
                "that is wanted alone."
            )
        renamed[key] = array
    return biases_into_means(renamed)


def biases_into_means(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`state` with the bias of each convolution in the mean of the batch normalization behind it.

    That subtracts the mean: torchvision's convolutions have no bias.
    """
    state = dict(state)
    for key in list(state):
        match = re.fullmatch(r"(.*)\b(conv|downsample\.)(\d)\.bias", key)
        if match:
            before, kind, number = match.groups()
            norm = f"bn{number}" if kind == "conv" else f"downsample.{int(number) + 1}"
            name = f"{before}{norm}.running_mean"
            if name in state and state[name].shape == state[key].shape:
                mean, bias = state[name], state.pop(key)
                kind = np.result_type(mean, bias, np.float32)
                state[name] = mean.astype(kind) - bias.astype(kind)
    return state
