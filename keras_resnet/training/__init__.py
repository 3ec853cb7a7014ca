"""Training by a recipe, and the folders that it leaves."""

from keras_resnet.training.recipe import Recipe
from keras_resnet.training.run import Run
from keras_resnet.training.trainer import train

__all__ = ["Recipe", "Run", "train"]
