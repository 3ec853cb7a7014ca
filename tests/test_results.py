"""The results in docs/results.md: their rows and commands."""

import csv
import re
import runpy
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from keras_resnet.training import RECIPES
from keras_resnet_cli import app

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def tool():
    return runpy.run_path(str(ROOT / "benchmarks" / "results.py"))


def test_the_page_is_made_of_the_rows(tool):
    assert tool["page"](tool["rows"]()) == (ROOT / "docs" / "results.md").read_text("utf-8")


def test_each_row_has_a_valid_command_of_a_run(tool):
    runs = {run.name: run for run in tool["RUNS"]}
    help_of_train = re.sub(
        r"\x1b\[[0-9;]*m",
        "",
        CliRunner().invoke(app, ["train", "--help"], env={"COLUMNS": "200"}).output,
    )
    for row in tool["rows"]():
        run = runs[row["run"]]
        assert row["command"] == run.command.format(seed=row["seed"])
        assert row["data"] in tool["DATA"] and 0 < float(row["value"]) <= 1
        assert all(row[key] for key in ("machine", "version", "date", "seconds"))
        words = shlex.split(row["command"])
        if words[0] == "keras-resnet":
            assert row["recipe"] in RECIPES
            assert all(word in help_of_train for word in words if word.startswith("--"))
        else:
            assert (ROOT / words[1]).is_file()


@pytest.mark.slow
def test_a_run_is_measured(tool, tmp_path):
    run = tool["Run"](
        "tiny",
        "flowers",
        "labelled_flowers",
        "keras-resnet train --data labelled_flowers --model resnet18 --image-size 32 --epochs 1 "
        "--seed {seed} --output run --set loss=binary_cross_entropy",
    )
    row = dict(zip(tool["HEADER"], tool["measure"](run, 3), strict=True))
    assert row["metric"] == "mean average precision" and 0 < float(row["value"]) <= 1
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        csv.DictWriter(file, tool["HEADER"]).writerow(row)
    assert "--seed 3" in (tmp_path / "rows.csv").read_text()
