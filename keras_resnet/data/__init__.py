"""Input pipelines: from image files and data sets to batches."""

from keras_resnet.data.augmentation import Augmentation
from keras_resnet.data.checking import check_data
from keras_resnet.data.datasets import cifar10, tfds
from keras_resnet.data.image_folder import image_folder, save_class_indices
from keras_resnet.data.locations import evaluation_source, training_sources
from keras_resnet.data.pipeline import batches
from keras_resnet.data.shards import tfrecords, write_shards
from keras_resnet.data.skipped import Skipped
from keras_resnet.data.source import DataError, Source
from keras_resnet.drawn_flowers import drawn_flowers

__all__ = [
    "Augmentation",
    "DataError",
    "Skipped",
    "Source",
    "batches",
    "check_data",
    "cifar10",
    "drawn_flowers",
    "evaluation_source",
    "image_folder",
    "save_class_indices",
    "tfds",
    "tfrecords",
    "training_sources",
    "write_shards",
]
