"""Image data sets of tensorflow-datasets, read without decoding."""

import tensorflow as tf

from keras_resnet.data.image_folder import DataError
from keras_resnet.data.source import Source

SHUFFLE_BUFFER = 1000  # encoded images, some 100 kB each
VALIDATION_SPLITS = ("validation", "test")


def tfds_sources(name, *, validation_split=None, data_dir=None) -> tuple[Source, Source]:
    """The training and the validation images of a TFDS data set, downloaded if need be.

    Args:
        name: Name of the data set, "tf_flowers" for example. It must have the features "image"
            and "label".
        validation_split: Share of the images that validate, 0 to 1, if the data set has neither a
            validation nor a test split. Default: 0.2.
        data_dir: Where TFDS keeps its data. Default: TFDS's own setting.

    Raises:
        DataError: if there is no such data set or it has no image and label.
    """
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except tfds.core.registered.DatasetNotFoundError as error:
        raise DataError(f"tensorflow-datasets has no data set called {name!r}.") from error
    features = builder.info.features
    if not {"image", "label"} <= set(features or ()):
        raise DataError(
            f"The data set {name!r} has the features {sorted(features or ())}; image "
            "classification needs 'image' and 'label'."
        )
    builder.download_and_prepare()
    splits = builder.info.splits
    validation = next((split for split in VALIDATION_SPLITS if split in splits), None)
    if validation and validation_split is not None:
        raise DataError(
            f"The data set {name!r} has its own {validation} split. Leave validation_split out. "
            f"Received: validation_split={validation_split}"
        )
    parts = ("train", validation)
    if validation is None:
        percent = round(100 * (1 - (validation_split or 0.2)))
        parts = (f"train[:{percent}%]", f"train[{percent}%:]")
    return tuple(_source(builder, part) for part in parts)


def _source(builder, split):
    import tensorflow_datasets as tfds

    count = builder.info.splits[split].num_examples
    if not count:
        raise DataError(f"The split {split} of {builder.name!r} is empty.")

    def items():
        examples = builder.as_dataset(
            split=split, decoders={"image": tfds.decode.SkipDecoding()}, shuffle_files=False
        )
        return examples.enumerate().map(
            lambda index, example: (index, example["image"], tf.cast(example["label"], tf.int64))
        )

    return Source(
        tuple(builder.info.features["label"].names),
        tuple(f"{builder.name}/{split}/{index}" for index in range(count)),
        items,
        lambda image: image,
        SHUFFLE_BUFFER,
    )
