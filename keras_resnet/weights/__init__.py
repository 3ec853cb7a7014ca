"""Loading, saving, downloading and inspecting weights."""

from keras_resnet.weights.description import preprocessing_of
from keras_resnet.weights.download import download
from keras_resnet.weights.errors import CheckpointError
from keras_resnet.weights.inspection import inspect
from keras_resnet.weights.loading import load
from keras_resnet.weights.reading import read_state_dict
from keras_resnet.weights.registry import PretrainedWeights, list_weights
from keras_resnet.weights.saving import save
from keras_resnet.weights.sharing import save_hub
from keras_resnet.weights.state_dict import to_state_dict

__all__ = [
    "CheckpointError",
    "PretrainedWeights",
    "download",
    "inspect",
    "list_weights",
    "load",
    "preprocessing_of",
    "read_state_dict",
    "save",
    "save_hub",
    "to_state_dict",
]
