"""Selects the tensors of a file for a model: the network and its head: `select`."""

import collections
import dataclasses
from collections.abc import Sequence

import numpy as np

from keras_resnet.weights.errors import listed
from keras_resnet.weights.heads import before_head, classifier_of, head_state
from keras_resnet.weights.names import biases_into_means
from keras_resnet.weights.structure import Network


@dataclasses.dataclass(frozen=True)
class Weights:
    """Weights with torchvision's names.

    Args:
        state: Arrays by name, including unknown ones that may belong to the network.
        left_over: Names of other tensors in the file.
        head: The file's name for `fc`; None if there is no classifier.
    """

    state: dict[str, np.ndarray]
    left_over: list[str]
    head: str | None


def select(network: Network, classes: int | None, alone: bool, sorted_names: bool) -> Weights:
    """Selects the weights of a network and of its classifier.

    Args:
        network: The network.
        classes: As for `classifier_of`.
        alone: Whether it is the only network in its dict.
        sorted_names: Whether names are sorted, so that their order has no meaning.
    """
    head = classifier_of(network, classes, alone)
    taken = head_state(network, head)
    state = biases_into_means(network.state)
    left_over = []
    within = None if sorted_names else network.within
    used = {f"{head}.weight", f"{head}.bias"}
    needed = before_head(network, head) if head else ()
    for name, array in network.beside.items():
        if name in used:
            continue
        inside = name not in network.outside
        # A layer between stages changes their outputs; a decoder after them does not.
        doubtful = array.ndim == 4 if within is None else name in within
        if (name in needed or (inside and doubtful)) and name not in state:
            state[name] = array
        else:
            left_over.append(name)
    return Weights({**state, **taken}, left_over, head)


def said_of(names: Sequence[str]) -> str:
    """Summarizes names of tensors: their first parts, and the number of each."""
    parts = collections.Counter(name.partition(".")[0] for name in names)
    return listed(f"{part} ({count})" if count > 1 else part for part, count in parts.items())
