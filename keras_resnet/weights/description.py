"""Descriptions of weights in files next to them: preprocessing and class names.

Source: timm 1.0, timm/data/config.py (resolve_data_config); transformers 5,
models/convnext/image_processing_convnext.py.
"""

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keras_resnet.configs import IMAGENET_MEAN, IMAGENET_STD
from keras_resnet.fields import is_number
from keras_resnet.files import read_json
from keras_resnet.preprocessing import Preprocessing, pair
from keras_resnet.weights import hub, registry
from keras_resnet.weights.errors import CheckpointError

RECIPE, STEMS = "recipe.json", ("best", "last")  # of a run folder, and its weights files
THRESHOLDS, MULTI_LABEL = (
    "thresholds.json",
    "multi_label",
)  # its other file, and a key of recipe.json
ADVICE = "Correct it, or move it elsewhere."
INTERPOLATIONS = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers
# Defaults of ConvNextImageProcessor, which transformers uses for its ResNets.
CONVNEXT = {
    **{"size": {"shortest_edge": 384}, "crop_pct": 224 / 256, "resample": 3},
    **{"image_mean": IMAGENET_MEAN, "image_std": IMAGENET_STD},
}
SQUASHED_FROM = 384  # pixels; from this size on, it does not crop, nor keep the aspect ratio


def preprocessing_of(
    source: str | os.PathLike[str], model: str | None = None
) -> Preprocessing | None:
    """Returns the evaluation transform that weights were trained for; None if unknown.

    Args:
        source: A file, described by a config.json, or in a run folder a recipe.json, next to it; a
            folder in the layout of the Hugging Face hub; "hf://owner/name", of which only the
            descriptions are downloaded; or the name of published weights.
        model: Name of the network, for published weights.

    Raises:
        ValueError: if the weights do not exist, or their description is damaged or not supported by
            `Preprocessing`.

    >>> keras_resnet.weights.preprocessing_of("IMAGENET1K_V2", "resnet50").resize
    232
    """
    if registry.is_name(source):
        if model is None:
            raise ValueError(f"Several networks have weights named {source}. Pass model.")
        return registry.find(model, str(source)).preprocessing
    path = Path(source)
    row = registry.find_file(path.name)
    if row is not None:
        return row.preprocessing
    recipe = path.with_name(RECIPE)
    if path.stem in STEMS and recipe.is_file():
        return read_json(recipe, _of_run, advice=ADVICE)
    return _described(source, hub.CONFIG, lambda config: _of_config(config, source))


def class_names_of(source: str | os.PathLike[str]) -> tuple[str, ...] | None:
    """Returns the class names in a config.json; None if it has none. See `preprocessing_of`."""
    return _described(source, hub.CONFIG, _class_names)


def thresholds_of(source: str | os.PathLike[str], classes: int) -> tuple[float, ...] | None:
    """The least probability at which each class is predicted; None of a single-label network.

    Args:
        source: As for `preprocessing_of`.
        classes: Number of classes.
    """
    path = Path(source)
    if path.stem in STEMS and path.with_name(RECIPE).is_file():
        return thresholds_of_run(path.parent, classes)

    def understand(config):
        own = config.get("keras_resnet")
        values = own.get("thresholds") if isinstance(own, dict) else None
        return None if values is None else checked_thresholds(values, classes)

    return _described(source, hub.CONFIG, understand)


def thresholds_of_run(folder, classes):
    """Those of a run folder: 0.5 where training has not chosen any yet."""
    if not read_json(folder / RECIPE, lambda recipe: recipe.get(MULTI_LABEL), advice=ADVICE):
        return None
    if not (folder / THRESHOLDS).is_file():
        return (0.5,) * classes
    return read_json(
        folder / THRESHOLDS,
        lambda values: checked_thresholds(list(values.values()), classes),
        advice=ADVICE,
    )


def checked_thresholds(values, classes):
    """Thresholds as a tuple.

    Raises:
        ValueError: if they are no numbers, 0 to 1, one for each class.
    """
    if len(values) != classes or not all(is_number(value) and 0 <= value <= 1 for value in values):
        raise ValueError(
            f"thresholds should be {classes} numbers, 0 to 1, one for each class. Received: "
            f"{values!r:.80}"
        )
    return tuple(map(float, values))


def _described(source, name, understand):
    file = hub.beside(source, name)
    return file and read_json(file, understand, advice=hub.ADVICE, error=CheckpointError)


def of_recipe(recipe: Mapping[str, Any]) -> Preprocessing:
    """Returns the evaluation transform of a run's recipe.json."""
    said = {name: recipe[name] for name in ("resize", "mean", "std")}
    later = ("exif", "interpolation", "crop_mode")  # missing in recipes of earlier releases
    said |= {name: recipe[name] for name in later if recipe.get(name) is not None}
    return Preprocessing(crop=recipe["image_size"], **said)


def _of_run(recipe):
    of_a_run = all(recipe.get(name) for name in ("image_size", "resize", "mean", "std"))
    return of_recipe(recipe) if of_a_run else None


def _of_config(config, source):
    own = config.get("keras_resnet")
    if isinstance(own, dict):  # from `save_hub`
        return Preprocessing(**own["preprocessing"])
    if "architecture" in config or "pretrained_cfg" in config:
        return _of_timm(config)
    if "model_type" in config:
        return _described(source, hub.PREPROCESSOR, _of_transformers)
    return None


def _of_timm(config):
    said = config.get("pretrained_cfg") or config
    channels, height, width = said.get("input_size") or (3, 224, 224)
    if channels != 3:
        return None
    share = said.get("crop_pct") or 224 / 256
    return Preprocessing(
        (math.floor(height / share), math.floor(width / share)),
        (height, width),
        said.get("mean") or IMAGENET_MEAN,
        said.get("std") or IMAGENET_STD,
        config.get("exif", False),
        said.get("interpolation") or "bicubic",
        said.get("crop_mode") or "center",
    )


def _of_transformers(config):
    said = {name: value for name, value in config.items() if value is not None}
    kind = str(said.get("image_processor_type", said.get("feature_extractor_type", "")))
    convnext = kind.startswith("ConvNext")
    said = {**CONVNEXT, **said} if convnext else said
    size, crop = said["size"], said.get("do_center_crop") and said["crop_size"]
    size = size if isinstance(size, dict) else {"shortest_edge": size}
    crop = (crop["height"], crop["width"]) if isinstance(crop, dict) else crop
    mode = "center" if "shortest_edge" in size else "squash"
    resize: Any = (size["height"], size["width"]) if mode == "squash" else size["shortest_edge"]
    if convnext and resize < SQUASHED_FROM:
        resize, crop = int(resize / said["crop_pct"]), resize
    elif convnext:
        mode = "squash"
    if not crop and mode == "center":
        raise ValueError("images are not cropped to a common size")
    for name, expected in (
        *(("do_resize", True), ("do_normalize", True), ("do_rescale", True)),
        *(("rescale_factor", 1 / 255), ("do_pad", False)),
    ):
        if not math.isclose(said.get(name, expected), expected):
            raise ValueError(f"{name}={said[name]!r:.20} is not supported by Preprocessing")
    return Preprocessing(
        resize,
        crop or pair(resize),
        said["image_mean"],
        said["image_std"],
        interpolation=INTERPOLATIONS[said["resample"]],
        crop_mode=mode,
    )


def _class_names(config):
    said = config.get("pretrained_cfg") or {}
    names = config.get("label_names") or config.get("labels") or said.get("label_names")
    if names is None and isinstance(config.get("id2label"), dict):
        numbered = config["id2label"]
        names = [numbered[str(number)] for number in range(len(numbered))]
        if all(re.fullmatch(r"LABEL_\d+", str(name)) for name in names):  # default names
            return None
    if not names:
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise TypeError("the class names should be a list of strings")
    return tuple(names)
