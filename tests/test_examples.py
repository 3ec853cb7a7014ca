"""The example programs."""

import csv
import json
import re
import runpy
from pathlib import Path

import numpy as np
import pytest
from small_networks import small

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def flowers(tmp_path_factory, draw_flowers):
    return draw_flowers(tmp_path_factory.mktemp("data") / "flowers", train=4, val=2)


def main(name):
    """Returns the main function of an example."""
    return runpy.run_path(EXAMPLES / name)["main"]


@pytest.mark.slow
def test_train_and_predict(flowers, tiny_rows, folder_here, capsys):
    main("train_flowers.py")(
        data_dir=flowers,
        model="resnet18",
        image_size=32,
        epochs=1,
        batch_size=8,
        output=Path("out"),
    )
    said = capsys.readouterr().out
    assert "20 training images, 10 validation images" in said
    assert "daisy, dandelion, rose, sunflower, tulip" in said
    assert "run in a new process" in said
    image = next((flowers / "val").rglob("*.jpg"))
    main("predict.py")([image], run=Path("out"))
    assert "probability" in capsys.readouterr().out


def test_predict(flowers, folder_here, capsys):
    """With a minimal run folder."""
    (run := folder_here / "out").mkdir()
    small(classes=2, input_shape=(32, 32, 3)).save(run / "best.keras")
    (run / "class_indices.json").write_text('{"0": "rose", "1": "tulip"}')
    recipe = {"resize": 36, "image_size": 32, "mean": [0.5] * 3, "std": [0.2] * 3}
    (run / "recipe.json").write_text(json.dumps(recipe))
    predict = main("predict.py")
    predict([next((flowers / "val").rglob("*.jpg"))], run=Path("out"))
    assert "probability" in capsys.readouterr().out
    assert (folder_here / "prediction.png").stat().st_size > 5000

    (folder_here / "text.jpg").write_text("no image")
    with pytest.raises(SystemExit, match=r"^Error: .*cannot be decoded"):
        predict([folder_here / "text.jpg"], run=Path("out"))


def test_errors_are_one_message_and_leave_nothing(folder_here):
    with pytest.raises(SystemExit, match=r"^Error: .*missing does not exist"):
        main("train_flowers.py")(data_dir=Path("missing"))
    assert not list(folder_here.iterdir())


@pytest.mark.real_data
@pytest.mark.slow
def test_photographs(real_data, run_python, tmp_path):
    done = run_python(
        *(EXAMPLES / "train_flowers.py", "--data-dir", real_data / "flowers"),
        *("--model", "resnet18", "--image-size", 64, "--epochs", 2, "--output", "photos"),
    )
    assert done.returncode == 0, done.stderr
    with (tmp_path / "photos" / "predictions.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 100


@pytest.mark.slow
def test_the_drawn_flowers_are_learned(run_python, tmp_path):
    done = run_python(EXAMPLES / "train_flowers.py", timeout=600)
    assert done.returncode == 0, done.stderr
    assert "drawings, not photographs" in done.stdout
    accuracy = float(done.stdout.split("Validation accuracy ")[1].split()[0].rstrip("."))
    assert accuracy >= 0.90


@pytest.mark.real_data
@pytest.mark.slow
def test_fine_tuning_photographs(real_data, run_python, tmp_path):
    done = run_python(EXAMPLES / "fine_tune.py", "--data", real_data / "flowers", timeout=600)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "runs" / "fine_tune" / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["phase"] for row in rows[:6]] == ["head"] * 5 + ["network"]
    accuracies = [float(row["val_accuracy"]) for row in rows]
    assert max(accuracies) > max(accuracies[:5])


@pytest.mark.slow
def test_a_thousand_layers_train(run_python, tmp_path):
    """All networks take three steps, including the deepest, with less than 8 GB."""
    program = (
        "import resource, runpy, sys\n"
        f"sys.path.insert(0, {str(EXAMPLES)!r})\n"
        "import degradation\n"
        "degradation.main(images=12, side=8, epochs=1, batch_size=4)\n"
        "print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)\n"
        "network = degradation.build('pre-activation', 1001, 8, 5)\n"
        "layers = degradation.keras_resnet.features.all_layers(network)\n"
        "kinds = (degradation.keras.layers.Conv2D, degradation.keras.layers.Dense)\n"
        "print('layers', sum(isinstance(layer, kinds) for layer in layers))\n"
    )
    done = run_python("-c", program, timeout=600)
    assert done.returncode == 0, done.stderr
    losses = dict(re.findall(r"^([\w-]+): loss (\d+\.\d+)", done.stdout, re.MULTILINE))
    assert len(losses) == 6 and np.isfinite(float(losses["pre-activation-1001"]))
    assert float(re.search(r"peak (.*)", done.stdout)[1]) < 8
    # Three stages have a projection.
    assert int(re.search(r"layers (.*)", done.stdout)[1]) == 1001 + 3
    assert (tmp_path / "degradation.png").stat().st_size > 5000


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["imagenet_v1", "imagenet_v2"])
def test_imagenets_recipes(recipe, run_python, tmp_path):
    done = run_python(EXAMPLES / "train_imagenet.py", "--smoke", "--recipe", recipe)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "runs" / "imagenet" / "history.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 2
