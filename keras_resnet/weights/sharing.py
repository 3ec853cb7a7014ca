"""Saves a network as a folder for timm, transformers and the Hugging Face hub: `save_hub`.

Source: timm 1.0, timm/models/_hub.py (save_config_for_hf); huggingface.co/docs/hub/model-cards.
"""

import dataclasses
import json
import logging
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

import keras_resnet
from keras_resnet.configs import CONFIGS, IMAGENET
from keras_resnet.files import write_text
from keras_resnet.preprocessing import Preprocessing, pair
from keras_resnet.weights.architecture import recognise
from keras_resnet.weights.description import checked_thresholds
from keras_resnet.weights.hub import CONFIG, FILES
from keras_resnet.weights.saving import save
from keras_resnet.weights.state_dict import (
    anti_aliasing_of,
    arrays_by_key,
    output_stride_of,
    version_of,
)

logger = logging.getLogger("keras_resnet")

CARD = "README.md"


def save_hub(
    model: keras.Model,
    folder: str | os.PathLike[str],
    *,
    preprocessing: Preprocessing | None = None,
    class_names: Sequence[str] | None = None,
    thresholds: Sequence[float] | None = None,
    metrics: Mapping[str, float] | None = None,
    data: str | None = None,
    recipe: Mapping[str, Any] | None = None,
) -> Path:
    """Saves a network as a folder with the layout of a repository on the Hugging Face hub.

    `timm.create_model("local-dir:FOLDER", pretrained=True)` loads it with the same logits, and so
    do transformers, through timm, and `weights=FOLDER` in this package. To upload it, run `hf
    upload OWNER/NAME FOLDER` of huggingface_hub.

    Args:
        model: A model of this package. CIFAR networks and `version="v1"`, which timm does not
            support, can only be loaded by this package.
        folder: The folder, created if necessary, for model.safetensors, config.json and README.md,
            the model card. An existing README.md is kept.
        preprocessing: The evaluation transform. Default: `model.preprocessing` of `create`, or the
            usual one for such networks.
        class_names: Class names, in order.
        thresholds: For a network whose images show several classes, the least probability at which
            each is predicted. This package then takes the sigmoid of the logits; timm, which has
            no such setting, the softmax.
        metrics: {name: value} for the model card: {"accuracy": 0.91}.
        data: Description of the data that the metrics were measured on.
        recipe: Fields of the recipe by name, for the model card.

    Returns:
        The folder.

    Raises:
        ValueError: if the network is not one of `list_models()`, or is dilated, or the numbers of
            names and classes differ.
        OSError: if the folder cannot be written.

    Example:
    >>> model = keras_resnet.ResNet18(classes=2)
    >>> folder = keras_resnet.weights.save_hub(model, "flowers", class_names=["daisy", "rose"])
    >>> sorted(file.name for file in folder.iterdir())
    ['README.md', 'config.json', 'model.safetensors']
    """
    folder, version = Path(folder), version_of(model)
    found = recognise(arrays_by_key(model), anti_aliasing_of(model))
    dilated = output_stride_of(model) < 32
    if found.variant is None or dilated:
        raise ValueError(
            "Only networks in list_models() with output_stride=32 can be saved as a hub folder. "
            f"Received: {'a dilated network' if dilated else found.text}"
        )
    if class_names is not None and len(class_names) != found.classes:
        raise ValueError(
            f"class_names should have one name for each of the model's {found.classes} classes. "
            f"Received: {len(class_names)} names"
        )
    config = CONFIGS[found.variant]
    family = config.family
    used = preprocessing or getattr(model, "preprocessing", None)
    used = used or Preprocessing(family.resize, family.image_size, **config.pixels)
    of_timm = family is IMAGENET and version != "v1" and not config.like_applications
    said = _of_timm(found, used) if of_timm else {"num_classes": found.classes}
    own = {"model": found.variant, "version": version, "preprocessing": dataclasses.asdict(used)}
    if thresholds is not None:
        own["thresholds"] = checked_thresholds(list(thresholds), found.classes)
    said |= {"keras_resnet": own}
    said |= {"label_names": list(class_names)} if class_names is not None else {}
    folder.mkdir(parents=True, exist_ok=True)
    save(model, folder / FILES[0])
    write_text(folder / CONFIG, json.dumps(said, indent=2, ensure_ascii=False) + "\n")
    if (folder / CARD).exists():
        logger.info("%s already exists and was not overwritten.", folder / CARD)
    else:
        text = _card(folder.absolute().name, found, used, of_timm, metrics or {}, data, recipe)
        write_text(folder / CARD, text)
    return folder


def _of_timm(found, used):
    """Returns the content of config.json, from which timm builds the network and its transform."""
    channels, config = found.channels or 3, CONFIGS[found.variant]
    first, head = ("conv1.0" if config.stem else "conv1"), "fc"
    if config.preactivation:
        first, head = ("stem.conv1" if config.stem else "stem.conv"), "head.fc"
    share = used.sides[0] / pair(used.resize)[0]
    while math.floor(used.sides[0] / share) < pair(used.resize)[0]:  # because of rounding
        share = math.nextafter(share, 0)
    resized = tuple(math.floor(side / share) for side in used.sides)
    if resized != pair(used.resize):
        raise ValueError(
            f"timm has a single crop_pct for both sides. Received: resize={used.resize}, "
            f"crop={used.crop}"
        )
    return {
        "architecture": found.variant,
        "num_classes": found.classes or 0,
        "num_features": config.filters(-1),
        "global_pool": "avg",
        **({"model_args": {"in_chans": channels}} if channels != 3 else {}),
        "pretrained_cfg": {
            "input_size": [channels, *used.sides],
            "fixed_input_size": False,
            "interpolation": used.interpolation,
            "crop_pct": share,
            "crop_mode": used.crop_mode,
            "mean": used.mean,
            "std": used.std,
            "num_classes": found.classes or 0,
            "pool_size": [math.ceil(side / 32) for side in used.sides],
            "first_conv": first,
            "classifier": head,
        },
    }


def _card(name, found, used, of_timm, metrics, data, recipe):
    """Returns the model card: YAML metadata, written as JSON, and text."""
    task = {"type": "image-classification"}
    results = [
        {
            "task": task,
            "dataset": {"name": data or "not specified", "type": "imagefolder"},
            "metrics": [{"type": key, "value": value} for key, value in metrics.items()],
        }
    ]
    said = {
        "library_name": "timm" if of_timm else "keras",
        "tags": ["keras-resnet", found.variant, task["type"]],
        "pipeline_tag": task["type"],
        **({"model-index": [{"name": name, "results": results}]} if metrics else {}),
    }
    table = {
        "network": f"{found.variant}, {found.classes or 'no'} classes",
        **({"data": data} if data else {}),
        **{key: f"{value:.4g}" for key, value in metrics.items()},
        **{key.replace("_", " "): value for key, value in dataclasses.asdict(used).items()},
    }
    calls = [
        "import keras_resnet",
        f'network = keras_resnet.trained.open_network(weights="{name}")',
    ]
    if of_timm:
        calls += ["import timm", f'model = timm.create_model("local-dir:{name}", pretrained=True)']
    lines = [
        *("---", *(f"{key}: {json.dumps(value)}" for key, value in said.items()), "---", ""),
        *(f"# {name}", "", "| | |", "| --- | --- |"),
        *(f"| {key} | {value} |" for key, value in table.items()),
        *("", "## Use", "", "```python", *calls, "```", ""),
    ]
    if recipe:
        lines += ["## Training", "", "```json", json.dumps(recipe, indent=2), "```", ""]
    lines += [f"Saved by keras3-resnet {keras_resnet.__version__}.", ""]
    return "\n".join(lines)
