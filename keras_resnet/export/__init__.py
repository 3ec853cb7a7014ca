"""Models in the formats of other systems."""

from keras_resnet.export.to_saved_model import saved_model
from keras_resnet.export.verification import probabilities_in_new_process

__all__ = ["probabilities_in_new_process", "saved_model"]
