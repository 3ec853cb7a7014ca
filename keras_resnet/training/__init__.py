"""Training with recipes, and run folders."""

import importlib
import warnings

from keras_resnet.training.distribution import Distribution
from keras_resnet.training.errors import TrainingError
from keras_resnet.training.optimizers import SGD, Adam, Lamb, WarmUp
from keras_resnet.training.recipe import Recipe
from keras_resnet.training.recipes import RECIPES, named_recipe
from keras_resnet.training.trainer import train

__all__ = [
    "RECIPES",
    "SGD",
    "Adam",
    "Distribution",
    "Lamb",
    "Recipe",
    "TrainingError",
    "WarmUp",
    "named_recipe",
    "train",
]
# Deprecated names: {name: (module, name there, replacement)}.
_MOVED = {
    "Placement": ("training", "Distribution", "training.Distribution"),
    "Run": ("trained.renamed", "Run", "trained.Network"),
    "explain": ("trained.renamed", "explain", "trained.Network.explain"),
    "export_network": ("trained.renamed", "export_network", "trained.Network.export"),
    "newest_run": ("trained", "newest_run", "trained.newest_run"),
    "open_network": ("trained", "open_network", "trained.open_network"),
}


def __getattr__(name):
    if name not in _MOVED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, there, now = _MOVED[name]
    warnings.warn(f"training.{name} was renamed to {now}.", DeprecationWarning, stacklevel=2)
    return getattr(importlib.import_module(f"keras_resnet.{module}"), there)
