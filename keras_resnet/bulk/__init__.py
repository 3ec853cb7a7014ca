"""Embeddings and predictions of many images, as Parquet: in parts that can be continued."""

from keras_resnet.bulk.jobs import Settings, Written, embed, predict

__all__ = ["Settings", "Written", "embed", "predict"]
