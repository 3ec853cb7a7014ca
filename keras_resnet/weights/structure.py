"""The residual networks among named tensors, told by their structure: `sites_in`.

A network is a row of stages beside a first convolution, whatever its names are: `layer1.0.conv1`,
`res2.0.conv1` or `4.0.conv1` within one prefix, with `conv1`, `stem.conv1`, `layer0.0` or `0`.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

# Stage and block are numbers as str writes them.
BLOCK = re.compile(
    r"(.*?)(0|[1-9][0-9]{0,3})\.(0|[1-9][0-9]{0,3})\."
    r"((?:conv|bn)[123]|downsample\.[0-2]|se\.(?:fc[12]|conv))\.([a-z_]{1,30})"
)
DIGITS = "0123456789"
NORM_OF = {"conv1": "bn1", "conv": "bn", "0": "1"}  # the names of a convolution and its norm
DEEP = "conv1.0"  # the first of several convolutions, as timm numbers them in a sequence
DEEP_STEM = (DEEP, "conv1.1", "conv1.3", "conv1.4", "conv1.6", "bn1")
POOL = ("maxpool.0", "maxpool.1")  # a convolution in its place, and that one's norm
MOST_STEMS = 20  # convolutions among which one may be the first; decoders have some
SLOTS = ("weight", "bias", "running_mean", "running_var")
Tensors = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Network:
    """A residual network among tensors of other names.

    Args:
        prefix: What its names begin with: "" or "backbone.".
        state: Its tensors under torchvision's names, without a head.
        beside: All others by their names, which lose the prefix if they have it.
        outside: Those names of `beside` that don't have the prefix.
        within: Those names of `beside` that stand between its own; None if names are sorted, and
            their order tells nothing.
    """

    prefix: str
    state: dict[str, np.ndarray]
    beside: dict[str, np.ndarray]
    outside: frozenset[str]
    within: frozenset[str] | None

    @property
    def has_bottlenecks(self) -> bool:
        """Whether its blocks have three convolutions each."""
        return "layer1.0.conv3.weight" in self.state

    @property
    def features(self) -> int:
        """Channels that its last stage puts out, 0 if that is not told."""
        if "norm.weight" in self.state:
            return self.state["norm.weight"].size
        norms = [
            key for key in self.state if re.fullmatch(r"layer\d+\.\d{1,4}\.bn[23]\.weight", key)
        ]
        last = max(norms, key=_place, default=None)
        return self.state[last].size if last else 0


@dataclasses.dataclass(frozen=True)
class Site:
    """Where a residual network is among tensors.

    Args:
        prefix: As of `Network`.
        base: What stands before the numbers of its stages: "backbone.layer".
        numbers: Those numbers.
        stem: What stands before the name of its first convolution, and that; None without one.
        places: Where its blocks' numbers are in memory. Sites that share all are one network.
    """

    prefix: str
    base: str
    numbers: tuple[int, ...]
    stem: tuple[str, str] | None
    places: tuple[int, ...]

    def network(self, tensors: Tensors) -> Network:
        """The network, with all tensors taken apart."""
        renamed: dict[str, str] = {}  # name of the file to the network's
        if self.stem:
            parent, name = self.stem
            norm = "bn1" if name == DEEP else NORM_OF[name]
            own = (*DEEP_STEM, *POOL) if name == DEEP else POOL
            stem = {name: "conv1", norm: "bn1"} | {part: part for part in own}
            for theirs, ours in stem.items():
                renamed |= {f"{parent}{theirs}.{slot}": f"{ours}.{slot}" for slot in SLOTS}
            if f"{parent}{norm}.weight" not in tensors:  # it follows the last block
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
    """Tensors without the place of a stage in a sequence, `layer1.1.0.conv1` behind a pooling.

    That is told by there being one such place, beside stages that have none.
    """
    places: dict[str, set[str]] = {}  # stage, to places in it
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
    """Where residual networks are among tensors, those with a first convolution if any has one."""
    stages: dict[str, set[int]] = {}  # what stands before the number of a stage, to its numbers
    stems: dict[str, list[tuple[str, str]]] = {}  # prefix, to convolutions right below it
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
            # The stages may be in a part of their own: `layers.0.0.conv1` behind `conv1`.
            outer = prefix[: prefix.rfind(".", 0, -1) + 1]
            if stem is None and prefix:
                stem = _feeding(tensors, stems.get(outer, []), first)
                prefix = outer if stem else prefix
            found.append(Site(prefix, base, tuple(sorted(numbers)), stem, tuple(places[base])))
    return [one for one in found if one.stem] or found


def _stem(tensors, candidates, prefix, first_stage):
    """The (parent, name) of the first convolution of a network, if there is one."""
    for name in ("conv1", DEEP):
        if getattr(tensors.get(f"{prefix}{name}.weight"), "ndim", 0) == 4:
            return prefix, name
    return _feeding(tensors, candidates, first_stage)


def _feeding(tensors, candidates, first_stage):
    """The (parent, name) of the one convolution that feeds the first stage, if there is one."""
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
