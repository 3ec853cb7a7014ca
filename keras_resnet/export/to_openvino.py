"""OpenVINO files, for Intel's runtime."""

import os
import platform
from collections.abc import Sequence
from pathlib import Path

import keras

from keras_resnet.export.file import Format, input_signature, write_file
from keras_resnet.preprocessing import Preprocessing


def openvino(
    model: keras.Model,
    path: str | os.PathLike[str],
    *,
    preprocessing: Preprocessing | None = None,
    class_names: Sequence[str] | None = None,
    thresholds: Sequence[float] | None = None,
    image_size: int | tuple[int, int] | None = None,
    source: str | os.PathLike[str] | None = None,
    layer: str | None = None,
) -> Path:
    """Exports a model as an OpenVINO file, in which each convolution is one operation.

    Input and outputs are the same as for `export.onnx`, and so is the comparison with the model, in
    which OpenVINO computes in float32 (by default it uses bfloat16 on processors that support it).
    `rt_info` has the preprocessing and the class names. Needs the openvino extra (`pip install
    keras3-resnet[openvino]`).

    Args:
        model: A model of this package.
        path: File to write, `resnet.xml` for example. The weights are written to `resnet.bin`.
        preprocessing: As for `export.onnx`, like the other arguments.
        class_names: Likewise.
        thresholds: Likewise.
        image_size: Likewise.
        source: Likewise.
        layer: Likewise.

    Returns:
        The path. Existing files are replaced only after the new ones are complete and verified.

    Raises:
        ValueError: if an argument is invalid, or the file's predictions differ from the model's.
        ImportError: without OpenVINO, or with Python 3.13, which OpenVINO 2026.4 does not support.
        OSError: if the disk is full; existing files are kept.
    """
    return write_file(
        FORMAT,
        model,
        path,
        preprocessing=preprocessing,
        class_names=class_names,
        thresholds=thresholds,
        image_size=image_size,
        source=source,
        layer=layer,
    )


def _write(network, file, metadata, quantize, data):
    import openvino

    try:
        network.export(
            str(file), format="openvino", input_signature=input_signature(network), verbose=False
        )
    except NameError as error:  # OpenVINO 2026.4 on Python 3.13
        raise ImportError(
            f"OpenVINO {openvino.__version__} cannot convert TensorFlow models with Python "
            f"{platform.python_version()}. Use Python 3.12 or older, or another format."
        ) from error
    # From memory, since the file from which a model reads its weights will be replaced.
    graph = openvino.Core().read_model(file.read_bytes(), file.with_suffix(".bin").read_bytes())
    for name, value in metadata.items():
        graph.set_rt_info(value, ["keras_resnet", name])
    openvino.save_model(graph, file, compress_to_fp16=False)


# Keras' export imports scipy.
PACKAGES = {"openvino": "openvino", "scipy": "scipy"}
FORMAT = Format("openvino", ".xml", PACKAGES, _write, extra="openvino")
