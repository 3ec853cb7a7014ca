"""Training by a recipe, and the folders that it leaves."""

from keras_resnet.training.errors import TrainingError
from keras_resnet.training.evaluation import Evaluation, evaluate, evaluate_on
from keras_resnet.training.explaining import Explained, explain
from keras_resnet.training.exporting import export_network, verify_export
from keras_resnet.training.opening import Network, open_network
from keras_resnet.training.optimizers import SGD, Adam
from keras_resnet.training.placement import Placement
from keras_resnet.training.recipe import Recipe
from keras_resnet.training.recipes import RECIPES, named_recipe
from keras_resnet.training.run import Run, newest_run
from keras_resnet.training.schedules import WarmUp
from keras_resnet.training.trainer import train

__all__ = [
    "RECIPES",
    "SGD",
    "Adam",
    "Evaluation",
    "Explained",
    "Network",
    "Placement",
    "Recipe",
    "Run",
    "TrainingError",
    "WarmUp",
    "evaluate",
    "evaluate_on",
    "explain",
    "export_network",
    "named_recipe",
    "newest_run",
    "open_network",
    "train",
    "verify_export",
]
