"""Every variant of the family is a row of CONFIGS."""

import dataclasses

__all__ = ["CIFAR", "CONFIGS", "IMAGENET", "Family", "ResNetConfig"]

# Of the RGB channels, scaled to 0..1, over ImageNet's training images (torchvision's constants).
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

EXPANSION = {"basic": 1, "bottleneck": 4}


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

    Sources: He et al., https://arxiv.org/abs/1512.03385, table 1; Xie et al.,
    https://arxiv.org/abs/1611.05431, table 1; Zagoruyko and Komodakis,
    https://arxiv.org/abs/1605.07146, section 2.
    """

    block: str
    depths: tuple[int, ...]
    groups: int = 1
    width_per_group: int = 64
    family: Family = IMAGENET

    def width(self, stage: int) -> int:
        """Channels of the block's 3x3 convolution in `stage` (0 is the first)."""
        return self.family.widths[stage] * self.width_per_group // 64 * self.groups

    def filters(self, stage: int) -> int:
        """Channels that the blocks of `stage` (0 is the first) put out."""
        return self.family.widths[stage] * EXPANSION[self.block]


CONFIGS = {
    "resnet18": ResNetConfig("basic", (2, 2, 2, 2)),
    "resnet34": ResNetConfig("basic", (3, 4, 6, 3)),
    "resnet50": ResNetConfig("bottleneck", (3, 4, 6, 3)),
    "resnet101": ResNetConfig("bottleneck", (3, 4, 23, 3)),
    "resnet152": ResNetConfig("bottleneck", (3, 8, 36, 3)),
    "resnext50_32x4d": ResNetConfig("bottleneck", (3, 4, 6, 3), groups=32, width_per_group=4),
    "resnext101_32x8d": ResNetConfig("bottleneck", (3, 4, 23, 3), groups=32, width_per_group=8),
    "resnext101_64x4d": ResNetConfig("bottleneck", (3, 4, 23, 3), groups=64, width_per_group=4),
    "wide_resnet50_2": ResNetConfig("bottleneck", (3, 4, 6, 3), width_per_group=128),
    "wide_resnet101_2": ResNetConfig("bottleneck", (3, 4, 23, 3), width_per_group=128),
    "resnet20": ResNetConfig("basic", (3, 3, 3), family=CIFAR),
    "resnet32": ResNetConfig("basic", (5, 5, 5), family=CIFAR),
    "resnet44": ResNetConfig("basic", (7, 7, 7), family=CIFAR),
    "resnet56": ResNetConfig("basic", (9, 9, 9), family=CIFAR),
    "resnet110": ResNetConfig("basic", (18, 18, 18), family=CIFAR),
    "resnet1202": ResNetConfig("basic", (200, 200, 200), family=CIFAR),
}
