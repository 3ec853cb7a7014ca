"""The drawn flowers."""

from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
from PIL import Image

from keras_resnet import data
from keras_resnet.drawn_flowers import KINDS, draw


@pytest.fixture(scope="module")
def flowers(tmp_path_factory):
    return data.drawn_flowers(tmp_path_factory.mktemp("data") / "flowers", train=4, val=2)


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
    with pytest.raises(ValueError, match="mine exists, but does not contain"):
        data.drawn_flowers(tmp_path / "mine")


@pytest.mark.slow
def test_drawn_flowers_need_shape():
    """Softmax regression on 8x8 thumbnails does not classify them, so color is not sufficient."""

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


def test_drawn_twice_at_once(tmp_path):
    with ThreadPoolExecutor(3) as pool:
        jobs = [pool.submit(data.drawn_flowers, tmp_path / "x", train=2, val=1) for _ in range(3)]
        assert {job.result() for job in jobs} == {tmp_path / "x"}
    assert len(list(tmp_path.rglob("*.jpg"))) == 15
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
