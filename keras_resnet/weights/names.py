"""The names that other libraries give to the weights of a residual network.

torchvision's are the rule: everything else is renamed to them on loading.
"""

import re

from keras_resnet.weights.errors import CheckpointError

# Where training checkpoints keep the weights, and what wrappers of a model put before its names.
WRAPPERS = ("state_dict", "model_state_dict", "model", "model_ema", "state_dict_ema", "net")
PREFIXES = re.compile(r"^((module|_orig_mod|model|net|backbone)\.|encoder\.(?!stages\.))+")
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


def as_torchvision(state, source):
    """`state` under torchvision's names, without what is `DROPPED`.

    Args:
        state: Names to arrays.
        source: The file's name, for the message.

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
            raise CheckpointError(f"{source} holds {key} twice, under the names of two libraries.")
        renamed[key] = array
    return renamed
