"""LiteRT (TensorFlow Lite) files, for phones and small machines."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_resnet.export.file import Format, input_signature, write_file
from keras_resnet.preprocessing import Preprocessing

METADATA = "keras_resnet"  # the name of our metadata in a file
IDENTIFIER = b"TFL3"  # of LiteRT's format


def litert(
    model: keras.Model,
    path: str | os.PathLike[str],
    *,
    preprocessing: Preprocessing | None = None,
    class_names: Sequence[str] | None = None,
    image_size: int | tuple[int, int] | None = None,
    quantize: str | None = None,
    calibration_data: np.ndarray | None = None,
    source: str | os.PathLike[str] | None = None,
    representative_data: np.ndarray | None = None,
) -> Path:
    """Exports a model as a LiteRT file, in which each convolution is one `CONV_2D`.

    The input is `images`, float32 (batch, height, width, channels), whatever the quantisation; the
    output is named as of `export.onnx`, and the file has one signature, `serving_default`. Batch
    normalization is folded. LiteRT runs the file, and its predictions are compared with the
    model's, before it gets its name. Its record, `<file>.export.json`, says what it is, and its
    metadata "keras_resnet" the preprocessing and the classes, in JSON. Needs the export extra
    (`pip install keras3-resnet[export]`).

    Args:
        model: A model of this package, channels last.
        path: The file, `resnet.tflite` for example.
        preprocessing: As `class_names`, `image_size` and `source`, of `export.onnx`.
        class_names: Likewise.
        image_size: Likewise.
        quantize: None, "dynamic" for kernels of 8 bits (a quarter of the size), or "int8" for
            kernels, with a scale for each channel, and activations of 8 bits.
        calibration_data: For "int8", some hundred images as the model takes them, float32
            (number, height, width, channels): the range of each activation is measured on them.
        source: Likewise.
        representative_data: The earlier name of `calibration_data`.

    Returns:
        The path. A file of that name is replaced once the new one is complete and right.

    Raises:
        ValueError: if the arguments do not fit, or if the file does not predict as the model does.
        ImportError: without the export extra.
        OSError: if the disk is full; what was at the path stays.
    """
    return write_file(
        FORMAT,
        model,
        path,
        preprocessing=preprocessing,
        class_names=class_names,
        image_size=image_size,
        quantize=quantize,
        calibration_data=calibration_data,
        source=source,
        representative_data=representative_data,
    )


def _write(network, file, metadata, quantize, data):
    """By LiteRT's own operations only, so that any interpreter runs them."""
    import tensorflow as tf

    operations = tf.lite.OpsSet.TFLITE_BUILTINS
    if quantize == "int8":
        operations = tf.lite.OpsSet.TFLITE_BUILTINS_INT8
    settings: dict[str, Any] = {"target_spec": {"supported_ops": [operations]}}
    if quantize:
        settings["optimizations"] = [tf.lite.Optimize.DEFAULT]
    if data is not None:
        settings["representative_dataset"] = lambda: ([image[None]] for image in data)
    network.export(
        str(file),
        format="litert",
        input_signature=input_signature(network),
        verbose=False,
        **settings,
    )
    file.write_bytes(_with_metadata(file.read_bytes(), metadata))


def _with_metadata(content, metadata):
    """A file's content with one more buffer: the metadata, as JSON, under our name."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = list(json.dumps(metadata).encode())
    entry.name, entry.buffer = METADATA, len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or ()), entry]
    builder = flatbuffers.Builder(len(content) + 2**16)
    builder.Finish(model.Pack(builder), IDENTIFIER)
    return bytes(builder.Output())


PACKAGES = {"ai_edge_litert": "ai-edge-litert"}
FORMAT = Format("litert", ".tflite", PACKAGES, _write, quantized=(None, "dynamic", "int8"))
