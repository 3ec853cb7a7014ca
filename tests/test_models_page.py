"""docs/models.md compared with tools/models_table.py: names, accuracies, and small networks."""

import re
import runpy
from pathlib import Path

import pytest

import keras_resnet
from keras_resnet.configs import CONFIGS
from keras_resnet.kinds import by_kind

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def tool():
    return runpy.run_path(str(ROOT / "tools" / "models_table.py"))


def test_the_page_has_all_networks_by_family():
    names = {
        section.splitlines()[0]: re.findall(r"^\| `(\w+)`", section, re.MULTILINE)
        for section in PAGE.split("\n## ")[1:]
    }
    assert names == {kind.name: of_it for kind, of_it in by_kind(CONFIGS).items()}


def test_the_page_is_up_to_date(tool):
    """Tables are created again, with the page's own numbers that need built networks."""
    assert PAGE.endswith(tool["MARK"] + tool["tables"](tool["counted"](PAGE), tool["errors"]()))


@pytest.mark.parametrize("name", ["resnet18", "resnet10t", "resnet20"])
def test_numbers_of_small_networks(tool, name):
    parameters, multiply_adds = tool["counts"](name)
    assert tool["counted"](PAGE)[name] == (parameters, round(multiply_adds, -7))
    published = {row.parameters for row in keras_resnet.list_weights(name) if row.classes == 1000}
    assert published <= {parameters}


def test_accuracies_are_the_published_ones():
    """The numbers in timm's results and torchvision's metadata."""
    assert re.search(
        r"^\| `resnet50d` .* \| 81\.84 at 288 px \| `ra4_e3600_r224_in1k` \|", PAGE, re.M
    )
    assert re.search(
        r"^\| `resnext101_64x4d` .* \| 83\.25 at 224 px \| `IMAGENET1K_V1` \|", PAGE, re.M
    )
    assert re.search(r"^\| `resnet20` \| 269,722 \| 0\.04 G \|  \|  \|", PAGE, re.M)


def test_errors_of_a_comparison_are_joined_by_name(tool):
    counted = {name: (10, 10**9) for name in CONFIGS}
    table = tool["tables"](counted, {"resnet18": "1.2e-07"})
    assert "| best top-1, % | weights | error |" in table
    assert re.search(r"^\| `resnet18` \| 10 \| 1\.00 G \| .* \| 1\.2e-07 \|$", table, re.MULTILINE)
    assert re.search(r"^\| `resnet20` \| 10 \| 1\.00 G \|  \|  \|  \|$", table, re.MULTILINE)
