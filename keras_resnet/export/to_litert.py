"""LiteRT (TensorFlow Lite) files, for mobile and embedded devices."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_resnet.export.file import Format, input_signature, write_file
from keras_resnet.preprocessing import Preprocessing

METADATA = "keras_resnet"  # name of the metadata entry
IDENTIFIER = b"TFL3"  # of the file format


def litert(
    model: keras.Model,
    path: str | os.PathLike[str],
    *,
    preprocessing: Preprocessing | None = None,
    class_names: Sequence[str] | None = None,
    thresholds: Sequence[float] | None = None,
    image_size: int | tuple[int, int] | None = None,
    quantize: str | None = None,
    calibration_data: np.ndarray | None = None,
    source: str | os.PathLike[str] | None = None,
    layer: str | None = None,
    representative_data: np.ndarray | None = None,
) -> Path:
    """Exports a model as a LiteRT file, in which each convolution is one `CONV_2D`.

    The input is `images`, float32 (batch, height, width, channels), with every quantization; the
    output has the same name as for `export.onnx`, and the file has one signature,
    `serving_default`. Batch normalization is folded. Before the file gets its final name, LiteRT
    runs it and its predictions are compared with the model's. `<file>.export.json` describes the
    export, and the metadata "keras_resnet" has the preprocessing and the class names as JSON. Needs
    the export extra (`pip install keras3-resnet[export]`).

    Args:
        model: A model of this package, channels last.
        path: File to write, `resnet.tflite` for example.
        preprocessing: As for `export.onnx`; likewise `class_names`, `image_size`, `source` and
            `layer`.
        class_names: Likewise.
        thresholds: Likewise.
        image_size: Likewise.
        quantize: None; "dynamic" for 8-bit kernels, a quarter of the size; or "int8" for 8-bit
            kernels, with a scale for each channel, and 8-bit activations.
        calibration_data: For "int8", a hundred or more input images, float32 (number, height,
            width, channels), on which the range of each activation is measured.
        source: Likewise.
        layer: Likewise.
        representative_data: The earlier name of `calibration_data`.

    Returns:
        The path. An existing file is replaced only after the new one is complete and verified.

    Raises:
        ValueError: if an argument is invalid, or the file's predictions differ from the model's.
        ImportError: without the export extra.
        OSError: if the disk is full; an existing file is kept.
    """
    return write_file(
        FORMAT,
        model,
        path,
        preprocessing=preprocessing,
        class_names=class_names,
        thresholds=thresholds,
        image_size=image_size,
        quantize=quantize,
        calibration_data=calibration_data,
        source=source,
        layer=layer,
        representative_data=representative_data,
    )


def _write(network, file, metadata, quantize, data):
    """Converts with LiteRT's built-in operations only, which every interpreter supports."""
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
    """Adds the metadata to a file's content, as a buffer of JSON."""
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
