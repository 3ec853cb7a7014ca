"""ONNX files, for ONNX Runtime and what else reads them."""

from pathlib import Path

import keras

from keras_resnet.files import replacing
from keras_resnet.layers import convolution_path


def onnx(model, path) -> Path:
    """Exports a model as an ONNX file, in which each convolution is one `Conv`, grouped ones too.

    Needs the export extra (`pip install keras3-resnet[export]`).

    Args:
        model: A float32 model of this package, in TensorFlow.
        path: The file, `resnext.onnx` for example.

    Returns:
        The path. A file of that name is replaced once the new one is complete.
    """
    # Given here, since Keras infers it only once a model was called.
    signature = [keras.InputSpec(shape=t.shape, dtype=t.dtype, name=t.name) for t in model.inputs]
    with convolution_path("native"), replacing(path) as temporary:
        model.export(temporary, format="onnx", input_signature=signature, verbose=False)
    return Path(path)
