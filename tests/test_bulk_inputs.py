"""Inputs of `keras-resnet embed`: all kinds list the same images in order, in any range."""

import itertools
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from PIL import Image

from keras_resnet import data
from keras_resnet.bulk.inputs import fingerprint, open_inputs
from keras_resnet.data import DataError

COUNT = 11


@pytest.fixture
def photos(folder_here):
    """{path: content} of the images in the folder `photos`, in listing order."""
    found = {}
    for number in range(COUNT):
        file = folder_here / "photos" / "ab"[number // 6] / f"{number:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8 + number, 8), (number, 0, 0)).save(file)
        found[str(file.relative_to(folder_here))] = file.read_bytes()
    return found


def content(row):
    try:
        return row.read()
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error)


def read(rows, start=0, stop=None):
    stop = rows.count if stop is None else stop
    return [(row.name, content(row)) for row in rows.rows(start, stop)]


def check(inputs, expected, **options):
    """Checks the rows, all ranges of them, and the fingerprint."""
    rows = open_inputs(inputs, **options)
    assert rows.count == len(expected)
    assert read(rows) == expected
    for start, stop in itertools.combinations(range(0, rows.count + 1, 2), 2):
        assert read(rows, start, stop) == expected[start:stop]
    assert fingerprint(rows) == fingerprint(open_inputs(inputs, **options))
    return rows


def test_folders_files_and_globs(photos):
    files = list(photos.items())
    rows = [
        check("photos", files),
        check(list(photos), files),
        check(["photos/a", *list(photos)[6:]], files),
        check("photos/*/*.png", files),
        check("photos/**/*.png", files),
    ]
    assert len(set(map(fingerprint, rows))) == 1
    assert fingerprint(open_inputs("photos/a")) != fingerprint(rows[0])
    assert fingerprint(open_inputs(list(photos)[::-1])) != fingerprint(rows[0])


def test_unreadable_files_are_listed_last(photos, folder_here):
    """Files with image suffixes are listed even if they are unreadable; other files are not."""
    (folder_here / "photos/a/broken.jpg").symlink_to("nowhere")
    (folder_here / "photos/a/notes.txt").write_text("no picture")
    os.mkfifo(folder_here / "photos/a/pipe.jpg")
    reasons = [
        ("photos/a/broken.jpg", "it is a broken link (No such file or directory)"),
        ("photos/a/pipe.jpg", "it is a pipe"),
    ]
    check("photos", [*photos.items(), *reasons])


def test_lists(photos, folder_here):
    os.mkfifo(folder_here / "pipe.jpg")
    lines = [*photos, "", "gone.jpg", "pipe.jpg", "photos"]
    (folder_here / "list.txt").write_text("\n".join(lines) + "\n")
    expected = [
        *photos.items(),
        ("gone.jpg", "No such file or directory"),
        ("pipe.jpg", "it is not a regular file"),
        ("photos", "it is not a regular file"),
    ]
    check("list.txt", expected)


def test_shards(photos):
    """Shards from `keras-resnet shards` list images by their original names."""
    data.write_shards("photos", "shards", shards=3)
    records = [
        tf.train.Example.FromString(record.numpy()).features.feature
        for file in sorted(os.listdir("shards"))
        if file.endswith(".tfrecord")
        for record in tf.data.TFRecordDataset(f"shards/{file}")
    ]
    expected = [
        tuple(record[f"image/{key}"].bytes_list.value[0] for key in ("filename", "encoded"))
        for record in records
    ]
    expected = [(name.decode(), content) for name, content in expected]
    assert {f"photos/{name}": content for name, content in expected} == photos
    check("shards", expected)
    check("shards/00001-of-00003.tfrecord", expected[4:8])
    with open("shards/00001-of-00003.tfrecord", "r+b") as file:
        file.truncate(100)
    with pytest.raises(DataError, match="truncated"):
        open_inputs("shards")


@pytest.mark.parametrize("kind", ["bytes", "named bytes", "structs", "paths"])
def test_parquet(kind, photos):
    names, contents = list(photos), list(photos.values())
    structs = [{"bytes": c, "path": n} for n, c in zip(names, contents, strict=True)]
    columns = {
        "bytes": {"photo": contents},
        "named bytes": {"path": names, "photo": pa.array(contents, pa.large_binary())},
        "structs": {"image": structs},  # like Hugging Face data sets
        "paths": {"path": names},
    }[kind]
    more = {"label": [1] * COUNT}
    os.mkdir("tables")
    pq.write_table(pa.table({**columns, **more}).slice(0, 8), "tables/0.parquet", row_group_size=3)
    pq.write_table(pa.table({**columns, **more}).slice(8), "tables/1.parquet")
    own = [f"tables/{n // 8}.parquet/{n % 8}" for n in range(COUNT)]
    check("tables", list(zip(own if kind == "bytes" else names, contents, strict=True)))


def test_columns_of_parquet(photos):
    names, contents = list(photos), list(photos.values())
    pq.write_table(pa.table({"one": contents, "two": contents, "where": names}), "t.parquet")
    with pytest.raises(DataError, match=r"has the columns one, two, where\. Pass as column"):
        open_inputs("t.parquet")
    own = [f"t.parquet/{number}" for number in range(COUNT)]
    check("t.parquet", list(zip(own, contents, strict=True)), column="two")
    check("t.parquet", list(photos.items()), column="where")
    table = pa.table({"photo": pa.array([contents[0], None]), "path": [None, "b"]})
    pq.write_table(table, "empty.parquet")
    check("empty.parquet", [("empty.parquet/0", contents[0]), ("b", b"")])


def test_arrays(folder_here):
    pixels = np.random.default_rng(0).integers(0, 256, (COUNT, 9, 8, 3), np.uint8)
    np.savez("x.npz", x=pixels)
    rows = open_inputs("x.npz")
    found = read(rows)
    assert [name for name, _ in found] == [f"x.npz/{number}" for number in range(COUNT)]
    np.testing.assert_array_equal([tf.image.decode_png(png) for _, png in found], pixels)
    assert read(rows, 3, 7) == found[3:7]
    np.savez("y.npz", x=pixels.astype(float))
    with pytest.raises(DataError, match=r"should contain x, uint8 .* Received: float64"):
        open_inputs("y.npz")


@pytest.mark.filterwarnings("ignore")  # warnings of tensorflow-datasets about its own dependencies
def test_data_sets_of_tfds(folder_here):
    """A data set of two splits, written by tensorflow-datasets."""
    import tensorflow_datasets as tfds

    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(4, 4, 3)),
            "label": tfds.features.ClassLabel(names=["a", "b"]),
        }
    )
    rng = np.random.default_rng(0)
    pictures = {split: rng.integers(0, 256, (5, 4, 4, 3), np.uint8) for split in ("train", "test")}
    tfds.dataset_builders.store_as_tfds_dataset(
        "dots",
        "1.0.0",
        features=features,
        split_datasets={
            split: list(enumerate({"image": image, "label": "a"} for image in images))
            for split, images in pictures.items()
        },
        data_dir="tfds",
    )
    tfds.core.add_data_dir("tfds")
    rows = open_inputs("dots")
    expected = [
        (f"dots/{split}/{number}", example["image"])
        for split in ("test", "train")
        for number, example in enumerate(tfds.load("dots", split=split))
    ]
    for start, stop in ((0, 10), (3, 8)):
        found = read(rows, start, stop)
        assert [name for name, _ in found] == [name for name, _ in expected[start:stop]]
        pixels = np.stack([tf.image.decode_png(png) for _, png in found])
        np.testing.assert_array_equal(pixels, [image for _, image in expected[start:stop]])
    assert {p.tobytes() for p in np.concatenate(list(pictures.values()))} == {
        image.numpy().tobytes() for _, image in expected
    }


def test_several_kinds_at_once(photos):
    data.write_shards("photos", "shards", shards=1)
    shard, files = read(open_inputs("shards")), list(photos.items())
    check(["photos", "shards", files[0][0]], [*files, *shard, files[0]])


def test_what_does_not_exist(photos):
    with pytest.raises(DataError, match="There is no file or folder nothing_here"):
        open_inputs(["photos", "nothing_here.jpg"])
    with pytest.raises(DataError, match="There are no images in none/"):
        os.mkdir("none")
        open_inputs("none/")
    with pytest.raises(DataError, match=r"There is no file or folder .*nor a pattern of files"):
        open_inputs("*.tiff")
