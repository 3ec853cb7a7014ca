"""Finds the classifier among the tensors outside the network: `classifier_of`.

A classifier is a matrix applied to the network's features. Projection heads of self-supervised
learning only differ in their names, their positions, their neighbors and their numbers of rows.
"""

import collections
import re

import numpy as np

from keras_resnet.weights.structure import Network

# Directly below the network's prefix or a parent of it; in detectron2, within the stem.
NAME = re.compile(
    r"((head|cls_head|stem)\.)?(fc|fc_cls|linear|last_linear|classifier|logits|output)(\.\d)?"
)
# In contrastive learning, encoders end in a projection that is often called `fc`.
CONTRASTIVE = re.compile(r"(.*\.)?(encoder_[qk]|queue|queue_ptr|base_encoder|momentum_encoder)\b.*")


def classifier_of(network: Network, classes: int | None, alone: bool) -> str | None:
    """Returns the name of the classifier in `network.beside`, without its leaf; None without one.

    Args:
        network: The network.
        classes: Expected number of classes; None if unknown.
        alone: Whether it is the only network in its dict.
    """
    matrices = {
        key.removesuffix(".weight"): array
        for key, array in network.beside.items()
        if array.ndim == 2 and key.endswith(".weight")
    }
    parents = collections.Counter(name.rpartition(".")[0] for name in matrices)
    parents.update(  # parents of normalizations
        key.removesuffix(".running_mean").rpartition(".")[0]
        for key in network.beside
        if key.endswith(".running_mean")
    )
    features = network.features  # computed once, as it iterates over all names
    fitting = {
        name: array
        for name, array in matrices.items()
        if array.shape[1] == features and not _in_projector(name, parents)
    }
    above = network.prefix.split(".")[:-1]
    places = {name: _place(name, _is_outside(name, network), above) for name in fitting}
    named = [name for name, (_, rest) in places.items() if NAME.fullmatch(rest)]
    contrastive = not alone or any(
        map(CONTRASTIVE.fullmatch, (network.prefix + "x", *network.beside))
    )
    if contrastive:
        named = [name for name in named if len(fitting[name]) == classes]
    if named:
        nearest = min(places[name][0] for name in named)
        named = [name for name in named if places[name][0] == nearest]
        return named[0] if len(named) == 1 else None
    of_classes = [
        name
        for name in fitting
        if len(fitting[name]) == classes and (len(matrices) == 1 or places[name][1] == "head")
    ]
    return of_classes[0] if len(of_classes) == 1 else None


def before_head(network: Network, head: str) -> set[str]:
    """Returns the names of tensors that seem to be a hidden layer before the classifier.

    These are parts of the file that have only normalizations, or matrices from features to
    features; decoders and projections also have other shapes.
    """
    above, features = network.prefix.split(".")[:-1], network.features
    parts: dict[tuple[int, str], list[str]] = {}
    for name in network.beside.keys() - {f"{head}.weight", f"{head}.bias"}:
        up, rest = _place(name, name in network.outside, above)
        parts.setdefault((up, rest.partition(".")[0]), []).append(name)
    return {
        name
        for names in parts.values()
        if all(network.beside[name].shape in ((features,), (features,) * 2) for name in names)
        for name in names
    }


def head_state(network: Network, name: str | None) -> dict[str, np.ndarray]:
    """Returns the classifier's tensors with torchvision's names."""
    return {
        f"fc.{leaf}": network.beside[f"{name}.{leaf}"]
        for leaf in ("weight", "bias")
        if name is not None and f"{name}.{leaf}" in network.beside
    }


def _place(name, is_outside, above):
    """Returns how many levels above the network's prefix a name branches off, and its rest.

    Args:
        name: A name in `Network.beside`.
        is_outside: Whether it is in `Network.outside`.
        above: The parts of the prefix.
    """
    if not is_outside:
        return 0, name
    parts, same = name.split("."), 0
    while same < min(len(parts), len(above)) and parts[same] == above[same]:
        same += 1
    return len(above) - same, ".".join(parts[same:])


def _is_outside(name, network):
    return f"{name}.weight" in network.outside


def _in_projector(name, parents):
    """Whether a matrix is in a submodule that has other layers with weights."""
    parent, _, last = name.rpartition(".")
    return bool(parent) and last.isdigit() and parents[parent] > 1
