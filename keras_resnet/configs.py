"""Every variant of the family is a row of CONFIGS."""

import dataclasses

# Of the RGB channels, scaled to 0..1, over ImageNet's training images (torchvision's constants).
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

EXPANSION = {"basic": 1, "bottleneck": 4}
STAGE_WIDTHS = (64, 128, 256, 512)


@dataclasses.dataclass(frozen=True)
class ResNetConfig:
    """What tells one residual network from another.

    Args:
        block: "basic" (two 3x3 convolutions) or "bottleneck" (1x1, 3x3, 1x1).
        depths: Number of blocks in each stage.
        groups: Groups of the 3x3 convolution of a bottleneck: 1, or the cardinality of a ResNeXt.
        width_per_group: Channels of one group in the first stage; they double with each stage.

    Sources: He et al., https://arxiv.org/abs/1512.03385, table 1; Xie et al.,
    https://arxiv.org/abs/1611.05431, table 1; Zagoruyko and Komodakis,
    https://arxiv.org/abs/1605.07146, section 2.
    """

    block: str
    depths: tuple[int, ...]
    groups: int = 1
    width_per_group: int = 64

    def width(self, stage: int) -> int:
        """Channels of the block's 3x3 convolution in `stage` (0 is the first)."""
        return STAGE_WIDTHS[stage] * self.width_per_group // 64 * self.groups

    def filters(self, stage: int) -> int:
        """Channels that the blocks of `stage` (0 is the first) put out."""
        return STAGE_WIDTHS[stage] * EXPANSION[self.block]


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
}
