"""The classifier among what stands beside a network: `classifier_of`.

A classifier is one matrix on the network's features. A projection head of self-supervised learning
looks the same, but for its name, its neighbours, and its number of rows.
"""

import collections
import re

import numpy as np

from keras_resnet.weights.structure import Network

NAME = re.compile(
    r"(.*\.)?(fc|linear|last_linear|classifier|logits|output|head\.fc|cls_head\.fc_cls)(\.\d)?"
)
# Of contrastive learning, whose encoders end in a projection that is often called `fc`.
CONTRASTIVE = re.compile(r"(.*\.)?(encoder_[qk]|queue|queue_ptr|base_encoder|momentum_encoder)\b.*")


def classifier_of(network: Network, classes: int | None, alone: bool) -> str | None:
    """The name of the classifier in `network.beside`, without its leaf; None if there is none.

    Args:
        network: The network.
        classes: Number of classes that are asked for; None if it is not known.
        alone: Whether no other network is in its dict.
    """
    matrices = {
        key.removesuffix(".weight"): array
        for key, array in network.beside.items()
        if array.ndim == 2 and key.endswith(".weight")
    }
    parents = collections.Counter(name.rpartition(".")[0] for name in matrices)
    parents.update(  # of normalizations
        key.removesuffix(".running_mean").rpartition(".")[0]
        for key in network.beside
        if key.endswith(".running_mean")
    )
    features = network.features  # which takes a look at every name
    fitting = {
        name: array
        for name, array in matrices.items()
        if array.shape[1] == features and not _in_projector(name, parents)
    }
    named = [name for name in fitting if NAME.fullmatch(name)]
    contrastive = not alone or any(
        map(CONTRASTIVE.fullmatch, (network.prefix + "x", *network.beside))
    )
    if contrastive:
        named = [name for name in named if len(fitting[name]) == classes]
    own = [name for name in named if not _is_outside(name, network)]
    if len(own or named) == 1:
        return (own or named)[0]
    of_classes = [name for name in fitting if len(fitting[name]) == classes]
    if not named and len(matrices) == 1 and of_classes:
        return of_classes[0]
    return None


def head_state(network: Network, name: str | None) -> dict[str, np.ndarray]:
    """The classifier's tensors under torchvision's names."""
    return {
        f"fc.{leaf}": network.beside[f"{name}.{leaf}"]
        for leaf in ("weight", "bias")
        if name is not None and f"{name}.{leaf}" in network.beside
    }


def _is_outside(name, network):
    return f"{name}.weight" in network.outside


def _in_projector(name, parents):
    """Whether other layers with weights stand beside a matrix in a part of its own."""
    parent, _, last = name.rpartition(".")
    return bool(parent) and last.isdigit() and parents[parent] > 1
