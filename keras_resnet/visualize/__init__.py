"""Pictures of networks, trainings and predictions."""

from keras_resnet.visualize.charts import confusion_matrix, curves, gallery, predictions
from keras_resnet.visualize.diagrams import plot

__all__ = ["confusion_matrix", "curves", "gallery", "plot", "predictions"]
