"""Warm-up requests, which TensorFlow Serving runs before it makes a version available."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_resnet.export import record
from keras_resnet.files import replacing
from keras_resnet.preprocessing import pair

FREE_SIDE = 224  # image size for networks that accept any


def write_warmup(version: str | os.PathLike[str], *, batch_sizes: Sequence[int] = (1,)) -> Path:
    """Writes warm-up requests for each signature of a SavedModel.

    TensorFlow initializes parts of a graph at its first run. TensorFlow Serving runs the requests
    in assets.extra/tf_serving_warmup_requests before it makes a version available. Needs the
    serving extra (`pip install keras3-resnet[serving]`).

    Args:
        version: The version folder that `saved_model` returned.
        batch_sizes: Batch sizes, one request for each.

    Returns:
        The file, a TFRecord file of `tensorflow.serving.PredictionLog`.

    Raises:
        ValueError: if the folder has no export.json, or a batch size is less than 1.
        ImportError: without the serving extra.
    """
    predict_pb2, prediction_log_pb2 = serving_messages()
    if not batch_sizes or min(batch_sizes) < 1:
        raise ValueError(f"batch_sizes should be 1 or more. Received: batch_sizes={batch_sizes}")
    version = Path(version).resolve()
    said = record.read(version)
    preprocessing = record.preprocessing_of(said)
    target = version / "assets.extra" / "tf_serving_warmup_requests"
    target.parent.mkdir(exist_ok=True)
    with replacing(target) as temporary, tf.io.TFRecordWriter(str(temporary)) as file:
        for signature, ends in said["signature"].items():
            for size in batch_sizes:
                request = predict_pb2.PredictRequest()
                request.model_spec.name = version.parent.name
                request.model_spec.signature_name = signature
                for name, spec in ends["inputs"].items():
                    request.inputs[name].CopyFrom(
                        tf.make_tensor_proto(_images(spec, size, preprocessing))
                    )
                log = prediction_log_pb2.PredictionLog(
                    predict_log=prediction_log_pb2.PredictLog(request=request)
                )
                file.write(log.SerializeToString())
    return target


def serving_messages() -> tuple[Any, Any]:
    """Imports TensorFlow Serving's protocol buffers, of requests and of their logs.

    Raises:
        ImportError: without the serving extra.
    """
    try:
        from tensorflow_serving.apis import predict_pb2, prediction_log_pb2
    except ImportError as error:
        raise ImportError(
            "Warm-up requests need tensorflow-serving-api: pip install 'keras3-resnet[serving]'"
        ) from error
    return predict_pb2, prediction_log_pb2


def _images(spec, size, preprocessing):
    """Makes images for an input: encoded ones, or arrays."""
    if spec["dtype"] != "string":
        sides = preprocessing.sides if preprocessing else (FREE_SIDE, FREE_SIDE)
        _, *lengths = spec["shape"]
        usual = (3, *sides) if lengths[0] == 3 else (*sides, sides[1])  # channels first or last
        shape = [length or side for length, side in zip(lengths, usual, strict=True)]
        return np.zeros([size, *shape], spec["dtype"])
    pixels = tf.zeros((*pair(preprocessing.resize), 3), tf.uint8)
    return [tf.io.encode_jpeg(pixels).numpy()] * size
