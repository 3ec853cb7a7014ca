"""What importing the package does, and what the repository says."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "matplotlib", "tensorflow_datasets", "onnx", "typer", "rich", "pydot")


def test_import_is_light(run_python):
    done = run_python(
        "-c",
        "import keras, sys; before = set(sys.modules)\n"
        "import keras_resnet\n"
        "new = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        f"print(sorted(new & set({HEAVY!r})))",
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_public_names_are_there_and_documented():
    import keras_resnet

    for name in keras_resnet.__all__:
        assert getattr(keras_resnet, name), name
    for name in keras_resnet.list_models():
        assert "Args:" in keras_resnet.models._BUILDERS[name].__doc__


@pytest.mark.parametrize(
    "command",
    [
        ("ruff", "check", "."),
        ("ruff", "format", "--check", "."),
        ("lint-imports", "--no-cache"),
        ("codespell",),
    ],
)
def test_the_repository_passes(command):
    program = Path(sys.executable).with_name(command[0])
    done = subprocess.run([program, *command[1:]], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
