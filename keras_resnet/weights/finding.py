"""Finds the network within what a file holds: `find`."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_resnet.weights.errors import SAVE_A_STATE_DICT, CheckpointError, listed
from keras_resnet.weights.names import CAFFE2, WRAPPER, renamed, with_statistics
from keras_resnet.weights.structure import Network, Site, sites_in, with_plain_stages

MAX_DEPTH = 12  # of dicts in dicts, of which TorchScript has one for each module
MAX_NAME = 1024  # characters, of the names of a dict's tensors put together
# How a name ends that tells a residual network's weights, any network's, or anything: what is taken
# where there is no whole residual network.
TELLING = ("conv1.weight", ".weight", "")
Path = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Found:
    """The one network of a file.

    Args:
        where: The keys of the dicts that it is in, and its prefix, as `prefix` of `load` takes it.
        tensors: The dict of tensors that it is in, under the file's names, less its prefix.
        network: The network, or None if what was found is no residual network.
        libraries: Those whose names it has, if not torchvision's.
        alone: Whether it is the only network in its dict.
        unreadable: Names of what stands in the place of a tensor and is none, to what that is.
    """

    where: str
    tensors: dict[str, np.ndarray]
    network: Network | None
    libraries: frozenset[str]
    alone: bool
    unreadable: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A network that may be meant; without a site it is any dict of tensors."""

    path: Path
    libraries: frozenset[str] = frozenset()
    site: Site | None = None
    state: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def where(self) -> str:
        """As of `Found`. Not kept: there may be thousands."""
        return ".".join([*self.path, self.site.prefix if self.site else ""]).strip(".")


def find(
    saved: Any, source: object, passed_over: Sequence[Any] = (), prefix: str | None = None
) -> Found:
    """The one network in dicts within dicts.

    Args:
        saved: Arrays by name, perhaps in dicts within dicts.
        source: What it is called in messages.
        passed_over: `Opaque`s: what the file names beside.
        prefix: Which network, where there are several.

    Raises:
        CheckpointError: if there is none, or there are several and `prefix` does not tell which.
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
    """The dicts that hold tensors, each once, by the keys that lead to them."""
    if not isinstance(saved, Mapping) or id(saved) in seen or len(path) > MAX_DEPTH:
        return
    seen.add(id(saved))
    tensors = {
        key: value
        for key, value in saved.items()
        if isinstance(key, str) and (isinstance(value, np.ndarray) or hasattr(value, "is_module"))
    }
    if any(isinstance(value, np.ndarray) and value.ndim for value in tensors.values()):
        groups[path] = tensors  # and not where there are only numbers, as an epoch
    for key, value in saved.items():
        _collect(value, (*path, str(key)), seen, groups)


def flat(saved: Any) -> dict[str, np.ndarray]:
    """The arrays of modules within modules, as TorchScript has them, by names with dots."""
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
    """Tensors without what wraps their names, nor the prefix, as far as they stay apart."""
    names = {key: WRAPPER.sub("", key).removeprefix(prefix) for key in tensors}
    if len({*names.values()}) < len(names):
        return tensors
    return {names[key]: value for key, value in tensors.items()}


def _distinct(candidates):
    """Without networks whose numbers others hold too, as an attacker or a decoder's encoder has."""
    kept: set[int] = set()
    held: set[int] = set()
    for one in sorted(candidates, key=lambda one: (-len(one.site.places), len(one.where))):
        if not held.issuperset(one.site.places):
            kept.add(id(one))
            held.update(one.site.places)
    return [one for one in candidates if id(one) in kept]


def _chosen(candidates, source, prefix):
    """The one candidate that `prefix` tells, or the only one."""
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
    """Why there is no network, in words."""
    modules = [f"{one.name!r:.100}" for one in passed_over if one.is_module]
    others = [f"{one.name!r:.100}" for one in passed_over]
    if modules:
        return f"contains a whole pickled nn.Module ({listed(modules, 2)}), which was not executed."
    what = "contains no state_dict (a dict of tensors), not even inside other dicts."
    if others:
        what += f" It refers to {listed(others, 2)}, which was ignored and not executed."
    return what
