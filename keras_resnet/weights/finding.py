"""Finds the network within what a training checkpoint holds: `network_in`."""

import re
from typing import Any

import numpy as np

from keras_resnet.weights.errors import SAVE_A_STATE_DICT, CheckpointError, listed

# Where training checkpoints keep the weights: where there are several, the first of these is taken.
WRAPPERS = ("state_dict", "model_state_dict", "model", "model_ema", "state_dict_ema", "net")
MAX_WRAPPERS = 3  # around one another
# How a name ends that tells a residual network's weights, any network's, or anything.
TELLING = (
    (".conv1.weight", ".embedder.embedder.convolution.weight"),
    (".weight",),
    ("",),
)
# What wrappers of a model put before its names.
PREFIXES = re.compile(r"^((module|_orig_mod|model|net|backbone)\.|encoder\.(?!stages\.))+")


def network_in(saved: Any, source: object) -> dict[str, np.ndarray]:
    """Name to array of the one network in dicts within dicts, without a wrapper's prefix.

    Raises:
        CheckpointError: if there is none, or there are several and none is one of `WRAPPERS`.
    """
    searches = (_networks(saved, telling, (), set()) for telling in TELLING)
    networks: dict[tuple, dict[str, np.ndarray]] = next(filter(None, searches), {})
    if not networks:
        raise CheckpointError(
            f"{source} holds no state_dict: no dict of tensors, nor one within its dicts. "
            + SAVE_A_STATE_DICT
        )
    if len(networks) > 1:
        names = ["".join(f"[{key!r}]" for key in keys) for keys in [*networks][:4]]
        raise CheckpointError(
            f"{source} holds {len(networks)} networks, such as {listed(names)}. Save the one that "
            f"is wanted alone, in PyTorch: torch.save(checkpoint{names[0]}, 'weights.pth')."
        )
    (tensors,) = networks.values()
    state = {PREFIXES.sub("", key): array for key, array in tensors.items()}
    if len(state) < len(tensors):
        raise CheckpointError(
            f"{source} holds two networks: keys are equal once prefixes such as 'module.' are "
            "removed. Save the one that is wanted alone."
        )
    return state


def _networks(saved, telling, path, seen):
    """Where tensors of a network are: keys that lead to them, to the tensors."""
    if not isinstance(saved, dict) or id(saved) in seen or len(path) > MAX_WRAPPERS:
        return {}
    seen.add(id(saved))
    tensors = {key: value for key, value in saved.items() if isinstance(value, np.ndarray)}
    if any(f".{key}".endswith(telling) for key in tensors):
        return {path: tensors}
    for key in WRAPPERS:
        found = _networks(saved.get(key), telling, (*path, key), seen)
        if found:
            return found
    found = {}
    for key, value in saved.items():
        found |= _networks(value, telling, (*path, key), seen)
    return found
