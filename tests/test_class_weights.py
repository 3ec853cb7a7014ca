"""Weights of classes and of images in the training loss, compared with scikit-learn."""

import csv

import keras
import numpy as np
import pytest
from sklearn import metrics
from sklearn.utils import class_weight

import keras_resnet
from keras_resnet import data, training, weights
from keras_resnet.data.locations import evaluation_source
from keras_resnet.training.labels import class_weights

COUNTS = {"daisy": 1, "dandelion": 2, "rose": 3, "sunflower": 2, "tulip": 4}
NAMES = tuple(COUNTS)


@pytest.fixture(scope="module")
def flowers(draw_flowers, tmp_path_factory):
    """A folder with classes of different sizes."""
    folder = draw_flowers(tmp_path_factory.mktemp("weights") / "flowers", train=4, val=1)
    for name, count in COUNTS.items():
        for file in sorted((folder / "train" / name).iterdir())[count:]:
            file.unlink()
    return folder


@pytest.fixture(scope="module")
def source(flowers):
    return evaluation_source(flowers / "train")


def test_balanced(source):
    labels = np.repeat(NAMES, list(COUNTS.values()))
    expected = class_weight.compute_class_weight("balanced", classes=np.array(NAMES), y=labels)
    np.testing.assert_allclose(class_weights("balanced", source), expected, rtol=1e-12)


def test_a_mapping(source):
    labels = np.repeat(NAMES, list(COUNTS.values()))
    said = {"rose": 2.5, "tulip": 0}
    expected = class_weight.compute_class_weight(
        {**dict.fromkeys(NAMES, 1), **said}, classes=np.array(NAMES), y=labels
    )
    np.testing.assert_array_equal(class_weights(said, source), expected)


def test_invalid_class_weights(source, flowers, tmp_path):
    with pytest.raises(ValueError, match=r"names 'Rose', which is no class. Did you mean rose\?"):
        class_weights({"Rose": 2}, source)
    with pytest.raises(ValueError, match="should not all be 0"):
        class_weights(dict.fromkeys(NAMES, 0), source)
    data.write_shards(flowers, tmp_path / "shards", shards=1)
    with pytest.raises(ValueError, match="which shards and data sets do not tell"):
        class_weights("balanced", evaluation_source(tmp_path / "shards"))
    for wrong in ("equal", {"rose": -1}, {"rose": "2"}, {"rose": float("nan")}, [1, 2]):
        with pytest.raises(ValueError, match="class_weights should be"):
            training.Recipe(class_weights=wrong)
    recipe = training.Recipe(class_weights={"rose": 2, "lily": 1}, data=str(flowers))
    assert training.Recipe.from_json(recipe.to_json()) == recipe
    with pytest.raises(ValueError, match="names 'lily'"):
        training.train(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def losses(recipe, start, images, labels, weight):
    """Yields scikit-learn's loss of the first step of each phase, on a batch of all images."""
    keras.utils.set_random_seed(0)
    model = keras_resnet.ResNet18(classes=5, weights=str(start))
    for training_ in (False, True):  # in the phase of the head, batch statistics are frozen
        probabilities = keras.ops.convert_to_numpy(model(images, training=training_))
        mean = metrics.log_loss(labels, probabilities, sample_weight=weight, labels=range(5))
        yield mean * np.mean(weight)


@pytest.mark.slow
def test_the_training_loss_is_weighted(flowers, source, tiny_rows, tmp_path):
    """The training loss is weighted by class and image; the validation loss is not."""
    labels = np.repeat(range(5), list(COUNTS.values()))
    own = np.arange(len(labels)) / 4
    weight = class_weight.compute_sample_weight("balanced", labels) * own
    for part in ("train", "val"):
        with (flowers / f"{part}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["file", "label", "weight"])
            for number, path in enumerate(sorted((flowers / part).rglob("*.jpg"))):
                writer.writerow([path.relative_to(flowers), path.parent.name, own[number]])
    start = weights.save_hub(keras_resnet.ResNet18(classes=5), tmp_path / "start")
    recipe = training.Recipe(
        data=str(flowers),
        model="resnet18",
        weights=str(start),
        image_size=32,
        resize=32,
        head_epochs=1,
        head_learning_rate=1e-12,
        epochs=1,
        learning_rate=1e-12,
        batch_size=len(labels),
        augmentation=data.Augmentation(crop_scale=None, flip=0.0),
        class_weights="balanced",
    )
    folder = training.train(recipe, tmp_path / "run")
    with (folder / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    ((images, _),) = data.batches(source, preprocessing=recipe.preprocessing, batch_size=99)[0]
    expected = losses(recipe, start, images, labels, weight)
    for row, loss in zip(rows, expected, strict=True):
        assert float(row["loss"]) == pytest.approx(loss, rel=1e-4)
    val = keras_resnet.trained.open_network(folder).evaluate(flowers / "val")
    best = max(rows, key=lambda row: float(row["val_accuracy"]))
    assert float(best["val_loss"]) == pytest.approx(val.loss, rel=1e-5)
    assert float(best["val_accuracy"]) == pytest.approx(val.top1)
