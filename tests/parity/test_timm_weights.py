"""The rows of timm's published weights, compared with the installed timm."""

import pytest
import timm
import torch
from timm.data import create_transform, resolve_data_config
from torchvision import transforms

import keras_resnet  # isort: skip (torch comes first)

from keras_resnet.weights.registry import REGISTRY, published

pytestmark = pytest.mark.parity
ROWS = [row for row in published() if row not in REGISTRY]


def config_of(row):
    return timm.models.get_pretrained_cfg(f"{row.model}.{row.name}")


def images_of(config, tests=False):
    """Returns timm's own transform: (resize, crop, interpolation, mean, std)."""
    said = resolve_data_config(pretrained_cfg=config.to_dict(), use_test_size=tests)
    resize, crop, _, normalize = create_transform(**said).transforms
    assert isinstance(resize, transforms.Resize) and isinstance(crop, transforms.CenterCrop)
    mean, std = (tuple(float(f"{x:.6g}") for x in y) for y in (normalize.mean, normalize.std))
    return resize.size, crop.size[0], resize.interpolation.value, mean, std


def test_all_rows_are_timms():
    names = [f"{row.model}.{row.name}" for row in ROWS]
    theirs = [
        name for model in keras_resnet.list_models() for name in timm.list_pretrained(f"{model}.*")
    ]
    assert sorted(names) == sorted(theirs)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.model}.{row.name}")
def test_a_row(row):
    config = config_of(row)
    assert config.hf_hub_id == row.repository
    assert (config.num_classes, config.license) == (row.classes, row.licence)
    images = (row.interpolation, row.mean, row.std)
    assert images_of(config) == (row.resize, row.crop, *images)
    usual = row.preprocessing
    assert (usual.resize, usual.crop, usual.crop_mode) == (row.resize, row.crop, config.crop_mode)
    if row.test_crop:
        assert images_of(config, tests=True) == (row.test_resize, row.test_crop, *images)


def test_parameters():
    """For a small network of each block, and one with other classes."""
    for model, name in (
        ("resnet10t", "c3_in1k"),
        ("resnet50", "bamboo"),
        ("resnetaa50d", "sw_in12k"),
    ):
        (row,) = (row for row in ROWS if (row.model, row.name) == (model, name))
        with torch.device("meta"):
            theirs = timm.create_model(model, num_classes=row.classes)
        assert sum(parameter.numel() for parameter in theirs.parameters()) == row.parameters
