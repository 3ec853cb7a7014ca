"""Runs an exported network in its own runtime; does not import this package.

Usage: python run_exported.py ARTEFACT INPUTS OUTPUT.npz

INPUTS is a .npy file of input images or, for a SavedModel, a folder of image files, which are used
in the order of their names. The outputs are written to OUTPUT.npz by name.
"""

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np


def load(path: str | os.PathLike[str]) -> Callable[[Any], dict[str, np.ndarray]]:
    """Opens an exported network.

    Args:
        path: The version folder of a SavedModel, or a .onnx, .tflite or .xml file.

    Returns:
        Function of an array of input images to a dictionary of outputs by name. For a SavedModel
        with preprocessing, it also accepts a list of encoded images, bytes.
    """
    path = Path(path)
    return (_saved_model if path.is_dir() else RUNTIMES[path.suffix])(path)


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """Disables TF32, with which a GPU computes float32 products to 3 digits only."""
    import tensorflow as tf

    rounds = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(rounds)


def _saved_model(path):
    import tensorflow as tf

    absl = logging.getLogger("absl")  # would warn that the graph cannot be trained
    level = absl.level
    absl.setLevel(logging.ERROR)
    try:
        loaded = tf.saved_model.load(path)
    finally:
        absl.setLevel(level)

    @full_precision()
    def predict(inputs):
        if isinstance(inputs, list):
            outputs = loaded.signatures["serving_default"](image_bytes=tf.constant(inputs))
        else:
            outputs = loaded.signatures["tensor"](images=tf.constant(inputs))
        return {name: value.numpy() for name, value in outputs.items()}

    return predict


def _onnx(path):
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda inputs: dict(zip(names, session.run(names, {"images": inputs}), strict=True))


def _litert(path):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=os.cpu_count())
    runner = interpreter.get_signature_runner()
    return lambda inputs: runner(images=inputs)


def _openvino(path):
    import openvino

    # By default, it computes in bfloat16 on processors that support it.
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(path, "CPU", settings)

    def predict(inputs):
        outputs = compiled({"images": inputs})
        return {output.any_name: outputs[output] for output in compiled.outputs}

    return predict


RUNTIMES = {".onnx": _onnx, ".tflite": _litert, ".xml": _openvino}


def main(path: str, inputs: str, output: str) -> None:
    """Reads the inputs, runs the network and writes the outputs."""
    source = Path(inputs)
    if source.is_dir():
        images = [file.read_bytes() for file in sorted(source.iterdir())]
    else:
        images = np.load(source)
    try:
        outputs = load(path)(images)
    except Exception as error:  # each runtime has its own exceptions
        sys.exit(f"Error: {' '.join(str(error).split())[:500]}")
    # Strings of fixed length, as others would be pickled.
    arrays = {k: v.astype(bytes) if v.dtype == object else v for k, v in outputs.items()}
    np.savez(output, **arrays)  # type: ignore[arg-type]


if __name__ == "__main__":
    main(*sys.argv[1:])
