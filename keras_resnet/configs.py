"""Every variant of the family is a row of CONFIGS."""

import dataclasses
import functools
import re
from typing import Any

__all__ = ["CIFAR", "CONFIGS", "IMAGENET", "Family", "ResNetConfig", "builders"]

# Mean and standard deviation of ImageNet's RGB channels in 0..1 (torchvision's constants).
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

EXPANSION = 4  # of a bottleneck

_DEEP = "He et al., Deep Residual Learning for Image Recognition, https://arxiv.org/abs/1512.03385"
RESNET = f"{_DEEP}, table 1."
CIFAR_RESNET = f"{_DEEP}, section 4.2 and table 6."
RESNEXT = (
    "Xie et al., Aggregated Residual Transformations for Deep Neural Networks, "
    "https://arxiv.org/abs/1611.05431, table 1."
)
WIDE_RESNET = (
    "Zagoruyko and Komodakis, Wide Residual Networks, https://arxiv.org/abs/1605.07146, section 2."
)
RESNET_D = "He et al., Bag of Tricks, https://arxiv.org/abs/1812.01187, section 4."
SENET = "Hu et al., Squeeze-and-Excitation Networks, https://arxiv.org/abs/1709.01507, table 1."
ECANET = "Wang et al., ECA-Net, https://arxiv.org/abs/1910.03151, section 4."
BLUR = (
    "Zhang, Making Convolutional Networks Shift-Invariant Again, https://arxiv.org/abs/1904.11486."
)
PREACTIVATION = (
    "He et al., Identity Mappings in Deep Residual Networks, https://arxiv.org/abs/1603.05027, "
)
IMAGENET_V2 = f"{PREACTIVATION}table 5."
CIFAR_V2 = f"{PREACTIVATION}table 4."
WIDE_CIFAR = (
    "Zagoruyko and Komodakis, Wide Residual Networks, https://arxiv.org/abs/1605.07146, table 4."
)
RESNET_RS = "Bello et al., Revisiting ResNets, https://arxiv.org/abs/2103.07579, table 2."


@dataclasses.dataclass(frozen=True)
class Family:
    """Properties that the networks for one kind of images share.

    Args:
        widths: Channels of each stage; the stem has those of the first.
        stem_kernel: Side of the first convolution's kernel. At 7 it has a stride of 2 and a
            max-pool follows, at 3 neither.
        shortcut: Default shortcut where the shape changes: "B" projects, "A" subsamples and pads
            the new channels with zeros (He et al., section 3.3).
        classes: Default number of classes.
        image_size: Default image size, in pixels.
        resize: Default length of the shorter side before the crop.
        min_size: Minimum image size, below which the last feature map would be empty.
    """

    widths: tuple[int, ...]
    stem_kernel: int
    shortcut: str
    classes: int
    image_size: int
    resize: int
    min_size: int


# He et al., https://arxiv.org/abs/1512.03385: table 1, and section 4.2.
IMAGENET = Family((64, 128, 256, 512), 7, "B", 1000, image_size=224, resize=256, min_size=32)
CIFAR = Family((16, 32, 64), 3, "A", 10, image_size=32, resize=32, min_size=8)


@dataclasses.dataclass(frozen=True)
class ResNetConfig:
    """The configuration of a residual network.

    Args:
        block: "basic" (two 3x3 convolutions) or "bottleneck" (1x1, 3x3, 1x1).
        depths: Number of blocks in each stage.
        groups: Groups of the 3x3 convolution of a bottleneck: 1, or the cardinality of a ResNeXt.
        width_per_group: Channels of one group in the first stage, where 64 stands for the family's
            width; they double with each stage.
        family: Kind of images that the network is for: `IMAGENET` or `CIFAR`.
        stem: Widths of the 3x3 convolutions that replace the family's first convolution; the first
            of them has its stride.
        stem_pool: "max", or "conv" for a 3x3 convolution instead of the stem's max-pool.
        avg_down: Whether shortcuts use 2x2 average pooling instead of subsampling.
        anti_aliasing: Operation that does the downsampling of the max-pool and of 3x3 convolutions:
            "avg" (2x2 average pooling), "blur" (a blur by (1, 2, 1) / 4), or None.
        attention: Channel attention at the end of each block: "se" (squeeze-and-excitation), "eca"
            (efficient channel attention), or None.
        reduction: Reduction ratio of "se".
        reduce_first: Factor by which a bottleneck's first convolution is narrower than its second.
        down_kernel: Kernel size of a shortcut's convolution with a stride.
        preactivation: Whether blocks apply normalization and ReLU before their convolutions, with a
            final normalization after the last block.
        like_applications: For pre-activation networks, whether they are those of
            keras.applications: stages stride in their last block, and convolutions without a
            following normalization have a bias.
        shortcut: As for `Family`, if it differs from the family's.
        dropout_inside: Whether dropout is between the convolutions of each block instead of before
            the head.
        paper: Reference to the paper.
        builder: Name of its public function, `keras_resnet.ResNet50` for example; without one, use
            `keras_resnet.create`.
    """

    block: str
    depths: tuple[int, ...]
    groups: int = 1
    width_per_group: int = 64
    family: Family = IMAGENET
    stem: tuple[int, ...] = ()
    stem_pool: str = "max"
    avg_down: bool = False
    anti_aliasing: str | None = None
    attention: str | None = None
    reduction: int = 16
    reduce_first: int = 1
    down_kernel: int = 1
    preactivation: bool = False
    like_applications: bool = False
    shortcut: str | None = None
    dropout_inside: bool = False
    paper: str = RESNET
    builder: str | None = None

    @property
    def stem_width(self) -> int:
        """Output channels of the stem."""
        return (self.stem or self.family.widths)[-1 if self.stem else 0]

    @property
    def blurs(self) -> str:
        """`anti_aliasing` as it is stored in files, where None is "none"."""
        return self.anti_aliasing or "none"

    @property
    def pixels(self) -> dict[str, Any]:
        """Mean and standard deviation of the RGB channels in 0..1, if they are not ImageNet's."""
        half = (0.5, 0.5, 0.5)
        return {"mean": half, "std": half} if self.like_applications else {}

    def width(self, stage: int) -> int:
        """Channels of the block's 3x3 convolution in `stage` (0 is the first)."""
        return self.family.widths[stage] * self.width_per_group // 64 * self.groups

    def filters(self, stage: int) -> int:
        """Output channels of the blocks of `stage` (0 is the first)."""
        basic = self.block == "basic"
        return self.width(stage) if basic else self.family.widths[stage] * EXPANSION


_resnext = functools.partial(ResNetConfig, "bottleneck", paper=RESNEXT)
_wide = functools.partial(ResNetConfig, "bottleneck", width_per_group=128, paper=WIDE_RESNET)
_cifar = functools.partial(ResNetConfig, "basic", family=CIFAR, paper=CIFAR_RESNET)
_v2 = functools.partial(
    ResNetConfig, "bottleneck", preactivation=True, like_applications=True, paper=IMAGENET_V2
)
_cifar_v2 = functools.partial(ResNetConfig, family=CIFAR, preactivation=True, paper=CIFAR_V2)
_wrn = functools.partial(_cifar_v2, "basic", shortcut="B", dropout_inside=True, paper=WIDE_CIFAR)
_rs = functools.partial(
    ResNetConfig,
    "bottleneck",
    stem=(32, 32, 64),
    stem_pool="conv",
    avg_down=True,
    attention="se",
    reduction=4,
    paper=RESNET_RS,
)

# Blocks per stage, by the number in the name; 10, 18 and 34 layers use basic blocks.
DEPTHS = {
    **{"10": (1, 1, 1, 1), "14": (1, 1, 1, 1), "18": (2, 2, 2, 2), "26": (2, 2, 2, 2)},
    **{"34": (3, 4, 6, 3), "50": (3, 4, 6, 3), "101": (3, 4, 23, 3), "152": (3, 8, 36, 3)},
    **{"200": (3, 24, 36, 3), "201": (3, 24, 36, 4), "269": (3, 30, 48, 8)},
}
# Letters after the number: the stem's widths, and whether shortcuts use average pooling.
LETTERS: dict[str, dict[str, Any]] = {
    "": {},
    "c": {"stem": (32, 32, 64)},
    "s": {"stem": (64, 64, 128)},
    "d": {"stem": (32, 32, 64), "avg_down": True},
    "t": {"stem": (24, 32, 64), "avg_down": True},
}
NAME = re.compile(r"(se|eca)?resne(t|xt)(v2_)?(aa|blur)?(\d+)([cdst]?)(?:_(\d+)x(\d+)d)?")


def _named(name: str) -> ResNetConfig:
    """Returns the row described by a name of timm's, "seresnextaa101d_32x8d" for example."""
    match = NAME.fullmatch(name)
    if match is None:
        raise ValueError(
            f"The name {name!r} does not follow timm's naming scheme. Add its row to CONFIGS."
        )
    attention, kind, v2, aliasing, number, letter, groups, width = match.groups()
    papers = {attention == "eca": ECANET, attention == "se": SENET, bool(aliasing): BLUR}
    papers |= {bool(v2): IMAGENET_V2}
    paper = papers.get(True) or (RESNET_D if letter else RESNEXT if kind == "xt" else RESNET)
    return ResNetConfig(
        "basic" if number in ("10", "18", "34") else "bottleneck",
        DEPTHS[number],
        int(groups or 1),
        int(width or 64),
        **LETTERS[letter],
        anti_aliasing={"aa": "avg"}.get(aliasing, aliasing),
        attention=attention,
        preactivation=bool(v2),
        paper=paper,
    )


# Networks fully described by their names, which are timm's (or torchvision's).
_NAMES = """
    resnet10t resnet14t resnet18d resnet26 resnet26d resnet26t resnet34d resnet50c resnet50d
    resnet50s resnet50t resnet101c resnet101d resnet101s resnet152c resnet152d resnet152s resnet200
    resnet200d
    resnext50d_32x4d resnext101_32x4d resnext101_32x16d resnext101_32x32d
    seresnet18 seresnet34 seresnet50 seresnet50t seresnet101 seresnet152 seresnet152d seresnet200d
    seresnet269d seresnext26d_32x4d seresnext26t_32x4d seresnext50_32x4d seresnext101_32x4d
    seresnext101_32x8d seresnext101d_32x8d seresnext101_64x4d
    ecaresnet26t ecaresnet50d ecaresnet50t ecaresnet101d ecaresnet200d ecaresnet269d
    ecaresnext26t_32x4d ecaresnext50t_32x4d
    resnetaa34d resnetaa50 resnetaa50d resnetaa101d seresnetaa50d seresnextaa101d_32x8d
    resnetblur18 resnetblur50 resnetblur50d resnetblur101d
    resnetv2_18 resnetv2_18d resnetv2_34 resnetv2_34d resnetv2_50 resnetv2_50d resnetv2_50t
    resnetv2_101 resnetv2_101d resnetv2_152 resnetv2_152d
"""

CONFIGS = {
    "resnet18": ResNetConfig("basic", (2, 2, 2, 2), builder="ResNet18"),
    "resnet34": ResNetConfig("basic", (3, 4, 6, 3), builder="ResNet34"),
    "resnet50": ResNetConfig("bottleneck", (3, 4, 6, 3), builder="ResNet50"),
    "resnet101": ResNetConfig("bottleneck", (3, 4, 23, 3), builder="ResNet101"),
    "resnet152": ResNetConfig("bottleneck", (3, 8, 36, 3), builder="ResNet152"),
    # Groups and width per group.
    "resnext50_32x4d": _resnext((3, 4, 6, 3), 32, 4, builder="ResNeXt50_32x4d"),
    "resnext101_32x8d": _resnext((3, 4, 23, 3), 32, 8, builder="ResNeXt101_32x8d"),
    "resnext101_64x4d": _resnext((3, 4, 23, 3), 64, 4, builder="ResNeXt101_64x4d"),
    "wide_resnet50_2": _wide((3, 4, 6, 3), builder="WideResNet50_2"),
    "wide_resnet101_2": _wide((3, 4, 23, 3), builder="WideResNet101_2"),
    "resnet20": _cifar((3, 3, 3), builder="ResNet20"),
    "resnet32": _cifar((5, 5, 5), builder="ResNet32"),
    "resnet44": _cifar((7, 7, 7), builder="ResNet44"),
    "resnet56": _cifar((9, 9, 9), builder="ResNet56"),
    "resnet110": _cifar((18, 18, 18), builder="ResNet110"),
    "resnet1202": _cifar((200, 200, 200), builder="ResNet1202"),
    # Those of keras.applications.
    "resnet50v2": _v2((3, 4, 6, 3), builder="ResNet50V2"),
    "resnet101v2": _v2((3, 4, 23, 3), builder="ResNet101V2"),
    "resnet152v2": _v2((3, 8, 36, 3), builder="ResNet152V2"),
    # 6n + 2 layers, or 9n + 2 with bottlenecks.
    "preact_resnet110": _cifar_v2("basic", (18, 18, 18)),
    "preact_resnet164": _cifar_v2("bottleneck", (18, 18, 18), shortcut="B"),
    "preact_resnet1001": _cifar_v2("bottleneck", (111, 111, 111), shortcut="B"),
    # 6n + 4 layers and a widening factor.
    "wrn_16_8": _wrn((2, 2, 2), width_per_group=8 * 64),
    "wrn_28_10": _wrn((4, 4, 4), width_per_group=10 * 64),
    "wrn_40_2": _wrn((6, 6, 6), width_per_group=2 * 64),
    **{name: _named(name) for name in _NAMES.split()},
    "resnetrs50": _rs((3, 4, 6, 3)),
    "resnetrs101": _rs((3, 4, 23, 3)),
    "resnetrs152": _rs((3, 8, 36, 3)),
    "resnetrs200": _rs((3, 24, 36, 3)),
    "resnetrs270": _rs((4, 29, 53, 4)),
    "resnetrs350": _rs((4, 36, 72, 4)),
    "resnetrs420": _rs((4, 44, 87, 4)),
    "ecaresnetlight": ResNetConfig(
        "bottleneck", (1, 1, 11, 3), avg_down=True, attention="eca", paper=ECANET
    ),
    "seresnextaa201d_32x8d": dataclasses.replace(
        _named("seresnextaa201d_32x8d"), stem=(64, 64, 128)
    ),
    "senet154": ResNetConfig(
        "bottleneck",
        (3, 8, 36, 3),
        64,
        4,
        stem=(64, 64, 128),
        attention="se",
        reduce_first=2,
        down_kernel=3,
        paper=SENET,
    ),
}


def builders() -> dict[str, str]:
    """Names of the public builders, each with its row of CONFIGS."""
    return {row.builder: name for name, row in CONFIGS.items() if row.builder}
