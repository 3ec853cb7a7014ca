"""What of a file goes into a model: the network, its head, and what is left over: `select`."""

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
    """Weights under torchvision's names.

    Args:
        state: Names to arrays, those of what may belong to the network and is not known too.
        left_over: Names of what stands beside the network in the file.
        head: The file's name of what is `fc` here; None if there is no classifier.
    """

    state: dict[str, np.ndarray]
    left_over: list[str]
    head: str | None


def select(network: Network, classes: int | None, alone: bool, sorted_names: bool) -> Weights:
    """The network's weights, its classifier's, and what is left over.

    Args:
        network: The network.
        classes: As of `classifier_of`, as `alone` is.
        alone: Whether no other network is in its dict.
        sorted_names: Whether the order of the file's names tells nothing.
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
        # A layer between the stages changes what they compute; a decoder behind them does not.
        doubtful = array.ndim == 4 if within is None else name in within
        if (name in needed or (inside and doubtful)) and name not in state:
            state[name] = array
        else:
            left_over.append(name)
    return Weights({**state, **taken}, left_over, head)


def said_of(names: Sequence[str]) -> str:
    """Names of tensors in few words: the parts that they are of, and how many of each."""
    parts = collections.Counter(name.partition(".")[0] for name in names)
    return listed(f"{part} ({count})" if count > 1 else part for part, count in parts.items())
