"""A complete small training: the run folder, and using its network."""

import contextlib
import csv
import dataclasses
import io
import json
import logging
import os
import random
import shutil
import sys
import tempfile
from pathlib import Path

import filelock
import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps
from tensorflow.python.framework import config

import keras_resnet
from keras_resnet import data, trained, training, weights
from keras_resnet.data import datasets
from keras_resnet.data.locations import training_sources
from keras_resnet.data.source import stream_source
from keras_resnet.trained.fingerprint import Fingerprint
from keras_resnet.training import checkpoint
from keras_resnet.training.phases import Training
from keras_resnet.training.report import finish
from keras_resnet.training.run_folder import locked, run_folder

FILES = {
    *("best.keras", "best.pth", "last.keras", "class_indices.json", "recipe.json", "history.csv"),
    *("curves.png", "confusion_matrix.png", "mistakes.png", "predictions.csv", "skipped.csv"),
    *("model.svg", "saved_model", "tensorboard", "report.md", "data.safetensors"),
}


@pytest.fixture(scope="module")
def finished(tiny_rows, draw_flowers, tmp_path_factory):
    """A run with two phases, trained with a relative path of the data."""
    folder = tmp_path_factory.mktemp("training")
    flowers = draw_flowers(folder / "flowers", train=6, val=3)
    # 5 % broken files, both in training and in validation data.
    (flowers / "train" / "rose" / "notes.jpg").write_text("no image")
    whole = (flowers / "val" / "tulip" / "000.jpg").read_bytes()
    (flowers / "val" / "tulip" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    # The recipe does not specify preprocessing, so that of the weights is used.
    used = keras_resnet.Preprocessing(36, 32, std=(0.25, 0.25, 0.25), interpolation="bicubic")
    weights.save_hub(keras_resnet.ResNet18(classes=5), folder / "start", preprocessing=used)
    recipe = training.named_recipe(
        "fine_tune",
        data="flowers",
        weights=str(folder / "start"),
        image_size=32,
        head_epochs=2,
        epochs=1,
        batch_size=8,
        ema_momentum=0.5,
        warmup_epochs=0,
    )
    with contextlib.chdir(folder):
        return training.train(recipe, folder / "run"), flowers, recipe.located()


@pytest.fixture(scope="module")
def network(finished):
    """The run's best network."""
    return trained.open_network(finished[0])


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_run_folder(finished):
    folder, flowers, _ = finished
    assert {entry.name for entry in folder.iterdir()} == FILES
    indices = json.loads((folder / "class_indices.json").read_text())
    assert indices == dict(enumerate_strings(["daisy", "dandelion", "rose", "sunflower", "tulip"]))
    written = json.loads((folder / "recipe.json").read_text())
    assert written["data"] == str(flowers)  # also valid in other folders
    assert written["image_size"] == 32
    assert written["resize"] == 36
    assert written["mean"] == [0.485, 0.456, 0.406] and written["std"] == [0.25] * 3
    assert (written["interpolation"], written["crop_mode"]) == ("bicubic", "center")
    network = trained.open_network(folder)
    assert network.preprocessing == training.Recipe.from_json(json.dumps(written)).preprocessing
    assert written["classes"] == list(indices.values())
    assert written["command"].startswith("python ")
    history = rows(folder / "history.csv")
    assert [row["phase"] for row in history] == ["head", "head", "network"]
    assert {"loss", "accuracy", "val_loss", "val_accuracy"} <= history[0].keys()
    skipped = rows(folder / "skipped.csv")
    assert {row["file"]: row["reason"].split(" (")[0] for row in skipped} == {
        str(flowers / "train" / "rose" / "notes.jpg"): "it is not an image",
        str(flowers / "val" / "tulip" / "cut.jpg"): "it is damaged",
    }
    report = (folder / "report.md").read_text()
    assert "| class | train | validate | right |" in report and "| rose | 7 | 3 |" in report
    assert "Missing" not in report
    for part in ("notes.jpg", "cut.jpg", "curves.png", "mistakes.png", "tulip", "tensorflow"):
        assert part in report


def enumerate_strings(names):
    return ((str(number), name) for number, name in enumerate(names))


def test_predictions_model_and_saved_model_agree(finished, network):
    folder, _, _ = finished
    predictions = rows(folder / "predictions.csv")
    assert len(predictions) == 15
    contents = [Path(row["file"]).read_bytes() for row in predictions]
    probabilities = network.probabilities(contents)
    loaded = tf.saved_model.load(folder / "saved_model" / "1")
    answer = loaded.signatures["serving_default"](image_bytes=tf.constant(contents))
    np.testing.assert_allclose(answer["probabilities"], probabilities, atol=1e-5)
    for row, mine, classes in zip(predictions, probabilities, answer["classes"], strict=True):
        assert row["predicted"] == network.class_names[mine.argmax()] == classes[0].numpy().decode()
        assert float(row["probability"]) == pytest.approx(mine.max(), abs=1e-5)
    best = max(float(row["val_accuracy"]) for row in rows(folder / "history.csv"))
    right = sum(row["label"] == row["predicted"] for row in predictions)
    assert right / 15 == pytest.approx(best, abs=1e-6)


def test_the_best_epoch_is_kept(finished):
    folder, _, _ = finished
    best = keras.saving.load_model(folder / "best.keras")
    torch_weights = weights.read_state_dict(folder / "best.pth")
    for key, value in weights.to_state_dict(best).items():
        np.testing.assert_array_equal(torch_weights[key], value)
    last = keras.saving.load_model(folder / "last.keras")
    assert [v.path for v in best.variables] == [v.path for v in last.variables]


def test_tensorboard(finished):
    from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer

    folder, _, _ = finished
    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(folder / "tensorboard")).Reload()
    runs = multiplexer.Runs()
    assert set(runs) == {"train", "validation"}
    history = rows(folder / "history.csv")
    for run, prefix in (("train", ""), ("validation", "val_")):
        for name in ("loss", "accuracy", "top5"):
            events = multiplexer.Tensors(run, f"epoch_{name}")
            found = [float(tf.make_ndarray(event.tensor_proto)) for event in events]
            expected = [float(row[prefix + name]) for row in history]
            np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert "epoch_learning_rate" in runs["train"]["tensors"]
    assert {"training images, augmented", "confusion_matrix", "mistakes"} <= set(
        runs["validation"]["tensors"]
    )


def test_a_finished_run_is_kept(finished, tmp_path):
    folder, _, _ = finished
    recipe = training.Recipe()
    assert run_folder(folder, recipe) == folder.with_name("run-2")
    assert run_folder(tmp_path / "new", recipe) == tmp_path / "new"
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file"):
        run_folder(tmp_path / "file", recipe)


def test_a_run_that_is_finished_meanwhile_is_kept(tmp_path, monkeypatch):
    """It ends after this process has chosen the folder and before it has locked it."""
    folder = tmp_path / "runs" / "run"

    class Late(filelock.FileLock):
        def acquire(self, *arguments, **options):
            if Path(self.lock_file).parent == folder:
                (folder / "report.md").write_text("Done.")
            return super().acquire(*arguments, **options)

    monkeypatch.setattr(filelock, "FileLock", Late)
    folder.mkdir(parents=True)
    (folder / "recipe.json").write_text("{}")
    with locked(folder, training.Recipe()) as chosen:
        assert chosen == folder.with_name("run-2")
    # Left by a process that is killed after writing its report.
    for name in ("checkpoint.safetensors", ".lock", ".7.report.md"):
        (folder / name).write_text("")
    assert run_folder(folder, training.Recipe()) == folder.with_name("run-2")
    assert {entry.name for entry in folder.iterdir()} == {"recipe.json", "report.md"}
    assert [entry.name for entry in folder.parent.iterdir()] == ["run"]


def test_an_unfinished_run_goes_on_with_the_same_recipe_only(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "recipe.json").write_text('{"epochs": 3, "classes": ["a"], "command": "x"}')
    recipe = training.Recipe(epochs=3)
    # Fields missing in older releases have their default; the location of the data may change.
    assert run_folder(folder, recipe) == folder
    assert run_folder(folder, recipe.changed({"data": "elsewhere"})) == folder
    with pytest.raises(ValueError, match="epochs was 3 and is 4"):
        run_folder(folder, recipe.changed({"epochs": 4}))
    with pytest.raises(ValueError, match="decay_all was False and is True"):
        run_folder(folder, recipe.changed({"decay_all": True}))
    another = pytest.raises(ValueError, match="Another process is training")
    with locked(folder, recipe), another, locked(folder, recipe):
        pass
    (folder / ".123.best.keras").write_text("half")
    (folder / ".env").write_text("mine")
    with locked(folder, recipe):
        assert {entry.name for entry in folder.iterdir()} == {".lock", "recipe.json", ".env"}
    assert {entry.name for entry in folder.iterdir()} == {"recipe.json", ".env"}
    for text, said in (
        ('{"epochs": 3, "sharpness": 0.5}', "is invalid: A recipe has no field sharpness"),
        ('{"augmentation": {"blur": 1}}', r"recipe\.json .* has no field augmentation\.blur"),
        ('{"epochs": ', r"recipe\.json is damaged: line 1, .* another release"),
    ):
        (folder / "recipe.json").write_text(text)
        with pytest.raises(ValueError, match=said):
            run_folder(folder, recipe)
    (folder / "recipe.json").unlink()
    assert run_folder(folder, recipe) == folder.with_name("run-2")


def test_bad_data_writes_nothing(tmp_path):
    recipe = training.Recipe(data=str(tmp_path / "missing"))
    with pytest.raises(ValueError, match="missing does not exist"):
        training.train(recipe, tmp_path / "run")
    with pytest.raises(ValueError, match="recipe has no data"):
        training.train(training.Recipe(), tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written(finished):
    _, _, recipe = finished
    with pytest.raises(OSError, match="The training in /proc/run stopped"):
        training.train(recipe, "/proc/run")


@pytest.fixture
def short(finished):
    """A recipe of one epoch, in one phase."""
    _, flowers, _ = finished
    return training.Recipe(
        data=str(flowers), model="resnet20", image_size=32, epochs=1, batch_size=8
    )


@pytest.fixture
def undrawn(finished, tmp_path, monkeypatch):
    """Returns a function from a recipe to a run folder without pictures, and its warnings."""
    python = tmp_path / "python"  # without a program for diagrams beside it
    python.symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    warnings = io.StringIO()
    (handler := logging.StreamHandler(warnings)).setLevel(logging.WARNING)
    logging.getLogger("keras_resnet").addHandler(handler)

    def begun(recipe):
        (run := tmp_path / "run").mkdir()
        written = json.loads((finished[0] / "recipe.json").read_text())
        added = ("resize", "mean", "std", "classes", "command")
        asked = json.loads(recipe.to_json()) | {name: written[name] for name in added}
        (run / "recipe.json").write_text(json.dumps(asked))
        (run / "tensorboard").write_text("no folder")
        return run, warnings

    yield begun
    logging.getLogger("keras_resnet").removeHandler(handler)


def test_a_loss_of_nan(short, undrawn):
    """Before that, optional files that cannot be created do not stop the training."""
    recipe = short.changed({"optimizer": "sgd", "learning_rate": 1e30})
    run, warnings = undrawn(recipe)
    with pytest.raises(training.TrainingError, match="at step 2 of 3 in epoch 1") as error:
        training.train(recipe, run)
    assert "learning rate of 1e+30" in str(error.value)
    assert not (run / "checkpoint.safetensors").exists()
    for name in ("model.svg", "tensorboard"):
        assert warnings.getvalue().count(f"Could not create {name}: ") == 1


@pytest.mark.slow
def test_optional_files_never_stop_the_training(short, undrawn):
    """There is one warning for each, and the report lists what is missing."""
    run, warnings = undrawn(short)
    assert training.train(short, run) == run
    pictures = {"model.svg", "curves.png", "confusion_matrix.png", "mistakes.png"}
    assert {entry.name for entry in run.iterdir()} == FILES - pictures
    report = (run / "report.md").read_text()
    for name in (*pictures, "tensorboard"):
        assert warnings.getvalue().count(f"Could not create {name}: ") == 1
        assert f"| {name} | " in report
    assert "No program to draw diagrams was found" in report
    assert "![" not in report


def test_save_hub_of_a_run(finished, tmp_path, command_here):
    folder, flowers, _ = finished
    done = command_here("save-hub", "--run", folder, "-o", tmp_path / "flowers")
    assert done.returncode == 0 and "hf upload OWNER/NAME" in done.stdout, done.stderr
    ours, again = (
        trained.open_network(folder),
        trained.open_network(weights=tmp_path / "flowers"),
    )
    assert (again.preprocessing, again.class_names) == (ours.preprocessing, ours.class_names)
    assert again.evaluate(str(flowers)).rows == ours.evaluate(str(flowers)).rows
    card = (tmp_path / "flowers" / "README.md").read_text()
    assert f"| accuracy | {ours.evaluate(str(flowers)).top1:.4g} |" in card
    assert '"schedule": "cosine"' in card and str(flowers) not in card


def test_two_phases(finished):
    """First the head, on features that are computed once; then all stages that are not frozen."""
    run, _, _ = finished
    assert not list(run.glob(".*"))
    before = weights.read_state_dict(run.with_name("start") / "model.safetensors")
    after = weights.to_state_dict(keras.saving.load_model(run / "last.keras"))
    for key, value in after.items():
        moved = key.startswith(("layer3", "layer4", "fc"))
        assert np.array_equal(value, before[key]) != moved, key
    assert trained.Network.from_run(run).model.dtype_policy.name == "float32"


@pytest.mark.slow
def test_the_end_does_not_read_the_images_again(finished, tmp_path):
    """For streams, only the validation data and images for pictures are read."""
    folder, flowers, _ = finished
    run = shutil.copytree(folder, tmp_path / "run")
    recipe = training.Recipe.from_json((run / "recipe.json").read_text())
    images = [file.read_bytes() for file in sorted((flowers / "val").glob("*/001.jpg"))]
    read = []

    def source(count):
        def noted(number):
            read.append(count)
            return number

        def example(number):
            number = tf.ensure_shape(tf.py_function(noted, [number], tf.int64), ())
            return tf.strings.as_string(number), tf.gather(images, number % 5), number % 5

        def examples(key, start):
            dataset = tf.data.Dataset.range(count).map(example)
            return datasets.shuffled(dataset, key).skip(tf.cast(start, tf.int64))

        return stream_source(trained.Network.from_run(run).class_names, count, examples)

    state = checkpoint.TrainingState((5000, 1500))
    for row in rows(run / "history.csv"):
        state.history.append(
            {name: value if name == "phase" else float(value) for name, value in row.items()}
        )
    skipped = data.Skipped(), data.Skipped()
    sources = source(5000), source(1500)
    done = Training(recipe, None, None, sources, skipped, run, None, training.Distribution())
    finish(done, state, note=None, command="x")
    assert read.count(5000) < 2000
    assert 1500 < read.count(1500) < 3000
    report = (run / "report.md").read_text()
    assert "| class | validate | right |" in report and "| rose | 300 | " in report
    with Image.open(run / "mistakes.png") as drawn:
        assert np.asarray(drawn.convert("L")).std() > 5


def test_errors_of_incomplete_runs_and_bad_images(tmp_path, finished, network):
    with pytest.raises(
        ValueError, match=r"best\.keras, class_indices\.json, recipe\.json not found"
    ):
        trained.Network.from_run(tmp_path)
    with pytest.raises(ValueError, match="Image 1 cannot be decoded"):
        _, flowers, _ = finished
        good = next((flowers / "val").rglob("*.jpg")).read_bytes()
        network.probabilities([good, b"no image"])


def test_old_names_warn_and_work(finished, network, tmp_path):
    folder, flowers, _ = finished
    image = next((flowers / "val").rglob("*.jpg"))
    (answer,) = dict(network.predict([image])).values()
    with pytest.warns(DeprecationWarning, match=r"training\.Run was renamed to trained\.Network"):
        run = training.Run.open(folder)
    assert run.name_files([image]) == {image: answer}
    assert run.predict([image.read_bytes()])[0].max() == pytest.approx(answer[0][1])
    assert run.model().count_params() == network.model.count_params()
    with pytest.warns(DeprecationWarning, match=r"trained\.Network\.explain"):
        explained = training.explain(image, tmp_path / "seen.png", run=folder)
    assert explained.class_name == answer[0][0] and explained.picture.is_file()
    with pytest.warns(DeprecationWarning, match=r"training\.Distribution"):
        assert training.Placement is training.Distribution
    with pytest.raises(AttributeError, match="no attribute 'Runs'"):
        training.Runs  # noqa: B018


def test_evaluation(finished, network, tmp_path):
    """Accuracies of a run and of its weights file equal those in history.csv."""
    folder, flowers, _ = finished
    history = rows(folder / "history.csv")
    best = max(history, key=lambda row: float(row["val_accuracy"]))
    found = network.evaluate(str(flowers))
    assert len(found.rows) == 15
    assert found.top1 == pytest.approx(float(best["val_accuracy"]), abs=1e-6)
    assert found.loss == pytest.approx(float(best["val_loss"]), rel=1e-4)
    assert found.top5 == 1.0
    assert len(found.skipped) == 1
    other = trained.open_network(
        model="resnet18",
        weights=folder / "best.pth",
        preprocessing={"crop": 32},
    ).evaluate(str(flowers))
    assert other.rows == found.rows
    assert other.loss == pytest.approx(found.loss, rel=1e-5)
    for arguments, said in (
        ({"run": folder, "model": "resnet18"}, "Pass either run"),
        ({"model": "resnet18"}, "Pass either run"),
        ({"weights": "imagenet"}, "Pass model"),
    ):
        with pytest.raises(ValueError, match=said):
            trained.open_network(**arguments)
    larger = trained.open_network(folder, preprocessing={"crop": 64})
    assert larger.model.input_shape[1:3] == (64, 64) and larger.preprocessing.resize == 72
    assert [row[:2] for row in larger.evaluate(str(flowers)).rows] == [
        row[:2] for row in found.rows
    ]
    np.savez(tmp_path / "x.npz", x=np.zeros((2, 32, 32, 3), np.uint8), y=[0, 1])
    with pytest.raises(ValueError, match="The classes differ"):
        network.evaluate(str(tmp_path / "x.npz"))


def test_mirrored_images_are_averaged(finished, network):
    """The mean of the outputs for an image and for its mirror image by Pillow."""
    _, flowers, _ = finished
    files = sorted((flowers / "val" / "daisy").glob("*"))[:3]
    contents, mirrored = [], []
    for file in files:
        for kept, image in zip(
            (contents, mirrored),
            (Image.open(file), ImageOps.mirror(Image.open(file))),
            strict=True,
        ):
            image.convert("RGB").save(stream := io.BytesIO(), "PNG")
            kept.append(stream.getvalue())
    expected = (network.probabilities(contents) + network.probabilities(mirrored)) / 2
    found = network.probabilities(contents, flip=True)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert np.abs(found - network.probabilities(contents)).max() > 1e-3
    flipped = network.evaluate(str(flowers), flip=True)
    assert {row[3] for row in flipped.rows} != {
        row[3] for row in network.evaluate(str(flowers)).rows
    }


def test_training_images_are_not_evaluated(finished, tmp_path, monkeypatch):
    """For a folder without parts, also after it is moved, and with any form of its path."""
    folder, flowers, _ = finished
    split = {"validation_split": 0.5, "seed": 7}
    photos = shutil.copytree(flowers / "train", tmp_path / "photos")
    (photos / "rose" / "notes.jpg").unlink()
    sources = training_sources(photos, **split)
    aside = {file for file, *_ in sources[1].examples(None, 0).as_numpy_iterator()}
    names = {os.path.relpath(os.fsdecode(file), photos) for file in aside}
    run = shutil.copytree(folder, tmp_path / "run")
    recipe = json.loads((run / "recipe.json").read_text())
    (run / "recipe.json").write_text(json.dumps({**recipe, "data": "photos", **split}))
    Fingerprint.of(sources).write(run)

    network = trained.open_network(run)

    def counted(data):
        found = network.evaluate(data)
        return found.counted, found.trained, {row[0] for row in found.rows}

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    said = "the 15 images set aside for validation"
    assert counted(photos) == (said, 0, {str(photos / name) for name in names})
    photos = photos.rename(elsewhere / "moved")
    assert counted("moved") == (said, 0, {f"moved/{name}" for name in names})
    shutil.copy(flowers / "val" / "rose" / "000.jpg", photos / "rose" / "new.jpg")
    assert counted(photos)[:2] == ("all 31 images; 15 of them were used in training", 15)
    # Another folder with the same classes at the old location.
    other = data.drawn_flowers(tmp_path / "drawn", train=1, val=1, seed=5) / "train"
    other.rename(elsewhere / "photos")
    assert counted("photos")[:2] == ("all 5 images; 0 of them were used in training", 0)
    classes = recipe["classes"]
    np.savez("x.npz", x=np.zeros((5, 32, 32, 3), np.uint8), y=range(5), classes=classes)
    assert counted("x.npz")[:2] == (
        "all 5 images; it is unknown how many of them were used in training",
        None,
    )


@pytest.mark.slow
def test_data_of_a_resumed_training(finished, tmp_path):
    """It has to be the same, at any location; otherwise, the error lists the changes."""
    folder, flowers, recipe = finished
    run = shutil.copytree(folder, tmp_path / "run")
    (run / "report.md").unlink()
    checkpoint.save(run, checkpoint.TrainingState((31, 16)), {})
    moved = shutil.copytree(flowers, tmp_path / "moved")
    known = Fingerprint.read(run)
    known.check(training_sources(moved), run)
    (moved / "train" / "rose").rename(moved / "train" / "a")
    (moved / "train" / "tulip").rename(moved / "train" / "rose")
    (moved / "train" / "a").rename(moved / "train" / "tulip")
    with pytest.raises(data.DataError, match=r"removed, .* of rose, .*; added, .* rose/000.jpg"):
        training.train(recipe.changed({"data": str(moved)}), run)
    assert json.loads((run / "recipe.json").read_text())["data"] == str(flowers)

    def said(change):
        photos = shutil.copytree(flowers, tmp_path / change.__name__)
        change(photos / "train")
        with pytest.raises(data.DataError, match="The data has changed") as error:
            known.check(training_sources(photos), run)
        return str(error.value)

    def renamed(photos):
        for part in ("train", "val"):
            (photos.parent / part / "rose").rename(photos.parent / part / "roses")

    def moved_to_another_class(photos):
        (photos / "rose" / "001.jpg").rename(photos / "tulip" / "rose1.jpg")

    def replaced(photos):
        (photos / "rose" / "001.jpg").write_bytes((photos / "tulip" / "002.jpg").read_bytes())

    def gone(photos):
        (photos / "daisy" / "005.jpg").unlink()

    assert "removed classes: rose; new classes: roses." in said(renamed)
    found = said(moved_to_another_class)
    assert (
        "removed, or with another size: 1 of rose; added, or with another size: tulip/rose1.jpg."
        in found
    )
    assert "1 of rose; added, or with another size: rose/001.jpg." in said(replaced)
    assert "47 files before, 46 now" in (found := said(gone))
    assert "removed, or with another size: 1 of daisy; added, or with another size: none." in found


def test_a_damaged_fingerprint(finished, tmp_path):
    folder, _, _ = finished
    known = Fingerprint.read(folder)
    dataclasses.replace(known, groups=[("rose", 2**60)]).write(tmp_path)
    with pytest.raises(data.DataError, match=r"data\.safetensors cannot be read"):
        Fingerprint.read(tmp_path)
    (tmp_path / "data.safetensors").write_bytes((folder / "data.safetensors").read_bytes()[:60])
    with pytest.raises(data.DataError, match=r"data\.safetensors cannot be read"):
        Fingerprint.read(tmp_path)


def test_the_fingerprints_of_shards_and_of_data_sets(finished, tmp_path):
    tensorflow_datasets = pytest.importorskip("tensorflow_datasets")
    folder, flowers, _ = finished
    for name in ("one", "other"):
        data.write_shards(flowers, tmp_path / name, shards=2, seed=len(name))
    sources = [training_sources(tmp_path / name) for name in ("one", "other")]
    known = Fingerprint.of(sources[0])
    known.check(training_sources(shutil.copytree(tmp_path / "one", tmp_path / "two")), folder)
    assert (known.find(sources[0][0]), known.find(sources[0][1])) == ((False, 30), (True, 0))
    with pytest.raises(data.DataError, match=r"00000-of-00002\.tfrecord"):
        known.check(sources[1], folder)
    builder = tensorflow_datasets.ImageFolder(str(flowers))
    train, val = datasets.tfds_sources(builder)
    known = Fingerprint.of((train, val))
    known.check(datasets.tfds_sources(builder), folder)
    assert (known.find(train)[1], known.find(val)) == (train.count, (True, 0))
    with pytest.raises(data.DataError, match="The data has changed"):
        known.check((val, train), folder)


def test_a_training_leaves_the_caller_as_it_was():
    """Random numbers drawn afterwards are the same as without the training."""

    def drawn():
        uniform = (tf.random.uniform(()), keras.random.uniform(()))
        return [random.random(), np.random.rand(), *map(float, uniform)]  # noqa: S311

    keras.utils.set_random_seed(5)
    expected = [drawn(), drawn()]
    keras.utils.set_random_seed(5)
    found = [drawn()]
    with pytest.raises(ValueError, match="does not exist"), tempfile.TemporaryDirectory() as folder:
        training.train(
            training.Recipe(data=f"{folder}/missing", deterministic=True, seed=1), f"{folder}/run"
        )
    assert [*found, drawn()] == expected
    assert not config.is_op_determinism_enabled()


def test_commands(finished, command_here, tmp_path):
    folder, flowers, _ = finished
    arguments = ("evaluate", "--run", folder, "--data", flowers, "--output", "answers.csv")
    done = command_here(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["images"], found["left_out"]) == (15, 1)
    assert rows(tmp_path / "answers.csv") == rows(folder / "predictions.csv")
    larger = json.loads(command_here(*arguments, "--image-size", 48, "--json").stdout)
    assert (larger["usual_image_size"], larger["usual_top1"]) == (32, found["top1"])
    done = command_here(*arguments, "--image-size", 48, "--flip")
    assert "At the usual image size, 32: top-1 " in done.stdout
    first = rows(folder / "predictions.csv")[0]
    done = command_here("predict", first["file"], "--run", folder, "--top", 1, "--json")
    (answer,) = json.loads(done.stdout)
    assert answer["classes"] == [first["predicted"]]
    assert answer["probabilities"][0] == pytest.approx(float(first["probability"]), abs=1e-5)
    done = command_here("train", "--data", flowers, "--set", "epoch=3")
    assert done.returncode == 1
    assert "Did you mean epochs?" in done.stderr


@pytest.mark.slow
def test_bad_files_are_reported_and_others_predicted(finished, command_here, tmp_path):
    """In the given order."""
    folder, _, _ = finished
    (tmp_path / "text.jpg").write_text("no image")
    bad = ["text.jpg", "missing.jpg", tmp_path / "text.jpg"]
    files = [row["file"] for row in rows(folder / "predictions.csv")][:2]
    given = [files[1], *bad, files[0], files[1], *bad * 20]  # including whole batches of bad files
    done = command_here("predict", *given, "--run", folder, "--json")
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert [row["file"] for row in found] == [files[1], files[0], files[1]]
    assert found[0]["classes"] == found[2]["classes"]
    # Outputs can differ in the last digits by position in a batch.
    assert found[0]["probabilities"] == pytest.approx(found[2]["probabilities"], abs=1e-5)
    first = rows(folder / "predictions.csv")[0]
    assert found[1]["probabilities"][0] == pytest.approx(float(first["probability"]), abs=1e-5)
    *named, last = done.stderr.splitlines()
    reasons = ("it is not an image", "No such file", "it is not an image")
    for file, reason in zip(bad, reasons, strict=True):
        assert [line.startswith(f"Skipped {file}: {reason}") for line in named].count(True) == 1
    assert last == "Error: 3 images could not be classified; they are named above."
    done = command_here("predict", *bad, "--run", folder)
    assert (done.returncode, done.stdout) == (1, "") and "Skipped text.jpg" in done.stderr
    network = trained.Network.from_run(folder)
    skipped = data.Skipped()
    answers = dict(network.predict(given[:6], skipped=skipped))
    assert list(answers) == [Path(files[1]), Path(files[0])]
    assert "it is not an image" in skipped.reasons["text.jpg"]
    with pytest.raises(ValueError, match=r"text\.jpg cannot be decoded: it is not an image"):
        dict(network.predict(["text.jpg"]))


def test_the_newest_finished_run(tmp_path):
    for name, finished_at in (("flowers", 1), ("flowers-3", 3), ("flowers-2", 2), ("photos", None)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "best.keras").touch()
        if finished_at:
            (tmp_path / name / "report.md").touch()
            os.utime(tmp_path / name / "report.md", (finished_at, finished_at))
    assert trained.newest_run(tmp_path) == tmp_path / "flowers-3"
    with pytest.raises(ValueError, match="no finished run"):
        trained.newest_run(tmp_path / "photos")


@pytest.mark.slow
def test_the_newest_finished_run_is_used(finished, command_here, tmp_path):
    """After two trainings with the same output, commands use the second one and name it."""
    folder, flowers, _ = finished
    image = next((flowers / "val").rglob("*.jpg"))
    done = command_here("predict", image)
    assert done.returncode == 1 and "no finished run in runs" in done.stderr
    run = shutil.copytree(folder, tmp_path / "runs" / "flowers")
    os.utime(run / "report.md", (1, 1))
    arguments = ("--data", flowers, "--model", "resnet18", "--image-size", 32)
    done = command_here("train", *arguments, "--epochs", 1, "--batch-size", 30)
    assert done.returncode == 0, done.stderr
    *_, last = done.stdout.splitlines()
    assert last == "Next: keras-resnet predict IMAGE --run runs/flowers-2"
    shutil.copytree(run, tmp_path / "runs" / "unfinished").joinpath("report.md").unlink()
    second = command_here("predict", image, "--run", "runs/flowers-2")
    assert second.stderr == ""
    first = command_here("predict", image, "--run", "runs/flowers")
    done = command_here("predict", image)
    assert done.stdout == second.stdout != first.stdout
    said = "Using the newest finished run: runs/flowers-2\n"
    assert done.stderr == said
    for asked in ("explain", image), ("evaluate", "--data", flowers, "--json"):
        done = command_here(*asked)
        assert done.returncode == 0 and done.stderr.startswith(said), done.stderr


def test_explaining(finished, network, command_here, tmp_path):
    folder, _, _ = finished
    first = rows(folder / "predictions.csv")[0]
    done = command_here("explain", first["file"], "--run", folder, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    name = f"{Path(first['file']).stem}_explained.png"
    assert (found["picture"], found["class_name"]) == (name, first["predicted"])
    assert found["probability"] == pytest.approx(float(first["probability"]), abs=1e-5)
    other = "rose" if first["predicted"] == "tulip" else "tulip"
    done = command_here("explain", first["file"], "--run", folder, "--class", other, "-o", "t.png")
    (answer,) = dict(network.predict([first["file"]])).values()
    assert done.stdout == f"t.png: {other}, {dict(answer)[other]:.4f}\n"
    for picture in (name, "t.png"):
        with Image.open(tmp_path / picture) as drawn:
            assert np.asarray(drawn.convert("L")).std() > 5
    for arguments, said in (
        (
            (first["file"], "--class", "lily"),
            "Unknown class. The classes are daisy, dandelion, rose",
        ),
        ((first["file"], "--layer", "layer9.0"), "no layer 'layer9.0'"),
        (("missing.jpg",), "missing.jpg"),
    ):
        done = command_here("explain", *arguments, "--run", folder, "-o", "no.png")
        assert done.returncode == 1
        assert said in done.stderr
    assert not (tmp_path / "no.png").exists()
