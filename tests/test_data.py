"""Image folders, drawn flowers, TFDS and the training pipeline."""

import collections
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_resnet import data
from keras_resnet.data.datasets import tfds_sources
from keras_resnet.data.drawn_flowers import KINDS, draw
from keras_resnet.data.image_folder import list_images, split_images, without_bad_files
from keras_resnet.data.pipeline import training_batches
from keras_resnet.preprocessing import Preprocessing


@pytest.fixture(scope="module")
def flowers(tmp_path_factory):
    return data.drawn_flowers(tmp_path_factory.mktemp("data") / "flowers", train=4, val=2)


@pytest.fixture
def folder(tmp_path):
    """Two classes with three images each, named so that sorting matters."""
    for label, name in enumerate(("a class", "ünïcode")):
        for number in range(3):
            path = tmp_path / "images" / name / "deeper" / f"{number}.JPG"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 30), (label * 200, number * 80, 0)).save(path)
    return tmp_path / "images"


def test_drawn_flowers_are_jpegs_and_fixed_by_their_seed(flowers, tmp_path):
    files = sorted(flowers.rglob("*.jpg"))
    assert len(files) == 5 * (4 + 2)
    assert {file.parent.name for file in files} == set(KINDS)
    sizes = set()
    for file in files:
        with Image.open(file) as image:
            assert (image.format, image.mode) == ("JPEG", "RGB")
            sizes.add(image.size)
    assert len(sizes) > 20
    again = data.drawn_flowers(tmp_path / "again", train=4, val=2)
    other = data.drawn_flowers(tmp_path / "other", train=4, val=2, seed=1)
    first = files[0].relative_to(flowers)
    assert (again / first).read_bytes() == files[0].read_bytes()
    assert (other / first).read_bytes() != files[0].read_bytes()


def test_drawn_flowers_leave_other_folders_alone(flowers, tmp_path):
    assert data.drawn_flowers(flowers, train=4, val=2) == flowers
    (tmp_path / "mine").mkdir()
    with pytest.raises(ValueError, match="mine is there"):
        data.drawn_flowers(tmp_path / "mine")


def test_drawn_flowers_need_shape():
    """A softmax regression on 8x8 thumbnails does not tell them apart: colour gives no clue."""

    def thumbnails(split, count):
        images = [draw(kind, f"{split}/{kind}/{n}")[0] for kind in KINDS for n in range(count)]
        pixels = [np.asarray(image.resize((8, 8))).ravel() / 255 for image in images]
        return np.array(pixels), np.repeat(np.arange(5), count)

    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((192,)), keras.layers.Dense(5, "softmax")])
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    model.fit(*thumbnails("train", 60), epochs=60, batch_size=32, verbose=0)
    x, y = thumbnails("val", 20)
    assert (model.predict(x, verbose=0).argmax(1) == y).mean() < 0.70


def test_listing(folder):
    (folder / ".hidden").mkdir()
    (folder / "a class" / ".1.jpg").write_bytes(b"")
    (folder / "a class" / "notes.txt").write_text("no image")
    images = list_images(folder)
    assert images.class_names == ("a class", "ünïcode")
    assert images.labels == (0, 0, 0, 1, 1, 1)
    assert [file[-5:] for file in images.files] == ["0.JPG", "1.JPG", "2.JPG"] * 2


def test_evaluation_order_and_pixels(folder):
    batches, names = data.image_folder(folder, image_size=32, batch_size=4)
    assert names == ["a class", "ünïcode"]
    images, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    assert labels.tolist() == [0, 0, 0, 1, 1, 1]
    red = images[:, 16, 16, 0] * 0.229 + 0.485
    np.testing.assert_allclose(red * 255, [0] * 3 + [200] * 3, atol=3)


def test_training_batches_are_fixed_by_their_seed(flowers):
    def epochs(seed, count=2):
        batches, _ = data.image_folder(
            flowers / "train", training=True, image_size=32, batch_size=8, seed=seed
        )
        assert len(batches) == 3
        return [list(batches.as_numpy_iterator()) for _ in range(count)]

    first, again, other = epochs(3), epochs(3), epochs(4, 1)
    for ours, theirs in zip(first, again, strict=True):
        for (x, y), (x_again, y_again) in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(x, x_again)
            np.testing.assert_array_equal(y, y_again)
    assert not np.array_equal(first[0][0][0], first[1][0][0])
    assert not np.array_equal(first[0][0][0], other[0][0][0])
    for epoch in first:
        labels = np.concatenate([y for _, y in epoch])
        assert collections.Counter(labels.tolist()) == dict.fromkeys(range(5), 4)


def test_flips_happen_half_of_the_time():
    from keras_resnet.data.transforms import random_flip

    image = tf.reshape(tf.range(6.0), (1, 2, 3))
    seeds = tf.stack([tf.range(400), tf.zeros(400, tf.int32)], axis=1)
    flipped = tf.map_fn(lambda s: random_flip(image, s)[0, 0, 0], seeds, tf.float32).numpy()
    assert set(flipped) == {0.0, 3.0}
    assert 150 < (flipped == 3).sum() < 250


def test_splits(flowers, folder):
    train, val = split_images(flowers)
    assert (len(train), len(val)) == (20, 10)
    train, val = split_images(folder, validation_split=0.34, seed=1)
    assert collections.Counter(val.labels) == {0: 1, 1: 1}
    assert not set(train.files) & set(val.files)
    assert split_images(folder, validation_split=0.34, seed=1)[1] == val


def test_bad_files_are_left_out_and_named(folder):
    good = next(folder.rglob("0.JPG")).read_bytes()
    (folder / "a class" / "text.jpg").write_text("this is no image")
    (folder / "a class" / "cut.jpg").write_bytes(good[:200])
    (folder / "a class" / "empty.png").write_bytes(b"")
    images = list_images(folder)
    kept, bad = without_bad_files(images, max_bad=0.5)
    assert len(kept) == 6
    reasons = {file.rsplit("/", 1)[1]: reason for file, reason in bad.items()}
    assert "no image" in reasons["text.jpg"]
    assert "damaged" in reasons["cut.jpg"]
    assert "empty" in reasons["empty.png"]
    with pytest.raises(data.DataError, match=r"3 of 9 image files.*max_bad=0.1"):
        data.image_folder(folder)


def test_a_file_that_breaks_in_training_costs_no_step(folder):
    source = list_images(folder).source()
    next(folder.rglob("1.JPG")).write_text("broken since")
    arguments = {"image_size": 32, "batch_size": 2, "seed": 0, "preprocessing": Preprocessing()}
    batches = list(training_batches(source, **arguments))
    assert [len(labels) for _, labels in batches] == [2, 2, 2]


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.mkdir(), "no folders in it"),
        (lambda path: path.write_text(""), "is a file"),
        (lambda path: (path / "daisy").mkdir(parents=True), "have no image: daisy"),
    ],
)
def test_bad_folders(make, said, tmp_path):
    make(tmp_path / "d")
    with pytest.raises(data.DataError, match=said):
        data.image_folder(tmp_path / "d")


def test_bad_splits(folder, flowers, tmp_path):
    with pytest.raises(data.DataError, match="pass validation_split"):
        split_images(folder)
    with pytest.raises(data.DataError, match="validation_split=1.5"):
        split_images(folder, validation_split=1.5)
    with pytest.raises(data.DataError, match="its own validation images"):
        split_images(flowers, validation_split=0.2)
    copy = shutil.copytree(flowers, tmp_path / "copy")
    shutil.rmtree(copy / "val" / "rose")
    with pytest.raises(data.DataError, match="different classes.*rose"):
        split_images(copy)


@pytest.fixture
def registered_dataset(flowers):
    """A real data set of TFDS, made of the drawn flowers and registered under its name."""
    import tensorflow_datasets as tfds

    class SmallFlowers(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            label = tfds.features.ClassLabel(names=KINDS)
            features = tfds.features.FeaturesDict({"image": tfds.features.Image(), "label": label})
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, manager):
            return {"train": self._generate_examples(sorted(flowers.rglob("*.jpg")))}

        def _generate_examples(self, files):
            for file in files:
                yield str(file), {"image": file, "label": file.parent.name}

    yield "small_flowers"
    tfds.core.registered._DATASET_REGISTRY.pop("small_flowers")


@pytest.mark.filterwarnings("ignore")  # tensorflow-datasets warns of its own dependencies
def test_tensorflow_datasets(registered_dataset, flowers, tmp_path):
    train, val = tfds_sources(registered_dataset, validation_split=0.3, data_dir=tmp_path)
    assert train.class_names == KINDS
    assert (len(train), len(val)) == (21, 9)
    arguments = {"image_size": 32, "batch_size": 4, "seed": 0}
    batches = training_batches(train, preprocessing=Preprocessing(), **arguments)
    assert [images.shape[0] for images, _ in batches] == [4, 4, 4, 4, 4, 1]
    items = list(val.items().as_numpy_iterator())
    assert [index for index, _, _ in items] == list(range(9))
    drawn = {file.read_bytes(): file.parent.name for file in flowers.rglob("*.jpg")}
    for _, content, label in items:  # the files' own bytes: nothing was decoded
        assert drawn[content] == KINDS[label]
    assert val.names[8] == "small_flowers/train[70%:]/8"


@pytest.mark.filterwarnings("ignore")
def test_unknown_datasets():
    with pytest.raises(data.DataError, match="no data set called 'tf_flowerz'"):
        tfds_sources("tf_flowerz")
