"""TFRecord shards: writing, reading back, and smaller images."""

import io
import json
import os

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_resnet import Preprocessing, data
from keras_resnet.data import shards as module
from keras_resnet.decoding import decode

OPTIONS = {"image_size": 32, "batch_size": 8}


@pytest.fixture(scope="module")
def flowers(tmp_path_factory, draw_flowers):
    return draw_flowers(tmp_path_factory.mktemp("data") / "flowers", train=6, val=2)


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
    with pytest.raises(data.DataError, match="are incomplete"):
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
    with pytest.raises(data.DataError, match="shards of different images"):
        data.write_shards(flowers / "val", output, shards=4)
    with pytest.raises(data.DataError, match="expected 3 shards of 30 images"):
        data.write_shards(flowers / "train", output, shards=3)
    data.write_shards(flowers / "val", tmp_path / "few", shards=128)
    assert len(list((tmp_path / "few").glob("*.tfrecord"))) == 10
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    with pytest.raises(data.DataError, match="contains other files"):
        data.write_shards(flowers / "train", tmp_path / "mine", shards=2)


def test_reading(written, flowers):
    batches, names = data.tfrecords(written, **OPTIONS)
    assert names == ["daisy", "dandelion", "rose", "sunflower", "tulip"]
    images = np.concatenate([x for x, _ in batches])
    files = (flowers / "train").rglob("*.jpg")
    expected = Preprocessing.for_crop(32).batch({str(file): file.read_bytes() for file in files})
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
        tf.random.set_seed(0)  # the global seed has no effect
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


def test_files_from_other_programs(written, tmp_path):
    with pytest.raises(data.DataError, match=r"no \*.tfrecord files"):
        data.tfrecords(tmp_path)
    for file in written.glob("*.tfrecord"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(data.DataError, match="class_names"):
        data.tfrecords(tmp_path)
    assert module.shards_source(tmp_path, list("abcde")).count == 30
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
    with pytest.raises(data.DataError, match="contain 0 images, fewer than the 2 workers"):
        data.tfrecords(tmp_path, class_names=["x"], worker=(0, 2))


def test_labels_beyond_the_classes(written):
    with pytest.raises(data.DataError, match="The label 2 is out of range: expected 0 to 1"):
        data.tfrecords(written, class_names=["a", "b"], **OPTIONS)


@pytest.mark.parametrize("filename", [b"same.jpg", pytest.param(None, marks=pytest.mark.slow)])
def test_records_without_unique_names(filename, flowers, tmp_path):
    """They are identified by file and position."""
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
    """A second writer is refused while the first one writes, and has nothing to do afterwards."""
    refused = []

    def meanwhile(done, total):
        with pytest.raises(data.DataError, match="Another process is writing"):
            data.write_shards(flowers, tmp_path / "out", shards=2)
        refused.append(done)

    data.write_shards(flowers, tmp_path / "out", shards=2, on_progress=meanwhile)
    assert refused == [1, 2, 3, 4]
    data.write_shards(flowers, tmp_path / "out", shards=2)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["train", "val"]


def picture(width, height, mode="RGB"):
    """A smooth image, which JPEG compresses with little loss."""
    small = np.random.default_rng(0).integers(64, 192, (3, 3, 3), np.uint8)
    image = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
    return image.quantize(dither=Image.Dither.NONE) if mode == "P" else image.convert(mode)


def encoded(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def oriented(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


SIXTEEN = Image.fromarray((np.arange(60 * 90, dtype=np.uint16) * 12).reshape(60, 90))
ALPHA = picture(90, 60)
ALPHA.putalpha(Image.linear_gradient("L").resize((90, 60)))
LARGE = {
    "long.jpg": encoded(picture(90, 60), "JPEG", quality=95),
    "tall.jpg": encoded(picture(41, 97), "JPEG", quality=95),
    "thin.png": encoded(picture(400, 2), "PNG"),
    "grey.jpg": encoded(picture(90, 60, "L"), "JPEG", quality=95),
    "cmyk.jpg": encoded(picture(90, 60, "CMYK"), "JPEG", quality=95),
    "palette.png": encoded(picture(90, 60, "P"), "PNG"),
    "alpha.png": encoded(ALPHA, "PNG"),
    "sixteen.png": encoded(SIXTEEN, "PNG"),
    "first.gif": encoded(picture(90, 60, "P"), "GIF"),
    "plain.bmp": encoded(picture(90, 60), "BMP"),
    "plain.webp": encoded(picture(90, 60), "WEBP", quality=95),
    "turned.jpg": encoded(picture(90, 60), "JPEG", quality=95, exif=oriented(6)),
    "turned.png": encoded(picture(90, 60), "PNG", exif=oriented(6)),
    "profile.jpg": encoded(picture(90, 60), "JPEG", quality=95, icc_profile=b"x" * 3000),
}
SMALL = {
    "equal.jpg": encoded(picture(40, 30), "JPEG", exif=oriented(3)),
    "alpha.png": encoded(ALPHA.resize((40, 40)), "PNG"),
}


@pytest.fixture(scope="module")
def of_sizes(tmp_path_factory):
    """(folder, {file: content in shards with sides of at most 40 pixels})."""
    folder = tmp_path_factory.mktemp("sizes")
    for name, files in {"large": LARGE, "small": SMALL}.items():
        (folder / "in" / name).mkdir(parents=True)
        for file, content in files.items():
            (folder / "in" / name / file).write_bytes(content)
    (folder / "in" / "large" / "cut.jpg").write_bytes(LARGE["long.jpg"][:-500])
    skipped = data.write_shards(folder / "in", folder / "out", shards=2, max_side=40, quality=95)
    assert [os.path.basename(name) for name in skipped.reasons] == ["cut.jpg"]
    stored = {
        os.fsdecode(feature["image/filename"].bytes_list.value[0]): feature[
            "image/encoded"
        ].bytes_list.value[0]
        for _, feature in records(folder / "out")
    }
    return folder, stored


@pytest.mark.parametrize("exif", [False, True])
@pytest.mark.parametrize("file", LARGE)
def test_large_images_are_the_same_pictures_smaller(of_sizes, file, exif):
    content = of_sizes[1][f"large/{file}"]
    before = Image.fromarray(decode(LARGE[file], exif=exif).numpy())
    longer = max(before.size)
    size = tuple(max(1, round(side * 40 / longer)) for side in before.size)
    pixels = decode(content, exif=exif).numpy()
    assert pixels.shape == (size[1], size[0], 3)
    expected = np.asarray(before.resize(size, Image.Resampling.LANCZOS)).astype(int)
    assert np.abs(pixels - expected).mean() < 3
    image = Image.open(io.BytesIO(content))
    assert image.format == "JPEG"
    assert image.mode == ("L" if file in ("grey.jpg", "sixteen.png") else "RGB")
    # The orientation is kept for JPEGs, which other readers rotate like the original.
    assert image.getexif().get(0x0112, 1) == (6 if file == "turned.jpg" else 1)


def test_small_images_are_stored_as_they_are(of_sizes):
    for file, content in SMALL.items():
        assert of_sizes[1][f"small/{file}"] == content


def test_other_sizes_are_refused(of_sizes, tmp_path):
    folder, _ = of_sizes
    index = json.loads((folder / "out" / "shards.json").read_text())
    assert (index["max_side"], index["quality"]) == (40, 95)
    before = {file: file.stat().st_mtime_ns for file in (folder / "out").iterdir()}
    data.write_shards(folder / "in", folder / "out", shards=2, max_side=40, quality=95)
    assert before == {file: file.stat().st_mtime_ns for file in (folder / "out").iterdir()}
    for options, said in (
        ({}, "max_side=None, quality=None"),
        ({"max_side": 40}, "max_side=40, quality=90"),
        ({"max_side": 30, "quality": 95}, "max_side=30, quality=95"),
    ):
        with pytest.raises(data.DataError, match=f"with max_side=40, quality=95. Received: {said}"):
            data.write_shards(folder / "in", folder / "out", shards=2, **options)


def test_shards_of_before_there_were_sizes_go_on(flowers, written, tmp_path):
    folder = copy_of(written, tmp_path / "old")
    index = json.loads((folder / "shards.json").read_text())
    del index["max_side"], index["quality"]
    (folder / "shards.json").write_text(json.dumps(index))
    assert not data.write_shards(flowers / "train", folder, shards=4)


@pytest.mark.parametrize(
    "options, said",
    [
        ({"max_side": 0}, "max_side=0"),
        ({"max_side": 400.5}, r"max_side=400\.5"),
        ({"max_side": "400"}, "max_side='400'"),
        ({"max_side": True}, "max_side=True"),
        ({"max_side": 400, "quality": 0}, "quality=0"),
        ({"max_side": 400, "quality": 101}, "quality=101"),
        ({"quality": 80}, "Pass max_side too"),
    ],
)
def test_invalid_sizes(flowers, tmp_path, options, said):
    with pytest.raises(ValueError, match=said):
        data.write_shards(flowers, tmp_path / "none", **options)
    assert not (tmp_path / "none").exists()
