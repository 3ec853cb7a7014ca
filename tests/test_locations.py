"""Values of `--data`: folders, shards, arrays, data sets."""

import numpy as np
import pytest

from keras_resnet import Preprocessing, data
from keras_resnet.data.locations import evaluation_source, training_sources
from keras_resnet.data.pipeline import evaluation_batches


@pytest.fixture(scope="module")
def folder(tmp_path_factory, draw_flowers):
    return draw_flowers(tmp_path_factory.mktemp("locations") / "flowers", train=3, val=2)


def names(source):
    return {name.decode() for name, _, _ in source.examples(None, 0).as_numpy_iterator()}


def test_a_folder(folder):
    train, val = training_sources(folder)
    assert (train.count, val.count) == (15, 10)
    assert names(evaluation_source(folder)) == names(val)
    assert names(evaluation_source(folder / "train")) == names(train)


def test_the_images_that_were_set_aside(folder):
    parts = training_sources(folder / "train", validation_split=0.4, seed=5)
    assert [part.count for part in parts] == [10, 5]
    assert names(evaluation_source(folder / "train", validation_split=0.4, seed=5)) == names(
        parts[1]
    )


def test_workers_share_all_that_validates(folder):
    parts = [training_sources(folder, worker=(which, 4)) for which in range(4)]
    assert [train.count for train, _ in parts] == [3] * 4
    assert [val.count for _, val in parts] == [3, 3, 2, 2]
    whole = names(evaluation_source(folder))
    assert set.union(*(names(val) for _, val in parts)) == whole
    assert sum(len(names(val)) for _, val in parts) == len(whole)


def test_shards(folder, tmp_path):
    data.write_shards(folder, tmp_path / "shards", shards=2)
    train, val = training_sources(tmp_path / "shards")
    assert (train.count, val.count) == (15, 10)
    assert evaluation_source(tmp_path / "shards").count == 10
    assert evaluation_source(tmp_path / "shards" / "train").count == 15
    with pytest.raises(data.DataError, match="no train and val folders of shards"):
        training_sources(tmp_path / "shards" / "train")
    with pytest.raises(data.DataError, match="already has validation images"):
        training_sources(tmp_path / "shards", validation_split=0.5)


def test_arrays(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3)).astype(np.uint8)
    file = tmp_path / "x.npz"
    np.savez(file, x=x, y=[0, 1, 2, 1, 0], classes=["a", "b", "c"])
    source = evaluation_source(file)
    assert source.class_names == ("a", "b", "c")
    preprocessing = Preprocessing(32, 32)
    (images, labels, _), (rest, *_) = evaluation_batches(source, preprocessing, batch_size=3)
    expected = (x / 255 - np.array(preprocessing.mean)) / np.array(preprocessing.std)
    np.testing.assert_allclose(np.concatenate([images, rest]), expected, atol=1e-5)
    np.testing.assert_array_equal(labels, [0, 1, 2])
    np.savez(file, x=x, y=[0, 1, 2, 1, 0])
    assert evaluation_source(file).class_names == ("0", "1", "2")


@pytest.mark.parametrize(
    "arrays, said",
    [
        ({"x": np.zeros((2, 8, 8, 3), np.float32), "y": [0, 1]}, "float32"),
        ({"x": np.zeros((2, 8, 8, 3), np.uint8), "y": [0]}, r"y int64 \(1,\)"),
        ({"x": np.zeros((2, 8, 8, 3), np.uint8), "y": [0.0, 1.0]}, "Received: float64"),
        ({"x": np.zeros((2, 8, 8, 3), np.uint8), "y": [0, -1]}, "from 0 to 0"),
        (
            {"x": np.zeros((2, 8, 8, 3), np.uint8), "y": [0, 2], "classes": ["a", "b"]},
            "from 0 to 1",
        ),
        ({"x": np.zeros((0, 8, 8, 3), np.uint8), "y": np.zeros(0, int)}, "should be class indices"),
        ({"x": np.zeros((2, 8, 8, 3), np.uint8)}, "expected the arrays x and y"),
        ({"x": np.array([{}], object), "y": [0]}, "expected the arrays x and y"),
    ],
    ids=["float", "lengths", "shares", "negative", "unnamed", "empty", "missing", "pickled"],
)
def test_arrays_that_will_not_do(arrays, said, tmp_path):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(data.DataError, match=said):
        evaluation_source(tmp_path / "x.npz")


@pytest.mark.parametrize(
    "name, said",
    [
        ("no_such_set", "There is no folder no_such_set in .* is called 'no_such_set'"),
        ("photos/of flowers", "photos/of flowers does not exist. Expected .* current folder is"),
        ("x.npz", r"x\.npz does not exist. The current folder is"),
    ],
)
def test_missing_data(name, said):
    with pytest.raises(data.DataError, match=said):
        evaluation_source(name)
