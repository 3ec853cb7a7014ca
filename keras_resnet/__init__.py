"""Residual networks for Keras 3, numerically equal to torchvision's.

The networks are functions of this package (`keras_resnet.ResNet50(...)`); the subpackages
`weights`, `data`, `training`, `export` and `visualize` are attributes, imported at first use.
"""

import importlib
from typing import TYPE_CHECKING

from keras_resnet import blocks as blocks  # registers their classes for keras.saving.load_model
from keras_resnet import layers as layers
from keras_resnet import preactivation as preactivation
from keras_resnet.configs import builders

__version__ = "0.1.0"

_ROOMS = (
    *("bulk", "configs", "conversion", "data", "export", "features", "models", "preprocessing"),
    *("trained", "training", "visualize", "weights"),
)
_ROOM_OF = {
    "create": "models",
    "list_models": "models",
    "Preprocessing": "preprocessing",
    "decode_predictions": "preprocessing",
    "preprocess_input": "preprocessing",
    "list_weights": "weights",
}

__all__ = ["__version__", "blocks", "layers", *_ROOMS, *builders(), *_ROOM_OF]

if TYPE_CHECKING:  # for editors and type checkers, which do not see lazy imports
    from functools import partial

    from keras_resnet import bulk as bulk
    from keras_resnet import configs as configs
    from keras_resnet import conversion as conversion
    from keras_resnet import data as data
    from keras_resnet import export as export
    from keras_resnet import features as features
    from keras_resnet import models as models
    from keras_resnet import preprocessing as preprocessing
    from keras_resnet import trained as trained
    from keras_resnet import training as training
    from keras_resnet import visualize as visualize
    from keras_resnet import weights as weights
    from keras_resnet.models import create as create
    from keras_resnet.models import list_models as list_models
    from keras_resnet.preprocessing import Preprocessing as Preprocessing
    from keras_resnet.preprocessing import decode_predictions as decode_predictions
    from keras_resnet.preprocessing import preprocess_input as preprocess_input
    from keras_resnet.weights import list_weights as list_weights

    ResNet18 = ResNet34 = ResNet50 = ResNet101 = ResNet152 = partial(create, "")
    ResNeXt50_32x4d = ResNeXt101_32x8d = ResNeXt101_64x4d = partial(create, "")
    WideResNet50_2 = WideResNet101_2 = partial(create, "")
    ResNet50V2 = ResNet101V2 = ResNet152V2 = partial(create, "")
    ResNet20 = ResNet32 = ResNet44 = ResNet56 = ResNet110 = ResNet1202 = partial(create, "")
else:

    def __getattr__(name):
        if name in _ROOMS:
            return importlib.import_module(f"{__name__}.{name}")
        if name in _ROOM_OF:
            return getattr(importlib.import_module(f"{__name__}.{_ROOM_OF[name]}"), name)
        if name in builders():
            return getattr(importlib.import_module(f"{__name__}.models"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
