"""Repositories on the Hugging Face hub, from a local server that imitates it.

It has the endpoint and headers that huggingface_hub uses: /OWNER/NAME/resolve/REVISION/FILE,
X-Repo-Commit, ETag, and for large files a redirect with X-Linked-Etag and X-Linked-Size.
"""

import csv
import dataclasses
import hashlib
import http.server
import json
import threading
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image
from torch_files import state_dict_file

import keras_resnet
from keras_resnet import trained, weights

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAMES = ["tulip", "rose", "daisy", "aster", "lily", "iris", "poppy"]
TIMM = {
    "architecture": "resnet18",
    "num_classes": 7,
    "label_names": NAMES,
    "pretrained_cfg": {
        **{"input_size": [3, 96, 96], "interpolation": "bicubic", "crop_pct": 0.95},
        **{"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "crop_mode": "squash"},
    },
}
PREPROCESSING = keras_resnet.Preprocessing(
    101, 96, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), False, "bicubic", "squash"
)
TRANSFORMERS = {
    "architectures": ["ResNetForImageClassification"],
    "model_type": "resnet",
    "id2label": {str(number): name for number, name in enumerate(NAMES)},
}
# As in microsoft/resnet-18.
PROCESSOR = {
    **{"crop_pct": 0.875, "do_normalize": True, "do_resize": True, "resample": 3, "size": 224},
    **{"feature_extractor_type": "ConvNextFeatureExtractor"},
    **{"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]},
}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.answer(with_body=False)

    def do_GET(self):
        self.answer(with_body=True)

    def answer(self, with_body):
        _, owner, name, *rest = self.path.split("/")
        if owner == "api":  # requests of huggingface_hub for itself
            return self.send(404, b"", with_body)
        self.server.requests.append((self.command, self.path, self.headers.get("Authorization")))
        if owner == "blobs":
            return self.send(200, (self.server.folder / name / rest[0]).read_bytes(), with_body)
        folder = self.server.folder / name
        _, revision, file = rest
        if not folder.is_dir():
            return self.send(401, b"", with_body, **{"X-Error-Code": "RepoNotFound"})
        if name == "gated":
            return self.send(403, b"", with_body, **{"X-Error-Code": "GatedRepo"})
        if revision not in ("main", "v1", COMMIT):
            return self.send(404, b"", with_body, **{"X-Error-Code": "RevisionNotFound"})
        said = {"X-Repo-Commit": COMMIT}
        if not (folder / file).is_file():
            return self.send(404, b"", with_body, **said, **{"X-Error-Code": "EntryNotFound"})
        content = (folder / file).read_bytes()
        digest = f'"{hashlib.sha256(content).hexdigest()}"'
        if file.endswith(".json"):
            return self.send(200, content, with_body, **said, ETag=digest)
        said |= {"X-Linked-Etag": digest, "X-Linked-Size": str(len(content))}
        return self.send(302, b"", with_body, **said, Location=self.blob(name, file))

    def blob(self, name, file):
        """Returns a URL on another host, as for large files on the hub."""
        return f"http://localhost:{self.server.server_port}/blobs/{name}/{file}"

    def send(self, status, content, with_body, **headers):
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if with_body:
            self.wfile.write(content)

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def repositories(tmp_path_factory, resnet18_state):
    """Folders like repositories: of timm, of transformers, one without weights, one gated.

    Two more have the names of timm's published weights.
    """
    folder = tmp_path_factory.mktemp("hub")
    files = {
        "timm": {"config.json": TIMM},
        "transformers": {"config.json": TRANSFORMERS, "preprocessor_config.json": PROCESSOR},
        "empty": {"config.json": TIMM},
        "resnet18.a1_in1k": {"config.json": TIMM},
        "resnet26.bt_in1k": {"config.json": TIMM},
        "gated": {},
    }
    for name, descriptions in files.items():
        (folder / name).mkdir()
        for file, said in descriptions.items():
            (folder / name / file).write_text(json.dumps(said))
        (folder / name / "README.md").write_text("not asked for")
    safetensors.numpy.save_file(dict(resnet18_state), folder / "timm" / "model.safetensors")
    for name in ("resnet18.a1_in1k", "resnet26.bt_in1k"):
        (folder / name / "model.safetensors").hardlink_to(folder / "timm" / "model.safetensors")
    state_dict_file(folder / "transformers" / "pytorch_model.bin", resnet18_state)
    return folder


@pytest.fixture
def hub(repositories, tmp_path):
    """The server; its `variables` make huggingface_hub use it."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.folder, server.requests = repositories, []
    server.variables = {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(tmp_path / "cache"),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "127.0.0.1,localhost",
    }
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


LOAD = """
import sys
import keras_resnet
said = keras_resnet.weights.preprocessing_of(sys.argv[1])
state = keras_resnet.weights.read_state_dict(sys.argv[1])
asked = "huggingface_hub.file_download" in sys.modules
print(said, len(state), float(state["fc.bias"].sum()), asked)
"""


def files_of(requests):
    return {Path(path).name for _, path, _ in requests}


def test_a_repository(hub, run_imported, resnet18_state):
    """Requests only needed files, once; with a revision, a token, or offline from the cache."""
    expected = f"{len(resnet18_state)} {float(resnet18_state['fc.bias'].sum())} True\n"
    done = run_imported(LOAD, "hf://timm/timm", variables={**hub.variables, "HF_TOKEN": "hf_me"})
    assert done.stdout == f"{PREPROCESSING} {expected}", done.stderr
    assert files_of(hub.requests) == {"config.json", "model.safetensors"}
    assert [path for command, path, _ in hub.requests if command == "GET"] == [
        f"/timm/timm/resolve/{revision}" if "config" in revision else revision
        for revision in ("main/config.json", "/blobs/timm/model.safetensors")
    ]
    said = {token for _, path, token in hub.requests if "resolve" in path}
    assert said == {"Bearer hf_me"}
    hub.requests.clear()
    done = run_imported(LOAD, "hf://timm/timm@v1", variables=hub.variables)
    assert done.stdout == f"{PREPROCESSING} {expected}", done.stderr
    assert not [path for command, path, _ in hub.requests if command == "GET"]
    assert any("/resolve/v1/" in path for _, path, _ in hub.requests)
    hub.requests.clear()
    offline = {**hub.variables, "HF_HUB_OFFLINE": "1"}
    done = run_imported(LOAD, "hf://timm/timm", variables=offline)
    assert done.stdout == f"{PREPROCESSING} {expected}", done.stderr
    done = run_imported(LOAD, "hf://timm/transformers", variables=offline)
    assert (
        "CheckpointError: config.json of hf://timm/transformers cannot be downloaded" in done.stderr
    )
    assert not hub.requests


def test_a_repository_of_transformers(hub, run_imported):
    """Its preprocessing is in a separate file, its weights in pytorch_model.bin."""
    usual = keras_resnet.Preprocessing(interpolation="bicubic")
    done = run_imported(LOAD, "hf://someone/transformers", variables=hub.variables)
    assert done.stdout.startswith(f"{usual} "), done.stderr
    assert files_of(hub.requests) == {
        *("config.json", "preprocessor_config.json"),
        *("model.safetensors", "pytorch_model.bin"),
    }


@pytest.mark.parametrize(
    "address, said",
    [
        ("hf://timm/nothing", "config.json of hf://timm/nothing cannot be downloaded: Repository"),
        ("hf://timm/gated", "cannot be downloaded: GatedRepoError"),
        ("hf://timm/timm@v9", "cannot be downloaded: RevisionNotFoundError"),
        ("hf://timm/empty", "but no model.safetensors or pytorch_model.bin"),
        ("hf://timm", "hf://owner/name or hf://owner/name@revision"),
    ],
)
def test_errors_of_repositories(hub, run_imported, address, said):
    program = f"import keras_resnet as k; k.ResNet18(weights={address!r})"
    done = run_imported(program, variables=hub.variables)
    assert done.returncode == 1 and said in done.stderr, done.stderr


def test_local_files_need_no_huggingface_hub(repositories, run_imported):
    """A local folder or file is read without importing huggingface_hub, which may be missing."""
    for source in (repositories / "timm", repositories / "timm" / "model.safetensors"):
        done = run_imported(LOAD, source)
        assert done.stdout.startswith(str(PREPROCESSING)) and done.stdout.endswith("False\n")
    missing = "import sys; sys.modules['huggingface_hub'] = None\n" + LOAD
    done = run_imported(missing, "hf://timm/timm")
    assert "pip install 'keras3-resnet[hub]'" in done.stderr


BY_NAME = """
import keras_resnet
model = keras_resnet.create("resnet18", weights="a1_in1k", classes=7)
print(model.preprocessing, float(model.get_layer("fc").bias.numpy().sum()))
"""


def test_published_weights_by_their_name(hub, run_imported, resnet18_state):
    """A name stands for a repository; its preprocessing is known without a request."""
    row = keras_resnet.list_weights("resnet18")[1]
    assert row.preprocessing == weights.preprocessing_of("a1_in1k", "resnet18")
    done = run_imported(BY_NAME, variables=hub.variables)
    bias = float(resnet18_state["fc.bias"].sum())
    assert done.stdout == f"{row.preprocessing} {bias}\n", done.stderr
    assert [path for command, path, _ in hub.requests if command == "GET"] == [
        "/timm/resnet18.a1_in1k/resolve/main/config.json",
        "/blobs/resnet18.a1_in1k/model.safetensors",
    ]
    missing = "import sys; sys.modules['huggingface_hub'] = None\n" + BY_NAME
    done = run_imported(missing, variables=hub.variables)
    assert "hf://timm/resnet18.a1_in1k is on the Hugging Face hub: pip install" in done.stderr
    done = run_imported(BY_NAME.replace("a1", "a2"), variables=hub.variables)
    assert "config.json of hf://timm/resnet18.a2_in1k cannot be downloaded" in done.stderr


def test_imagenet_is_the_best_where_torchvision_has_none(hub, run_imported):
    locate = (
        "from keras_resnet.weights.loading import locate; print(locate('imagenet', 'resnet26'))"
    )
    done = run_imported(locate, variables=hub.variables)
    assert done.stdout.endswith(f"{COMMIT}/model.safetensors\n"), done.stderr
    assert "models--timm--resnet26.bt_in1k" in done.stdout
    best = "bt_in1k (accuracy 76.384 at 288 px, licence apache-2.0)"
    assert f"weights='imagenet' is {best}. list_weights('resnet26') has all 1." in done.stderr


@pytest.fixture
def said(hub, run_imported):
    """Returns a function from a command's arguments to its output."""

    def run(*arguments):
        command = "import keras_resnet_cli; keras_resnet_cli.main()"
        done = run_imported(command, *arguments, variables=hub.variables)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_commands_that_look(said, hub):
    assert "a1_in1k" in said("list", "resnet18") and not hub.requests
    file = said("download", "resnet18", "--weights", "a1_in1k")
    assert "resnet18.a1_in1k" in file and file.endswith(f"{COMMIT}/model.safetensors\n")
    assert "published     resnet18 a1_in1k" in said("inspect", "hf://timm/resnet18.a1_in1k")
    assert said("download", "hf://timm/timm").endswith(f"{COMMIT}/model.safetensors\n")
    shown = said("inspect", "hf://timm/timm")
    assert "crop_mode='squash'" in shown and "timm's resnet18" in shown


@pytest.mark.slow
def test_commands_that_answer(said, hub, tmp_path):
    """predict and evaluate need only the address."""
    said("convert", "hf://timm/timm", "-o", tmp_path / "w.pth")
    assert (tmp_path / "w.pth").is_file()
    rng = np.random.default_rng(0)
    for name in sorted(NAMES):
        (tmp_path / "data" / name).mkdir(parents=True)
        pixels = rng.integers(0, 256, (110, 130, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "data" / name / "0.png")
    image = tmp_path / "data" / "rose" / "0.png"
    answer = json.loads(said("predict", image, "--weights", "hf://timm/timm", "--json"))
    local = trained.open_network(weights=hub.folder / "timm")
    assert local.preprocessing == PREPROCESSING and local.class_names == tuple(NAMES)
    (_, expected), *_ = local.predict([image])
    assert answer[0]["classes"] == [name for name, _ in expected]
    arguments = ("--weights", "hf://timm/timm", "--data", tmp_path / "data", "--json")
    found = json.loads(said("evaluate", *arguments, "-o", tmp_path / "answers.csv"))
    assert found["images"] == 7
    # The order of its classes differs from that of the folders.
    with (tmp_path / "answers.csv").open(newline="") as file:
        answers = {row["file"]: row["predicted"] for row in csv.DictReader(file)}
    assert answers[str(image)] == expected[0][0]


def test_a_folder(repositories):
    """Its network, classes and preprocessing are used by builders and by open_network."""
    model = keras_resnet.ResNet18(
        weights=repositories / "timm", classes=7, include_preprocessing=True
    )
    assert model.preprocessing == PREPROCESSING
    pixels = np.random.default_rng(0).integers(0, 256, (2, 96, 96, 3)).astype(np.float32)
    plain = keras_resnet.ResNet18(weights=repositories / "timm", classes=7)
    expected = plain.predict_on_batch((pixels / 255 - [0.5, 0.4, 0.3]) / [0.2, 0.3, 0.4])
    np.testing.assert_allclose(model.predict_on_batch(pixels), expected, atol=1e-5)
    assert keras_resnet.ResNet18(classes=7).preprocessing is None
    network = trained.Network.from_weights(None, repositories / "transformers")
    assert network.model.name == "resnet18" and network.class_names == tuple(NAMES)
    assert network.preprocessing == keras_resnet.Preprocessing(interpolation="bicubic")


def test_classes_of_other_names(repositories, tmp_path):
    """The folders are not named like the classes, so they cannot be assigned."""
    for name in sorted(NAMES):
        (tmp_path / name.upper()).mkdir()
        Image.new("RGB", (96, 96)).save(tmp_path / name.upper() / "0.png")
    network = trained.Network.from_weights(None, repositories / "timm")
    with pytest.raises(ValueError, match="The class names differ"):
        network.evaluate(tmp_path)


@pytest.mark.parametrize(
    "said, expected",
    [
        ({"pretrained_cfg": {}}, keras_resnet.Preprocessing(interpolation="bicubic")),
        (
            {"pretrained_cfg": {"input_size": [3, 64, 96], "crop_pct": 0.9, "mean": None}},
            keras_resnet.Preprocessing((71, 106), (64, 96), interpolation="bicubic"),
        ),
        ({"input_size": [3, 64, 64], "crop_pct": 1}, (64, "bicubic")),  # the older format
        ({"pretrained_cfg": {"input_size": [1, 64, 64]}}, None),
        ({"pretrained_cfg": {"interpolation": "lanczos"}}, "interpolation should be one of"),
        ({"pretrained_cfg": {"mean": [123, 116, 103]}}, "mean should be 3 numbers"),
        ({"pretrained_cfg": {"crop_pct": "1"}}, "is invalid: "),
        ({"pretrained_cfg": {"label_names": "ab"}}, (256, "bicubic")),
    ],
)
def test_what_a_config_of_timm_says(said, expected, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnet18", **said}))
    if isinstance(expected, str):
        with pytest.raises(weights.CheckpointError, match=expected):
            weights.preprocessing_of(tmp_path)
        return
    found = weights.preprocessing_of(tmp_path / "any.pth")
    if isinstance(expected, tuple):
        found = (found.resize, found.interpolation)
    assert found == expected


@pytest.mark.parametrize(
    "said, expected",
    [
        ({"size": {"shortest_edge": 224}, "crop_pct": 0.95}, (235, 224, "center")),
        ({"size": {"shortest_edge": 384}}, (384, 384, "squash")),
        ({"crop_pct": None, "size": None}, (384, 384, "squash")),
        (
            {
                **{"image_processor_type": "ViTImageProcessor", "resample": 2},
                "size": {"height": 160, "width": 192},
            },
            ((160, 192), (160, 192), "squash"),
        ),
        (
            {
                **{"image_processor_type": "BitImageProcessor", "do_center_crop": True},
                **{"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}},
            },
            (256, 224, "center"),
        ),
        ({"do_normalize": False}, "do_normalize=False"),
        ({"rescale_factor": 1 / 127.5}, "rescale_factor=0.0078"),
        ({"resample": 1}, "is missing"),
        ({"image_processor_type": "DetrImageProcessor"}, "not cropped to a common size"),
    ],
)
def test_what_a_processor_of_transformers_says(said, expected, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(TRANSFORMERS))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**PROCESSOR, **said}))
    if isinstance(expected, str):
        with pytest.raises(weights.CheckpointError, match=expected):
            weights.preprocessing_of(tmp_path)
        return
    found = weights.preprocessing_of(tmp_path)
    assert (found.resize, found.crop, found.crop_mode) == expected


def test_unsupported_preprocessing_is_reported(repositories, tmp_path, caplog):
    """The weights can be loaded, but evaluation needs explicit preprocessing."""
    folder = tmp_path / "lanczos"
    folder.mkdir()
    (folder / "model.safetensors").symlink_to(repositories / "timm" / "model.safetensors")
    other = {**TIMM, "pretrained_cfg": {"interpolation": "lanczos"}}
    (folder / "config.json").write_text(json.dumps(other))
    assert keras_resnet.ResNet18(weights=folder, classes=7).preprocessing is None
    assert "The preprocessing of these weights is not supported" in caplog.text
    assert "not supported" in weights.inspect(folder).preprocessing
    with pytest.raises(weights.CheckpointError, match="one of bilinear, bicubic"):
        trained.open_network(weights=folder)
    given = keras_resnet.Preprocessing(interpolation="bicubic")
    assert trained.open_network(weights=folder, preprocessing=given).preprocessing == given
    (folder / "config.json").write_text(json.dumps({**TIMM, "label_names": NAMES[1:]}))
    with pytest.raises(weights.CheckpointError, match="names 6 classes; the file has 7"):
        trained.open_network(weights=folder)


def test_a_saved_folder(tmp_path, caplog):
    """It can be read; an existing card is kept; what the format cannot express is rejected."""
    model = keras_resnet.ResNet20(input_shape=(32, 32, 3))
    used = keras_resnet.Preprocessing((40, 36), 32, exif=True)
    folder = weights.save_hub(model, tmp_path / "a" / "cifar", preprocessing=used)
    again = keras_resnet.ResNet20(weights=folder)
    assert again.preprocessing == used
    for key, value in weights.to_state_dict(model).items():
        np.testing.assert_array_equal(value, weights.to_state_dict(again)[key])
    assert "resnet20, 10 classes" in (folder / "README.md").read_text()
    (folder / "README.md").write_text("mine")
    weights.save_hub(again, folder)  # with the preprocessing of its weights
    assert weights.preprocessing_of(folder) == used
    assert (folder / "README.md").read_text() == "mine"
    with pytest.raises(ValueError, match="10 classes"):
        weights.save_hub(model, folder, class_names=["a", "b", "c"])
    with pytest.raises(ValueError, match="a dilated network"):
        weights.save_hub(keras_resnet.ResNet18(classes=3, output_stride=8), folder)
    with pytest.raises(ValueError, match="a single crop_pct for both sides"):
        weights.save_hub(keras_resnet.ResNet18(classes=3), folder, preprocessing=used)
    with pytest.raises(OSError, match="README"):
        weights.save_hub(model, folder / "README.md")


@pytest.mark.parametrize(
    "said, version",
    [
        ({"architecture": "resnet50"}, "v1.5"),
        ({"architecture": "tv_resnet50", "model_args": {"in_chans": 3}}, "v1.5"),
        ({"keras_resnet": {"version": "v1"}}, "v1"),
        ({"keras_resnet": {"version": "v1.5"}}, "v1.5"),
    ],
)
def test_a_config_says_the_version(said, version, tmp_path):
    """A builder rejects another version; commands build the one in the config."""
    other = {"v1": "v1.5", "v1.5": "v1"}[version]
    said = {"keras_resnet": {}} | said
    said["keras_resnet"] |= {"preprocessing": dataclasses.asdict(PREPROCESSING)}
    state = weights.to_state_dict(keras_resnet.ResNet50(classes=3))
    state_dict_file(tmp_path / "pytorch_model.bin", state)
    (tmp_path / "config.json").write_text(json.dumps(said))
    with pytest.raises(weights.CheckpointError, match=f"Build the model with version='{version}'"):
        keras_resnet.ResNet50(classes=3, weights=tmp_path, version=other)
    network = trained.open_network(weights=tmp_path).model
    assert {layer.version for layer in network.layers if hasattr(layer, "version")} == {version}


def test_invalid_version_in_a_config(repositories, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"keras_resnet": {"version": ["v1"]}}))
    path = tmp_path / "model.safetensors"
    path.symlink_to(repositories / "timm" / "model.safetensors")
    with pytest.raises(weights.CheckpointError, match="its version should be one of"):
        weights.read_state_dict(path)
    # Basic blocks have no versions, so the argument does not matter.
    keras_resnet.ResNet18(weights=repositories / "timm", classes=7, version="v1")


@pytest.mark.parametrize(
    "said, why",
    [
        ({"model_type": "resnet", "hidden_act": "gelu"}, "hidden_act='gelu', not ReLU"),
        ({"model_type": "detr", "backbone": "resnet18", "dilation": True}, "output_stride=16"),
        ({"model_type": "detr", "backbone": "resnet18", "dilation": False}, None),
        ({"model_type": "detr"}, None),
    ],
)
def test_a_config_without_architectures(said, why, tmp_path, resnet18_state):
    (tmp_path / "config.json").write_text(json.dumps(said))
    path = state_dict_file(tmp_path / "pytorch_model.bin", resnet18_state)
    model = keras_resnet.ResNet18(classes=7)
    if why is None:
        weights.load(model, path)
        return
    with pytest.raises(weights.CheckpointError, match=why):
        weights.load(model, path)
    if "stride" in why:
        assert why in weights.inspect(path).call
        weights.load(keras_resnet.ResNet18(classes=7, output_stride=16), path)
        with pytest.raises(weights.CheckpointError, match=why):
            weights.load(keras_resnet.ResNet18(classes=7, output_stride=8), path)
