"""Downloads from local servers with and without failures."""

import dataclasses
import gzip
import hashlib
import http.server
import importlib
import logging
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import keras_resnet
from keras_resnet import weights
from keras_resnet.weights import CheckpointError, registry

# The function of the same name hides its module.
module = importlib.import_module("keras_resnet.weights.download")

ADDRESS = "KERAS_RESNET_WEIGHTS_URL"
CONTENT = np.random.default_rng(0).bytes(8 * module.PIECE)
OTHER = CONTENT[:-1] + b"?"


def row_of(content, **others):
    row = registry.find("resnet18")
    digest = hashlib.sha256(content).hexdigest()[:8]
    return dataclasses.replace(row, sha256=digest, **{"older": None, **others})


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        server.requests.append((self.path, self.headers.get("Range")))
        behaviour = server.behaviours.pop(0) if len(server.behaviours) > 1 else server.behaviours[0]
        start = 0
        if self.headers.get("Range") and behaviour != "no ranges":
            start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
        if start == len(server.content):
            behaviour = 416
        body = (OTHER if behaviour == "wrong" else server.content)[start:]
        if isinstance(behaviour, int):
            self.send_error(behaviour)
            return
        if behaviour == "slow":
            time.sleep(1)
        if behaviour == "silent":
            return
        self.send_response(206 if start else 200)
        if behaviour == "gzip":
            body = gzip.compress(body)
            self.send_header("Content-Encoding", "gzip")
        if start:
            shift = behaviour == "shifted"
            end, total = start + len(body) - 1, len(server.content)
            self.send_header("Content-Range", f"bytes {start + shift}-{end}/{total}")
        length = {"too long": 2 * len(body), "too short": len(body) // 2}.get(behaviour, len(body))
        if behaviour != "endless":
            self.send_header("Content-Length", str(length))
        self.end_headers()
        self.send_body(body, behaviour)

    def send_body(self, body, behaviour):
        sent = {"cut": len(body) // 2, "drip": self.server.sent_first}.get(behaviour)
        try:
            self.wfile.write(body[:sent])
            while behaviour == "endless":
                self.wfile.write(bytes(1_000_000))
            while behaviour == "drip":
                self.wfile.write(b"?")
                time.sleep(0.05)
        except OSError:
            self.close_connection = True  # the client has closed the connection

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server with a list of `behaviours`, one for each request; the last one is repeated."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.content, server.behaviours, server.requests = CONTENT, ["good"], []
    server.sent_first = 0
    # the interval in seconds to check for a shutdown
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("KERAS_RESNET_HOME", str(tmp_path / "home"))
    address = f"http://127.0.0.1:{server.server_port}/mirror/"
    monkeypatch.setenv(ADDRESS, address)
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(module, "TIMEOUT", (1, 0.5))
    yield server
    server.shutdown()
    server.server_close()


def left(tmp_path):
    return sorted(path.name for path in (tmp_path / "home").iterdir() if path.name[0] != ".")


def test_a_file_is_fetched_once(server, tmp_path):
    row = row_of(CONTENT)
    for _ in range(2):
        path = weights.download(row)
        assert path == tmp_path / "home" / row.file
        assert path.read_bytes() == CONTENT
    assert server.requests == [(f"/mirror/{row.file}", None)]
    assert left(tmp_path) == [row.file]


@pytest.mark.parametrize(
    "behaviours, ranges",
    [
        (["cut", "good"], [None, "bytes=1048576-"]),
        (["cut", "cut", "good"], [None, "bytes=1048576-", "bytes=1572864-"]),
        (["cut", "no ranges"], [None, "bytes=1048576-"]),
        (["cut", "shifted"], [None, "bytes=1048576-"]),
        (["slow", "good"], [None, None]),
        ([503, 429, "good"], [None, None, None]),
        (["silent", "good"], [None, None]),
        (["cut", 416, "good"], [None, "bytes=1048576-", None]),
        (["too long"], [None, "bytes=2097152-"]),
        (["gzip"], [None]),
        (["cut", "gzip"], [None, "bytes=1048576-", None]),
    ],
    ids=str,
)
def test_interrupted_downloads_continue(behaviours, ranges, server, tmp_path):
    server.behaviours = behaviours
    row = row_of(CONTENT, parameters=300_000)
    if "shifted" in behaviours:  # a wrong part is rejected by its hash, and downloaded again
        server.behaviours, ranges = ["cut", "shifted", "good"], [*ranges, None]
    assert weights.download(row).read_bytes() == CONTENT
    assert [header for _, header in server.requests] == ranges
    assert left(tmp_path) == [row.file]


def test_a_part_of_another_file_is_thrown_away(server, tmp_path):
    row = row_of(CONTENT)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / f"{row.file}.part").write_bytes(bytes(1000))
    assert weights.download(row).read_bytes() == CONTENT
    assert [header for _, header in server.requests] == ["bytes=1000-", None]


@pytest.mark.parametrize(
    "behaviour, said, requests",
    [
        (404, "status 404", 1),
        (403, "status 403", 1),
        (500, "status 500", 6),
        ("wrong", "the sha256 of the download starts with", 1),
        ("too short", "the sha256 of the download starts with", 1),
        ("endless", "more than", 1),
        ("silent", "ConnectionError", 6),
    ],
)
def test_it_gives_up_with_one_error(behaviour, said, requests, server, tmp_path):
    server.behaviours = [behaviour]
    row = row_of(CONTENT, parameters=300_000)
    with pytest.raises(CheckpointError, match=said) as caught:
        weights.download(row)
    message = str(caught.value)
    for part in (module.url_of(row), str(tmp_path / "home" / row.file), "by other means"):
        assert part in message
    assert len(server.requests) == requests
    assert row.file not in left(tmp_path)


@pytest.mark.parametrize("first", [0, 2**18])
def test_a_server_that_hardly_sends_is_given_up(first, server, tmp_path, monkeypatch):
    """20 bytes per second, from the start or later."""
    monkeypatch.setattr(module, "WHILE", 0.3)
    monkeypatch.setattr(module, "ATTEMPTS", 2)
    server.behaviours = ["drip"]
    server.sent_first = first
    with pytest.raises(CheckpointError, match=r"ConnectionError: \d+ bytes received in"):
        weights.download(row_of(CONTENT))
    assert len(server.requests) == 2


@pytest.mark.parametrize("link", ["symlink_to", "hardlink_to"])
def test_links_are_not_written_through(link, server, tmp_path):
    """Neither for the partial file nor for its lock file."""
    row = row_of(CONTENT)
    (tmp_path / "home").mkdir()
    for name in (f"{row.file}.part", f".{row.file}.lock"):
        precious = tmp_path / f"precious{name}"
        precious.write_bytes(b"precious")
        if link == "symlink_to" or name.endswith(".part"):
            getattr(tmp_path / "home" / name, link)(precious)
    path = weights.download(row)
    assert path.read_bytes() == CONTENT and not path.is_symlink()
    assert {file.read_bytes() for file in tmp_path.glob("precious*")} == {b"precious"}


@pytest.mark.parametrize("address", ["ftp://host/", "host/models"])
def test_invalid_urls(address, server, monkeypatch):
    monkeypatch.setenv("KERAS_RESNET_WEIGHTS_URL", address)
    monkeypatch.setattr(module, "FIRST_PAUSE", 1000)  # no further attempts
    with pytest.raises(CheckpointError, match=f"(Invalid|Missing).*{address}"):
        weights.download(row_of(CONTENT))


def test_offline(server, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_RESNET_WEIGHTS_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(module, "ATTEMPTS", 2)
    with pytest.raises(CheckpointError, match=r"http://127\.0\.0\.1:9/resnet18-.*by other means"):
        keras_resnet.ResNet18(weights="imagenet")


def test_a_folder_that_cannot_be_created(server, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KERAS_RESNET_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(CheckpointError, match=r"cannot be saved.*by other means"):
        weights.download(row_of(CONTENT))


def test_a_damaged_file_is_named(server, tmp_path):
    row = row_of(CONTENT)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / row.file).write_bytes(OTHER)
    with pytest.raises(CheckpointError, match=r"is damaged.*Remove it"):
        weights.download(row)
    assert not server.requests


def test_all_of_a_whole_hash_is_checked(server, tmp_path):
    whole = hashlib.sha256(CONTENT).hexdigest()
    row = dataclasses.replace(row_of(CONTENT), sha256=whole)
    assert weights.download(row).name == f"resnet18-{whole[:8]}.pth"
    other = dataclasses.replace(row, sha256=whole[:8] + "0" * 56)
    with pytest.raises(weights.CheckpointError, match=f"starts with {whole}, not {other.sha256}"):
        weights.download(other)


def test_an_older_file_will_do(server, tmp_path):
    """Existing downloads may have torchvision's earlier file names for the same weights."""
    row = row_of(CONTENT, older=hashlib.sha256(OTHER).hexdigest()[:8])
    (tmp_path / "home").mkdir()
    older = tmp_path / "home" / f"resnet18-{row.older}.pth"
    older.write_bytes(OTHER)
    assert weights.download(row) == older
    assert not server.requests


def test_four_processes_fetch_once(server, tmp_path, run_imported):
    row = row_of(CONTENT)
    program = (
        "import dataclasses, os; from keras_resnet.weights import download, registry\n"
        "row = registry.find('resnet18')\n"
        f"row = dataclasses.replace(row, older=None, sha256={row.sha256!r})\n"
        "children = []\n"
        "for _ in range(4):\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        os.write(1, f'{download(row)}\\n'.encode())\n"
        "        os._exit(0)\n"
        "    children.append(child)\n"
        "for child in children:\n"
        "    os.waitpid(child, 0)\n"
    )
    variables = {name: os.environ[name] for name in ("KERAS_RESNET_HOME", ADDRESS)}
    done = run_imported(program, variables=variables)
    assert done.stdout.splitlines() == [str(tmp_path / "home" / row.file)] * 4, done.stderr
    assert len(server.requests) == 1


def test_builders_take_published_weights(server, tiny_rows, tmp_path, monkeypatch, caplog):
    """Two local files replace the published ones."""
    models = [keras_resnet.ResNet18() for _ in range(2)]
    files = [
        weights.save(model, tmp_path / f"{number}.pth").read_bytes()
        for number, model in enumerate(models)
    ]
    first, second = (row_of(content) for content in files)
    second = dataclasses.replace(second, name="IMAGENET1K_V2", accuracy=70.0)
    monkeypatch.setattr(registry, "REGISTRY", (first, second))
    server.content = files[0]
    with caplog.at_level(logging.INFO, "keras_resnet"):
        model = keras_resnet.ResNet18(weights="imagenet")
    accuracy = "accuracy 69.758 at 224 px, licence BSD-3-Clause"
    assert f"weights='imagenet' is IMAGENET1K_V1 ({accuracy}); the best is " in caplog.text
    assert "list_weights('resnet18') has all 9." in caplog.text
    check_equal(model, models[0])
    server.content = files[1]
    check_equal(keras_resnet.ResNet18(weights="IMAGENET1K_V2"), models[1])
    with pytest.raises(ValueError, match="There are: imagenet, IMAGENET1K_V1, IMAGENET1K_V2"):
        keras_resnet.ResNet18(weights="IMAGENET1K_V3")


def check_equal(model, other):
    for ours, theirs in zip(model.variables, other.variables, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


def test_the_default_folder_is_keras_own(monkeypatch):
    monkeypatch.delenv("KERAS_RESNET_HOME", raising=False)
    monkeypatch.delenv("KERAS_HOME", raising=False)
    assert module.folder() == Path.home() / ".keras" / "models"


def test_a_folder_that_cannot_be_written_to_is_read(server, tmp_path, monkeypatch):
    row = row_of(CONTENT)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / row.file).write_bytes(CONTENT)

    def refuse(*_, **__):
        raise PermissionError("read-only")

    monkeypatch.setattr("filelock.FileLock", refuse)
    assert weights.download(row) == tmp_path / "home" / row.file
