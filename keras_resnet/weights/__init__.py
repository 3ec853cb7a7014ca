"""Weights from files into models, and back."""

from keras_resnet.weights.errors import CheckpointError
from keras_resnet.weights.loading import load
from keras_resnet.weights.state_dict import read_state_dict, to_state_dict

__all__ = ["CheckpointError", "load", "read_state_dict", "to_state_dict"]
