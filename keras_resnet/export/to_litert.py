"""LiteRT (TensorFlow Lite) files, for phones and small machines."""

from pathlib import Path
from typing import Any

from keras_resnet.export.file import input_signature, write_file

KINDS = (None, "dynamic", "int8")


def litert(
    model,
    path,
    *,
    preprocessing=None,
    class_names=None,
    image_size=None,
    quantize=None,
    representative_data=None,
    source=None,
) -> Path:
    """Exports a model as a LiteRT file, in which each convolution is one `CONV_2D`.

    The input is `images`, float32 (batch, height, width, channels), whatever the quantisation; the
    output is named as of `export.onnx`, and the file has one signature, `serving_default`. Batch
    normalization is folded. LiteRT runs the file, and its answers are compared with the model's,
    before it gets its name. Its export.json says what it is. Needs the export extra
    (`pip install keras3-resnet[export]`).

    Args:
        model: A model of this package, channels last.
        path: The file, `resnet.tflite` for example.
        preprocessing: The `Preprocessing` of its images, for export.json.
        class_names: Names of the classes, for export.json; their numbers if None.
        image_size: Side of the images in pixels, to fix what the model leaves open.
        quantize: None, "dynamic" for kernels of 8 bits (a quarter of the size), or "int8" for
            kernels, with a scale for each channel, and activations of 8 bits.
        representative_data: For "int8", some hundred images as the model takes them, float32
            (number, height, width, channels): the range of each activation is measured on them.
        source: The file of the model's weights, if any, for export.json.

    Returns:
        The path. A file of that name is replaced once the new one is complete and right.

    Raises:
        ValueError: if the arguments do not fit, or if the file does not answer as the model does.
        ImportError: without the export extra.
        OSError: if the disk is full; what was at the path stays.
    """
    if quantize not in KINDS:
        raise ValueError(f"quantize should be one of {KINDS}. Received: quantize={quantize!r}")

    def write(network, file, data):
        network.export(
            str(file),
            format="litert",
            input_signature=input_signature(network),
            verbose=False,
            **_conversion(quantize, data),
        )

    return write_file(
        "litert",
        write,
        model,
        path,
        suffix=".tflite",
        packages={"ai_edge_litert": "ai-edge-litert"},
        preprocessing=preprocessing,
        class_names=class_names,
        image_size=image_size,
        quantize=quantize,
        representative_data=representative_data,
        source=source,
    )


def _conversion(quantize, data):
    """The converter's settings: LiteRT's own operations only, so that any interpreter runs them."""
    import tensorflow as tf

    operations = tf.lite.OpsSet.TFLITE_BUILTINS
    if quantize == "int8":
        operations = tf.lite.OpsSet.TFLITE_BUILTINS_INT8
    settings: dict[str, Any] = {"target_spec": {"supported_ops": [operations]}}
    if quantize:
        settings["optimizations"] = [tf.lite.Optimize.DEFAULT]
    if data is not None:
        settings["representative_dataset"] = lambda: ([image[None]] for image in data)
    return settings
