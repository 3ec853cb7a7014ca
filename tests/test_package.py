"""What importing the package does, and what the repository says."""

import re
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


ORDER = (
    *("files", "configs", "convolution", "layers", "blocks", "builder", "decoding"),
    *(
        "preprocessing",
        "weights",
        "models",
        "features",
        "conversion",
        "data",
        "visualize",
        "export",
        "training",
    ),
)


@pytest.mark.parametrize("room", ORDER)
def test_no_room_imports_a_higher_one(room):
    files = [ROOT / "keras_resnet" / f"{room}.py", *(ROOT / "keras_resnet" / room).glob("*.py")]
    text = "\n".join(file.read_text() for file in files if file.exists())
    imported = set(re.findall(r"from keras_resnet\.(\w+)", text))
    for line in re.findall(r"^\s*from keras_resnet import (.+)$", text, re.MULTILINE):
        imported.update(line.split(", "))
    higher = set(ORDER[ORDER.index(room) + 1 :])
    assert not imported & higher


@pytest.mark.parametrize("command", [("check", "."), ("format", "--check", ".")])
def test_style(command):
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *command], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
