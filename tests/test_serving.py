"""Servers and clients with an exported SavedModel."""

import contextlib
import http.server
import io
import json
import os
import runpy
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import requests
import serving_double
import tensorflow as tf
import yaml
from google.protobuf import text_format
from hostile_images import gif_with_a_large_frame, many_scans
from PIL import Image
from small_networks import small

import keras_resnet
from keras_resnet import export

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples" / "serving"
NAMES = ["daisy", "rose", "tulip"]
PREPROCESSING = keras_resnet.Preprocessing(36, 32)


@pytest.fixture(scope="module")
def flowers(tmp_path_factory):
    """Two versions of a model with warm-up requests, and the models."""
    folder = tmp_path_factory.mktemp("serving") / "flowers"
    models = []
    for seed in range(2):
        models.append(small("cifar", seed=seed))
        version = export.saved_model(
            models[-1], folder, preprocessing=PREPROCESSING, class_names=NAMES, top_k=2
        )
        export.write_warmup(version, batch_sizes=(1, 4))
    return folder, models


def encoded(count=3):
    rng = np.random.default_rng(0)
    for number in range(count):
        stream = io.BytesIO()
        pixels = rng.integers(0, 256, (40 + 9 * number, 60, 3), np.uint8)
        Image.fromarray(pixels).save(stream, ("JPEG", "PNG", "BMP")[number % 3])
        yield stream.getvalue()


def expected(model, images):
    return model(np.stack([PREPROCESSING(image) for image in images])).numpy()


def test_warmup_requests_run(flowers):
    """Every signature and batch size runs, read with the protos of TensorFlow Serving."""
    from tensorflow_serving.apis import prediction_log_pb2

    folder, _ = flowers
    file = folder / "1" / "assets.extra" / "tf_serving_warmup_requests"
    logs = [
        prediction_log_pb2.PredictionLog.FromString(record.numpy())
        for record in tf.data.TFRecordDataset(str(file))
    ]
    served = serving_double.Served("flowers", {1: folder / "1"}, {})
    sizes = []
    for log in logs:
        request = log.predict_log.request
        inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
        spec = request.model_spec
        outputs = served.run(spec.name, None, None, spec.signature_name, inputs)
        sizes.append((spec.signature_name, len(outputs["probabilities"])))
    assert sizes == [
        ("serving_default", 1),
        ("serving_default", 4),
        ("tensor", 1),
        ("tensor", 4),
    ]


def test_the_configuration_files_are_valid():
    """They parse with the server's own protos; the compose file names existing files."""
    from tensorflow_serving.config import model_server_config_pb2

    config = text_format.Parse(
        (EXAMPLES / "models.config").read_text(), model_server_config_pb2.ModelServerConfig()
    )
    (model,) = config.model_config_list.config
    versions = list(model.model_version_policy.specific.versions)
    assert dict(model.version_labels) == {"stable": 1, "canary": 2} and versions == [1, 2]
    compose = yaml.safe_load((EXAMPLES / "docker-compose.yml").read_text())
    service = compose["services"]["serving"]
    mounted = dict(volume.split(":")[:2] for volume in service["volumes"])
    files = {target: EXAMPLES / source for source, target in mounted.items()}
    assert files.pop("/models") == EXAMPLES / "models"
    assert all(file.is_file() for file in files.values())
    assert model.base_path.startswith("/models/")
    named = [word.split("=")[1] for word in service["command"] if "_config_file=" in word]
    assert set(named) <= set(files)


@pytest.fixture
def run_example(monkeypatch, capsys):
    """Runs an example in this process, which saves the import time of a new one."""
    monkeypatch.syspath_prepend(EXAMPLES)  # the examples import each other by name

    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return ended.value.code, capsys.readouterr().out

    return run


def test_requests_of_the_clients(flowers, tmp_path, run_example):
    """A server that follows the protocols answers them with the SavedModel."""
    import grpc
    import grpc_client
    import rest_client

    folder, models = flowers
    served = serving_double.Served(
        "flowers", {1: folder / "1", 2: folder / "2"}, {"stable": 1, "canary": 2}
    )
    images = list(encoded())
    with serving_double.rest(served) as url, serving_double.grpc_server(served) as host:
        for label, model in (("stable", models[0]), ("canary", models[1]), (None, models[1])):
            probabilities = expected(model, images)
            answers = rest_client.ask(rest_client.address(url, "flowers", label), images)
            found = [answer["probabilities"] for answer in answers]
            np.testing.assert_allclose(found, probabilities, rtol=1e-4)
            best = probabilities.argsort(1)[:, :0:-1]
            assert [a["classes"] for a in answers] == [[NAMES[i] for i in row] for row in best]
            with grpc.insecure_channel(host) as channel:
                message = grpc_client.request("flowers", {"image_bytes": images}, label=label)
                outputs = grpc_client.ask(channel, message)
                np.testing.assert_allclose(outputs["probabilities"], probabilities, rtol=1e-4)
                inputs = np.stack([PREPROCESSING(image) for image in images])
                message = grpc_client.request("flowers", {"images": inputs}, "tensor", label)
                outputs = grpc_client.ask(channel, message)
                np.testing.assert_allclose(outputs["probabilities"], probabilities, rtol=1e-4)
        picture, broken = tmp_path / "rose.jpg", tmp_path / "broken.jpg"
        picture.write_bytes(images[0])
        broken.write_bytes(images[0][:200])
        for client, where in (("rest_client.py", "--url"), ("grpc_client.py", "--host")):
            server = url if where == "--url" else host
            code, said = run_example(client, picture, where, server, "--version", 1)
            file, _, answer = said.partition(": ")
            assert not code and file == str(picture) and len(json.loads(answer)) == 2
            message, _ = run_example(client, broken, where, server)  # printed by Python
            assert message.startswith("Error: ") and "Traceback" not in message
            assert "400" in message or "INVALID_ARGUMENT" in message


@contextlib.contextmanager
def web_server():
    """A server without a model: it answers every POST with a page and status 200."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>\n<p>Hello</p>\n</html>")

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


CLIENTS = ("rest_client.py", "load.py", "grpc_client.py")


@pytest.mark.parametrize("client", CLIENTS)
def test_errors_of_the_clients(client, flowers, tmp_path, run_example):
    folder, _ = flowers
    picture = tmp_path / "rose.jpg"
    picture.write_bytes(next(encoded()))
    served = serving_double.Served("flowers", {1: folder / "1"}, {})
    by_grpc = client == "grpc_client.py"

    def said(image, host, *arguments):
        where = ("--host", host) if by_grpc else ("--url", f"http://{host}")
        message, _ = run_example(client, image, *where, *arguments)  # printed by Python
        assert message.startswith("Error: ") and "\n" not in message
        return message

    assert said("no.jpg", "localhost:1") == "Error: no.jpg: No such file or directory"
    assert said(tmp_path, "localhost:1") == f"Error: {tmp_path}: Is a directory"
    with web_server() as host:
        unfit = said(picture, host)
    nobody = said(picture, host)  # the server has stopped
    with serving_double.rest(served) as url, serving_double.grpc_server(served) as grpc_host:
        rest_host = url.removeprefix("http://")
        right, wrong = (grpc_host, rest_host) if by_grpc else (rest_host, grpc_host)
        unknown = said(picture, right, "--model", "roses")
        assert wrong in said(picture, wrong)
    if by_grpc:
        assert "NOT_FOUND" in unknown and "UNAVAILABLE" in nobody and host in unfit
    else:
        assert "404" in unknown and "Cannot connect" in nobody and "no predictions" in unfit


@contextlib.contextmanager
def litserve(version, tmp_path):
    """Starts the example's server on the loopback interface; yields its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, EXAMPLES / "litserve_server.py", version, "--port", str(port)]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        for _ in range(300):
            with contextlib.suppress(requests.ConnectionError):
                if requests.get(f"{url}/health", timeout=5).text == "ok":
                    break
            assert server.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.2)
        yield url
        server.terminate()
        assert server.wait(5) == 0
        said = (tmp_path / "log").read_text()
        assert not [word for word in ("Traceback", "oneDNN", "cuda", "absl") if word in said], said
        with pytest.raises(requests.ConnectionError):  # its child processes have ended too
            requests.get(f"{url}/health", timeout=5)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def png_bomb(side):
    """Returns a PNG of a few bytes that claims to be `side` x `side`."""

    def chunk(kind, content):
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    rows = zlib.compress(b"\0" * 10_000)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


def gif_of_many_frames():
    """Returns a GIF of some kilobytes, of which TensorFlow would decode all frames."""
    stream = io.BytesIO()
    frames = [Image.new("P", (2000, 2000), number % 2) for number in range(20)]
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:])
    return stream.getvalue()


@pytest.mark.slow
def test_litserve_ends_while_it_starts(flowers, tmp_path):
    folder, _ = flowers
    with (tmp_path / "log").open("w+") as log:
        command = [sys.executable, EXAMPLES / "litserve_server.py", folder / "1", "--port", "8599"]
        server = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            while "Uvicorn running" not in (tmp_path / "log").read_text():
                assert server.poll() is None
                time.sleep(0.1)
            time.sleep(1)
            server.terminate()
            assert server.wait(5) == 0
            assert "Traceback" not in (tmp_path / "log").read_text()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)


@pytest.mark.slow
def test_litserve(flowers, tmp_path, run_example):
    import load
    import rest_client

    folder, models = flowers
    images = list(encoded(4))
    probabilities = expected(models[0], images)
    with litserve(folder / "1", tmp_path) as url:
        where = rest_client.address(url, "flowers")
        answers, _ = load.load(where, images, 200, 8)
        for number, answer in enumerate(answers):
            wanted = probabilities[number % len(images)]
            np.testing.assert_allclose(answer["probabilities"], wanted, rtol=1e-4)
        scans = many_scans(Image.new("L", (1500, 1500)), 500)
        bombs = (png_bomb(20_000), png_bomb(8_000), gif_of_many_frames(), scans)
        for bad, code in (
            (b"no image", 400),
            (b"", 400),
            (images[0][: len(images[0]) // 2], 400),
            *((bomb, 413) for bomb in bombs),
            (b"\0" * 50_000_000, 413),
        ):
            answer = requests.post(where, json=rest_client.body([images[0], bad]), timeout=60)
            assert answer.status_code == code and answer.json()["detail"], answer.text
        for content in (
            b"{",
            b"[]",
            b'{"instances": []}',
            b'{"instances": NaN}',
            b'{"instances": [{"b64": "?"}]}',
            '{"instances": [{"b64": "é"}]}'.encode(),
            json.dumps({**rest_client.body(images[:1]), "signature_name": "tensor"}),
        ):
            answer = requests.post(
                where, data=content, headers={"Content-Type": "application/json"}, timeout=60
            )
            assert 400 <= answer.status_code < 500
        answer = requests.post(where, json=rest_client.body([png_bomb(5_000)] * 3), timeout=60)
        assert answer.status_code == 413 and "50,000,000 pixels" in answer.text  # together
        picture = tmp_path / "rose.jpg"
        picture.write_bytes(images[0])
        _, said = run_example("load.py", picture, "--url", url, "--requests", 9, "--clients", 2)
        assert "9 requests by 2 clients" in said
        # An incomplete request blocks neither other requests nor the shutdown.
        half = socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])))
        head = "POST /v1/models/flowers:predict HTTP/1.1\r\nHost: a\r\nContent-Length: 100"
        half.sendall(f"{head}\r\n\r\n{{".encode())
        for given in (images[:1], [gif_with_a_large_frame(60_000)]):
            (answer,) = rest_client.ask(where, given)  # the server still responds
            expectation = expected(models[0], given)[0]
            np.testing.assert_allclose(answer["probabilities"], expectation, rtol=1e-4)
    half.close()
