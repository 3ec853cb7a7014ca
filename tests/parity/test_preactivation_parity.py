"""Pre-activation networks compared with timm's resnetv2 and with small torch modules."""

import numpy as np
import pytest
import timm
import torch
from torch import nn
from torch.nn import functional

import keras_resnet  # isort: skip (torch comes first)
from randomised import randomise

pytestmark = pytest.mark.parity


def check_equal(ours, theirs, *size):
    x = np.random.default_rng(0).normal(size=(1, 3, *size)).astype(np.float32)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(x)).numpy()
    found = ours(x.transpose(0, 2, 3, 1)).numpy()
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("output_stride", [32, 8])
@pytest.mark.parametrize("name", ["resnetv2_18d", "resnetv2_50", "resnetv2_50t"])
def test_logits(name, output_stride, tmp_path):
    """Loaded from a file with a prefix, and saved for timm."""
    theirs = randomise(timm.create_model(name, num_classes=7, output_stride=output_stride))
    state = {f"module.{key}": value for key, value in theirs.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "w.pth")
    ours = keras_resnet.create(
        name,
        weights=tmp_path / "w.pth",
        classes=7,
        classifier_activation=None,
        output_stride=output_stride,
    )
    for size in ((96, 96), (65, 83)):
        check_equal(ours, theirs, *size)
    assert sum(np.prod(v.shape) for v in ours.trainable_variables) == sum(
        parameter.numel() for parameter in theirs.parameters()
    )
    path = keras_resnet.weights.save(ours, tmp_path / "ours.pth")
    again = timm.create_model(name, num_classes=7, output_stride=output_stride).eval()
    again.load_state_dict(torch.load(path, weights_only=True), strict=True)
    check_equal(ours, again, 64, 64)


class Block(nn.Module):
    """He et al., 2016b, figure 1b; or a block of Wide ResNets."""

    def __init__(self, channels, filters, stride, shortcut, bottleneck, first):
        super().__init__()
        width = filters // 4 if bottleneck else filters
        sizes = [(channels, width, 1), (width, width, 3), (width, filters, 1)]
        if not bottleneck:
            sizes = [(channels, width, 3), (width, filters, 3)]
        self.count = len(sizes)
        for number, (inside, out, kernel) in enumerate(sizes, 1):
            # The first 3x3 convolution has the stride.
            strides = stride if kernel == 3 and number < 3 - (not bottleneck) else 1
            convolution = nn.Conv2d(inside, out, kernel, strides, kernel // 2, bias=False)
            setattr(self, f"bn{number}", nn.BatchNorm2d(inside))
            setattr(self, f"conv{number}", convolution)
        self.changes = stride > 1 or channels != filters
        self.stride, self.new, self.first = stride, filters - channels, first
        if self.changes and shortcut == "B":
            self.downsample = nn.Sequential(nn.Conv2d(channels, filters, 1, stride, bias=False))

    def forward(self, x):
        y = torch.relu(self.bn1(x))
        x = y if self.changes or self.first else x
        if hasattr(self, "downsample"):
            x = self.downsample(x)
        elif self.changes:
            half = self.new // 2
            x = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, half))
        y = self.conv1(y)
        for number in range(2, self.count + 1):
            y = torch.relu(getattr(self, f"bn{number}")(y))
            y = getattr(self, f"conv{number}")(y)
        return x + y


class Network(nn.Module):
    """A network for CIFAR with `depth` blocks per stage."""

    def __init__(self, depth, factor, shortcut, bottleneck, classes=10):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        channels = 16
        for stage, width in enumerate((16, 32, 64)):
            blocks, filters = [], width * (4 if bottleneck else factor)
            for index in range(depth):
                stride = 2 if stage and not index else 1
                first = stage == 0 and index == 0
                blocks.append(Block(channels, filters, stride, shortcut, bottleneck, first))
                channels = filters
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.norm = nn.BatchNorm2d(channels)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x):
        x = self.layer3(self.layer2(self.layer1(self.conv1(x))))
        return self.fc(torch.relu(self.norm(x)).mean((2, 3)))


@pytest.mark.parametrize(
    "name, depth, factor, shortcut, bottleneck",
    [
        ("preact_resnet110", 18, 1, "A", False),
        ("preact_resnet110", 18, 1, "B", False),
        ("preact_resnet164", 18, 1, "B", True),
        ("wrn_16_8", 2, 8, "B", False),
        ("wrn_40_2", 6, 2, "B", False),
    ],
)
def test_cifar(name, depth, factor, shortcut, bottleneck, tmp_path):
    theirs = randomise(Network(depth, factor, shortcut, bottleneck))
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    ours = keras_resnet.create(
        name, weights=tmp_path / "w.pth", classifier_activation=None, shortcut=shortcut
    )
    for size in ((32, 32), (23, 40)):
        check_equal(ours, theirs, *size)
