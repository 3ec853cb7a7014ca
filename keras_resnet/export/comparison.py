"""Compares the predictions of an exported network with the model's."""

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_resnet.export import run_exported
from keras_resnet.export.network import (
    every_layer,
    gives_logits,
    laid_out,
    named_outputs,
    normalises_itself,
)
from keras_resnet.preprocessing import Preprocessing

# Relative to the largest value: rounding errors in about a hundred layers.
TOLERANCES = {"float16": 2e-2, "bfloat16": 1e-1}
TOLERANCE = 1e-4
# Required of a quantized network, for which no bound on the difference is known.
AGREEMENT = 0.95
QUANTISED_TOLERANCE = 0.5  # for features
IMAGES = 5
LEAST_PROBABILITY = 1e-30  # a normal number in float32
BATCH_SIZE = 32
FREE_SIDE = 64  # image size for models that accept any


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A comparison of an exported network's predictions with the model's.

    Args:
        images: Number of images compared.
        error: The largest difference divided by the largest value; for probabilities, of their
            logarithms, unless the network is quantized.
        agreement: Fraction of images with the same predicted class; None without classes.
        tolerance: The largest error allowed; None for a quantized network, which has to predict the
            same class for 95 % of the images.
    """

    images: int
    error: float
    agreement: float | None
    tolerance: float | None

    def check(self, what: object) -> None:
        """Raises a ValueError if the predictions differ."""
        if not np.isfinite(self.error):
            raise ValueError(f"{what} or its model predicts NaN or infinite values.")
        if self.tolerance is None and self.agreement is not None:
            if self.agreement < AGREEMENT:
                raise ValueError(
                    f"{what} predicts the same class as the model on {self.agreement:.0%} of "
                    f"{self.images} images; {AGREEMENT:.0%} is required of a quantized network."
                )
            return
        allowed = QUANTISED_TOLERANCE if self.tolerance is None else self.tolerance
        if self.error > allowed:
            raise ValueError(
                f"{what} does not reproduce the model's outputs: the largest difference on "
                f"{self.images} images is {self.error:.2g} of the largest output; {allowed} is "
                "allowed. Do not use it."
            )


def tolerance(model: keras.Model) -> float:
    """Returns the tolerance for rounding errors in the lowest precision that the model uses."""
    used = {layer.compute_dtype for layer in every_layer(model)}
    return max((TOLERANCES[dtype] for dtype in used if dtype in TOLERANCES), default=TOLERANCE)


def opened(artefact: Path) -> Callable[[Any], dict[str, np.ndarray]]:
    """Opens a file with `run_exported.load`; runs in batches, and errors become ValueErrors."""

    def tried(function, argument):
        try:
            return function(argument)
        except Exception as error:  # each runtime has its own exceptions
            reason = " ".join(str(error).split())[:500]
            raise ValueError(f"{artefact} cannot be run: {reason}") from error

    predict = tried(run_exported.load, artefact)

    def in_batches(inputs):
        starts = range(0, len(inputs), BATCH_SIZE)
        parts = [tried(predict, inputs[start : start + BATCH_SIZE]) for start in starts]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    return in_batches


def compare(
    outputs: dict[str, np.ndarray],
    model: keras.Model,
    inputs: np.ndarray,
    allowed: float | None,
    predict: Callable[[np.ndarray], Any] | None = None,
) -> Comparison:
    """Compares an exported network's outputs, by name, with the model's for the same images.

    `inputs` are the model's inputs, `allowed` is the tolerance of the `Comparison`, and `predict`
    the model's `predictor`, to be reused in several comparisons.
    """
    expected = named_outputs(model, (predict or predictor(model))(inputs))
    if "probabilities" in outputs and gives_logits(model):
        expected = {"probabilities": keras.ops.softmax(expected["logits"])}
    error, agreement = 0.0, None
    for name, value in expected.items():
        value = np.asarray(keras.ops.convert_to_numpy(value), np.float64)
        output = outputs.get(name)
        if output is None or output.shape != value.shape:
            raise ValueError(
                f"Expected an output {name!r} of shape {value.shape}. Received: "
                f"{ {name: output.shape for name, output in outputs.items()} }"
            )
        if name in ("probabilities", "logits"):
            agreement = float(np.mean(output.argmax(-1) == value.argmax(-1)))
        if name == "probabilities" and allowed is not None:
            output, value = _logarithms(output), _logarithms(value)
        difference = np.abs(output - value).max() / (np.abs(value).max() or 1.0)
        error = float(np.maximum(error, difference))  # keeps NaN
    return Comparison(len(inputs), error, agreement, allowed)


def predictor(model: keras.Model) -> Callable[[np.ndarray], Any]:
    """Returns a function from images to the model's predictions, in full precision."""
    if keras.backend.backend() != "tensorflow":
        return lambda inputs: model.predict(inputs, batch_size=BATCH_SIZE, verbose=0)
    import tensorflow as tf

    # A new function, since that of `predict` may already be compiled for TF32.
    function = tf.function(lambda images: model(images, training=False), autograph=False)

    @run_exported.full_precision()
    def predict(inputs):
        traced = function.get_concrete_function(  # traced once, for any batch size
            tf.TensorSpec((None, *inputs.shape[1:]), inputs.dtype)
        )
        parts = [
            traced(tf.convert_to_tensor(inputs[start : start + BATCH_SIZE]))
            for start in range(0, len(inputs), BATCH_SIZE)
        ]
        return keras.tree.map_structure(lambda *part: np.concatenate(part), *parts)

    return predict


def _logarithms(probabilities):
    """Returns log-probabilities, which also differ if all probabilities are close to 0 or 1."""
    logarithms = np.log(np.maximum(np.asarray(probabilities, np.float64), LEAST_PROBABILITY))
    return logarithms - 1  # none is near 0, so the largest is a scale for all


def check_names(outputs: dict[str, np.ndarray], class_names: list[str] | None) -> None:
    """Raises a ValueError if class names do not match the classes that a network predicts.

    The classes that a SavedModel returns have to be the most probable ones.
    """
    class_names = class_names or []
    probabilities = outputs.get("probabilities", outputs.get("logits", np.empty(0)))
    number = probabilities.shape[-1]
    if number != len(class_names):
        raise ValueError(
            f"The network predicts {number} classes, but export.json has names for "
            f"{len(class_names)}: it was modified, or belongs to another network. Export again."
        )
    if "classes" not in outputs:
        return
    classes = outputs["classes"]
    best = np.argsort(-probabilities, kind="stable")[:, : classes.shape[1]]
    named = [
        [class_names[index].encode("utf-8", "backslashreplace") for index in row] for row in best
    ]
    scores = np.take_along_axis(probabilities, best, 1)
    if classes.tolist() != named or not np.array_equal(scores, outputs["scores"]):
        raise ValueError(
            "The classes and scores of the SavedModel do not match its probabilities and the "
            "class names in export.json. Export again."
        )


def model_inputs(
    model: keras.Model, preprocessing: Preprocessing, images: dict[str, bytes]
) -> np.ndarray:
    """Preprocesses encoded images, bytes by name, for a model."""
    inputs = preprocessing.batch(images, normalise=not normalises_itself(model))
    return np.asarray(laid_out(model, inputs.astype(np.float32)))


def sample(shape: Iterable[int | None], dtype: str) -> np.ndarray:
    """Returns random inputs: values like those of normalised images, or pixels."""
    size = (IMAGES, *(side or FREE_SIDE for side in shape))
    random = np.random.default_rng(0)
    if dtype == "uint8":
        return random.integers(0, 256, size, np.uint8)
    return random.normal(size=size).astype(dtype)
