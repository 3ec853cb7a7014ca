"""Residual networks for Keras 3, the same numbers as torchvision.

The networks are here (`keras_resnet.ResNet50(...)`); the rooms `weights`, `data`, `training`,
`export` and `visualize` are attributes, loaded at first use.
"""

import importlib

from keras_resnet import blocks, layers  # their classes register for keras.saving.load_model

__version__ = "0.1.0"

_ROOMS = (
    "configs",
    "conversion",
    "data",
    "export",
    "features",
    "models",
    "preprocessing",
    "trained",
    "training",
    "visualize",
    "weights",
)
_PUBLIC = {
    "models": (
        "ResNet18",
        "ResNet34",
        "ResNet50",
        "ResNet101",
        "ResNet152",
        "ResNeXt50_32x4d",
        "ResNeXt101_32x8d",
        "ResNeXt101_64x4d",
        "WideResNet50_2",
        "WideResNet101_2",
        "ResNet20",
        "ResNet32",
        "ResNet44",
        "ResNet56",
        "ResNet110",
        "ResNet1202",
        "create",
        "list_models",
    ),
    "preprocessing": ("Preprocessing", "decode_predictions", "preprocess_input"),
    "weights": ("list_weights",),
}
_ROOM_OF = {name: room for room, names in _PUBLIC.items() for name in names}

__all__ = ["__version__", "blocks", "layers", *_ROOMS, *_ROOM_OF]


def __getattr__(name):
    if name in _ROOMS:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _ROOM_OF:
        return getattr(importlib.import_module(f"{__name__}.{_ROOM_OF[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
