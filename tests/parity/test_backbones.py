"""Dilated basic blocks compared with timm, CIFAR networks with small torch modules."""

import numpy as np
import pytest
import timm
import torch
from torch import nn
from torch.nn import functional

import keras_resnet  # isort: skip (torch comes first)
from randomised import randomise

pytestmark = pytest.mark.parity


class CifarBlock(nn.Module):
    """A basic block whose shortcut is option A or B of the paper's section 3.3."""

    def __init__(self, channels, filters, stride, shortcut):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, filters, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        self.stride, self.pad = stride, (filters - channels) // 2
        if shortcut == "B" and stride > 1:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, filters, 1, stride, bias=False), nn.BatchNorm2d(filters)
            )

    def forward(self, x):
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        if hasattr(self, "downsample"):
            return torch.relu(y + self.downsample(x))
        x = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, *2 * [self.pad]))
        return torch.relu(y + x)


class CifarResNet(nn.Module):
    """Section 4.2: 6n + 2 layers."""

    def __init__(self, depth, shortcut, classes=10):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        channels = 16
        for stage, filters in enumerate((16, 32, 64)):
            blocks = []
            for index in range((depth - 2) // 6):
                stride = 2 if stage and not index else 1
                blocks.append(CifarBlock(channels, filters, stride, shortcut))
                channels = filters
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(64, classes)

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(x.mean((2, 3)))


def compare(name, theirs, tmp_path, size, **arguments):
    """Checks that outputs on random images equal torch's, with the same weights."""
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    ours = keras_resnet.create(
        name, weights=tmp_path / "w.pth", classifier_activation=None, **arguments
    )
    x = np.random.default_rng(0).normal(size=(2, 3, *size)).astype(np.float32)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(x)).numpy()
    found = ours(x.transpose(0, 2, 3, 1)).numpy()
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("shortcut", ["A", "B"])
@pytest.mark.parametrize("depth", [20, 56])
def test_cifar(depth, shortcut, tmp_path):
    theirs = randomise(CifarResNet(depth, shortcut))
    count = sum(parameter.numel() for parameter in theirs.parameters())
    expected = {(20, "A"): 269722, (20, "B"): 272474, (56, "A"): 853018, (56, "B"): 855770}
    assert count == expected[depth, shortcut]
    for size in ((32, 32), (31, 45)):
        compare(f"resnet{depth}", theirs, tmp_path, size, shortcut=shortcut)


@pytest.mark.parametrize("output_stride", [16, 8])
@pytest.mark.parametrize("name", ["resnet18", "resnet34"])
def test_dilated_basic_blocks(name, output_stride, tmp_path):
    """Compared with timm, since torchvision does not support them."""
    theirs = timm.create_model(name, num_classes=7, output_stride=output_stride)
    compare(name, randomise(theirs), tmp_path, (97, 65), classes=7, output_stride=output_stride)
