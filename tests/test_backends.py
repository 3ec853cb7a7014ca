"""The networks with TensorFlow, JAX and PyTorch: equal outputs, training and saving."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from small_networks import small

import keras_resnet

pytestmark = pytest.mark.backend
TESTS = str(Path(__file__).parent)
BACKENDS = ("tensorflow", "jax", "torch")
NAMES = ("resnext", "cifar", "efficient", "preactivation")

# Run with each backend: load a .pth file, predict, take a training step, save a .keras file.
PROGRAM = """
import os, sys, keras, numpy as np, keras_resnet
from keras_resnet.models import create
sys.path.insert(0, {tests!r})
backend = keras.backend.backend()
assert backend == os.environ["KERAS_BACKEND"]
from small_networks import CONFIGS
x = np.load("x.npy")
for name in {names}:
    model = create(CONFIGS[name], classes=3)
    keras_resnet.weights.load(model, f"{{name}}.pth")
    answers = {{"before": model.predict_on_batch(x)}}
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "sparse_categorical_crossentropy")
    answers["loss"] = model.train_on_batch(x, np.arange(8) % 3)
    for key, value in keras_resnet.weights.to_state_dict(model).items():
        answers[key] = value
    answers["after"] = model.predict_on_batch(x)
    np.savez(f"{{name}}-{{backend}}.npz", **answers)
    model.save(f"{{name}}-{{backend}}.keras")
"""
LOADING = """
import sys, keras, numpy as np, keras_resnet
names, *savers = sys.argv[1:]
for name in names.split():
    for saver in savers:
        # With PyTorch, Keras has its own optimizer classes, which other backends cannot load.
        model = keras.saving.load_model(f"{name}-{saver}.keras", compile=False)
        found = model.predict_on_batch(np.load("x.npy"))
        expected = np.load(f"{name}-{saver}.npz")["after"]
        assert np.abs(found - expected).max() <= 1e-4, (name, saver)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with images and the weights of small networks as PyTorch files."""
    folder = tmp_path_factory.mktemp("backends")
    for name in NAMES:
        keras_resnet.weights.save(small(name), folder / f"{name}.pth")
    np.save(folder / "x.npy", np.random.default_rng(0).normal(size=(8, 32, 32, 3)))
    return folder


@pytest.fixture
def answers(folder, tmp_path, run_python):
    """The outputs and files of each backend, also copied to the current folder of programs."""
    for backend in BACKENDS:
        if not (folder / f"resnext-{backend}.keras").exists():
            shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
            done = run_python(
                "-c", PROGRAM.format(tests=TESTS, names=NAMES), variables={"KERAS_BACKEND": backend}
            )
            assert done.returncode == 0, done.stderr[-2000:]
            shutil.copytree(tmp_path, folder, dirs_exist_ok=True)
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    return folder


@pytest.mark.parametrize("backend", ["jax", "torch"])
@pytest.mark.parametrize("name", NAMES)
def test_answers_and_a_step_are_those_of_tensorflow(answers, name, backend):
    ours, theirs = (np.load(answers / f"{name}-{which}.npz") for which in (backend, "tensorflow"))
    assert set(ours) == set(theirs)
    np.testing.assert_allclose(ours["before"], theirs["before"], atol=1e-5)
    np.testing.assert_allclose(ours["loss"], theirs["loss"], rtol=1e-5)
    for key in theirs:
        # After a step at rate 0.1: rounding of the gradient, which batch normalization amplifies.
        error = np.abs(ours[key] - theirs[key]).max() / np.abs(theirs[key]).max()
        assert error <= 1e-3, key


@pytest.mark.parametrize("backend", BACKENDS)
def test_files_of_one_backend_load_under_the_others(answers, backend, run_python):
    savers = [other for other in BACKENDS if other != backend]
    done = run_python("-c", LOADING, " ".join(NAMES), *savers, variables={"KERAS_BACKEND": backend})
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_features_of_tensorflow_only_raise_errors(backend, run_python, tmp_path):
    program = (
        "import keras_resnet\n"
        "from keras_resnet.layers import convolution_path\n"
        "model = keras_resnet.ResNet20(classes=3)\n"
        "for call in (lambda: keras_resnet.export.saved_model(model, 'm'),\n"
        "             lambda: keras_resnet.export.onnx(model, 'm.onnx'),\n"
        "             lambda: keras_resnet.export.litert(model, 'm.tflite'),\n"
        "             lambda: keras_resnet.ResNet20(synchronized=True),\n"
        "             lambda: convolution_path('onednn').__enter__()):\n"
        "    try:\n"
        "        call()\n"
        "    except ValueError as error:\n"
        "        print(error)\n"
    )
    done = run_python("-c", program, variables={"KERAS_BACKEND": backend})
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("TensorFlow") >= 5
    assert os.listdir(tmp_path) == []
