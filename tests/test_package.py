"""Importing the package, and files of the repository."""

import ast
import configparser
import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = (
    "torch",
    "matplotlib",
    "tensorflow_datasets",
    "onnx",
    "pyarrow",
    "faiss",
    "typer",
    "rich",
    "pydot",
)


def test_import_is_light(run_imported):
    done = run_imported("import json; print(json.dumps(IMPORTED))")
    imported = json.loads(done.stdout)
    assert "keras_resnet" in imported and not set(imported) & set(HEAVY)


def test_public_names_are_there_and_documented():
    import keras_resnet

    for name in keras_resnet.__all__:
        assert getattr(keras_resnet, name), name
    for name in keras_resnet.configs.builders():
        assert "Args:" in getattr(keras_resnet, name).__doc__


def test_what_is_imported_is_declared():
    """Each imported package, except the standard library, is a requirement or in an extra."""
    options = configparser.ConfigParser()
    options.read(ROOT / "setup.cfg")
    required = _distributions(options["options"]["install_requires"])
    extras = _distributions("\n".join(options["options.extras_require"].values()))
    installed = importlib.metadata.packages_distributions()
    own = {"keras_resnet", "keras_resnet_cli", *(f.stem for f in ROOT.glob("examples/**/*.py"))}
    found = set()
    for file in [*ROOT.glob("keras_resnet*/**/*.py"), *ROOT.glob("examples/**/*.py")]:
        for name in _imported(file) - own - sys.stdlib_module_names:
            allowed = (
                required | extras if name in OPTIONAL or "examples" in file.parts else required
            )
            distributions = _distributions("\n".join(installed.get(name, [name])))
            assert distributions & allowed, f"{file} imports {name}"
            found |= distributions & required
    assert found >= {"numpy", "ml-dtypes", "h5py", "tensorflow", "keras", "pillow"}


# Imported only for optional features, each with an extra.
OPTIONAL = (
    "ai_edge_litert",
    "faiss",
    "flatbuffers",
    "huggingface_hub",
    "jax",
    "onnx",
    "onnxruntime",
    "openvino",
    "pyarrow",
    "ray",
    "tensorboard",
    "torch",
)
OPTIONAL += ("tensorflow_serving", "tf2onnx")


def _imported(file):
    """Returns the packages that a file imports, also inside functions."""
    names = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.append(node.module)
    return {name.split(".")[0] for name in names}


def _distributions(requirements):
    names = re.findall(r"^\s*([A-Za-z][\w.-]*)", requirements, re.MULTILINE)
    return {name.lower().replace("_", "-") for name in names}


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
