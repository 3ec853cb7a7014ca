"""check-data and shards: results of the functions, and output of the commands."""

import builtins
import hashlib
import json
import os
import shutil

import pytest

from keras_resnet import data
from keras_resnet.data import checking


@pytest.fixture(scope="module")
def flowers(tmp_path_factory, draw_flowers):
    return draw_flowers(tmp_path_factory.mktemp("data") / "flowers", train=3, val=2)


@pytest.fixture
def spoilt(flowers, tmp_path):
    """A copy with a bad file, and an image in both training and validation data."""
    folder = shutil.copytree(flowers, tmp_path / "flowers")
    (folder / "train" / "rose" / "000.jpg").write_text("no image")
    (folder / "train" / "rose" / "more.jpg").mkdir()
    shutil.copy(folder / "train" / "tulip" / "001.jpg", folder / "val" / "tulip" / "copy.jpg")
    shutil.copy(folder / "train" / "daisy" / "001.jpg", folder / "train" / "daisy" / "twice.jpg")
    return folder


def test_good_data(flowers):
    progress = []
    found = data.check_data(flowers, on_progress=lambda *numbers: progress.append(numbers))
    assert not found.bad and not found.duplicates
    assert found.total == 25
    assert found.counts["train"]["rose"] == 3
    assert progress[-1] == (15, 25) or progress[-1] == (25, 25)
    assert data.check_data(flowers / "val").counts == {
        "": dict.fromkeys(["daisy", "dandelion", "rose", "sunflower", "tulip"], 2)
    }


def test_bad_files_and_duplicates(spoilt):
    found = data.check_data(spoilt)
    assert found.bad == {
        str(spoilt / "train" / "rose" / "000.jpg"): (
            "it is not an image (it starts with b'no image')"
        ),
        str(spoilt / "train" / "rose" / "more.jpg"): "it is a folder",
    }
    assert found.duplicates == [
        (str(spoilt / "train/tulip/001.jpg"), str(spoilt / "val/tulip/copy.jpg"))
    ]


def test_equal_short_hashes_are_no_duplicate(spoilt, monkeypatch):
    """With very many images, some truncated hashes collide by chance; here all of them do."""
    expected, hashed, blake2b = data.check_data(spoilt).duplicates, [], hashlib.blake2b

    def short(content, digest_size):
        hashed.append(content)
        return blake2b(b"", digest_size=digest_size)

    monkeypatch.setattr(hashlib, "blake2b", short)
    assert data.check_data(spoilt).duplicates == expected
    assert len(hashed) == 27  # readable files


def test_check_data_as_a_command(flowers, spoilt, command_here):
    done = command_here("check-data", flowers)
    assert done.returncode == 0, done.stderr
    assert "3  train/rose" in done.stdout
    for count in ("0  unreadable\n", "0  in both train and val\n", "0  other files, ignored\n"):
        assert f" {count}" in done.stdout
    done = command_here("check-data", spoilt)
    assert done.returncode == 1
    assert f"unreadable: {spoilt}/train/rose/000.jpg: it is not an image" in done.stdout
    assert "in both train and val: " in done.stdout
    assert "Traceback" not in done.stderr
    done = command_here("check-data", spoilt, "--json")
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert found["total"] == 27
    assert len(found["bad"]) == 2
    done = command_here("check-data", "nowhere")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: The data folder nowhere")


def test_shards_as_a_command(spoilt, command_here, tmp_path, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # as in a terminal
    done = command_here("shards", spoilt / "train", "-o", "out", "--shards", 3)
    assert done.returncode == 0, done.stderr
    assert "skipped: " in done.stdout and "000.jpg: it is not an image" in done.stdout
    assert "out: 3 shards, 2 images skipped" in done.stdout
    assert "writing shards" in done.stderr
    index = json.loads((tmp_path / "out" / "shards.json").read_text())
    assert len(index["class_names"]) == 5 and sum(index["counts"]) == 15
    done = command_here("shards", spoilt / "train", "-o", "out", "--shards", 2)
    assert done.returncode == 1
    assert "shards of different images" in done.stderr


def test_the_start_of_a_training_finds_what_check_data_does(spoilt, monkeypatch):
    train, val = data.training_sources(spoilt)
    expected, opened, opens = data.check_data(spoilt).duplicates, [], builtins.open
    with monkeypatch.context() as patch:
        patch.setattr(
            "builtins.open", lambda file, *a, **k: opened.append(file) or opens(file, *a, **k)
        )
        assert checking.files_in_both(train, val) == expected
    assert 2 <= len(opened) < 6  # only files of equal size
    # Also in a single folder that is split.
    (spoilt / "train" / "rose" / "more.jpg").rmdir()
    for number in range(9):
        shutil.copy(
            spoilt / "train" / "tulip" / "001.jpg", spoilt / "train" / f"tulip/c{number}.jpg"
        )
    split = data.training_sources(spoilt / "train", validation_split=0.4)
    assert {
        os.path.basename(os.path.dirname(file))
        for pair in checking.files_in_both(*split)
        for file in pair
    } == {"tulip"}
    monkeypatch.setattr(checking, "LOOKED_AT", 10)
    assert checking.files_in_both(train, val) == []
