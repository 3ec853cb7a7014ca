"""Embeddings and predictions of many images as Parquet files, and search in them."""

from keras_resnet.bulk.jobs import Settings, Written, embed, predict
from keras_resnet.bulk.similar import Duplicates, Index

__all__ = ["Duplicates", "Index", "Settings", "Written", "embed", "predict"]
