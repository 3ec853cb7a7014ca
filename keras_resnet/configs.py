"""Every variant of the family is a row of CONFIGS."""

import dataclasses
import functools

__all__ = ["CIFAR", "CONFIGS", "IMAGENET", "Family", "ResNetConfig", "builders"]

# Of the RGB channels, scaled to 0..1, over ImageNet's training images (torchvision's constants).
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

EXPANSION = {"basic": 1, "bottleneck": 4}

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


@dataclasses.dataclass(frozen=True)
class Family:
    """What the networks for one kind of images share.

    Args:
        widths: Channels of each stage; the stem puts out those of the first.
        stem_kernel: Side of the first convolution's kernel. At 7 it has a stride of 2 and a
            max-pool follows, at 3 neither.
        shortcut: What a shortcut does by default where the shape changes: "B" projects, "A" skips
            pixels and pads the new channels with zeros (He et al., section 3.3).
        classes: Number of classes by default.
        image_size: Side of the images that the networks were made for, in pixels.
        resize: Length of the shorter side before those are cut out.
        min_size: The smallest side of an image that leaves something to convolve at the end.
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
    """What tells one residual network from another.

    Args:
        block: "basic" (two 3x3 convolutions) or "bottleneck" (1x1, 3x3, 1x1).
        depths: Number of blocks in each stage.
        groups: Groups of the 3x3 convolution of a bottleneck: 1, or the cardinality of a ResNeXt.
        width_per_group: Channels of one group in the first stage; they double with each stage.
        family: The images that the network is for: `IMAGENET` or `CIFAR`.
        paper: Where the network is described.
        builder: Name of its own public function, `keras_resnet.ResNet50` for example; without
            one, `keras_resnet.create` builds it.
    """

    block: str
    depths: tuple[int, ...]
    groups: int = 1
    width_per_group: int = 64
    family: Family = IMAGENET
    paper: str = RESNET
    builder: str | None = None

    def width(self, stage: int) -> int:
        """Channels of the block's 3x3 convolution in `stage` (0 is the first)."""
        return self.family.widths[stage] * self.width_per_group // 64 * self.groups

    def filters(self, stage: int) -> int:
        """Channels that the blocks of `stage` (0 is the first) put out."""
        return self.family.widths[stage] * EXPANSION[self.block]


_resnext = functools.partial(ResNetConfig, "bottleneck", paper=RESNEXT)
_wide = functools.partial(ResNetConfig, "bottleneck", width_per_group=128, paper=WIDE_RESNET)
_cifar = functools.partial(ResNetConfig, "basic", family=CIFAR, paper=CIFAR_RESNET)

CONFIGS = {
    "resnet18": ResNetConfig("basic", (2, 2, 2, 2), builder="ResNet18"),
    "resnet34": ResNetConfig("basic", (3, 4, 6, 3), builder="ResNet34"),
    "resnet50": ResNetConfig("bottleneck", (3, 4, 6, 3), builder="ResNet50"),
    "resnet101": ResNetConfig("bottleneck", (3, 4, 23, 3), builder="ResNet101"),
    "resnet152": ResNetConfig("bottleneck", (3, 8, 36, 3), builder="ResNet152"),
    # Of a ResNeXt: the groups, and the width of one.
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
}


def builders() -> dict[str, str]:
    """The names of the public builders, each with the row of CONFIGS that it builds."""
    return {row.builder: name for name, row in CONFIGS.items() if row.builder}
