"""docs/models.md, as tools/models_table.py writes it: names, accuracies, what is quickly built."""

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


def written():
    """{name: cells} of the tables."""
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", PAGE, re.MULTILINE)
    assert len(rows) == len(dict(rows))
    return {name: [cell.strip() for cell in cells.split("|")] for name, cells in rows}


def test_the_page_has_all_networks_by_family():
    names = {
        section.splitlines()[0]: re.findall(r"^\| `(\w+)`", section, re.MULTILINE)
        for section in PAGE.split("\n## ")[1:]
    }
    assert names == {kind.name: of_it for kind, of_it in by_kind(CONFIGS).items()}


def test_the_page_is_what_its_numbers_give(tool):
    """All but the numbers of what is built is made anew."""
    counted = {}
    for name, (parameters, multiply_adds, *_) in written().items():
        figure = round(float(multiply_adds.removesuffix(" G")) * 1e9)
        counted[name] = int(parameters.replace(",", "")), figure
    assert PAGE.endswith(tool["MARK"] + tool["tables"](counted, tool["errors"]()))


@pytest.mark.parametrize("name", ["resnet18", "resnet10t", "resnet20"])
def test_numbers_of_small_networks(tool, name):
    parameters, multiply_adds = tool["counts"](name)
    expected = [f"{parameters:,}", f"{multiply_adds / 1e9:.2f} G"]
    assert written()[name][:2] == expected
    published = {row.parameters for row in keras_resnet.list_weights(name) if row.classes == 1000}
    assert published <= {parameters}


def test_errors_of_a_comparison_are_joined(tool):
    """By name, to two digits; where the parameters are others, it is not of this network."""
    counted = {name: (10, 10**9) for name in CONFIGS}
    table = tool["tables"](counted, {"resnet18": (10, "1.234e-07")})
    assert "| best top-1, % | weights | error |" in table
    assert re.search(r"^\| `resnet18` \| 10 \| 1\.00 G \| .* \| 1\.2e-07 \|$", table, re.MULTILINE)
    with pytest.raises(ValueError, match=r"resnet18 has 10 parameters; family\.csv says 11"):
        tool["tables"](counted, {"resnet18": (11, "1.234e-07")})
