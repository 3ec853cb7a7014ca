"""Folders of images: listing, splitting, and errors."""

import collections
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_resnet import Preprocessing, data
from keras_resnet.data.image_folder import split_images
from keras_resnet.data.images import list_images


def picture(path, colour=(200, 80, 0), size=(40, 30), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, **options)


@pytest.fixture
def folder(tmp_path):
    """Two classes with three images each, with names that test the sorting."""
    for label, name in enumerate(("a class", "ünïcode")):
        for number in range(3):
            path = tmp_path / "images" / name / ("deeper" * (number > 0)) / f"{number} ü.JPG"
            picture(path, (label * 200, number * 80, 0))
    return tmp_path / "images"


def files(images):
    return [images.file(index) for index in range(len(images))]


def test_listing(folder):
    (folder / ".hidden").mkdir()
    picture(folder / "a class" / ".hidden" / "1.jpg")
    picture(folder / "a class" / ".1.jpg")
    (folder / "a class" / "notes.txt").write_text("no image")
    images = list_images(folder)
    assert images.class_names == ("a class", "ünïcode")
    assert images.counts.tolist() == [3, 3]
    assert files(images) == [
        str(folder / name / ("deeper" * (number > 0)) / f"{number} ü.JPG")
        for name in ("a class", "ünïcode")
        for number in range(3)
    ]
    assert not images.unusable


def test_links_are_followed_but_not_in_circles(folder, tmp_path):
    picture(tmp_path / "elsewhere" / "x.png")
    (folder / "a class" / "link").symlink_to(tmp_path / "elsewhere")
    (folder / "a class" / "link.png").symlink_to(tmp_path / "elsewhere" / "x.png")
    (folder / "a class" / "circle").symlink_to(folder / "a class")
    (folder / "linked class").symlink_to(tmp_path / "elsewhere")
    images = list_images(folder)
    assert images.class_names == ("a class", "linked class", "ünïcode")
    assert images.counts.tolist() == [5, 1, 3]


def test_unusable_files_are_listed(folder):
    (folder / "a class" / "folder.jpg").mkdir()
    (folder / "a class" / "broken.jpg").symlink_to(folder / "nowhere")
    (folder / "a class" / "circle.jpg").symlink_to(folder / "a class" / "circle.jpg")
    os.mkfifo(folder / "a class" / "pipe.jpg")
    # Names that are not valid Unicode, of a good and a bad image.
    good, bad = (os.fsencode(folder / "a class") + name for name in (b"/\xff.jpg", b"/\xfe.jpg"))
    shutil.copy(folder / "a class" / "0 ü.JPG", good)
    with open(bad, "wb") as file:
        file.write(b"no image")
    skipped = data.Skipped()
    batches, _ = data.image_folder(folder, image_size=32, max_bad=0.5, skipped=skipped)
    assert sum(len(labels) for _, labels in batches) == 7
    assert "it is not an image" in skipped.reasons.pop(os.fsdecode(bad))
    reasons = {os.path.basename(name): reason for name, reason in skipped.reasons.items()}
    assert reasons == {
        "folder.jpg": "it is a folder",
        "broken.jpg": "it is a broken link (No such file or directory)",
        "circle.jpg": "it is a broken link (Too many levels of symbolic links)",
        "pipe.jpg": "it is a pipe",
    }
    with pytest.raises(data.DataError, match="5 of 12 image files"):
        data.image_folder(folder, image_size=32)


def test_the_current_folder(folder, monkeypatch):
    contents = [Path(file).read_bytes() for file in files(list_images(folder))]
    monkeypatch.chdir(folder)
    source = list_images(".").source()
    assert [source.read(item).numpy() for _, item, _ in source.examples(None, 0)] == contents


def test_memory_per_file_is_bounded(run_imported):
    """At most 200 bytes per file, including its name of 40 bytes, for both parts of a split."""
    program = """
import numpy as np, re, tensorflow as tf
from pathlib import Path
from keras_resnet.data.images import Images
def memory():
    return 1024 * int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
count = 250_000
names = b"\\0".join(b"class/%034d" % number for number in range(count))
tf.strings.split(names[:4000], "\\0")
before = memory()
images = Images(("a",), tf.strings.split(names, "\\0"), np.zeros(count, np.int32),
                np.arange(count), b"/", {})
parts = [images.subset(np.arange(start, count, 2)) for start in range(2)]
sources = [part.source() for part in parts]
del images
print((memory() - before) / count)
""".replace("\\\\", "\\")
    done = run_imported(program)
    assert 50 < float(done.stdout) < 200, done.stderr


def test_evaluation_order_and_pixels(folder):
    batches, names = data.image_folder(folder, image_size=32, batch_size=4)
    assert len(batches) == 2
    assert names == ["a class", "ünïcode"]
    images, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    assert labels.tolist() == [0, 0, 0, 1, 1, 1]
    red = images[:, 16, 16, 0] * 0.229 + 0.485
    np.testing.assert_allclose(red * 255, [0] * 3 + [200] * 3, atol=3)
    own = Preprocessing(36, (32, 24), (0.1, 0.2, 0.3), (0.5, 0.5, 0.5))
    for training in (False, True):
        batches, _ = data.image_folder(folder, preprocessing=own, training=training)
        images = np.concatenate([part for part, _ in batches])
        assert images.shape == (6, 32, 24, 3)
        red = sorted(images[:, 16, 12, 0] * 0.5 + 0.1)
        np.testing.assert_allclose(np.multiply(red, 255), [0] * 3 + [200] * 3, atol=3)


def test_class_indices(folder, tmp_path):
    names = list_images(folder).class_names
    data.save_class_indices(names, tmp_path / "class_indices.json")
    text = (tmp_path / "class_indices.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"0": "a class", "1": "ünïcode"}
    assert "ünïcode" in text


def test_splits(folder, tmp_path):
    train, val = split_images(folder, validation_split=0.34, seed=1)
    assert train.counts.tolist() == [2, 2]
    assert val.counts.tolist() == [1, 1]
    assert sorted(files(train) + files(val)) == files(list_images(folder))
    assert files(split_images(folder, validation_split=0.34, seed=1)[1]) == files(val)
    others = {
        tuple(files(split_images(folder, validation_split=0.34, seed=s)[1])) for s in range(9)
    }
    assert len(others) > 1
    for part in ("train", "val"):
        shutil.copytree(folder, tmp_path / "apart" / part)
    (tmp_path / "apart" / "val" / "ünïcode" / "deeper" / "1 ü.JPG").unlink()
    assert [source.counts for source in data.training_sources(tmp_path / "apart")] == [
        (3, 3),
        (3, 2),
    ]
    batches, names = data.image_folder(tmp_path / "apart", split="val", image_size=32)
    assert names == ["a class", "ünïcode"]
    assert collections.Counter(np.concatenate([y for _, y in batches]).tolist()) == {0: 3, 1: 2}


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.mkdir(), "no folders in it"),
        (lambda path: path.write_text(""), "is a file"),
        (lambda path: (path / "daisy").mkdir(parents=True), "contain no images: daisy"),
    ],
)
def test_bad_folders(make, said, tmp_path):
    make(tmp_path / "d")
    with pytest.raises(data.DataError, match=said):
        data.image_folder(tmp_path / "d")


def test_bad_arguments(folder, tmp_path):
    with pytest.raises(data.DataError, match="pass validation_split"):
        data.image_folder(folder, split="train")
    with pytest.raises(data.DataError, match=r"validation_split=1\.5"):
        data.image_folder(folder, split="train", validation_split=1.5)
    with pytest.raises(data.DataError, match="split='validation'"):
        data.image_folder(folder, split="validation")
    with pytest.raises(TypeError, match="batchsize"):
        data.image_folder(folder, batchsize=3)
    with pytest.raises(data.DataError, match="batch_size=0"):
        data.image_folder(folder, batch_size=0)
    with pytest.raises(data.DataError, match="need training=True"):
        data.image_folder(folder, augmentation=data.Augmentation())
    for part in ("train", "val"):
        shutil.copytree(folder, tmp_path / "apart" / part)
    with pytest.raises(data.DataError, match="Pass split='train'"):
        data.image_folder(tmp_path / "apart")
    with pytest.raises(data.DataError, match="already has validation images"):
        data.image_folder(tmp_path / "apart", split="val", validation_split=0.2)
    shutil.rmtree(tmp_path / "apart" / "val" / "ünïcode")
    with pytest.raises(data.DataError, match=r"should have the same classes.*ünïcode"):
        data.image_folder(tmp_path / "apart", split="val")
    picture(tmp_path / "apart" / "val" / "single" / "1.png")
    with pytest.raises(data.DataError, match="'single' has only one image"):
        data.image_folder(tmp_path / "apart" / "val", split="val", validation_split=0.5)


@pytest.mark.parametrize(
    "train, val",
    [("Training", "Testing"), ("Train", "Val"), ("TRAIN", "Validation"), ("training_set", "test")],
)
def test_parts_by_any_usual_name(train, val, tmp_path):
    for part, number in ((train, 3), (val, 2)):
        for name in ("a", "b"):
            for index in range(number):
                picture(tmp_path / part / name / f"{index}.png", (number, index, 0))
    shards = tmp_path / "shards"
    sources = data.training_sources(tmp_path)
    assert [source.class_names for source in sources] == [("a", "b")] * 2
    assert [source.count for source in sources] == [6, 4]
    assert data.evaluation_source(tmp_path).count == 4
    assert data.check_data(tmp_path).counts == {"train": {"a": 3, "b": 3}, "val": {"a": 2, "b": 2}}
    data.write_shards(tmp_path, shards, shards=1)
    (shards / "train").rename(shards / train)
    (shards / "val").rename(shards / val)
    assert [source.count for source in data.training_sources(shards)] == [6, 4]


def test_two_folders_for_one_part_are_refused(folder):
    for part in ("train", "Training", "val"):
        shutil.copytree(folder, folder.parent / "parts" / part)
    with pytest.raises(data.DataError, match="train and Training in"):
        data.training_sources(folder.parent / "parts")
    (folder.parent / "parts" / "train").rename(folder.parent / "parts" / "test")
    assert data.evaluation_source(folder.parent / "parts").count == 6


@pytest.mark.parametrize(
    "names, said, instead",
    [
        (("photos/a", "photos/b"), "photos has a, b", "photos"),
        (("train/a", "train/b"), "train has a, b", "train"),
        (("seg_train/a", "seg_train/b", "seg_test/a", "seg_test/b"), "2 of the 2", "seg_train"),
        (("a/one/deep", "b"), "1 of the 2 class folders", None),
        (("a",), "one folder of images, 'a' with 1", None),
        (("train/a", "val/a"), "train has only one folder of images, 'a'", None),
    ],
)
def test_folders_that_are_no_classes(names, said, instead, tmp_path):
    for name in names:
        for number in range(1 + bool(instead)):
            picture(tmp_path / name / f"{number}.png")
    for use in (
        lambda: data.training_sources(
            tmp_path, **({} if "val/a" in names else {"validation_split": 0.5})
        ),
        lambda: data.evaluation_source(tmp_path),
        lambda: data.check_data(tmp_path),
        lambda: data.write_shards(tmp_path, tmp_path.parent / "shards"),
        lambda: data.image_folder(tmp_path, split="val" if "val/a" in names else None),
    ):
        with pytest.raises(data.DataError) as caught:
            use()
        text = str(caught.value)
        assert said in text or "val has only one folder of images, 'a'" in text
        assert len(text.splitlines()) <= 5
    if instead:
        assert f"pass {tmp_path / sorted({name.split('/')[0] for name in names})[0]}" in text
        sources = data.training_sources(tmp_path / instead, validation_split=0.5)
        assert [source.count for source in sources] == [2, 2]
