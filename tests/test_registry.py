"""The published weights: every row against the networks themselves."""

import dataclasses
import re

import pytest

import keras_resnet
from keras_resnet.weights import registry
from keras_resnet.weights.registry import REGISTRY


@pytest.mark.parametrize("row", REGISTRY, ids=lambda row: f"{row.model}-{row.name}")
def test_rows(row):
    assert row.model in keras_resnet.list_models()
    assert re.fullmatch(r"IMAGENET1K_V[12]", row.name)
    for sha256 in filter(None, (row.sha256, row.older)):
        assert re.fullmatch(r"[0-9a-f]{8}([0-9a-f]{56})?", sha256)
    assert 69 < row.accuracy < row.top5_accuracy < 97
    assert row.preprocessing == keras_resnet.Preprocessing(row.resize, 224)
    assert row.licence
    assert row.source


def test_names_are_unique():
    files = [file for row in REGISTRY for file in row.files]
    assert len(set(files)) == len(files) == 17 + 5
    assert len({(row.model, row.name) for row in REGISTRY}) == 17


def test_find():
    assert registry.find("resnet50").file == "resnet50-0676ba61.pth"
    assert registry.find("resnet50", "IMAGENET1K_V2").file == "resnet50-11ad3fa6.pth"
    assert registry.find("resnext101_64x4d").resize == 232
    assert registry.find_hash("19c8e357" + "0" * 56) == registry.find("resnet50")
    assert registry.find_hash("0" * 64) is None
    with pytest.raises(ValueError, match="There are: imagenet, IMAGENET1K_V1, IMAGENET1K_V2"):
        registry.find("resnet50", "DEFAULT")
    with pytest.raises(ValueError, match=r"'resnet51'\. Did you mean resnet"):
        keras_resnet.list_weights("resnet51")


def test_a_whole_hash_names_the_file_by_its_start():
    row, whole = registry.find("resnet50"), "0676ba61" + "0" * 56
    other = dataclasses.replace(row, sha256=whole, older="19c8e357" + "1" * 56)
    assert other.file == row.file and list(other.files) == list(row.files)
    assert other.files[row.file] == whole


def test_the_listing_shows_as_a_table():
    lines = repr(keras_resnet.list_weights("resnet50")).splitlines()
    assert lines[0].split() == list(registry.WeightsTable.TITLES)
    assert lines[1].split() == "resnet50 IMAGENET1K_V1 76.13 92.862 resnet50-0676ba61.pth".split()
    assert len(lines) == 3
    every = keras_resnet.list_weights()
    assert len(every) == 17
    assert max(map(len, repr(every).splitlines())) <= 80  # a terminal's columns
