"""Recognizes the network of a state_dict by its keys and shapes."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from keras_resnet.attention import squeezed_channels
from keras_resnet.configs import CIFAR, CONFIGS, IMAGENET
from keras_resnet.weights.errors import listed

KNOWN = re.compile(
    r"(conv1(\.[01346])?|bn1|norm|maxpool\.[01]|fc"
    r"|layer[1-4]\.\d{1,4}\.(conv[123]|bn[123]|downsample\.[0-2]|se\.(fc[12]|conv)))\.[a-z_]{1,30}"
)
BLOCK = re.compile(r"layer([1-9])\.(\d{1,4})\.")


@dataclasses.dataclass(frozen=True)
class Architecture:
    """What the weights of a network show about it.

    Args:
        text: A description, "a resnet101 with 21 classes" for example.
        variant: Its name in CONFIGS, or None.
        classes: Number of classes; None without a head.
        channels: Number of input channels; None without a stem.
        shortcut: For CIFAR networks, "A" or "B", as in the builders; else None.
    """

    text: str
    variant: str | None = None
    classes: int | None = None
    channels: int | None = None
    shortcut: str | None = None


def recognise(state: Mapping[str, Any], anti_aliasing: str | None = None) -> Architecture:
    """Recognizes the architecture of a state_dict with torchvision's names.

    Args:
        state: Arrays by name.
        anti_aliasing: As from `anti_aliasing_of`, since names do not show it; None for "none".
    """
    anti_aliasing = anti_aliasing or "none"
    blocks = {(int(match[1]), int(match[2])) for key in state if (match := BLOCK.match(key))}
    last = max((stage for stage, _ in blocks), default=0)
    depths = tuple(sum(stage == number for stage, _ in blocks) for number in range(1, last + 1))
    kernel = _shape(state, "layer1.0.conv2.weight")
    if len(kernel) != 4:
        return Architecture(_no_resnet(state))
    block = "bottleneck" if "layer1.0.conv3.weight" in state else "basic"
    main, parts = (block, depths, kernel[:2]), _parts(state)
    alike = {name: config for name, config in CONFIGS.items() if _main(config) == main}
    equal = [
        name
        for name, config in alike.items()
        if _parts_of(config) == parts and config.blurs == anti_aliasing
    ]
    nearest = next(iter(alike.values()), None)
    family = nearest.family if nearest else IMAGENET
    others = [key for key in state if not KNOWN.fullmatch(key)]
    different = _differences(state, others, family, parts)
    variant, shortcut = None, None
    if equal and not different:
        variant, name = equal[0], f"a {equal[0]}"
        if family is CIFAR:
            shortcut = "B" if "layer2.0.downsample.0.weight" in state else "A"
            name += f" with shortcut {shortcut}"
    elif nearest:
        usual = _parts_of(nearest)
        different += [f"{part}={parts[part]!r}" for part in parts if parts[part] != usual[part]]
        name = f"a variant of {next(iter(alike))} ({', '.join(different)})"
    else:
        name = f"an unknown {block} ResNet with stages of {depths} blocks"
    classes = (*_shape(state, "fc.bias"), *_shape(state, "fc.weight"), None)[0]
    first = "conv1.0.weight" if parts["stem"] else "conv1.weight"
    channels = (*_shape(state, first)[1:], None)[0]
    joint = "and" if shortcut else "with"
    head = f"{joint} {classes} classes" if classes else "without a head"
    others = [key for key in others if len(state[key].shape) == 2]
    if others and not classes:
        head = f"{joint} a head named {listed(others[-1:])}"
    return Architecture(f"{name} {head}", variant, classes, channels, shortcut)


def _main(config):
    """Returns what variants have in common: kind of block, depths, and the shape of 3x3 kernels."""
    width = config.width(0)
    return config.block, config.depths, (width, width // config.reduce_first // config.groups)


def _parts(state):
    """Returns the fields of `ResNetConfig` in which variants differ, from keys and shapes."""
    stem = [_shape(state, f"conv1.{place}.weight") for place in (0, 3, 6)]
    pooled = _shape(state, "layer2.0.downsample.1.weight")
    averages = len(pooled) == 4
    down = pooled if averages else _shape(state, "layer2.0.downsample.0.weight")
    squeezed = _shape(state, "layer1.0.se.fc1.weight")[:1]
    reduced, inner = (_shape(state, f"layer1.0.conv{number}.weight") for number in (1, 2))
    by_convolution = "layer1.0.se.conv.weight" in state
    return {
        "stem": tuple(shape[0] for shape in stem if shape),
        "stem_pool": "conv" if "maxpool.0.weight" in state else "max",
        "avg_down": averages,
        "down_kernel": (*down[2:], 1)[0],
        "attention": "se" if squeezed else "eca" if by_convolution else None,
        "squeezed": squeezed[0] if squeezed else None,
        "reduce_first": inner[0] // (*reduced, 1)[0],
        "preactivation": "norm.weight" in state,
        "like_applications": "layer1.0.conv3.bias" in state,
    }


def _parts_of(config):
    """Returns the same fields for a row."""
    parts = (
        *("stem", "stem_pool", "down_kernel", "attention", "reduce_first"),
        *("preactivation", "like_applications"),
    )
    # Not visible for pre-activation networks, where it always comes with a deep stem.
    averages = config.avg_down and not config.preactivation
    squeezed = config.attention == "se" and squeezed_channels(config.filters(0), config.reduction)
    told = {part: getattr(config, part) for part in parts}
    return told | {"avg_down": averages, "squeezed": squeezed or None}


def _no_resnet(state):
    shapes = [array.shape for array in state.values()]
    if any(len(shape) == 5 for shape in shapes):
        return "a network with 3D convolutions, for video or volumes"
    if shapes and all(0 in shape for shape in shapes):
        return (
            "a network with empty tensors, as saved by DeepSpeed ZeRO-3 (its zero_to_fp32.py "
            "gathers the weights)"
        )
    return f"an unknown network of {len(state)} tensors: {listed(state, 3)}"


def _differences(state, others, family, parts):
    """Describes differences from the networks of this package: "with a 3x3 stem, not 7x7"."""
    stem, side = _shape(state, "conv1.weight")[2:], family.stem_kernel
    extra = dict.fromkeys(
        match[1] for key in others if (match := re.match(r"layer\d\.\d+\.([a-z_0-9]+)", key))
    )
    beside = [key for key in others if not BLOCK.match(key) and state[key].ndim > 2]
    found = {
        "with a stem other than one convolution": not stem and not parts["stem"],
        "with a stem of three convolutions, as in CLIP": "conv3.weight" in state,
        f"with a {'x'.join(map(str, stem))} stem, not {side}x{side}": stem
        not in ((), (side, side)),
        "with group normalization (it has no running statistics)": not any(
            key.endswith(".running_mean") for key in state
        ),
        f"with {listed(extra, 2)} in its blocks": extra,
        f"with {listed(beside, 2)}": beside,
        "without normalization in the stem": stem
        and not parts["preactivation"]
        and "bn1.weight" not in state,
    }
    return [words for words, is_so in found.items() if is_so]


def call_of(found: Architecture) -> str:
    """Returns the call that builds a network of an architecture with a known variant."""
    arguments = [repr(found.variant)]
    if found.classes:
        arguments.append(f"classes={found.classes}")
    else:
        arguments.append("include_top=False")
    if found.channels not in (None, 3):
        arguments.append(f"input_shape=(None, None, {found.channels})")
    usual = CONFIGS[str(found.variant)].shortcut or CIFAR.shortcut
    if found.shortcut not in (None, usual):
        arguments.append(f"shortcut={found.shortcut!r}")
    return f"keras_resnet.create({', '.join(arguments)})"


def _shape(state, key):
    return state[key].shape if key in state else ()
