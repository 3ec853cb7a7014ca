"""The published weights: every row is checked against the networks."""

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


def test_a_complete_hash_and_its_start_name_the_same_file():
    row, whole = registry.find("resnet50"), "0676ba61" + "0" * 56
    other = dataclasses.replace(row, sha256=whole, older="19c8e357" + "1" * 56)
    assert other.file == row.file and list(other.files) == list(row.files)
    assert other.files[row.file] == whole


def test_the_listing_shows_as_a_table():
    lines = repr(keras_resnet.list_weights("resnet50")).splitlines()
    assert lines[0].split() == list(registry.WeightsTable.TITLES)
    first = "resnet50 IMAGENET1K_V1 76.13 92.862 resnet50-0676ba61.pth"
    assert lines[1].split() == first.split()
    assert len(lines) == 1 + len(keras_resnet.list_weights("resnet50"))
    assert keras_resnet.list_weights()[:17] == REGISTRY
    first = "seresnet152d ra2_in1k 83.702 96.794 hf://timm/seresnet152d.ra2_in1k"
    assert repr(keras_resnet.list_weights("seresnet152d")).splitlines()[1].split() == first.split()


TIMM = registry.published()[17:]


def test_rows_of_timm():
    """Fields of each row are consistent with each other and with the networks."""
    assert len({(row.model, row.name) for row in TIMM}) == len(TIMM) > 140
    assert [row.model for row in TIMM] == sorted(
        (row.model for row in TIMM), key=keras_resnet.list_models().index
    )
    licences = {"apache-2.0", "bsd-3-clause", "cc-by-nc-4.0", None}
    for row in TIMM:
        assert row.file == f"hf://timm/{row.model}.{row.name}" and row.files == {}
        assert row.preprocessing.crop == row.crop <= row.resize < 1.15 * row.crop + 1
        assert row.licence in licences and (row.licence == "cc-by-nc-4.0") == ("fb_" in row.name)
        assert row.mean in ((0.5,) * 3, (0.485, 0.456, 0.406))
        # in1k has ImageNet's 1,000 classes, in12k a selection of its 21,000.
        assert row.classes == (1000 if "in1k" in row.name else 11821 if "in12k" in row.name else 0)
        assert (row.accuracy is not None) == (row.classes == 1000)
        if row.test_crop:
            assert row.crop < row.test_crop <= row.test_resize
            assert row.accuracy < row.test_accuracy < row.test_top5_accuracy


def test_rows_of_timm_are_read_when_needed(run_imported):
    program = (
        "import keras_resnet; from keras_resnet.weights import registry\n"
        "keras_resnet.create, keras_resnet.list_models('resnet*')\n"
        "print(registry._of_timm.cache_info().currsize)\n"
        "keras_resnet.list_models(pretrained=True)\n"
        "print(registry._of_timm.cache_info().currsize)\n"
    )
    assert run_imported(program).stdout.split() == ["0", "1"]


def test_the_best_weights():
    """As in timm's table, also with larger images, among those with 1,000 classes."""
    assert registry.find("resnet50d").file == "hf://timm/resnet50d.ra4_e3600_r224_in1k"
    assert registry.find("resnet50d").best == (81.840, 288)
    assert registry.best_of("resnet50").name == "a1_in1k"
    assert registry.find("resnet50").name == "IMAGENET1K_V1"
    assert registry.find("resnetaa50d").classes == 1000
    assert registry.find("resnetaa50d", "sw_in12k").classes == 11821
    assert registry.find("resnet50d", "ra2_in1k").preprocessing == keras_resnet.Preprocessing(
        256, 224, interpolation="bicubic"
    )
    for name in ("IMAGENET1K_V1", "ra2_in1k", "bamboo", "imagenet"):
        assert registry.is_name(name)
    for name in ("resnet50d.ra2_in1k", "ra2_in1k.pth", "./ra2_in1k", "hf://timm/ra2_in1k"):
        assert not registry.is_name(name)
    with pytest.raises(ValueError, match=r"no such weights.*There are: imagenet, a1_in1k, a2_in1k"):
        registry.find("resnet50d", "bt_in1k")
    with pytest.raises(ValueError, match="None are published for it; pass the path of a file"):
        registry.find("resnet200")
