"""Trained networks: prediction, evaluation, explanation and export."""

from keras_resnet.trained.evaluation import Evaluation, evaluate
from keras_resnet.trained.multi_label import MultiLabelEvaluation
from keras_resnet.trained.network import Explanation, Network, open_network
from keras_resnet.trained.run import newest_run
from keras_resnet.trained.runtimes import open_runtime
from keras_resnet.trained.verification import verify_export

__all__ = [
    "Evaluation",
    "Explanation",
    "MultiLabelEvaluation",
    "Network",
    "evaluate",
    "newest_run",
    "open_network",
    "open_runtime",
    "verify_export",
]
