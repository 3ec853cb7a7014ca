"""Tables of files and labels: their meaning, and errors in them."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from keras_resnet import data
from keras_resnet.data.image_folder import list_labelled, split_images
from keras_resnet.data.images import list_images
from keras_resnet.data.locations import evaluation_source, training_sources
from keras_resnet.trained.fingerprint import Fingerprint

SIZE = {"image_size": 32, "batch_size": 4}


@pytest.fixture(scope="module")
def photos(tmp_path_factory, draw_flowers):
    """Two classes of three images each, with class folders; LINES is a table of them."""
    folder = draw_flowers(tmp_path_factory.mktemp("tables") / "photos", train=3, val=1) / "train"
    for name in ("daisy", "dandelion", "sunflower"):
        for file in (folder / name).iterdir():
            file.unlink()
        (folder / name).rmdir()
    return folder


@pytest.fixture
def table(photos, request):
    """Writes a table of the photos, which is removed after the test."""
    written = []

    def write(*lines, name="labels.csv", encoding="utf-8", end="\n"):
        written.append(photos / name)
        text = end.join(lines) + end
        written[-1].write_bytes(text.encode(encoding) if isinstance(text, str) else text)
        return written[-1]

    yield write
    for file in written:
        file.unlink(missing_ok=True)


def examples(source):
    return list(source.examples(None, 0).as_numpy_iterator())


LINES = [f"{name}/{number:03}.jpg,{name}" for name in ("rose", "tulip") for number in range(3)]


def test_a_table_is_the_same_source_as_class_folders(photos, table):
    expected = list_images(photos).source()
    file = table("file,label", *LINES)
    for path in (file, photos):  # as a file, and as a folder with labels.csv
        source = evaluation_source(path)
        assert source.class_names == expected.class_names and source.counts == expected.counts
        assert examples(source) == examples(expected)
    parts = split_images(file, validation_split=0.34, seed=3)
    file.unlink()
    for ours, theirs in zip(
        parts, split_images(photos, validation_split=0.34, seed=3), strict=True
    ):
        assert examples(ours.source()) == examples(theirs.source())


def test_classes_are_in_alphabetical_order_whatever_the_order_of_the_rows(table):
    images = list_labelled(
        table("label,file", *(",".join(line.split(",")[::-1]) for line in LINES[::-1]))
    )
    assert images.class_names == ("rose", "tulip")
    assert images.labels.tolist() == [1, 1, 1, 0, 0, 0] and images.counts.tolist() == [3, 3]


@pytest.mark.parametrize("delimiter", ",;\t")
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_delimiters_encodings_and_line_ends(table, delimiter, encoding, end):
    lines = [line.replace(",", delimiter) for line in ("file,label", *LINES)]
    lines[1] = f'"rose/000.jpg"{delimiter}"rose, of ""Damascus"" {delimiter}"'
    images = list_labelled(table(*lines, "", encoding=encoding, end=end))
    assert images.class_names == ("rose", f'rose, of "Damascus" {delimiter}'.strip(), "tulip")
    assert len(images) == 6


def test_several_labels(table):
    """In one cell or in columns of 0 and 1, with equal results."""
    cells = ["rose;thorn", "", "rose", "thorn|tulip", "tulip; tulip", "tulip"]
    files = [line.split(",")[0] for line in LINES]
    expected = [[1, 1, 0], [0, 0, 0], [1, 0, 0], [0, 1, 1], [0, 0, 1], [0, 0, 1]]
    file = table("file,labels", *map(",".join, zip(files, cells, strict=True)))
    in_cells = list_labelled(file)
    rows = [f"{name},{t},{int(r)},{h}.0" for name, (r, h, t) in zip(files, expected, strict=True)]
    in_columns = list_labelled(table("file,tulip,rose,thorn", *rows))
    for images in (in_cells, in_columns):
        source = images.source()
        assert source.multi_label and source.class_names == ("rose", "thorn", "tulip")
        assert source.counts == (2, 2, 3)
        np.testing.assert_array_equal([label for _, _, label in examples(source)], expected)
    part = in_cells.subset(np.array([0, 3]))
    assert part.counts.tolist() == [1, 2, 1]
    ((images, labels),) = data.batches(part.source(), **SIZE)[0]
    assert images.shape == (2, 32, 32, 3)
    np.testing.assert_array_equal(labels, [[1, 1, 0], [0, 1, 1]])
    train, val = split_images(file, validation_split=0.34, seed=1)
    assert (len(train), len(val)) == (4, 2)
    assert sorted([*train.chosen, *val.chosen]) == list(range(6))


def test_a_weight_comes_with_each_image(table):
    file = table("file,label,weight", *(f"{line},{n / 2}" for n, line in enumerate(LINES)))
    train, _ = data.image_folder(file, training=True, seed=1, **SIZE)
    found = [weight for _, _, weights in train for weight in weights.numpy()]
    assert sorted(found) == [n / 2 for n in range(6)]
    _, labels, weights = next(iter(data.image_folder(file, **SIZE)[0]))
    assert labels.numpy().tolist() == [0, 0, 0, 1] and weights.numpy().tolist() == [0, 0.5, 1, 1.5]


def test_the_weight_of_a_class_multiplies_that_of_its_images(table):
    file = table("file,label,weight", *(f"{line},{n / 2}" for n, line in enumerate(LINES)))
    for source, own in ((evaluation_source(file), np.arange(6) / 2), (None, np.ones(6))):
        source = source or evaluation_source(table("file,label", *LINES))
        weighted = source.weighted([2.0, 0.5])
        expected = own * [2, 2, 2, 0.5, 0.5, 0.5]
        np.testing.assert_allclose([example[3] for example in examples(weighted)], expected)
        replaced = weighted.replacement(tf.constant([1, 2], tf.int64))
        assert float(replaced[3]) in expected


def test_parts_are_tables_too(photos, table):
    table("file,label", *LINES[::2], name="train.csv")
    table("file,label", LINES[1], name="val.csv")  # without one of the classes
    train, val = training_sources(photos)
    assert (train.count, val.count) == (3, 1)
    assert train.class_names == val.class_names == ("rose", "tulip")
    table("file,label", "rose/001.jpg,lily", name="val.csv")
    with pytest.raises(data.DataError, match=r"val.csv, line 2: 'lily' is none of the 2 classes"):
        training_sources(photos)
    table("file,labels", "rose/001.jpg,rose", name="val.csv")
    with pytest.raises(data.DataError, match="both have one label"):
        training_sources(photos)
    table("file,label", LINES[0], name="valid.csv")
    with pytest.raises(data.DataError, match="names of the same part"):
        training_sources(photos)


def test_files_that_are_not_there_are_left_out_and_named(photos, table):
    file = table("file,label", *LINES, "rose/gone.jpg,rose", "rose,tulip")
    images = list_labelled(file)
    assert len(images) == 6
    assert images.unusable[f"{photos}/rose/gone.jpg"] == (
        "No such file or directory (line 8 of labels.csv)"
    )
    assert images.unusable[f"{photos}/rose"] == "it is not a file (line 9 of labels.csv)"
    found = data.check_data(file)
    assert found.total == 6 and found.bad == images.unusable


def test_check_data_counts_images_not_labels(table):
    files = [line.split(",")[0] for line in LINES]
    found = data.check_data(table("file,labels", *(f"{file},a;b" for file in files)))
    assert found.total == 6 and found.counts == {"": {"a": 6, "b": 6}}


GOOD = "rose/000.jpg,rose"


@pytest.mark.parametrize(
    "lines, said",
    [
        ([], "is empty"),
        (["file,label"], "lists no image file"),
        (["file,label", "gone.jpg,rose"], "lists no image file that exists. The first: .*line 2"),
        (["name,label", GOOD], "no column file.*Received: name, label"),
        (["file,label,labels", GOOD + ",x"], "keep one"),
        (["file,file,label", GOOD + ",x"], "several columns called 'file'"),
        (["file,weight", "rose/000.jpg,1"], "has no labels"),
        (["file,", GOOD], "column without a name"),
        (["file,label", GOOD, "rose/001.jpg,"], "line 3: the label is empty"),
        (["file,labels", GOOD, "rose/001.jpg,a;;b"], "line 3: the label is empty"),
        (["file,labels", "rose/000.jpg,"], "every image's are empty"),
        (["file,label", GOOD, " ,rose"], "line 3: the file is empty"),
        (["file,label", GOOD, "rose/\0.jpg,rose"], "line 3: the file has a zero byte"),
        (["file,label", GOOD, "rose/001.jpg,rose"], "only one class, 'rose'"),
        (["file,label", *LINES, "gone.jpg,lily"], "No file of the class 'lily' .* exists"),
        (["file,label", GOOD, "rose/001.jpg,rose,3"], "line 3: expected 2 cells.*Received: 3"),
        (["file,label", GOOD, "rose/001.jpg"], "line 3: expected 2 cells.*Received: 1"),
        (["file,label", GOOD, '"rose/001.jpg,rose'], "line 3: unexpected end of data"),
        (["file,label", GOOD, '"rose"/001.jpg,rose'], "line 3: ',' expected after '\"'"),
        (["file,label", f"rose/000.jpg,{'x' * 200_000}"], "line 2: field larger than field limit"),
        (["file,label", GOOD, "../labels.py,rose"], "line 3: ../labels.py is outside"),
        (["file,label", GOOD, "rose/../../x.jpg,rose"], "line 3: rose/../../x.jpg is outside"),
        (["file,label", GOOD, "/etc/passwd,rose"], "line 3: /etc/passwd is outside"),
        (["file,label,weight", GOOD + ",-1"], "line 2: weight should be.*Received: '-1'"),
        (["file,label,weight", GOOD + ",nan"], "line 2: weight should be"),
        (["file,label,weight", GOOD + ",much"], "line 2: weight should be"),
        (["file,rose,tulip", "rose/000.jpg,1,2"], "line 2: tulip should be 0 or 1.*Received: '2'"),
        (["file,label", GOOD, "tulip/000.jpg,tulip", GOOD], "lists rose/000.jpg more than once"),
    ],
)
def test_errors_have_line_numbers(table, lines, said):
    with pytest.raises(data.DataError, match=said):
        list_labelled(table(*lines) if lines else table("", end=""))


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_other_encodings_are_errors(table, encoding):
    line = 2 if encoding == "latin-1" else 1
    with pytest.raises(data.DataError, match=f"line {line}, is not in UTF-8"):
        list_labelled(table("file,label", "rose/000.jpg,rosé", encoding=encoding))


def test_an_absolute_path_inside_of_the_folder(photos, table):
    images = list_labelled(table("file,label", f"{photos}/rose/000.jpg,rose", *LINES[1:]))
    assert images.file(0) == f"{photos}/rose/000.jpg" and len(images) == 6


def test_missing_and_ambiguous_tables(tmp_path):
    with pytest.raises(data.DataError, match="does not exist"):
        evaluation_source(tmp_path / "no.csv")
    with pytest.raises(data.DataError, match=r"labels.csv and labels.parquet\. Keep one"):
        for name in ("labels.csv", "labels.parquet"):
            (tmp_path / name).touch()
        evaluation_source(tmp_path)


def test_classes_that_a_table_lacks_may_be_given(table):
    source = evaluation_source(table("file,label", LINES[0]), class_names=("lily", "rose"))
    assert source.class_names == ("lily", "rose") and source.counts == (0, 1)
    assert [label for _, _, label in examples(source)] == [1]
    columns = table("file,rose,tulip", "rose/000.jpg,1,0")
    with pytest.raises(data.DataError, match="Only in one of both: lily, tulip"):
        evaluation_source(columns, class_names=("lily", "rose"))


def test_other_labels_are_other_data(photos, table, tmp_path):
    def both():
        return training_sources(photos, validation_split=0.34)

    table("file,label", *LINES)
    known = Fingerprint.of(both())
    known.check(both(), tmp_path)
    table("file,label", *LINES[:-1], LINES[-1].replace(",tulip", ",rose"))
    with pytest.raises(data.DataError, match=r"has changed.*labels"):
        known.check(both(), tmp_path)


def test_parquet(photos, table):
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    files = [line.split(",")[0] for line in LINES]
    expected = list_labelled(table("file,labels,weight", *(f"{f},a;b,2" for f in files)))
    path = photos / "t.parquet"

    def read(**columns):
        parquet.write_table(pyarrow.table({"file": files, **columns}), path)
        return list_labelled(path)

    try:
        for labels in (["a;b"] * 6, [["a", "b"]] * 6):
            images = read(labels=labels, weight=[2] * 6, image=[b"x" * 1000] * 6)
            assert images.digest == expected.digest
            assert examples(images.source())[5][3] == 2
        assert read(a=[True, False] * 3, b=[1] * 6).counts.tolist() == [3, 6]
        assert read(label=[10, 9] * 3).class_names == ("10", "9")
        with pytest.raises(data.DataError, match="row 2: the label is empty"):
            read(label=["a", None, "b", "a", "b", "b"])
        path.write_bytes(b"PAR1 or not")
        with pytest.raises(data.DataError, match="cannot be read as Parquet"):
            list_labelled(path)
    finally:
        path.unlink()


def test_memory_for_each_file_of_a_table(run_imported):
    """The same limit as for class folders, for both parts of a split."""
    program = """
import csv, re, numpy as np, tensorflow as tf
from pathlib import Path
from keras_resnet.data import tables
def memory():
    return 1024 * int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
def write(count):
    with open("labels.csv", "w") as file:
        file.write("file,labels,weight\\n")
        for n in range(count):
            file.write(f"photographs/{n:026}.jpg,class{n % 80};class{n % 79},{n % 9}\\n")
    return Path("labels.csv")
tables._why_unusable = lambda path: None  # the files do not exist
count = 250_000
tables.list_table(write(1000)).source()
before = memory()
images = tables.list_table(write(count))
parts = [images.subset(np.arange(start, count, 2)) for start in range(2)]
sources = [part.source() for part in parts]
del images
print((memory() - before) / count)
""".replace("\\\\", "\\")
    done = run_imported(program)
    assert 50 < float(done.stdout) < 200, done.stderr


def test_shards_have_one_label(table, tmp_path):
    with pytest.raises(data.DataError, match="Shards have one label"):
        data.write_shards(table("file,labels", "rose/000.jpg,a;b"), tmp_path / "out")
    data.write_shards(table("file,label", *LINES), tmp_path / "out", shards=2)
    assert data.shards.shards_source(tmp_path / "out").count == 6


def test_smoothing_several_labels_is_refused(table):
    source = evaluation_source(table("file,labels", "rose/000.jpg,a;b"))
    smooth = dataclasses.replace(data.Augmentation(), label_smoothing=0.1)
    with pytest.raises(data.DataError, match="label_smoothing spreads the one label"):
        data.batches(source, training=True, augmentation=smooth, **SIZE)
