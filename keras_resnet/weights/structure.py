"""Finds residual networks among named tensors by their structure: `sites_in`.

A network consists of numbered stages and a first convolution, with any names: `layer1.0.conv1`,
`res2.0.conv1` or `4.0.conv1` under one prefix, and `conv1`, `stem.conv1`, `layer0.0` or `0`.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

# Stage and block are numbers without leading zeros.
BLOCK = re.compile(
    r"(.*?)(0|[1-9][0-9]{0,3})\.(0|[1-9][0-9]{0,3})\."
    r"((?:conv|bn)[123]|downsample\.[0-2]|se\.(?:fc[12]|conv))\.([a-z_]{1,30})"
)
DIGITS = "0123456789"
NORM_OF = {
    "conv1": "bn1",
    "conv": "bn",
    "0": "1",
}  # names of a convolution and of its normalization
DEEP = "conv1.0"  # the first convolution of a deep stem, numbered as in timm's sequence
DEEP_STEM = (DEEP, "conv1.1", "conv1.3", "conv1.4", "conv1.6", "bn1")
POOL = ("maxpool.0", "maxpool.1")  # a convolution instead of the max-pool, and its normalization
MOST_STEMS = 20  # maximum number of candidates for the first convolution; decoders have some, too
SLOTS = ("weight", "bias", "running_mean", "running_var")
Tensors = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Network:
    """A residual network found among tensors.

    Args:
        prefix: Prefix of its names, "" or "backbone." for example.
        state: Its tensors with torchvision's names, without a head.
        beside: All other tensors by name, without the prefix if they have it.
        outside: Names in `beside` that do not have the prefix.
        within: Names in `beside` that occur between its own; None if names are sorted, so that
            their order has no meaning.
    """

    prefix: str
    state: dict[str, np.ndarray]
    beside: dict[str, np.ndarray]
    outside: frozenset[str]
    within: frozenset[str] | None

    @property
    def has_bottlenecks(self) -> bool:
        """Whether it has bottleneck blocks."""
        return "layer1.0.conv3.weight" in self.state

    @property
    def features(self) -> int:
        """Output channels of its last stage, 0 if unknown."""
        if "norm.weight" in self.state:
            return self.state["norm.weight"].size
        norms = [
            key for key in self.state if re.fullmatch(r"layer\d+\.\d{1,4}\.bn[23]\.weight", key)
        ]
        last = max(norms, key=_place, default=None)
        return self.state[last].size if last else 0


@dataclasses.dataclass(frozen=True)
class Site:
    """The location of a residual network among tensors.

    Args:
        prefix: As for `Network`.
        base: Name before the stage numbers: "backbone.layer".
        numbers: The stage numbers.
        stem: Parent and name of its first convolution; None without one.
        places: Memory addresses of its blocks' tensors. Sites with the same ones are one network.
    """

    prefix: str
    base: str
    numbers: tuple[int, ...]
    stem: tuple[str, str] | None
    places: tuple[int, ...]

    def network(self, tensors: Tensors) -> Network:
        """Returns the network, and all tensors sorted into those of the network and others."""
        renamed: dict[str, str] = {}  # name in the file to name in the network
        if self.stem:
            parent, name = self.stem
            norm = "bn1" if name == DEEP else NORM_OF[name]
            own = (*DEEP_STEM, *POOL) if name == DEEP else POOL
            stem = {name: "conv1", norm: "bn1"} | {part: part for part in own}
            for theirs, ours in stem.items():
                renamed |= {f"{parent}{theirs}.{slot}": f"{ours}.{slot}" for slot in SLOTS}
            if f"{parent}{norm}.weight" not in tensors:  # it is after the last block
                renamed |= {f"{self.prefix}norm.{slot}": f"norm.{slot}" for slot in SLOTS}
        layers = {str(n): f"layer{n - self.numbers[0] + 1}" for n in self.numbers}
        state, beside, outside, places = {}, {}, set(), []
        for place, (key, array) in enumerate(tensors.items()):
            number, dot, rest = key[len(self.base) :].partition(".")
            if key in renamed:
                state[renamed[key]] = array
                places.append(place)
            elif key.startswith(self.base) and dot and number in layers:
                state[f"{layers[number]}.{rest}"] = array
                places.append(place)
            else:
                beside[key] = (place, array)
        first, last = min(places), max(places)
        names, within = {}, set()
        for key, (place, array) in beside.items():
            name = key.removeprefix(self.prefix)
            if not key.startswith(self.prefix) or name in names or name in state:
                name = key
                outside.add(key)
            if first < place < last:
                within.add(name)
            names[name] = array
        in_order = [*tensors] != sorted(tensors)
        order = frozenset(within) if in_order else None
        return Network(self.prefix, state, names, frozenset(outside), order)


def with_plain_stages(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Removes the index of a stage within a sequence: `layer1.1.0.conv1`, after a pooling layer.

    It is recognized as the only index in this stage, if other stages have none.
    """
    places: dict[str, set[str]] = {}  # stage to the indices in it
    bases = set()
    for key in tensors:
        if match := BLOCK.fullmatch(key):
            bases.add(match[1])
            if match[1].endswith("."):
                places.setdefault(match[1], set()).add(match[2])
    alone = {
        f"{stage}{place}.": stage
        for stage, (place, *more) in places.items()
        if not more and (base := stage[:-1].rstrip(DIGITS)) != stage[:-1] and base in bases
    }
    if not alone:
        return dict(tensors)
    names = {}
    for key in tensors:
        match = BLOCK.fullmatch(key)
        inner = f"{match[1]}{match[2]}." if match else ""
        names[key] = alone[inner] + key.removeprefix(inner) if inner in alone else key
    if len({*names.values()}) < len(names):
        return dict(tensors)
    return {names[key]: array for key, array in tensors.items()}


def sites_in(tensors: Tensors) -> list[Site]:
    """Finds residual networks among tensors; only those with a stem, if any has one."""
    stages: dict[str, set[int]] = {}  # name before the stage number, to the numbers
    stems: dict[str, list[tuple[str, str]]] = {}  # prefix to convolutions directly below it
    places: dict[str, list[int]] = {}
    for key, array in tensors.items():
        match = BLOCK.fullmatch(key)
        if match:
            place = array.__array_interface__["data"][0]
            places.setdefault(match[1], []).append(place)
        if match and match[3] == "0" and match[4].startswith("conv") and match[5] == "weight":
            stages.setdefault(match[1], set()).add(int(match[2]))
        before, _, name = key.removesuffix(".weight").rpartition(".")
        if not match and array.ndim == 4 and key.endswith(".weight") and name in NORM_OF:
            parent = before and f"{before}."
            for prefix in {parent, parent and before[: before.rfind(".") + 1]}:
                stems.setdefault(prefix, []).append((parent, name))
    found = []
    for base, numbers in stages.items():
        if len(numbers) > 1:
            prefix, first = base[: base.rfind(".") + 1], f"{base}{min(numbers)}."
            stem = _stem(tensors, stems.get(prefix, []), prefix, first)
            # The stages may be in a submodule: `layers.0.0.conv1` after `conv1`.
            outer = prefix[: prefix.rfind(".", 0, -1) + 1]
            if stem is None and prefix:
                stem = _feeding(tensors, stems.get(outer, []), first)
                prefix = outer if stem else prefix
            found.append(Site(prefix, base, tuple(sorted(numbers)), stem, tuple(places[base])))
    return [one for one in found if one.stem] or found


def _stem(tensors, candidates, prefix, first_stage):
    """Returns (parent, name) of a network's first convolution, if there is one."""
    for name in ("conv1", DEEP):
        if getattr(tensors.get(f"{prefix}{name}.weight"), "ndim", 0) == 4:
            return prefix, name
    return _feeding(tensors, candidates, first_stage)


def _feeding(tensors, candidates, first_stage):
    """Returns (parent, name) of the only convolution that fits the first stage, if there is one."""
    kernel = tensors.get(f"{first_stage}0.conv1.weight")
    if getattr(kernel, "ndim", 0) != 4 or len(candidates) > MOST_STEMS:
        return None
    feeding = [
        (parent, name)
        for parent, name in candidates
        if tensors[f"{parent}{name}.weight"].shape[0] == kernel.shape[1]
        and f"{parent}{NORM_OF[name]}.weight" in tensors
    ]
    return feeding[0] if len(feeding) == 1 else None


def _place(key):
    return [int(number) for number in re.findall(r"\d+", key)]
