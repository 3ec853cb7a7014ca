"""Names and types that editors and type checkers see."""

import ast
import inspect
import subprocess
import sys
import typing
from pathlib import Path

import pytest

import keras_resnet

ROOT = Path(__file__).parents[1]
RIGHT = """\
import keras_resnet
from keras_resnet import ResNet50, create, features, layers, visualize

model = ResNet50(True, None, classes=5, input_shape=(64, None, 3), dtype="mixed_float16")
backbone = features.pyramid(create("resnet18", weights="file.pth"), ("C3", "C4"))
trained, kept = features.freeze(model, "layer2")
total: int = trained + features.freeze_batch_norm(model) + len(features.all_layers(model))
shares = [stage.share for stage in visualize.summary(model)]
print(visualize.plot(model, "model.svg").name, sum(shares), keras_resnet.list_models())
with layers.convolution_path("native"):
    layers.BatchNormalization()(layers.Conv2D(8, 3, padding="symmetric")(0))
"""
WRONG = {
    "keras_resnet.ResNet50(poling=5)": 'Unexpected keyword argument "poling"',
    'keras_resnet.ResNet50(classes="5")': 'has incompatible type "str"; expected "int | None"',
    "keras_resnet.ResNett50()": 'Module has no attribute "ResNett50"',
    'keras_resnet.create("resnet50", input_shape=64)': "incompatible type",
    "keras_resnet.list_models() + 1": 'No overload variant of "__add__"',
    "keras_resnet.features.freeze(1)": 'Missing positional argument "until"',
    "keras_resnet.visualize.summary(None).total": 'has no attribute "total"',
}


@pytest.mark.slow
def test_mypy_on_code_of_a_user(tmp_path):
    """mypy --strict finds all mistakes and nothing else."""
    (tmp_path / "right.py").write_text(RIGHT)
    (tmp_path / "wrong.py").write_text("\n".join(["import keras_resnet", *WRONG]))
    options = ("--strict", "--config-file=", "--follow-imports=silent", "--cache-dir", "cache")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, "right.py", "wrong.py"],
        cwd=tmp_path,
        env={"MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    errors = [line for line in done.stdout.splitlines() if " error: " in line]
    assert len(errors) == len(WRONG), done.stdout + done.stderr
    for line, (error, said) in enumerate(zip(errors, WRONG.values(), strict=True), 2):
        assert error.startswith(f"wrong.py:{line}: ")
        assert said in error


def test_an_editor_completes():
    import jedi

    def completed(text):
        return {found.name for found in jedi.Script(f"import keras_resnet\n{text}").complete()}

    builders = set(keras_resnet.configs.builders())
    assert completed("keras_resnet.") >= set(keras_resnet.__all__) - {"__version__"}
    assert completed("keras_resnet.Res") == {name for name in builders if name.startswith("Res")}
    assert completed("keras_resnet.features.pyr") == {"pyramid"}
    (signature,) = jedi.Script("import keras_resnet\nkeras_resnet.ResNet50(").get_signatures()
    ours = inspect.signature(keras_resnet.ResNet50).parameters
    assert [parameter.name for parameter in signature.params] == list(ours)


def test_static_names_equal_public_names():
    """A new builder needs its name in `keras_resnet/__init__.py` too."""
    tree = ast.parse(Path(keras_resnet.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    names = {"__version__", "blocks", "layers"}
    for node in block.body[1:]:
        if isinstance(node, ast.ImportFrom):
            names |= {alias.asname for alias in node.names}
        else:
            names |= {target.id for target in node.targets}
    assert names == set(keras_resnet.__all__)


def public(module):
    """Yields (name, function or class) for all public names of a module, with methods."""
    for name in module.__all__:
        found = getattr(module, name)
        if inspect.isfunction(found) or inspect.isclass(found):
            yield name, found
        if inspect.isclass(found):
            for method, function in vars(found).items():
                if inspect.isfunction(function) and not method.startswith("_"):
                    yield f"{name}.{method}", function


@pytest.mark.parametrize(
    "subpackage",
    [
        *("blocks", "configs", "conversion", "data", "export", "features", "layers", "models"),
        *("preprocessing", "trained", "training", "visualize", "weights"),
    ],
)
def test_public_functions_have_types(subpackage):
    for name, found in public(getattr(keras_resnet, subpackage)):
        if inspect.isclass(found) and "__init__" not in vars(found):
            continue  # an exception, with the arguments of Python's
        function = found.__init__ if inspect.isclass(found) else inspect.unwrap(found)
        hints = getattr(function, "__annotations__", {})
        parameters = [parameter for parameter in inspect.signature(function).parameters]
        missing = set(parameters) - set(hints) - {"self"}
        assert not missing, f"{subpackage}.{name}: {missing}"
        assert inspect.isclass(found) or "return" in hints, f"{subpackage}.{name}"
        typing.get_type_hints(function)
