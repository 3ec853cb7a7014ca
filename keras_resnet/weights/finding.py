"""Finds the network in the content of a file: `find`."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_resnet.weights.errors import SAVE_A_STATE_DICT, CheckpointError, listed
from keras_resnet.weights.names import CAFFE2, WRAPPER, renamed, with_statistics
from keras_resnet.weights.structure import Network, Site, sites_in, with_plain_stages

MAX_DEPTH = 12  # of nested dicts; TorchScript has one for each module
MAX_NAME = 1024  # characters in the joined name of a tensor
# Suffixes of names in a residual network, in any network, and in anything else, in the order in
# which they are tried if there is no complete residual network.
TELLING = ("conv1.weight", ".weight", "")
Path = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Found:
    """The network found in a file.

    Args:
        where: The keys of the dicts that contain it, and its prefix, as for `prefix` of `load`.
        tensors: The dict of tensors that contains it, with the file's names without the prefix.
        network: The network; None if it is not a residual network.
        libraries: The libraries whose names it has, if not torchvision's.
        alone: Whether it is the only network in its dict.
        unreadable: {name: description} of objects in the place of tensors.
    """

    where: str
    tensors: dict[str, np.ndarray]
    network: Network | None
    libraries: frozenset[str]
    alone: bool
    unreadable: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A candidate for the network; without a site, it is a dict of any tensors."""

    path: Path
    libraries: frozenset[str] = frozenset()
    site: Site | None = None
    state: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def where(self) -> str:
        """As in `Found`. Not stored, as there may be thousands of candidates."""
        return ".".join([*self.path, self.site.prefix if self.site else ""]).strip(".")


def find(
    saved: Any, source: object, passed_over: Sequence[Any] = (), prefix: str | None = None
) -> Found:
    """Finds the network in nested dicts.

    Args:
        saved: Arrays by name, possibly in nested dicts.
        source: Its name in messages.
        passed_over: `Opaque`s: other objects that the file refers to.
        prefix: Prefix of the network, if there are several.

    Raises:
        CheckpointError: if there is none, or there are several and `prefix` selects none of them.
    """
    groups: dict[Path, dict[str, Any]] = {}
    _collect(saved, (), set(), groups)
    arrays = {path: _arrays(group) for path, group in groups.items()}
    candidates: list[Candidate] = []
    for path, group in arrays.items():
        state, libraries = renamed(group)
        state = with_statistics(state) if CAFFE2 in libraries else with_plain_stages(state)
        for site in sites_in(state):
            candidates.append(Candidate(path, frozenset(libraries), site, state))
    with_stem = [one for one in candidates if one.site and one.site.stem]
    candidates = _distinct(with_stem or candidates)
    if not candidates:
        told = [
            [path for path, group in arrays.items() if any(f".{k}".endswith(end) for k in group)]
            for end in TELLING
        ]
        paths: list[Path] = next(filter(None, told), [])
        candidates = [Candidate(path) for path in paths]
    if not candidates:
        raise CheckpointError(f"{source} {_nothing(passed_over)} {SAVE_A_STATE_DICT}")
    one = _chosen(candidates, source, prefix)
    start = one.site.prefix if one.site else ""
    return Found(
        one.where,
        _without(start, arrays[one.path]),
        one.site.network(one.state) if one.site else None,
        one.libraries,
        sum(other.path == one.path for other in candidates) == 1,
        {
            WRAPPER.sub("", key).removeprefix(start): f"{value.name!r:.100}"
            for key, value in groups[one.path].items()
            if not isinstance(value, np.ndarray)
        },
    )


def _collect(saved, path, seen, groups):
    """Collects all dicts with tensors, once each, by the path of their keys."""
    if not isinstance(saved, Mapping) or id(saved) in seen or len(path) > MAX_DEPTH:
        return
    seen.add(id(saved))
    tensors = {
        key: value
        for key, value in saved.items()
        if isinstance(key, str) and (isinstance(value, np.ndarray) or hasattr(value, "is_module"))
    }
    if any(isinstance(value, np.ndarray) and value.ndim for value in tensors.values()):
        groups[path] = tensors  # not for dicts with numbers only, an epoch for example
    for key, value in saved.items():
        _collect(value, (*path, str(key)), seen, groups)


def flat(saved: Any) -> dict[str, np.ndarray]:
    """Flattens the nested modules of TorchScript to arrays by dotted names."""
    groups: dict[Path, dict[str, Any]] = {}
    _collect(saved, (), set(), groups)
    return {
        ".".join([*path, key]): value
        for path, group in groups.items()
        for key, value in group.items()
        if isinstance(value, np.ndarray) and sum(map(len, path)) + len(key) < MAX_NAME
    }


def _arrays(group):
    return {key: value for key, value in group.items() if isinstance(value, np.ndarray)}


def _without(prefix, tensors):
    """Removes wrappers and the prefix from names, as long as they remain unique."""
    names = {key: WRAPPER.sub("", key).removeprefix(prefix) for key in tensors}
    if len({*names.values()}) < len(names):
        return tensors
    return {names[key]: value for key, value in tensors.items()}


def _distinct(candidates):
    """Removes networks whose tensors are also part of others, like the encoder of a decoder."""
    kept: set[int] = set()
    held: set[int] = set()
    for one in sorted(candidates, key=lambda one: (-len(one.site.places), len(one.where))):
        if not held.issuperset(one.site.places):
            kept.add(id(one))
            held.update(one.site.places)
    return [one for one in candidates if id(one) in kept]


def _chosen(candidates, source, prefix):
    """Returns the candidate selected by `prefix`, or the only one."""
    if prefix is None:
        fitting = candidates
    else:
        asked = WRAPPER.sub("", f"{prefix}.").strip(".")
        tests = (
            lambda where: where == asked,
            lambda where: f".{where}.".startswith(f".{asked}."),
            lambda where: f".{asked}." in f".{where}.",
        )
        kept = ([one for one in candidates if test(one.where)] for test in tests)
        fitting = next(filter(None, kept), [])
    if len(fitting) == 1:
        return fitting[0]
    names = listed((f"prefix={one.where!r:.90}" for one in fitting or candidates), 4)
    if fitting:
        raise CheckpointError(
            f"{source} contains {len(fitting)} networks. Choose one with an argument of "
            f"weights.load, of a builder or of read_state_dict: {names}."
        )
    raise CheckpointError(f"{source} has no network at prefix={prefix!r:.90}. It has {names}.")


def _nothing(passed_over):
    """Describes why there is no network."""
    modules = [f"{one.name!r:.100}" for one in passed_over if one.is_module]
    others = [f"{one.name!r:.100}" for one in passed_over]
    if modules:
        return f"contains a whole pickled nn.Module ({listed(modules, 2)}), which was not executed."
    what = "contains no state_dict (a dict of tensors), not even inside other dicts."
    if others:
        what += f" It refers to {listed(others, 2)}, which was ignored and not executed."
    return what
