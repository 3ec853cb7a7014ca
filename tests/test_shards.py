"""TFRecord shards, read back; tensorflow-datasets; CIFAR-10."""

import json
import os

import numpy as np
import pytest
import tensorflow as tf

from keras_resnet import data
from keras_resnet.data import shards as module

OPTIONS = {"image_size": 32, "batch_size": 8}


@pytest.fixture(scope="module")
def flowers(tmp_path_factory):
    return data.drawn_flowers(tmp_path_factory.mktemp("data") / "flowers", train=6, val=2)


@pytest.fixture(scope="module")
def written(flowers, tmp_path_factory):
    output = tmp_path_factory.mktemp("shards") / "out"
    seen = []
    skipped = data.write_shards(
        flowers / "train", output, shards=4, on_progress=lambda *n: seen.append(n)
    )
    assert not skipped
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    return output


def records(folder):
    for file in sorted(folder.glob("*.tfrecord")):
        for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
            yield file.name, tf.train.Example.FromString(record).features.feature


def test_records_hold_the_files(written, flowers):
    names = []
    for file, feature in records(written):
        name = os.fsdecode(feature["image/filename"].bytes_list.value[0])
        content = feature["image/encoded"].bytes_list.value[0]
        assert content == (flowers / "train" / name).read_bytes()
        label = feature["image/class/label"].int64_list.value[0]
        assert name.split("/")[0] == data.drawn_flowers.__globals__["KINDS"][label]
        names.append(name)
        assert file.endswith("-of-00004.tfrecord")
    assert len(names) == len(set(names)) == 30
    assert names != sorted(names)
    index = json.loads((written / "shards.json").read_text())
    assert index["counts"] == [8, 8, 7, 7]
    assert json.loads((written / "class_indices.json").read_text())["4"] == "tulip"
    assert not list(written.glob("*of*.json"))


def test_writing_goes_on_where_it_was(written, flowers, tmp_path):
    output = tmp_path / "out"

    def stop(done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        data.write_shards(flowers / "train", output, shards=4, on_progress=stop)
    with pytest.raises(data.DataError, match="not finished"):
        data.tfrecords(output, **OPTIONS)
    first = output / "00000-of-00004.tfrecord"
    before = first.stat().st_mtime_ns
    (output / ".42.00001-of-00004.tfrecord").write_bytes(first.read_bytes()[:100])  # killed
    data.write_shards(flowers / "train", output, shards=4)
    last = output / "00003-of-00004.tfrecord"
    finished = last.stat().st_mtime_ns
    data.write_shards(flowers / "train", output, shards=4)
    assert first.stat().st_mtime_ns == before
    assert last.stat().st_mtime_ns == finished
    for file in written.iterdir():
        assert (output / file.name).read_bytes() == file.read_bytes()
    with pytest.raises(data.DataError, match="shards of other images"):
        data.write_shards(flowers / "val", output, shards=4)
    with pytest.raises(data.DataError, match="this would be 3 shards of 30 images"):
        data.write_shards(flowers / "train", output, shards=3)
    data.write_shards(flowers / "val", tmp_path / "few", shards=128)
    assert len(list((tmp_path / "few").glob("*.tfrecord"))) == 10
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    with pytest.raises(data.DataError, match="holds other files"):
        data.write_shards(flowers / "train", tmp_path / "mine", shards=2)


def test_reading(written, flowers):
    batches, names = data.tfrecords(written, **OPTIONS)
    assert names == ["daisy", "dandelion", "rose", "sunflower", "tulip"]
    images = np.concatenate([x for x, _ in batches])
    from_files, _ = data.image_folder(flowers / "train", **OPTIONS)
    expected = np.concatenate([x for x, _ in from_files])
    assert len(images) == 30
    assert {x.tobytes() for x in images} == {x.tobytes() for x in expected}


@pytest.mark.slow
def test_training_order_and_resuming(written):
    def labels(batches, count):
        return [(x.tobytes(), y.tolist()) for x, y in batches.take(count).as_numpy_iterator()]

    options = {**OPTIONS, "training": True, "augmentation": data.Augmentation(repeats=2)}
    every, _ = data.tfrecords(written, **options)
    assert len(every) == 4
    first, second = labels(every, 4), labels(every, 4)
    assert first != second
    try:
        tf.random.set_seed(0)  # the program's seed takes no part
        again, _ = data.tfrecords(written, **options)
        assert labels(again, 4) == first
    finally:
        tf.random.set_seed(None)
    rest, _ = data.tfrecords(written, first_step=3, **options)
    assert labels(rest, 5) == (first + second)[3:]


@pytest.mark.slow
def test_workers_read_shards_of_their_own(written):
    seen = []
    for which in range(2):
        batches, _ = data.tfrecords(written, worker=(which, 2), **OPTIONS)
        images = np.concatenate([x for x, _ in batches])
        assert len(images) == 15
        seen.append({x.tobytes() for x in images})
    assert len(seen[0] | seen[1]) > 25
    with pytest.raises(data.DataError, match=r"worker=\(4, 5\)"):
        data.tfrecords(written, worker=(4, 5))


def test_files_of_others(written, tmp_path):
    with pytest.raises(data.DataError, match=r"no \*.tfrecord files"):
        data.tfrecords(tmp_path)
    for file in written.glob("*.tfrecord"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(data.DataError, match="class_names"):
        data.tfrecords(tmp_path)
    batches, _ = data.tfrecords(tmp_path, class_names=list("abcde"), **OPTIONS)
    assert sum(len(y) for _, y in batches) == 30
    with (tmp_path / "00000-of-00004.tfrecord").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(data.DataError, match="is truncated"):
        data.tfrecords(tmp_path, class_names=list("abcde"))


@pytest.mark.slow
def test_bad_images_are_left_out_of_shards_or_replaced_when_read(flowers, tmp_path, monkeypatch):
    import shutil

    folder = shutil.copytree(flowers, tmp_path / "flowers")
    (folder / "train" / "rose" / "000.jpg").write_bytes(b"")
    (folder / "train" / "rose" / "001.jpg").write_text("no image")
    skipped = data.write_shards(folder, tmp_path / "out", shards=2)
    assert sorted(os.path.basename(name) for name in skipped.reasons) == ["000.jpg", "001.jpg"]
    index = json.loads((tmp_path / "out" / "train" / "shards.json").read_text())
    assert sum(index["counts"]) == 28
    assert len(index["skipped"]) == 2
    assert (tmp_path / "out" / "val" / "shards.json").exists()

    monkeypatch.setattr(module, "why_bad_image", lambda content: None)
    data.write_shards(folder / "train", tmp_path / "with bad", shards=2)
    for training in (False, True):
        skipped = data.Skipped()
        batches, _ = data.tfrecords(
            tmp_path / "with bad", training=training, skipped=skipped, **OPTIONS
        )
        assert sum(len(y) for _, y in batches) == (30 if training else 28)
        assert sorted(skipped.reasons) == ["rose/000.jpg", "rose/001.jpg"]


@pytest.mark.slow
def test_many_cores(written, monkeypatch):
    monkeypatch.setattr(module, "PARALLEL", 128)
    batches, _ = data.tfrecords(written, **OPTIONS)
    assert sum(len(y) for _, y in batches) == 30


def copy_of(written, target):
    import shutil

    return shutil.copytree(written, target)


def test_missing_and_damaged_shards(written, tmp_path):
    folder = copy_of(written, tmp_path / "copy")
    (folder / "00002-of-00004.tfrecord").unlink()
    with pytest.raises(data.DataError, match="should have 4 shards, but has 3"):
        data.tfrecords(folder, **OPTIONS)
    folder = copy_of(written, tmp_path / "flipped")
    file = folder / "00002-of-00004.tfrecord"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(data.DataError, match=r"cannot be read: .*corrupted record"):
        data.tfrecords(folder, **OPTIONS)


def test_too_few_images_or_shards(flowers, tmp_path):
    with pytest.raises(ValueError, match="shards=0"):
        data.write_shards(flowers, tmp_path / "none", shards=0)
    for name in ("a", "b"):
        tf.io.TFRecordWriter(str(tmp_path / f"{name}.tfrecord")).close()
    with pytest.raises(data.DataError, match="hold 0 images, too few for 2 workers"):
        data.tfrecords(tmp_path, class_names=["x"], worker=(0, 2))


def test_labels_beyond_the_classes(written):
    with pytest.raises(data.DataError, match="The label 2 is none of the 2 classes"):
        data.tfrecords(written, class_names=["a", "b"], **OPTIONS)


@pytest.mark.parametrize("filename", [b"same.jpg", pytest.param(None, marks=pytest.mark.slow)])
def test_records_without_names_of_their_own(filename, flowers, tmp_path):
    """Each is told apart by its file and place."""
    good = next((flowers / "train" / "rose").iterdir()).read_bytes()
    for shard, contents in enumerate(([good, b"bad 1", good, b"bad 2"], [b"bad 3", good, good])):
        with tf.io.TFRecordWriter(str(tmp_path / f"{shard}.tfrecord")) as writer:
            for label, content in enumerate(contents):
                values = {
                    "image/encoded": tf.train.Feature(bytes_list={"value": [content]}),
                    "image/class/label": tf.train.Feature(int64_list={"value": [label % 2]}),
                }
                if filename:
                    values["image/filename"] = tf.train.Feature(bytes_list={"value": [filename]})
                features = tf.train.Features(feature=values)
                writer.write(tf.train.Example(features=features).SerializeToString())
    skipped = data.Skipped()
    options = {"class_names": ["a", "b"], "max_bad": 0.5, "skipped": skipped, **OPTIONS}
    data.tfrecords(tmp_path, **options)
    end = f" {filename.decode()}" if filename else ""
    places = ("0.tfrecord/1", "0.tfrecord/3", "1.tfrecord/0")
    assert sorted(skipped.reasons) == [f"{tmp_path}/{place}{end}" for place in places]
    source = module.shards_source(tmp_path, ["a", "b"])
    assert len({name for name, *_ in source.examples(None, 0).as_numpy_iterator()}) == 7


def test_one_writer_at_a_time(flowers, tmp_path):
    """The second one is refused while the first one writes, and finds all done afterwards."""
    refused = []

    def meanwhile(done, total):
        with pytest.raises(data.DataError, match="Another process writes"):
            data.write_shards(flowers, tmp_path / "out", shards=2)
        refused.append(done)

    data.write_shards(flowers, tmp_path / "out", shards=2, on_progress=meanwhile)
    assert refused == [1, 2, 3, 4]
    data.write_shards(flowers, tmp_path / "out", shards=2)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["train", "val"]
