"""Shared fixtures. Never imports keras: the parity suite has to import torch first."""

import json
import logging
import os
import re
import shutil

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Test processes run in parallel: none may reserve all of a GPU's memory.
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")

import subprocess
import sys
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


# Long files start first, so that one process does not finish long after the other.
LONGEST = ("test_training.py", "test_bad_images.py", "test_exporting.py", "test_image_folder.py")


def pytest_ignore_collect(collection_path, config):
    """Skips tests/parity, which imports torch and more, unless its markers are selected."""
    wanted = re.search(r"(?<!not )(parity|sweep)", config.option.markexpr)
    if collection_path == ROOT / "tests" / "parity" and not wanted:
        return True
    return None


def pytest_collection_modifyitems(items):
    """Runs the files with the longest tests first."""
    items.sort(key=lambda item: item.path.name not in LONGEST)
    if sys.version_info >= (3, 13):
        # OpenVINO 2026.4's own code fails there; users get an error that says so.
        fails = pytest.mark.xfail(reason="OpenVINO cannot convert TensorFlow models")
        for item in items:
            if "openvino" in item.name:
                item.add_marker(fails)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """Escapes what is not valid UTF-8, such as file names in logs: xdist sends reports as UTF-8."""
    report = yield
    report.sections = [
        (name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections
    ]
    return report


@pytest.fixture
def real_data():
    """The folder of photographs and trained weights; skips the test without it."""
    folder = os.environ.get("KERAS_RESNET_TEST_DATA")
    if not folder:
        pytest.skip("KERAS_RESNET_TEST_DATA is not set to the folder of real data")
    return Path(folder)


@pytest.fixture
def run_python(tmp_path):
    """Runs a program in a new process, in an empty folder; returns the completed process."""

    def run(*arguments, variables=None, **options):
        command = [sys.executable, *map(str, arguments)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **(variables or {})}
        return subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, env=environment, **options
        )

    return run


@pytest.fixture(scope="session")
def imported():
    """A process that has imported the package and forks for each line of JSON; see forked.py."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, ROOT / "tests" / "forked.py"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=environment, text=True, **pipes) as process:
        yield process
        process.stdin.close()


@pytest.fixture
def run_imported(imported, tmp_path):
    """Like `run_python("-c", ...)`, but the package is already imported, which saves seconds.

    Each program runs in a new process: it shares no state with the tests or with other programs.
    """

    def run(program, *arguments, variables=None):
        streams = {name: tmp_path / f".{name}" for name in ("stdout", "stderr")}
        order = {
            "program": program,
            "arguments": list(map(str, arguments)),
            "folder": str(tmp_path),
            "variables": variables or {},
            **{name: str(file) for name, file in streams.items()},
        }
        imported.stdin.write(json.dumps(order) + "\n")
        imported.stdin.flush()
        status = int(imported.stdout.readline())
        said = {name: file.read_text() for name, file in streams.items()}
        for file in streams.values():
            file.unlink()
        return types.SimpleNamespace(returncode=status, **said)

    return run


@pytest.fixture
def folder_here(tmp_path, monkeypatch):
    """An empty current folder for a program that runs in this process.

    Changes to the package's logger are undone.
    """
    logger = logging.getLogger("keras_resnet")
    for name in ("level", "propagate", "handlers"):
        monkeypatch.setattr(logger, name, getattr(logger, name))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def command_here(folder_here, monkeypatch, capfd):
    """Runs `keras-resnet` in this process, which saves the import time of a new one."""
    import keras_resnet_cli

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["keras-resnet", *map(str, arguments)])
        monkeypatch.setattr(keras_resnet_cli.terminal, "debug", False)
        capfd.readouterr()
        try:
            keras_resnet_cli.main()
            status = 0
        except SystemExit as done:
            status = done.code or 0
        output, errors = capfd.readouterr()
        return types.SimpleNamespace(returncode=status, stdout=output, stderr=errors)

    return run


@pytest.fixture(scope="module")
def tiny_rows():
    """Replaces resnet18 and resnet20 by tiny networks until the end of the module."""
    from small_networks import tiny_rows

    with tiny_rows():
        yield


@pytest.fixture(scope="session")
def draw_flowers(tmp_path_factory):
    """`data.drawn_flowers`, but each picture is drawn only once per test process."""
    from keras_resnet import data

    every = data.drawn_flowers(tmp_path_factory.mktemp("drawn") / "flowers", train=9, val=3)

    def drawn(folder, *, train, val):
        for part, count in (("train", train), ("val", val)):
            for file in every.glob(f"{part}/*/*.jpg"):
                if int(file.stem) < count:
                    target = folder / file.relative_to(every)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(file, target)
        return folder

    return drawn


@pytest.fixture(scope="session")
def resnet18_state():
    """The state_dict of a ResNet-18 with 7 classes and deterministic values; read-only arrays."""
    from golden.rule import array

    import keras_resnet

    shapes = keras_resnet.weights.to_state_dict(keras_resnet.ResNet18(classes=7))
    state = {key: array(key, value.shape) for key, value in shapes.items()}
    for value in state.values():
        value.flags.writeable = False
    return types.MappingProxyType(state)
