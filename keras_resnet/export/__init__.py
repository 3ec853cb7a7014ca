"""Exports to SavedModel, ONNX, LiteRT and OpenVINO."""

from keras_resnet.export.calibration import calibration_images
from keras_resnet.export.comparison import Comparison
from keras_resnet.export.folding import fold
from keras_resnet.export.to_litert import litert
from keras_resnet.export.to_onnx import onnx
from keras_resnet.export.to_openvino import openvino
from keras_resnet.export.to_saved_model import saved_model
from keras_resnet.export.verification import answers_in_new_process, verify
from keras_resnet.export.warmup import write_warmup

__all__ = [
    "Comparison",
    "answers_in_new_process",
    "calibration_images",
    "fold",
    "litert",
    "onnx",
    "openvino",
    "saved_model",
    "verify",
    "write_warmup",
]
