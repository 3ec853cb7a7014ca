"""Data sets of tensorflow-datasets: its own mock data, and a real builder over files."""

import pytest

from keras_resnet import data
from keras_resnet.data.datasets import tfds_sources

# tensorflow-datasets emits warnings about its own dependencies.
pytestmark = pytest.mark.filterwarnings("ignore")

OPTIONS = {"image_size": 32, "batch_size": 4}


@pytest.mark.parametrize(
    "name, classes",
    [
        ("tf_flowers", 5),
        pytest.param("oxford_flowers102", 102, marks=pytest.mark.slow),
        pytest.param("imagenet2012", 1000, marks=pytest.mark.slow),
    ],
)
def test_data_sets_of_many_kinds(name, classes):
    """The mock has no splits, and returns the same number of images for each."""
    import tensorflow_datasets

    with tensorflow_datasets.testing.mock_data(num_examples=10):
        sources = tfds_sources(name)
        for source in sources:
            assert source.count == 10
            assert len(source.class_names) == classes
            for index, (called, content, label) in enumerate(
                source.examples(None, 0).as_numpy_iterator()
            ):
                assert called.decode().startswith(f"{name}/")
                assert called.decode().endswith(f"/{index}")
                assert content[:2] in (b"\xff\xd8", b"\x89P")  # not decoded
                assert 0 <= label < classes


def test_cifar10():
    import tensorflow_datasets

    with tensorflow_datasets.testing.mock_data(num_examples=10):
        batches, names = data.cifar10(training=True, batch_size=4)
        shapes = [(tuple(images.shape), tuple(labels.shape)) for images, labels in batches]
        assert shapes == [((count, 32, 32, 3), (count,)) for count in (4, 4, 2)]
        assert len(names) == 10


@pytest.fixture(scope="module")
def flowers(tmp_path_factory, draw_flowers):
    return draw_flowers(tmp_path_factory.mktemp("data") / "flowers", train=4, val=2)


def test_a_builder_over_files(flowers):
    import tensorflow_datasets

    builder = tensorflow_datasets.ImageFolder(str(flowers))
    for source, part in zip(tfds_sources(builder), ("train", "val"), strict=True):
        assert source.class_names == ("daisy", "dandelion", "rose", "sunflower", "tulip")
        found = {
            (content, label) for _, content, label in source.examples(None, 0).as_numpy_iterator()
        }
        assert found == {
            (file.read_bytes(), source.class_names.index(file.parent.name))
            for file in (flowers / part).rglob("*.jpg")
        }


def test_what_is_refused(flowers):
    import tensorflow_datasets

    with pytest.raises(data.DataError, match="no data set named 'tf_flowerz'"):
        data.tfds("tf_flowerz")
    builder = tensorflow_datasets.ImageFolder(str(flowers))
    with pytest.raises(data.DataError, match=r"no split 'other'.*train"):
        data.tfds(builder, split="other")
    with pytest.raises(data.DataError, match="has its own val"):
        data.tfds(builder, split="val", validation_split=0.2)
