"""Diagrams and charts of networks, training runs and predictions."""

from keras_resnet.visualize.charts import confusion_matrix, curves, gallery, predictions
from keras_resnet.visualize.diagrams import plot
from keras_resnet.visualize.explanations import (
    explanation,
    feature_maps,
    first_kernels,
    grad_cam,
    overlay,
)
from keras_resnet.visualize.summaries import Stage, summary, summary_table

__all__ = [
    "Stage",
    "confusion_matrix",
    "curves",
    "explanation",
    "feature_maps",
    "first_kernels",
    "gallery",
    "grad_cam",
    "overlay",
    "plot",
    "predictions",
    "summary",
    "summary_table",
]
