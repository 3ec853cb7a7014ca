"""From image files and data sets to batches."""

from keras_resnet.data.datasets import tfds_sources
from keras_resnet.data.drawn_flowers import drawn_flowers
from keras_resnet.data.image_folder import DataError, image_folder

__all__ = ["DataError", "drawn_flowers", "image_folder", "tfds_sources"]
