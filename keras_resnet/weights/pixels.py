"""What images the network of a file of weights takes: `preprocessing_of`."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keras_resnet.files import read_json
from keras_resnet.preprocessing import Preprocessing
from keras_resnet.weights import registry

RECIPE, STEMS = "recipe.json", ("best", "last")  # of a run folder, and its files of weights


def preprocessing_of(
    source: str | os.PathLike[str], model: str | None = None
) -> Preprocessing | None:
    """The evaluation transform that weights were made for; None if nobody says it.

    Args:
        source: A file, or the name of published weights.
        model: The network's name, for published weights.

    Raises:
        ValueError: if there are no such weights, or what stands beside a file is damaged.

    >>> keras_resnet.weights.preprocessing_of("IMAGENET1K_V2", "resnet50").resize
    232
    """
    path = Path(source)
    if model is not None and not path.exists() and registry.is_name(source):
        return registry.find(model, str(source)).preprocessing
    row = registry.find_file(path.name)
    if row is not None:
        return row.preprocessing
    recipe = path.with_name(RECIPE)
    if path.stem in STEMS and recipe.is_file():
        return read_json(recipe, _of_run, advice="Mend it, or move it away.")
    return None


def _of_run(recipe):
    of_a_run = all(recipe.get(name) for name in ("image_size", "resize", "mean", "std"))
    return of_recipe(recipe) if of_a_run else None


def of_recipe(recipe: Mapping[str, Any]) -> Preprocessing:
    """The evaluation transform that a run's recipe.json has."""
    said = {name: recipe[name] for name in ("resize", "mean", "std")}
    later = ("exif", "interpolation", "crop_mode")  # which earlier releases did not say
    said |= {name: recipe[name] for name in later if name in recipe}
    return Preprocessing(crop=recipe["image_size"], **said)
