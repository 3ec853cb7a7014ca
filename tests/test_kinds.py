"""The families of networks, compared with timm's names."""

import re

from keras_resnet.configs import CONFIGS
from keras_resnet.kinds import KINDS, by_kind

# The first match at the start of a name.
BY_NAME = (
    (r"(se)?resne(xt|t)(aa|blur)", "Anti-aliased ResNet"),
    (r"resnetrs", "ResNet-RS"),
    (r"senet", "SENet"),
    (r"ecaresne", "ECA-ResNet"),
    (r"seresnext", "SE-ResNeXt"),
    (r"seresnet", "SE-ResNet"),
    (r"wide_", "Wide ResNet"),
    (r"resnext", "ResNeXt"),
    (r"resnet(20|32|44|56|110|1202)$", "CIFAR ResNet"),
    (r"resnet\d+[cdst]", "ResNet-C/D/S/T"),
    (r"resnet\d+$", "ResNet"),
    (r"resnetv2_|resnet\d+v2$", "Pre-activation ResNet"),
    (r"preact_|wrn_", "Pre-activation CIFAR ResNet"),
)


def test_families_match_the_names():
    found = by_kind(CONFIGS)
    assert sorted(name for names in found.values() for name in names) == sorted(CONFIGS)
    for kind, names in found.items():
        expected = {next(said for start, said in BY_NAME if re.match(start, n)) for n in names}
        assert expected == {kind.name}


def test_no_family_without_a_network():
    assert list(by_kind(CONFIGS)) == list(KINDS)
    assert [kind.name for kind in by_kind(["resnet20", "seresnet50"])] == [
        "SE-ResNet",
        "CIFAR ResNet",
    ]
