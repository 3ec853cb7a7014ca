"""Embeddings and predictions for many images, as Parquet."""

import hashlib
import json
import signal
from pathlib import Path

import keras
import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from PIL import Image

import keras_resnet
from keras_resnet import Preprocessing, bulk, weights
from keras_resnet.data import DataError
from keras_resnet.trained import Network

pytestmark = pytest.mark.usefixtures("tiny_rows")

COUNT, BAD = 23, {5: b"", 11: b"\x89PNG\r\n\x1a\n rubbish", 22: b"II*\0 a TIFF"}
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
NAMES = tuple("abcdefg")


@pytest.fixture(scope="module")
def network():
    from small_networks import trained

    keras.utils.set_random_seed(0)
    model = trained(keras_resnet.ResNet20(classes=len(NAMES)))
    return Network(model, Preprocessing(32, 32, MEAN, STD), NAMES, Path("none"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Images that have the network's input size, and three bad ones."""
    folder = tmp_path_factory.mktemp("bulk") / "photos"
    (folder / "deeper").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(COUNT):
        file = folder / ("deeper" if number % 3 == 0 else "") / f"{number:02}.png"
        if number in BAD:
            file.write_bytes(BAD[number])
        else:
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(file)
    return folder


def in_order(folder):
    """The files of a folder, then those of its subfolders."""
    return [*sorted(map(str, folder.glob("*.png"))), *sorted(map(str, folder.glob("*/*.png")))]


def good(files):
    return [file for file in files if int(Path(file).stem) not in BAD]


def as_keras_says(model, files):
    """Returns a model's outputs for files that are read with Pillow."""
    pixels = np.stack([np.asarray(Image.open(file)) for file in files])
    return model.predict((pixels / 255 - MEAN) / np.array(STD), verbose=0)


def table_of(folder):
    return pa.dataset.dataset(folder).to_table()


def close(table, expected):
    vectors = np.stack([row for row in table["embedding"].to_pylist() if row is not None])
    np.testing.assert_allclose(vectors, expected, atol=1e-4 * np.abs(expected).max())


def test_embeddings(network, photos, tmp_path):
    seen = []
    done = bulk.embed(
        *(network, photos, tmp_path / "out"),
        **{"batch_size": 4, "rows_per_part": 10, "on_progress": lambda *p: seen.append(p)},
    )
    assert (done.rows, done.parts, done.errors, done.computed) == (COUNT, 3, 3, COUNT)
    assert seen[-1] == (COUNT, COUNT) and seen == sorted(seen)
    table, files = table_of(tmp_path / "out"), in_order(photos)
    assert table.schema.names == ["path", "embedding", "error"]
    assert table["path"].to_pylist() == files
    assert table.schema.field("embedding").type == pa.list_(pa.float32(), 64)
    errors = dict(zip(files, table["error"].to_pylist(), strict=True))
    assert {file for file, error in errors.items() if error is None} == set(good(files))
    said = [errors[file] for number in BAD for file in files if int(Path(file).stem) == number]
    assert said[0] == "it is empty" and said[1].startswith("it is damaged")
    assert said[2].startswith("it is in the format TIFF")
    model = keras.Model(network.model.input, network.model.get_layer("avgpool").output)
    close(table, as_keras_says(model, good(files)))
    rows = [
        pq.read_metadata(file).num_rows for file in sorted((tmp_path / "out").glob("*.parquet"))
    ]
    assert rows == [10, 10, 3]


@pytest.mark.parametrize("layer, output", [("layer2", "layer2.0"), ("C2", "layer1.0")])
def test_feature_maps_are_averaged(layer, output, network, photos, tmp_path):
    bulk.embed(network, photos, tmp_path / "out", layer=layer)
    model = keras.Model(network.model.input, network.model.get_layer(output).output)
    expected = as_keras_says(model, good(in_order(photos))).mean((1, 2))
    close(table_of(tmp_path / "out"), expected)


def test_normalized_and_of_16_bits(network, photos, tmp_path):
    plain, short = tmp_path / "plain", tmp_path / "short"
    bulk.embed(network, photos, plain)
    bulk.embed(network, photos, short, normalize=True, dtype="float16", sha256=True)
    table = table_of(short)
    assert table.schema.field("embedding").type == pa.list_(pa.float16(), 64)
    vectors = [np.float64(row) for row in table_of(plain)["embedding"].to_pylist() if row]
    expected = [row / np.sqrt((row**2).sum()) for row in vectors]
    found = [row for row in table["embedding"].to_pylist() if row]
    np.testing.assert_allclose(np.float64(found), expected, atol=2**-11)
    hashes = [hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in in_order(photos)]
    assert table["sha256"].to_pylist() == hashes


def test_labels(network, photos, tmp_path):
    bulk.predict(network, photos, tmp_path / "out", top=3)
    table, files = table_of(tmp_path / "out"), good(in_order(photos))
    expected = as_keras_says(network.model, files)
    order = np.argsort(-expected, axis=1)[:, :3]
    rows = [row for row in table.to_pylist() if row["error"] is None]
    assert [row["path"] for row in rows] == files
    assert [row["label"] for row in rows] == [NAMES[best] for best in order[:, 0]]
    assert [row["top_labels"] for row in rows] == [[NAMES[k] for k in best] for best in order]
    probabilities = np.take_along_axis(expected, order, axis=1)
    found = [row["top_probabilities"] for row in rows]
    np.testing.assert_allclose(found, probabilities, atol=1e-5)
    assert [row["probability"] for row in rows] == [row[0] for row in found]
    bad = [row for row in table.to_pylist() if row["error"] is not None]
    nothing = {"label": None, "probability": None, "top_labels": None, "top_probabilities": None}
    assert len(bad) == len(BAD) and all(row.items() >= nothing.items() for row in bad)


def test_several_labels(network, photos, tmp_path):
    """Predicted classes are those whose score in Keras reaches the threshold."""
    model = keras_resnet.ResNet20(classes=len(NAMES), classifier_activation="sigmoid")
    model.set_weights(network.model.get_weights())
    found = as_keras_says(model, good(in_order(photos)))
    thresholds = tuple((np.median(found[:-1], axis=0) + 1e-4).tolist())  # not near any score
    labels = Network(model, network.preprocessing, NAMES, Path("none"), None, thresholds)
    bulk.predict(labels, photos, tmp_path / "out", batch_size=4)
    rows = [row for row in table_of(tmp_path / "out").to_pylist() if row["error"] is None]
    for row, answer in zip(rows, found, strict=True):
        best = np.argsort(-answer)
        assert row["predicted"] == [NAMES[k] for k in best if answer[k] >= thresholds[k]]
        assert row["label"] == NAMES[answer.argmax()]


def test_a_bad_picture_costs_its_row_only(network, photos, tmp_path):
    """The other rows are bit-identical to those with a good image in its place."""
    files = in_order(photos)
    whole = [files[0] if int(Path(file).stem) in BAD else file for file in files]
    (tmp_path / "whole.txt").write_text("\n".join(whole))
    found = []
    for inputs, folder in ((photos, "a"), (tmp_path / "whole.txt", "b")):
        bulk.embed(network, inputs, tmp_path / folder, batch_size=8)
        found.append(table_of(tmp_path / folder)["embedding"].to_pylist())
    assert [row == other for row, other in zip(*found, strict=True)] == [
        int(Path(file).stem) not in BAD for file in files
    ]


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_missing_parts_are_computed_again(network, photos, tmp_path):
    arguments = (network, photos, tmp_path / "out")
    settings = {"batch_size": 4, "rows_per_part": 6, "normalize": True}
    assert bulk.embed(*arguments, **settings).parts == 4
    before = contents(tmp_path / "out")
    assert bulk.embed(*arguments, **settings).computed == 0
    (tmp_path / "out" / "part-00001.parquet").unlink()
    (tmp_path / "out" / ".999999999.00000000-0.part-00001.parquet").write_text("half a file")
    assert bulk.embed(*arguments, **settings).computed == 6
    assert contents(tmp_path / "out") == before


def test_another_job_is_refused(network, photos, tmp_path):
    settings = {"batch_size": 4, "rows_per_part": 6}
    bulk.embed(network, photos, tmp_path / "out", **settings)
    other = Network(network.model, Preprocessing(36, 32), NAMES, Path("none"))
    model = keras.models.clone_model(network.model)
    weighted = Network(model, network.preprocessing, NAMES, Path("none"))
    for changed, arguments, options in (
        ("inputs", (network, photos / "deeper"), settings),
        ("preprocessing", (other, photos), settings),
        ("weights_sha256", (weighted, photos), settings),
        ("layer was 'avgpool' and is 'layer1'", (network, photos), {**settings, "layer": "layer1"}),
        ("rows_per_part was 6 and is 7", (network, photos), {**settings, "rows_per_part": 7}),
    ):
        with pytest.raises(DataError, match=changed):
            bulk.embed(*arguments, tmp_path / "out", **options)
    with pytest.raises(DataError, match="parts of another job"):
        bulk.predict(network, photos, tmp_path / "out", **settings)
    with pytest.raises(DataError, match="contains other files"):
        bulk.embed(network, photos, photos)


def test_processes_share_the_parts(network, photos, tmp_path):
    settings = {"batch_size": 4, "rows_per_part": 5}
    bulk.embed(network, photos, tmp_path / "one", **settings)
    computed = [
        bulk.embed(network, photos, tmp_path / "two", **settings, processes=2, process_id=process)
        for process in (1, 0)
    ]
    assert [(done.computed, done.rows, done.errors) for done in computed] == [
        (10, 10, 1),
        (13, COUNT, 3),
    ]
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_a_disk_that_is_gone_stops_it(network, tmp_path):
    """A part without any readable image is not written, so that it can be computed later."""
    (tmp_path / "list.txt").write_text("\n".join(f"/gone/{n}.jpg" for n in range(150)))
    with pytest.raises(DataError, match="None of 150 images in a row can be read"):
        bulk.embed(network, tmp_path / "list.txt", tmp_path / "out")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["_job.json"]


@pytest.mark.parametrize(
    "options, said",
    [
        ({"rows_per_part": 0}, "rows_per_part should be 1 or more"),
        ({"dtype": "int8"}, "dtype should be 'float32' or 'float16'"),
        ({"process_id": 1}, "process_id should be 0 to 0"),
        ({"engine": "beam"}, "engine should be 'ray'"),
        ({"workers": 2}, "pass engine='ray'"),
        ({"layer": "layer9"}, "layer should be avgpool"),
    ],
)
def test_invalid_arguments(options, said, network, photos, tmp_path):
    with pytest.raises(ValueError, match=said):
        bulk.embed(network, photos, tmp_path / "out", **options)


def test_without_the_extra(network, photos, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r'pip install "keras3-resnet\[parquet\]"'):
        bulk.embed(network, photos, tmp_path / "out")


@pytest.fixture
def run(network, tmp_path):
    """Writes a weights file; returns the options to use it."""
    weights.save(network.model, tmp_path / "w.safetensors")
    return ("--weights", "w.safetensors", "--model", "resnet20")


def test_the_commands(run, network, photos, command_here, tmp_path):
    arguments = (photos, *run, "--batch-size", 4, "-o")
    done = command_here("embed", *arguments, "embeddings", "--normalize", "--sha256")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(
        f"embeddings: {COUNT} rows in 1 files, 3 images could not be read"
    )
    names = ["path", "sha256", "embedding", "error"]
    assert table_of(tmp_path / "embeddings").schema.names == names
    done = command_here("predict", *arguments, "labels", "--json", "--top", 2)
    summary = json.loads(done.stdout)
    assert (summary["folder"], summary["rows"], summary["errors"]) == ("labels", COUNT, 3)
    assert len(table_of(tmp_path / "labels")["top_labels"][0]) == 2
    done = command_here("embed", *arguments, "embeddings", "--rows-per-part", 5)
    assert done.returncode == 1 and "--rows-per-part was 8192 and is 5" in done.stderr
    done = command_here("predict", photos, *run, "--sha256")
    assert done.returncode == 1 and "sha256 needs a folder to write" in done.stderr


# Runs the command to its end, or is killed by a child process some time after its next part.
PROGRAM = """
import os, random, signal, sys, time
from pathlib import Path
from small_networks import tiny_rows
import keras_resnet_cli

folder, dies, *arguments = sys.argv[1:]
there = len(list(Path(folder).glob("part-*")))
if dies == "dies" and not os.fork():
    while len(list(Path(folder).glob("part-*"))) == there:
        time.sleep(0.001)
    time.sleep(random.uniform(0, 0.2))
    os.kill(os.getppid(), signal.SIGKILL)
    os._exit(0)
sys.argv = ["keras-resnet", *arguments, "-o", folder]
with tiny_rows():
    keras_resnet_cli.main()
"""


@pytest.mark.slow
def test_killed_ten_times(run, photos, tmp_path, run_imported):
    """At random times; finally the folder equals an uninterrupted one byte for byte."""
    (tmp_path / "list.txt").write_text("\n".join(in_order(photos) * 100))
    arguments = ["embed", "list.txt", *run, "--rows-per-part", "50", "--batch-size", "5"]
    assert f"{COUNT * 100:,} rows" in run_imported(PROGRAM, "whole", "lives", *arguments).stdout
    for _ in range(10):
        done = run_imported(PROGRAM, "killed", "dies", *arguments)
        assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(list((tmp_path / "killed").glob("part-*"))) < COUNT * 2
    assert run_imported(PROGRAM, "killed", "lives", *arguments).returncode == 0
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
