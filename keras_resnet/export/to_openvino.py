"""OpenVINO files, for Intel's runtime."""

from pathlib import Path

from keras_resnet.export.file import input_signature, write_file


def openvino(
    model, path, *, preprocessing=None, class_names=None, image_size=None, source=None
) -> Path:
    """Exports a model as an OpenVINO file, in which each convolution is one operation.

    Its ends are as of `export.onnx`, and it is compared with the model likewise, with
    OpenVINO computing in float32 (by itself it takes bfloat16 where the processor has it). Needs
    the openvino extra (`pip install keras3-resnet[openvino]`).

    Args:
        model: A model of this package.
        path: The file, `resnet.xml` for example. The weights are beside it, in `resnet.bin`.
        preprocessing: The `Preprocessing` of its images, for export.json.
        class_names: Names of the classes, for export.json; their numbers if None.
        image_size: Side of the images in pixels, to fix what the model leaves open.
        source: The file of the model's weights, if any, for export.json.

    Returns:
        The path. Files of that name are replaced once the new ones are complete and right.

    Raises:
        ValueError: if the arguments do not fit, or if the file does not answer as the model does.
        ImportError: without OpenVINO.
        OSError: if the disk is full; what was at the path stays.
    """
    return write_file(
        "openvino",
        _write,
        model,
        path,
        suffix=".xml",
        packages={"openvino": "openvino", "scipy": "scipy"},  # Keras' export imports scipy
        extra="openvino",
        preprocessing=preprocessing,
        class_names=class_names,
        image_size=image_size,
        source=source,
    )


def _write(network, file, data):
    network.export(
        str(file), format="openvino", input_signature=input_signature(network), verbose=False
    )
