"""LiteRT (TensorFlow Lite) files, for phones and small machines."""

from pathlib import Path

from keras_resnet.files import replacing
from keras_resnet.layers import convolution_path


def litert(model, path) -> Path:
    """Exports a model as a LiteRT file, in which each convolution is one `CONV_2D`.

    Needs the export extra (`pip install keras3-resnet[export]`).

    Args:
        model: A float32 model of this package, in TensorFlow.
        path: The file, `resnet.tflite` for example.

    Returns:
        The path. A file of that name is replaced once the new one is complete.

    Raises:
        ValueError: if the name does not end in .tflite.
    """
    if Path(path).suffix != ".tflite":
        raise ValueError(f"A LiteRT file's name ends in .tflite. Received: path={str(path)!r}")
    with convolution_path("native"), replacing(path) as temporary:
        model.export(temporary, format="litert", verbose=False)
    return Path(path)
