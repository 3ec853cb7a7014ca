"""Models in the formats of other systems."""

from keras_resnet.export.to_litert import litert
from keras_resnet.export.to_onnx import onnx
from keras_resnet.export.to_saved_model import saved_model
from keras_resnet.export.verification import probabilities_in_new_process

__all__ = ["litert", "onnx", "probabilities_in_new_process", "saved_model"]
