"""The CIFAR networks: parameter counts of the paper, and published trained files."""

import keras
import numpy as np
import pytest
from small_networks import check_copies

import keras_resnet
from keras_resnet import weights
from keras_resnet.conversion import convert
from keras_resnet.weights import CheckpointError
from keras_resnet.weights.architecture import recognise

# Trainable parameters with shortcut A (parameter-free) and B (projections), 10 classes.
PARAMETERS = {
    "resnet20": (269722, 272474),
    "resnet32": (464154, 466906),
    "resnet44": (658586, 661338),
    "resnet56": (853018, 855770),
    "resnet110": (1727962, 1730714),
}
FILES = {"resnet20": "resnet20-12fca82f.th", "resnet56": "resnet56-4bfd9763.th"}
ACCURACY = {"resnet20": 0.910, "resnet56": 0.940}


def trainable(model):
    return sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)


@pytest.mark.parametrize(
    "name",
    [
        # The shallowest and a deep one; the others differ only in their depth.
        name if name in ("resnet20", "resnet56") else pytest.param(name, marks=pytest.mark.slow)
        for name in PARAMETERS
    ],
)
def test_parameters(name):
    models = [keras_resnet.create(name, **{"shortcut": "B"} if b else {}) for b in (False, True)]
    assert tuple(map(trainable, models)) == PARAMETERS[name]
    assert models[0].output_shape == (None, 10)


@pytest.fixture
def cifar(real_data):
    folder = real_data / "cifar10"
    with np.load(folder / "cifar10_test_0_499.npz") as images:
        pixels, labels = images["x"], images["y"]
    with np.load(folder / "reference_logits_0_499.npz") as references:
        logits = dict(references)
    return folder, pixels, labels, logits


@pytest.mark.parametrize("name", ["resnet20", pytest.param("resnet56", marks=pytest.mark.slow)])
def test_real_files_give_the_reference_logits(cifar, name):
    folder, pixels, labels, logits = cifar
    build = {"resnet20": keras_resnet.ResNet20, "resnet56": keras_resnet.ResNet56}[name]
    model = build(weights=folder / FILES[name], classes=10, classifier_activation=None)
    found = model.predict(keras_resnet.preprocess_input(pixels), batch_size=100, verbose=0)
    assert np.abs(found - logits[name]).max() <= 1e-4
    assert (found.argmax(axis=1) == labels).mean() == pytest.approx(ACCURACY[name])


@pytest.mark.parametrize("name", ["resnet20", pytest.param("resnet56", marks=pytest.mark.slow)])
def test_the_command_evaluates_them(cifar, name, command_here):
    folder, *_ = cifar
    options = ("--model", name, "--weights", folder / FILES[name])
    done = command_here("evaluate", *options, "--data", folder / "cifar10_test_0_499.npz")
    assert done.returncode == 0, done.stderr
    assert f"top-1 {ACCURACY[name]:.4f}" in done.stdout
    assert "500 images" in done.stdout


def test_converting_a_real_file(cifar, tmp_path):
    folder, pixels, _, logits = cifar
    assert convert(folder / FILES["resnet20"], tmp_path / "m.pth")[:2] == ("resnet20", 10)
    model = keras_resnet.ResNet20(weights=tmp_path / "m.pth", classifier_activation=None)
    found = model.predict(keras_resnet.preprocess_input(pixels[:50]), verbose=0)
    assert np.abs(found - logits["resnet20"][:50]).max() <= 1e-4


@pytest.mark.parametrize("shortcut", ["B", pytest.param("A", marks=pytest.mark.slow)])
def test_the_shortcut_is_told_by_the_file(shortcut, tmp_path):
    model = keras_resnet.ResNet20(shortcut=shortcut, classes=7)
    found = recognise(weights.to_state_dict(model))
    assert found.text == f"a resnet20 with shortcut {shortcut} and 7 classes"
    assert (found.variant, found.classes, found.shortcut) == ("resnet20", 7, shortcut)
    weights.save(model, tmp_path / "m.pth")
    name, classes, difference = convert(tmp_path / "m.pth", tmp_path / "m.keras", verify=True)
    assert (name, classes, difference) == ("resnet20", 7, 0)
    other = {"A": "B", "B": "A"}[shortcut]
    with pytest.raises(CheckpointError, match=f"resnet20 with shortcut {shortcut}"):
        keras_resnet.ResNet20(shortcut=other, classes=7, weights=tmp_path / "m.pth")


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_shortcut_a_takes_every_other_pixel_and_adds_zeros(data_format):
    """With a zero main path, the output is the shortcut, as defined in the paper."""
    shape = (8, 9, 3) if data_format == "channels_last" else (3, 8, 9)
    model = keras_resnet.ResNet20(include_top=False, input_shape=shape, data_format=data_format)
    block = model.get_layer("layer2.0")
    block.bn2.gamma.assign(np.zeros(32))
    x = np.random.default_rng(0).uniform(size=(2, 16, 8, 9)).astype(np.float32)
    expected = np.zeros((2, 32, 4, 5), np.float32)
    expected[:, 8:24] = x[:, :, ::2, ::2]
    if data_format == "channels_last":
        x, expected = (array.transpose(0, 2, 3, 1) for array in (x, expected))
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(block(x)), expected)


def test_saving_and_cloning(tmp_path):
    model = keras_resnet.ResNet20(classes=3, drop_path=0.1)
    x = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    check_copies(model, x, tmp_path)


@pytest.mark.parametrize(
    "arguments, said",
    [
        ({"shortcut": "C"}, "'A' or 'B'. Received: shortcut='C'"),
        ({"input_shape": (7, 32, 3)}, "at least 8x8"),
        ({"weights": "imagenet"}, "None are published for it; pass the path of a file"),
    ],
)
def test_bad_arguments(arguments, said):
    with pytest.raises(ValueError, match=said):
        keras_resnet.ResNet20(**arguments)


def test_channels_cannot_decrease_without_projection():
    with pytest.raises(ValueError, match="projection=True"):
        keras_resnet.blocks.BasicBlock(8).build((None, 4, 4, 16))


STEP = """
import resource, time
import keras, numpy as np, keras_resnet
start = time.time()
model = keras_resnet.ResNet1202()
built = time.time() - start
model.compile(keras.optimizers.SGD(0.1, 0.9), "sparse_categorical_crossentropy")
x = np.random.default_rng(0).normal(size=(16, 32, 32, 3)).astype("float32")
loss = model.train_on_batch(x, np.arange(16) % 10)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
count = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
print(count, built, float(loss), peak)
"""


@pytest.mark.slow
def test_resnet1202_trains(run_python):
    done = run_python("-c", STEP, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    count, seconds, loss, gibibytes = map(float, done.stdout.split())
    assert count == 19421274
    assert seconds < 60
    assert np.isfinite(loss)
    assert gibibytes < 8
