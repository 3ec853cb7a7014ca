"""From sources to batches: order, and resuming."""

import collections
import hashlib
import os

import numpy as np
import pytest
import tensorflow as tf
from numbered_images import COUNT, arguments, epoch_numbers, make
from PIL import Image

from keras_resnet import data
from keras_resnet.data.augmentation import mixing


@pytest.fixture
def folder(tmp_path):
    return make(tmp_path / "images")


@pytest.fixture(scope="module")
def two_epochs(tmp_path_factory):
    """The first two epochs with default arguments; the folder's location does not matter."""
    batches, _ = data.image_folder(make(tmp_path_factory.mktemp("pipeline")), **arguments())
    assert len(batches) == 3
    return [list(batches.as_numpy_iterator()) for _ in range(2)]


def batches_equal(ours, theirs):
    return len(ours) == len(theirs) and all(
        np.array_equal(x, x_other) and np.array_equal(y, y_other)
        for (x, y), (x_other, y_other) in zip(ours, theirs, strict=True)
    )


MIXED = data.Augmentation(
    color_jitter=(0.4, 0.4, 0.4, 0.1),
    policy="trivial_augment_wide",
    erasing=0.5,
    mixup=0.2,
    cutmix=1.0,
    label_smoothing=0.1,
)


def test_another_seed_gives_another_epoch(folder, two_epochs):
    """test_resuming checks that equal seeds give equal epochs."""
    batches, _ = data.image_folder(folder, **arguments(seed=4))
    first, second = two_epochs
    assert not batches_equal(first, list(batches.as_numpy_iterator()))
    assert not batches_equal(first, second)
    assert [len(labels) for _, labels in first] == [8, 8, 6]


@pytest.mark.slow
def test_training_is_fixed_by_its_seed(folder):
    """With all random augmentation."""

    def epochs(count=2, **changes):
        batches, _ = data.image_folder(folder, **arguments(augmentation=MIXED, **changes))
        assert len(batches) == 3
        return [list(batches.as_numpy_iterator()) for _ in range(count)]

    first, again, (other,) = epochs(), epochs(), epochs(1, seed=4)
    assert batches_equal(first[0], again[0]) and batches_equal(first[1], again[1])
    assert not batches_equal(first[0], first[1])
    assert not batches_equal(first[0], other)


def test_an_epoch_has_each_image_once(two_epochs):
    orders = [epoch_numbers(epoch) for epoch in two_epochs]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(COUNT))
    assert orders[0] != orders[1] != list(range(COUNT))


def test_resuming(folder, two_epochs):
    rest, _ = data.image_folder(folder, **arguments(first_step=2))
    uninterrupted = [batch for epoch in two_epochs for batch in epoch]
    assert batches_equal(uninterrupted[2:], list(rest.take(4).as_numpy_iterator()))


@pytest.mark.slow
@pytest.mark.parametrize("repeats, steps", [(1, (1, 5)), (3, (2,))])
def test_resuming_with_mixtures_and_bad_images(folder, repeats, steps):
    augmentation = data.Augmentation(repeats=repeats, mixup=0.2)
    (folder / "a" / "04.png").write_text("broken")  # bad images are replaced, also when resuming
    every, _ = data.image_folder(folder, **arguments(augmentation=augmentation))
    uninterrupted = [batch for _ in range(3) for batch in every.as_numpy_iterator()]
    for step in steps:
        rest, _ = data.image_folder(folder, **arguments(augmentation=augmentation, first_step=step))
        resumed = list(rest.take(9 - step).as_numpy_iterator())
        assert batches_equal(uninterrupted[step:], resumed), step


@pytest.mark.slow
def test_another_process_and_another_parallelism_give_the_same(folder, run_imported, two_epochs):
    program = (
        "import os, sys, hashlib\n"
        "os.cpu_count = lambda: int(sys.argv[2])\n"
        "from keras_resnet import data\n"
        f"batches, _ = data.image_folder(sys.argv[1], **{arguments()!r})\n"
        "print(hashlib.sha256(b''.join(x.tobytes() for x, _ in batches.as_numpy_iterator()))"
        ".hexdigest())"
    )
    done = run_imported(program, folder, 4 * os.cpu_count())
    ours = b"".join(images.tobytes() for images, _ in two_epochs[0])
    assert done.stdout.strip() == hashlib.sha256(ours).hexdigest(), done.stderr


def test_repeated_augmentation(folder):
    augmentation = data.Augmentation(repeats=2, flip=0.0)
    batches, _ = data.image_folder(folder, **arguments(augmentation=augmentation))
    order = epoch_numbers(batches)
    assert order[::2] == order[1::2]
    assert len(set(order)) == COUNT // 2


def reference_pairs(repeats, batch_size):
    """Returns {distance between an image and its partner: rows} of torchvision's reference.

    references/classification: RASampler on several processes, each of which mixes its part of the
    batch by `roll(1, 0)` in MixUp or CutMix.
    """
    distances = collections.Counter()
    for rank in range(repeats):
        indices = [place for place in range(256) for _ in range(repeats)]
        indices = indices[rank::repeats][: 256 // repeats]
        for start in range(0, len(indices), batch_size // repeats):
            batch = np.array(indices[start : start + batch_size // repeats])
            distances.update((batch - np.roll(batch, 1)).tolist())
    return distances


@pytest.fixture(scope="module")
def classes_of_one(tmp_path_factory):
    """256 images, each of its own class, so that labels show which images were mixed."""
    folder = tmp_path_factory.mktemp("classes")
    for number in range(256):
        path = folder / f"{number:03}" / "0.png"
        path.parent.mkdir()
        Image.new("RGB", (8, 8), (number, 0, 90)).save(path)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("repeats, batch_size", [(1, 32), (2, 32), (4, 64)])
def test_images_are_mixed_with_those_of_torchvisions_sampler(classes_of_one, repeats, batch_size):
    def labels_of(**mixtures):
        augmentation = data.Augmentation(repeats=repeats, **mixtures)
        options = {"image_size": 8, "seed": 3, "training": True, "batch_size": batch_size}
        batches, _ = data.image_folder(classes_of_one, augmentation=augmentation, **options)
        return [labels for _, labels in batches.as_numpy_iterator()]

    own = labels_of()
    order = np.concatenate(own)[::repeats].tolist()
    distances = collections.Counter()
    for rows, mixed in zip(own, labels_of(mixup=1.0), strict=True):
        for row, label in zip(rows, mixed, strict=True):
            (partner,) = set(np.flatnonzero(label)) - {row} or {row}
            distances[order.index(row) - order.index(partner)] += 1
        # Each process draws one share per batch, for every `repeats`th row.
        shares = mixed[range(batch_size), rows].round(5)
        assert [len(set(shares[copy::repeats])) for copy in range(repeats)] == [1] * repeats
        assert len(set(shares)) == repeats
    assert distances == reference_pairs(repeats, batch_size)


def test_a_row_without_partner_stays_as_it_is():
    images = tf.random.stateless_uniform((5, 4, 4, 3), (1, 2))
    labels = tf.one_hot(range(5), 5)
    mixed, shares = mixing.mix(images, labels, tf.constant([1, 2], tf.int64), 1.0, 0.0, 4)
    np.testing.assert_allclose(mixed[1:4], images[1:4], atol=1e-6)
    np.testing.assert_allclose(shares[1:4], labels[1:4], atol=1e-6)
    assert 0.01 < shares[0, 0] < 0.99
    assert float(shares[0, 0] + shares[0, 4]) == pytest.approx(1)
    mixed, shares = mixing.mix(images[:2], labels[:2], tf.constant([1, 2], tf.int64), 1.0, 1.0, 4)
    np.testing.assert_allclose(mixed, images[:2], atol=1e-6)


@pytest.mark.slow
def test_workers_share_an_epoch(folder):
    orders = []
    for which in range(2):
        batches, _ = data.image_folder(folder, **arguments(worker=(which, 2)))
        assert len(batches) == 2
        orders += epoch_numbers(batches)
    assert sorted(orders) == list(range(COUNT))


@pytest.mark.slow
def test_keras_trains_on_it(folder):
    import keras

    model = keras.Sequential(
        [keras.Input((32, 32, 3)), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)]
    )
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    train, _ = data.image_folder(folder, **arguments())
    val, _ = data.image_folder(folder, image_size=32, batch_size=8)
    history = model.fit(train, validation_data=val, epochs=2, verbose=0, shuffle=False)
    assert np.isfinite(history.history["val_loss"]).all()


def test_epochs_do_not_repeat():
    """The shuffle itself depends only on the low byte of a key."""
    from keras_resnet.data.images import Images

    names = tf.constant([str(number) for number in range(50)])
    source = Images(("a",), names, np.zeros(50, np.int32), np.arange(50), b"", {}).source()

    def order(seed, epoch):
        examples = source.examples(tf.constant([seed, epoch], tf.int64), 0)
        return tuple(int(name) for name, _, _ in examples.as_numpy_iterator())

    orders = [order(0, epoch) for epoch in (0, 1, 256, 512)] + [order(256, 0)]
    assert len(set(orders)) == 5
    assert all(sorted(one) == list(range(50)) for one in orders)
