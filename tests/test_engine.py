"""Jobs on Ray, and inputs from other file systems; needs the engine-test extra."""

import logging
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import keras_resnet
from keras_resnet import Preprocessing, bulk
from keras_resnet.bulk.inputs import open_inputs
from keras_resnet.data import DataError
from keras_resnet.trained import Network

# Warnings of Ray and boto.
pytestmark = [pytest.mark.engine, pytest.mark.filterwarnings("ignore")]

SETTINGS = {"batch_size": 8, "rows_per_part": 16}


@pytest.fixture(scope="module")
def network():
    from small_networks import trained

    model = trained(keras_resnet.ResNet20(classes=5))
    return Network(model, Preprocessing(32, 32), None, Path("none"))


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """150 files with a relative path, of which one is not an image."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for number in range(150):
        pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number:03}.png")
    (tmp_path / "photos" / "077.png").write_bytes(b"\x89PNG\r\n\x1a\n rubbish")
    return Path("photos")


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture
def alone(network, photos, tmp_path):
    """The output of a single process."""
    done = bulk.embed(network, photos, tmp_path / "alone", **SETTINGS)
    assert (done.parts, done.errors) == (10, 1)
    return contents(tmp_path / "alone")


@pytest.fixture(autouse=True)
def processors(monkeypatch):
    """Limits Ray's local cluster to two CPUs."""
    import ray

    began = ray.init
    monkeypatch.setattr(ray, "init", lambda *a, **k: began(*a, num_cpus=2, **k))


def test_two_workers_write_the_same_bytes(network, photos, tmp_path, alone):
    seen = []
    done = bulk.embed(
        *(network, photos, "ray"),
        **{**SETTINGS, "engine": "ray", "workers": 2},
        on_progress=lambda *progress: seen.append(progress),
    )
    assert (done.parts, done.errors, done.computed) == (10, 1, 150)
    assert seen[-1] == (150, 150)
    assert contents(tmp_path / "ray") == alone


def children(name):
    """Returns process ids of Ray with a word in their title."""
    found = []
    for status in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if name in status.read_text(errors="replace"):
                found.append(int(status.parent.name))
        except OSError:  # the process has ended
            continue
    return found


def test_a_worker_that_is_killed_costs_nothing(network, photos, tmp_path, alone):
    """A worker is killed after the first part; existing parts are not computed again."""
    out = tmp_path / "ray"
    killed = []

    def kill():
        while not list(out.glob("part-*")):
            time.sleep(0.001)
        for process in children("MapWorker")[:1]:
            os.kill(process, signal.SIGKILL)
            killed.append(process)

    thread = threading.Thread(target=kill)
    thread.start()
    bulk.embed(network, photos, out, **SETTINGS, engine="ray", workers=2)
    thread.join()
    assert len(killed) == 1
    assert contents(out) == alone
    (out / "part-00003.parquet").unlink()
    again = bulk.embed(network, photos, out, **SETTINGS, engine="ray", workers=2)
    assert again.computed == 16 and contents(out) == alone


@pytest.fixture(scope="module")
def s3():
    """A local S3 server; yields a client."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    variables = {
        "AWS_ACCESS_KEY_ID": "none",
        "AWS_SECRET_ACCESS_KEY": "none",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        import boto3

        client = boto3.client("s3")
        client.create_bucket(Bucket="bucket")
        yield client
    server.stop()


def test_urls(s3, network, photos, tmp_path, alone):
    """Rows equal those of the local files, except for paths: folders, lists and Parquet files."""
    import pyarrow as pa
    import pyarrow.dataset
    import pyarrow.parquet as pq

    files = sorted(photos.iterdir())
    for file in files:
        s3.upload_file(str(file), "bucket", f"some photos/{file.name}")
    s3.put_object(Bucket="bucket", Key="some photos/notes.md", Body=b"no picture")
    urls = [f"s3://bucket/some photos/{file.name}" for file in files]
    (tmp_path / "list.txt").write_text("\n".join([*urls, "s3://bucket/gone.png"]))
    table = pa.table({"path": urls, "image": [file.read_bytes() for file in files]})
    pq.write_table(table, tmp_path / "t.parquet")
    s3.upload_file(str(tmp_path / "t.parquet"), "bucket", "tables/t.parquet")
    expected = pa.dataset.dataset(tmp_path / "alone").to_table()["embedding"].to_pylist()
    query = f"?endpoint_override={s3.meta.endpoint_url.removeprefix('http://')}&scheme=http"
    inputs = {
        "folder": "s3://bucket/some photos",
        "query": f"s3://bucket/some photos{query}",
        "list": str(tmp_path / "list.txt"),
        "tables": "s3://bucket/tables",
        "file": f"file://{photos.resolve()}",
    }
    for name, words in inputs.items():
        bulk.embed(network, words, tmp_path / name, **SETTINGS)
        rows = pa.dataset.dataset(tmp_path / name).to_table().to_pylist()
        assert [row["embedding"] for row in rows][:150] == expected
        if name != "file":
            assert [row["path"] for row in rows][:150] == urls
        if name == "list":
            assert rows[150]["error"] == "No such file or directory"
    with pytest.raises(DataError, match="There is no file or folder s3://bucket/nothing"):
        open_inputs("s3://bucket/nothing")


def test_workers_read_urls(s3, network, photos, tmp_path, alone):
    for file in photos.iterdir():
        s3.upload_file(str(file), "bucket", f"others/{file.name}")
    arguments = (network, "s3://bucket/others")
    bulk.embed(*arguments, tmp_path / "one", **SETTINGS)
    bulk.embed(*arguments, tmp_path / "two", **SETTINGS, engine="ray", workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
