"""The kinds of networks by which they are listed, determined from the fields of a row."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from keras_resnet.configs import CIFAR, CONFIGS, ResNetConfig


class Kind(NamedTuple):
    """A kind of network.

    Args:
        name: Its name.
        about: How it differs from others, in a few words.
        fits: Whether a row belongs to it.
    """

    name: str
    about: str
    fits: Callable[[ResNetConfig], bool]


# The last one that fits is used.
KINDS = (
    Kind("ResNet", "a 7x7 stem, basic blocks or bottlenecks", lambda row: True),
    Kind(
        "ResNet-C/D/S/T",
        "a deep stem; -D and -T have average pooling in shortcuts",
        lambda row: bool(row.stem or row.avg_down),
    ),
    Kind("Wide ResNet", "wider 3x3 convolutions", lambda row: row.width_per_group > 64),
    Kind("ResNeXt", "grouped 3x3 convolutions", lambda row: row.groups > 1),
    Kind(
        "SE-ResNet",
        "squeeze-and-excitation (SE) in each block",
        lambda row: row.attention == "se",
    ),
    Kind(
        "SE-ResNeXt",
        "SE and grouped 3x3 convolutions",
        lambda row: row.attention == "se" and row.groups > 1,
    ),
    Kind(
        "ECA-ResNet",
        "efficient channel attention (ECA) in each block",
        lambda row: row.attention == "eca",
    ),
    Kind(
        "Anti-aliased ResNet",
        "downsampling by average pooling or after a blur",
        lambda row: row.anti_aliasing is not None,
    ),
    Kind(
        "ResNet-RS",
        "a deep stem without max-pool, average pooling in shortcuts, and SE",
        lambda row: row.stem_pool == "conv",
    ),
    Kind(
        "SENet",
        "64 groups, 3x3 convolutions in shortcuts, and SE",
        lambda row: row.down_kernel > 1,
    ),
    Kind(
        "Pre-activation ResNet",
        "normalization and ReLU before each convolution",
        lambda row: row.preactivation,
    ),
    Kind("CIFAR ResNet", "three stages, for images of 32 pixels", lambda row: row.family is CIFAR),
    Kind(
        "Pre-activation CIFAR ResNet",
        "wrn: wider, with dropout in the blocks",
        lambda row: row.family is CIFAR and row.preactivation,
    ),
)


def kind_of(row: ResNetConfig) -> Kind:
    """Returns the kind of a row of CONFIGS."""
    return next(kind for kind in reversed(KINDS) if kind.fits(row))


def by_kind(names: Iterable[str]) -> dict[Kind, list[str]]:
    """Groups names of CONFIGS by kind, in the order of KINDS; empty kinds are omitted."""
    found: dict[Kind, list[str]] = {kind: [] for kind in KINDS}
    for name in names:
        found[kind_of(CONFIGS[name])].append(name)
    return {kind: of_it for kind, of_it in found.items() if of_it}
