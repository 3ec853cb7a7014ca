"""ONNX files, for ONNX Runtime and other runtimes."""

import contextlib
import gc
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from keras_resnet.export.file import Format, input_signature, write_file
from keras_resnet.preprocessing import Preprocessing

OPSET = 17  # for ONNX Runtime 1.12 or newer; with 18, tf2onnx uses a slower operation for averages


def onnx(
    model: keras.Model,
    path: str | os.PathLike[str],
    *,
    preprocessing: Preprocessing | None = None,
    with_preprocessing: bool = False,
    class_names: Sequence[str] | None = None,
    thresholds: Sequence[float] | None = None,
    image_size: int | tuple[int, int] | None = None,
    quantize: str | None = None,
    calibration_data: np.ndarray | None = None,
    source: str | os.PathLike[str] | None = None,
    layer: str | None = None,
    representative_data: np.ndarray | None = None,
) -> Path:
    """Exports a model as an ONNX file, in which each convolution is one `Conv`, grouped ones too.

    The input is `images`, (batch, height, width, channels), or channels first if the model is. The
    batch size is dynamic, and so are height and width if neither the model nor `image_size` fixes
    them. The output is `probabilities`, `logits` or `features`, or the name of each level of a
    pyramid. Batch normalization is folded; the opset is 17. Before the file gets its final name,
    ONNX Runtime runs it and its predictions are compared with the model's. `<file>.export.json`
    describes the export, and `metadata_props` has the preprocessing and the class names. Needs the
    export extra (`pip install keras3-resnet[export]`).

    Args:
        model: A model of this package.
        path: File to write, `resnext.onnx` for example.
        preprocessing: The `Preprocessing` of the images, for the record and the metadata.
        with_preprocessing: Whether to include its normalisation in the network, whose input is then
            uint8 pixels, 0..255.
        class_names: Class names, for the record and the metadata. Default: the class indices.
        thresholds: Least probability at which each class is predicted, for a network that ends in a
            sigmoid; for the record and the metadata.
        image_size: Image size in pixels, or (height, width), if the model accepts any.
        quantize: None, or "int8" for ONNX Runtime's static 8-bit quantization, with a scale for
            each channel of the kernels.
        calibration_data: For "int8", a hundred or more input images (number, height, width,
            channels), on which the range of each activation is measured.
        source: The file of the model's weights, if any, for the record.
        layer: Export the model that `features.pooled` makes for this layer, with the output
            `features`, instead of the classifier.
        representative_data: The earlier name of `calibration_data`.

    Returns:
        The path. An existing file is replaced only after the new one is complete and verified.

    Raises:
        ValueError: if an argument is invalid, or the file's predictions differ from the model's.
        ImportError: without the export extra.
        OSError: if the disk is full; an existing file is kept.

    Example:
    >>> model = keras_resnet.ResNet18(classes=5)
    >>> keras_resnet.export.onnx(model, "flowers.onnx", image_size=224)  # doctest: +SKIP
    """
    return write_file(
        FORMAT,
        model,
        path,
        preprocessing=preprocessing,
        with_preprocessing=with_preprocessing,
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
    import onnx

    with _frees_often():
        network.export(
            str(file),
            format="onnx",
            input_signature=input_signature(network),
            opset_version=OPSET,
            verbose=False,
        )
    graph = onnx.load(file)
    for node in graph.graph.node:
        if node.op_type == "Conv":
            _pad_explicitly(node)
    onnx.save(graph, file)
    if data is not None:
        _quantize(file, data)
        graph = onnx.load(file)
    for tensor in graph.graph.input:
        _name_open_sides(tensor, "side")
    for tensor in graph.graph.output:
        _name_open_sides(tensor, tensor.name)  # equal names would mean equal lengths
    onnx.helper.set_model_props(graph, metadata)
    onnx.checker.check_model(graph, full_check=True)
    onnx.save(graph, file)


@contextlib.contextmanager
def _frees_often():
    """Runs the garbage collector often, since each pass of tf2onnx leaves a copy of the network.

    Existing objects are frozen, so they are not visited each time. The export of ResNet-50 then
    takes at most 2.8 GB, and 1.1 GB at the end; otherwise 6.5 and 5.9 GB, in the same time.
    """
    thresholds = gc.get_threshold()
    gc.freeze()
    gc.collect()  # otherwise a full collection only runs after a growth by a quarter
    gc.set_threshold(200, 5, 2)
    try:
        yield
    finally:
        gc.collect()
        gc.set_threshold(*thresholds)
        gc.unfreeze()


def _pad_explicitly(node):
    """Replaces SAME_UPPER of a convolution with stride 1 by explicit padding.

    ONNX Runtime does not support it together with dilation.
    """
    from onnx import helper

    said = {attribute.name: attribute for attribute in node.attribute}
    if "auto_pad" not in said or not said["auto_pad"].s.startswith(b"SAME"):
        return
    kernel, strides, rates = (
        helper.get_attribute_value(said[name]) if name in said else [1, 1]
        for name in ("kernel_shape", "strides", "dilations")
    )
    if set(strides) != {1} or not all(side % 2 for side in kernel):
        return
    margins = [rate * (side - 1) // 2 for side, rate in zip(kernel, rates, strict=True)]
    node.attribute.remove(said["auto_pad"])
    node.attribute.append(helper.make_attribute("pads", margins * 2))


def _name_open_sides(tensor, prefix):
    """Renames dynamic dimensions, which the converter calls `unk__7`."""
    for number, side in enumerate(tensor.type.tensor_type.shape.dim):
        if not side.HasField("dim_value"):
            side.dim_param = "batch" if number == 0 else f"{prefix}_{number}"


def _quantize(file, data):
    """Replaces a file by its quantized version."""
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(quantization.CalibrationDataReader):
        images = iter(data)

        def get_next(self):
            image = next(self.images, None)
            return None if image is None else {"images": image[None]}

    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(file, prepared, skip_symbolic_shape=True)
        quantization.quantize_static(
            prepared,
            file,
            Reader(),
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )


PACKAGES = {"tf2onnx": "tf2onnx", "onnx": "onnx", "onnxruntime": "onnxruntime"}
FORMAT = Format("onnx", ".onnx", PACKAGES, _write, quantized=(None, "int8"), said={"opset": OPSET})
