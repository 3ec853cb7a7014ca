"""Image data sets of tensorflow-datasets, read without decoding."""

import contextlib
import dataclasses
import os
from typing import Any

import tensorflow as tf

from keras_resnet.data.augmentation import Augmentation
from keras_resnet.data.pipeline import batches
from keras_resnet.data.source import DataError, Source, check_split, stream_source
from keras_resnet.decoding import plainly

SHUFFLE_BUFFER = 1000  # encoded images, some 100 kB each
VALIDATION_SPLITS = ("validation", "val", "test")


def tfds(
    name: str | Any,
    *,
    split: str = "train",
    validation_split: float | None = None,
    data_dir: str | os.PathLike | None = None,
    seed: int = 0,
    **options: Any,
) -> tuple[tf.data.Dataset, list[str]]:
    """Makes batches from a tensorflow-datasets data set, which is downloaded if necessary.

    Args:
        name: Name of the data set, "tf_flowers" for example, or a builder:
            `tfds.ImageFolder("photos")`. It must have the features "image" and "label".
        split: "train" or "val"; or a split of the data set itself, "test[:50%]" for example.
        validation_split: Fraction of the images to set aside for validation, 0 to 1, if the data
            set has neither a validation nor a test split. Default: 0.2.
        data_dir: Folder of TFDS's data. Default: TFDS's setting.
        seed: Random seed of the order and the augmentation.
        **options: Arguments of `data.batches`: training, image_size, batch_size, augmentation, ....

    Returns:
        (`tf.data.Dataset` of (images, labels), class names), as for `data.image_folder`.

    Raises:
        DataError: if the data set or the split does not exist, or the data set has no images and
            labels.
    """
    if split in ("train", "val"):
        sources = tfds_sources(name, validation_split=validation_split, data_dir=data_dir)
        source = sources[split == "val"]
    else:
        source = _source(tfds_builder(name, data_dir), split)
    return batches(source, seed=seed, **options)


def cifar10(
    *,
    split: str = "train",
    data_dir: str | os.PathLike | None = None,
    seed: int = 0,
    **options: Any,
) -> tuple[tf.data.Dataset, list[str]]:
    """Makes batches of CIFAR-10: 50,000 training and 10,000 test images of 32 px.

    Args:
        split: As for `data.tfds`.
        data_dir: As for `data.tfds`.
        seed: As for `data.tfds`.
        **options: Arguments of `data.batches`. By default images are 32 px, and augmentation pads
            them by 4 pixels, crops and flips (He et al., https://arxiv.org/abs/1512.03385, section
            4.2). They are normalised by ImageNet's mean and standard deviation, as everywhere in
            this package.
    """
    defaults: dict[str, Any] = {"image_size": 32, "resize": 32}
    if options.get("training"):
        defaults["augmentation"] = Augmentation(padding=4)
    return tfds("cifar10", split=split, data_dir=data_dir, seed=seed, **{**defaults, **options})


def tfds_sources(name, *, validation_split=None, data_dir=None) -> tuple[Source, Source]:
    """Returns the training and the validation images; arguments and errors as for `tfds`."""
    builder = tfds_builder(name, data_dir)
    splits = builder.info.splits
    validation = next((split for split in VALIDATION_SPLITS if split in splits), None)
    if validation and validation_split is not None:
        raise DataError(
            f"The data set {builder.name!r} has its own {validation} split. Remove "
            f"validation_split. Received: validation_split={validation_split}"
        )
    train = "train"
    if validation is None:
        share = 0.2 if validation_split is None else validation_split
        check_split(share)
        percent = round(100 * (1 - share))
        train, validation = f"train[:{percent}%]", f"train[{percent}%:]"
    return _source(builder, train), _source(builder, validation)


def tfds_builder(name, data_dir=None):
    """Returns the builder of a data set; downloads and prepares its files if necessary."""
    import tensorflow_datasets

    if isinstance(name, str):
        try:
            builder = tensorflow_datasets.builder(name, data_dir=data_dir)
        except tensorflow_datasets.core.registered.DatasetNotFoundError as error:
            raise DataError(f"tensorflow-datasets has no data set named {name!r}.") from error
    else:
        builder = name
    features = builder.info.features
    if not {"image", "label"} <= set(features or ()):
        raise DataError(
            f"The data set {builder.name!r} has the features {sorted(features or ())}; image "
            "classification needs 'image' and 'label'."
        )
    # ImageFolder does not implement it, as its files already exist.
    with contextlib.suppress(NotImplementedError):
        try:
            builder.download_and_prepare()
        except AssertionError as error:  # files that have to be downloaded manually
            raise DataError(f"The data set {builder.name!r} cannot be prepared: {error}") from error
    return builder


def _source(builder, split):
    import tensorflow_datasets

    def stored():
        return builder.as_dataset(
            split=split,
            decoders={"image": tensorflow_datasets.decode.SkipDecoding()},
            shuffle_files=False,
            read_config=tensorflow_datasets.ReadConfig(try_autocache=False),
        )

    try:
        count = int(stored().cardinality())
    except ValueError as error:
        raise DataError(
            f"The data set {builder.name!r} has no split {split!r}, but "
            f"{', '.join(map(str, builder.info.splits))}."
        ) from error
    if count < 1:
        raise DataError(f"The split {split} of {builder.name!r} is empty.")

    @plainly
    def examples(key, start):
        dataset = (
            stored()
            .enumerate()
            .map(
                lambda index, example: (
                    tf.strings.join([f"{builder.name}/{split}/", tf.strings.as_string(index)]),
                    example["image"],
                    tf.cast(example["label"], tf.int64),
                )
            )
        )
        return shuffled(dataset, key).skip(tf.cast(start, tf.int64))

    source = stream_source(builder.info.features["label"].names, count, examples)
    # A version of a data set never changes.
    said = f"{builder.info.full_name}/{split}"
    return dataclasses.replace(source, listed=lambda: [(said, builder.info.dataset_size, count)])


@plainly
def shuffled(examples, key):
    """Shuffles a dataset with a key, int64 (2,), as the seed; unchanged if the key is None."""
    if key is None:
        return examples

    def in_order(key):
        # Otherwise the program's global seed takes part, and 0 is an error with a seed tensor.
        tf.compat.v1.set_random_seed(1)  # in this function's graph only
        seed = tf.random.stateless_uniform((), key, 1, tf.int64.max, tf.int64)
        return examples.shuffle(SHUFFLE_BUFFER, seed, reshuffle_each_iteration=False)

    return tf.data.Dataset.from_tensors(key).flat_map(in_order)
