"""OpenVINO files, for Intel's runtime."""

import os
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
    image_size: int | tuple[int, int] | None = None,
    source: str | os.PathLike[str] | None = None,
) -> Path:
    """Exports a model as an OpenVINO file, in which each convolution is one operation.

    The input and outputs are those of `export.onnx`, and so is the comparison with the model, for
    which OpenVINO computes in float32 (by itself it takes bfloat16 where the processor has it).
    Its `rt_info` has the preprocessing and the classes, as a file of
    `export.onnx` in its metadata. Needs the openvino extra
    (`pip install keras3-resnet[openvino]`).

    Args:
        model: A model of this package.
        path: The file, `resnet.xml` for example. The weights are beside it, in `resnet.bin`.
        preprocessing: As the other arguments, of `export.onnx`.
        class_names: Likewise.
        image_size: Likewise.
        source: Likewise.

    Returns:
        The path. Files of that name are replaced once the new ones are complete and right.

    Raises:
        ValueError: if the arguments do not fit, or if the file does not predict as the model does.
        ImportError: without OpenVINO.
        OSError: if the disk is full; what was at the path stays.
    """
    return write_file(
        FORMAT,
        model,
        path,
        preprocessing=preprocessing,
        class_names=class_names,
        image_size=image_size,
        source=source,
    )


def _write(network, file, metadata, quantize, data):
    import openvino

    network.export(
        str(file), format="openvino", input_signature=input_signature(network), verbose=False
    )
    # A model reads its weights from the file, which is replaced: so from memory.
    graph = openvino.Core().read_model(file.read_bytes(), file.with_suffix(".bin").read_bytes())
    for name, value in metadata.items():
        graph.set_rt_info(value, ["keras_resnet", name])
    openvino.save_model(graph, file, compress_to_fp16=False)


# Keras' export imports scipy.
PACKAGES = {"openvino": "openvino", "scipy": "scipy"}
FORMAT = Format("openvino", ".xml", PACKAGES, _write, extra="openvino")
