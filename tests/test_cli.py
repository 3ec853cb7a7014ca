"""The command `keras-resnet`."""

import json
import os
import pickle
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_resnet
import keras_resnet_cli
from keras_resnet import weights


@pytest.fixture
def command(run_python):
    """Runs the command in a new process in an empty folder; warnings are errors there too."""
    return lambda *arguments: run_python("-m", "keras_resnet_cli", *arguments)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    model = keras_resnet.ResNet20(classes=7)
    return model, weights.save(model, tmp_path_factory.mktemp("saved") / "w.pth")


@pytest.fixture
def resnet20(saved, tmp_path):
    """A network and the path of w.pth with its weights."""
    model, file = saved
    return model, Path(shutil.copy(file, tmp_path))


@pytest.mark.parametrize("name", keras_resnet_cli.COMMANDS)
def test_help_has_an_example(name, command_here):
    done = command_here(name, "--help")
    assert done.returncode == 0
    assert f"Example: keras-resnet {name}" in done.stdout
    assert "--debug" in done.stdout
    assert ("--json" in done.stdout) == (name != "train")  # its run folder has JSON files


SAID = "a resnet20 with shortcut A and 7 classes"


def test_help_imports_nothing_large(run_python):
    done = run_python("-c", "import sys, keras_resnet_cli; print('keras' in sys.modules)")
    assert done.stdout.strip() == "False"


def test_list(command, command_here):
    done = command("list")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    names = [line.split()[0] for line in lines[1:] if line.startswith("  ")]
    assert sorted(names) == sorted(keras_resnet.list_models())
    assert max(map(len, lines)) <= 80
    assert done.stderr == ""
    rows = json.loads(command_here("list", "resnet50", "--json").stdout)
    files = ["resnet50-0676ba61.pth", "resnet50-11ad3fa6.pth", "hf://timm/resnet50.a1_in1k"]
    assert [row["file"] for row in rows][:3] == files


def test_list_of_a_pattern(command_here):
    """Networks by family, with a line for each weights file."""
    lines = command_here("list", "resnet?0[cd]").stdout.splitlines()
    assert lines[0].startswith("ResNet-C/D/S/T: ")
    assert lines[1].split() == "resnet50c top-1 px top-1 px classes licence".split()
    assert lines[2].split() == "gluon_in1k 78.016 224 1000 apache-2.0".split()
    assert lines[3].split()[0] == "resnet50d" and len(lines) == 10
    assert lines[-1].split() == "ra4_e3600_r224_in1k 80.956 224 81.840 288 1000 apache-2.0".split()
    every = command_here("list", "*").stdout.splitlines()
    assert max(map(len, every)) <= 80
    assert "  resnet200: none are published" in every
    some = command_here("list", "*", "--pretrained").stdout.splitlines()
    named = {line.split()[0] for line in some if line.endswith("licence")}
    assert named == set(keras_resnet.list_models(pretrained=True))
    assert set(some) < set(every) and not any("none are published" in line for line in some)


@pytest.mark.parametrize("closed", [(2,), (1,), (1, 2)], ids=str)
def test_streams_that_the_caller_closed(closed, command_here, monkeypatch):
    """Python starts without such a stream, and its file descriptor may be reused."""
    kept = {number: os.dup(number) for number in closed}
    try:
        for number in closed:
            monkeypatch.setattr(sys, ("stdin", "stdout", "stderr")[number], None)
            os.close(number)
        done = command_here("list", "wide_resnet101_2")
    finally:
        for number, duplicate in kept.items():
            os.dup2(duplicate, number)
            os.close(duplicate)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == (0 if 1 in closed else 6)


def test_a_reader_that_has_left(command_here, monkeypatch):
    reads, writes = os.pipe()
    os.close(reads)
    with os.fdopen(writes, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        done = command_here("list", "resnet50")
    assert (done.returncode, done.stderr) == (1, "")


STREAMS = {"no errors": "2>&-", "no output": ">&-", "neither": ">&- 2>&-", "no reader": "| true"}


@pytest.mark.slow
def test_streams_that_are_closed(tmp_path):
    """The output is the same, without errors on the remaining streams."""
    program = shlex.join([sys.executable, "-m", "keras_resnet_cli", "list", "wide_resnet101_2"])
    environment = {**os.environ, "PYTHONPATH": str(Path(keras_resnet.__file__).parents[1])}
    started = {
        name: subprocess.Popen(
            ["/bin/bash", "-c", f"{program} {how}; exit ${{PIPESTATUS[0]}}"],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name, how in STREAMS.items()
    }
    said = {name: (*process.communicate(), process.returncode) for name, process in started.items()}
    answer, *others = said.pop("no errors")
    assert len(answer.splitlines()) == 6 and others == ["", 0]
    assert said.pop("no reader") == ("", "", 1)
    assert said == {"no output": ("", "", 0), "neither": ("", "", 0)}


def test_inspect(command_here, resnet20):
    done = command_here("inspect", "w.pth")
    assert done.returncode == 0
    assert done.stderr == ""
    for part in ("layer3.2.conv2.weight", "[64, 64, 3, 3]", "zip container", SAID):
        assert part in done.stdout
    found = json.loads(command_here("inspect", "w.pth", "--json").stdout)
    assert (found["model"], found["classes"], found["container"]) == ("resnet20", 7, "zip")
    assert found["bytes"] == resnet20[1].stat().st_size
    assert {"name": "fc.bias", "dtype": "float32", "shape": [7], "bytes": 28} in found["tensors"]
    assert (found["layout"], found["head"]) == ("names of PyTorch", "fc")
    assert "assumed, not specified" in found["preprocessing"]
    call = "keras_resnet.create('resnet20', classes=7, weights='w.pth')"
    assert found["call"] == call and call in done.stdout


def test_inspect_keras_files(command_here, resnet20, tmp_path):
    model, _ = resnet20
    weights.save(model, tmp_path / "w.weights.h5")
    done = command_here("inspect", "w.weights.h5")
    assert "layers/dense/vars/0" in done.stdout
    assert "hdf5 container" in done.stdout
    assert SAID in done.stdout
    weights.save(model, tmp_path / "w.keras")
    assert SAID in command_here("inspect", "w.keras").stdout


@pytest.mark.real_data
def test_inspect_real_files(command_here, real_data):
    """File names end in the first digits of their hash."""
    done = command_here("inspect", real_data / "cifar10" / "resnet56-4bfd9763.th")
    assert "a resnet56 with shortcut A and 10 classes" in done.stdout
    assert "legacy container" in done.stdout
    assert "sha256        4bfd9763" in done.stdout


@pytest.mark.parametrize(
    "suffix",
    [
        ".safetensors",
        ".keras",
        *(pytest.param(s, marks=pytest.mark.slow) for s in (".pth", ".weights.h5")),
    ],
)
def test_convert_there_and_back(suffix, command_here, resnet20, tmp_path):
    model, _ = resnet20
    done = command_here("convert", "w.pth", "-o", f"x{suffix}", "--verify")
    assert done.returncode == 0, done.stderr
    assert "Verified: the largest difference between the outputs is 0." in done.stdout
    done = command_here("convert", f"x{suffix}", "-o", "y.pth", "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found = {"file": "y.pth", "model": "resnet20", "classes": 7, "difference": None}
    assert json.loads(done.stdout) == found
    back = weights.read_state_dict(tmp_path / "y.pth")
    for key, value in weights.to_state_dict(model).items():
        np.testing.assert_array_equal(back[key], value)


def test_files_without_architecture_need_model(command_here, resnet20):
    weights.save(resnet20[0], resnet20[1].with_name("w.weights.h5"))
    stages = json.loads(
        command_here("summary", "w.weights.h5", "--model", "resnet20", "--json").stdout
    )
    assert stages[-1]["channels"] == 7
    done = command_here("plot", "w.weights.h5", "--model", "resnet20", "--json")
    assert json.loads(done.stdout) == {"file": "resnet20.svg"}


def test_one_of_several_networks_in_a_file(command_here, resnet20, tmp_path):
    state = weights.to_state_dict(resnet20[0])
    average = {key: array + 1 for key, array in state.items()}
    (tmp_path / "w.pkl").write_bytes(pickle.dumps({"state_dict": state, "ema": average}))
    for command in (("inspect",), ("summary",), ("plot",), ("convert", "-o", "w.safetensors")):
        done = command_here(command[0], "w.pkl", *command[1:])
        assert done.returncode == 1 and "prefix='state_dict', prefix='ema'" in done.stderr
        done = command_here(command[0], "w.pkl", *command[1:], "--prefix", "ema")
        assert done.returncode == 0, done.stderr
    for key, array in weights.read_state_dict(tmp_path / "w.safetensors").items():
        if not key.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(array, average[key])


def test_convert_without_a_head_and_of_other_channels(command_here, tmp_path):
    model = keras_resnet.ResNet20(include_top=False, input_shape=(None, None, 4))
    weights.save(model, tmp_path / "w.safetensors")
    done = command_here("convert", "w.safetensors", "--output", "w.keras", "--verify")
    assert done.returncode == 0, done.stderr
    assert "resnet20, no head" in done.stdout
    loaded = keras.saving.load_model(tmp_path / "w.keras")
    assert loaded.input_shape == (None, None, None, 4)


@pytest.mark.slow
def test_convert_keras_applications(command_here, tmp_path):
    theirs = keras.applications.ResNet50(weights=None, classes=3, input_shape=(64, 64, 3))
    theirs.save_weights(tmp_path / "w.weights.h5")
    options = ("--model", "resnet50", "--version", "v1", "--verify")
    done = command_here("convert", "w.weights.h5", "-o", "w.keras", *options)
    assert done.returncode == 0, done.stderr
    loaded = keras.saving.load_model(tmp_path / "w.keras")
    x = np.random.default_rng(0).normal(size=(1, 64, 64, 3)).astype(np.float32)
    probabilities = keras.ops.softmax(loaded.predict_on_batch(x))
    np.testing.assert_allclose(probabilities, theirs.predict_on_batch(x), rtol=1e-4)


@pytest.mark.parametrize(
    "arguments, status, said",
    [
        (["inspect", "absent.pth"], 1, "absent.pth does not exist"),
        (["inspect", "text.pth"], 1, "is not a PyTorch, safetensors or Keras file"),
        (["inspect", "text.h5"], 1, "cannot be read as an HDF5 file"),
        (["convert", "w.pth", "-o", "w.onnx"], 1, "should end in one of .pth"),
        (["convert", "w.pth", "-o", "no/w.keras"], 1, "The folder no does not exist"),
        (["convert", "w.pth", "-o", "w.keras", "--model", "resnet32"], 1, "missing from the file"),
        (["convert", "w.pth", "-o", "w.keras", "--model", "resnet35"], 1, "Did you mean"),
        (["train", "--data", "no/image_size"], 1, "no folder no/image_size in"),
        (["train", "--data", "no", "--validation-split", "2"], 1, ": --validation-split should be"),
        (["list", "resnet51"], 1, "Did you mean resnet"),
        (["list", "resnet200", "--pretrained"], 1, "with published weights matches 'resnet200'"),
        (["list", "x*"], 1, "No network matches 'x*'"),
        (["shards", "no", "-o", "out"], 1, "The data folder no does not exist"),
        (["shards", "no", "-o", "text.h5"], 1, "text.h5 is a file"),
        (["train", "--data", "no", "-o", "text.h5/runs/1"], 1, "text.h5 is a file"),
        (["save-hub", "--run", "no", "-o", "/proc/hub"], 1, "folder /proc cannot be written to"),
        (["export", "no", "-o", "/proc/models"], 1, "The folder /proc cannot be written to"),
        (["export", "no", "-o", "text.h5"], 1, "text.h5 is a file"),
        (["export", "no", "--format", "onnx", "-o", "text.h5/w.onnx"], 1, "text.h5 is a file"),
        (["export", "no", "--format", "onnx", "-o", "out/w.pb"], 1, "should end in .onnx"),
        (["predict", "no.jpg", "--run", "no"], 1, "There is no file no.jpg"),
        (["download", "resnet18", "--weights", "IMAGENET1K_V2"], 1, "no such weights"),
        (["convert", "w.pth"], 2, "Missing option"),
        (["inspect"], 2, "Missing argument"),
        (["explane"], 2, "No such command"),
        (["list", "--yaml"], 2, "No such option"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_failures(arguments, status, said, command_here, resnet20, tmp_path):
    for name in ("text.pth", "text.h5"):
        (tmp_path / name).write_text("this is text")
    done = command_here(*arguments)
    assert done.returncode == status
    assert said in done.stderr
    if status == 1:
        assert len(done.stderr.splitlines()) == 1
        assert done.stderr.startswith("Error: ")
    assert not (tmp_path / "w.keras").exists()


@pytest.mark.parametrize(
    "arguments", [("inspect", "no.pth", "--debug"), ("--debug", "inspect", "no.pth")]
)
def test_debug_shows_the_traceback(arguments, command_here):
    """With --debug, the exception leaves the command, and Python prints the traceback."""
    with pytest.raises(weights.CheckpointError, match=r"no\.pth does not exist"):
        command_here(*arguments)


def test_it_is_installed_as_a_command():
    installed = Path(sys.executable).with_name("keras-resnet")
    assert "keras_resnet_cli import main" in installed.read_text()


def test_control_characters_in_files_are_not_printed(command_here, tmp_path):
    from safetensors.numpy import save_file

    save_file({"\x1b[31mred": np.zeros(1)}, tmp_path / "w.safetensors")
    done = command_here("inspect", "w.safetensors")
    assert "?[31mred" in done.stdout
    assert "\x1b[31m" not in done.stdout
