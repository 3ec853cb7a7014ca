"""Compares what an exported network answers with what the model does."""

import dataclasses
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import keras
import numpy as np

from keras_resnet.export import record, run_exported
from keras_resnet.export.network import (
    gives_logits,
    laid_out,
    named_outputs,
    normalises_itself,
)

# Of the largest value: rounding, through some hundred layers.
TOLERANCES = {"float16": 2e-2, "bfloat16": 1e-1}
TOLERANCE = 1e-4
# What a quantised network has to reach, since rounding explains no fixed difference.
AGREEMENT = 0.95
QUANTISED_TOLERANCE = 0.5  # of features
IMAGES = 5
LEAST_PROBABILITY = 1e-30  # which float32 still has all its digits for
BATCH_SIZE = 32
FREE_SIDE = 64  # Of the images that are tried where a model leaves the size open.


@dataclasses.dataclass(frozen=True)
class Comparison:
    """An exported network's answers beside the model's.

    Args:
        images: How many images both answered.
        error: The largest difference, divided by the largest value; of probabilities, that of
            their logarithms, unless the network is quantised.
        agreement: The share of images whose best class is the same; None without classes.
        tolerance: The error that is allowed; None for a quantised network, which has to agree on
            the best class of 95 % of the images.
    """

    images: int
    error: float
    agreement: float | None
    tolerance: float | None

    def check(self, what):
        """Raises a ValueError if the answers are not the model's."""
        if not np.isfinite(self.error):
            raise ValueError(
                f"{what} or the model it is of answers with what is no number, or infinite."
            )
        if self.tolerance is None and self.agreement is not None:
            if self.agreement < AGREEMENT:
                raise ValueError(
                    f"{what} names the same best class as the model on {self.agreement:.0%} of "
                    f"{self.images} images; {AGREEMENT:.0%} is expected of a quantised network."
                )
            return
        allowed = QUANTISED_TOLERANCE if self.tolerance is None else self.tolerance
        if self.error > allowed:
            raise ValueError(
                f"{what} does not answer as the model does: the largest difference on "
                f"{self.images} images is {self.error:.2g} of the largest value; {allowed} is "
                "allowed. Do not use it."
            )


def tolerance(model) -> float:
    """What rounding explains, in the lowest precision that the model computes in."""
    used = {layer.compute_dtype for layer in model._flatten_layers()}
    return max((TOLERANCES[dtype] for dtype in used if dtype in TOLERANCES), default=TOLERANCE)


def opened(artefact):
    """`run_exported.load`, in batches, and what a runtime says against a file as a ValueError."""

    def tried(function, argument):
        try:
            return function(argument)
        except Exception as error:  # each runtime has its own
            reason = " ".join(str(error).split())[:500]
            raise ValueError(f"{artefact} cannot be run: {reason}") from error

    answer = tried(run_exported.load, artefact)

    def in_batches(inputs):
        starts = range(0, len(inputs), BATCH_SIZE)
        parts = [tried(answer, inputs[start : start + BATCH_SIZE]) for start in starts]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    return in_batches


def compare(answers, model, inputs, allowed) -> Comparison:
    """Compares the answers to some images with the model's.

    Args:
        answers: Each output by its name.
        model: The model.
        inputs: What the model takes for the same images.
        allowed: The tolerance, or None.
    """
    expected = named_outputs(model, _answers(model, inputs))
    if "probabilities" in answers and gives_logits(model):
        expected = {"probabilities": keras.ops.softmax(expected["logits"])}
    error, agreement = 0.0, None
    for name, value in expected.items():
        value = np.asarray(keras.ops.convert_to_numpy(value), np.float64)
        answer = answers.get(name)
        if answer is None or answer.shape != value.shape:
            raise ValueError(
                f"There should be an output {name!r} of shape {value.shape}. Received: "
                f"{ {name: answer.shape for name, answer in answers.items()} }"
            )
        if name in ("probabilities", "logits"):
            agreement = float(np.mean(answer.argmax(-1) == value.argmax(-1)))
        if name == "probabilities" and allowed is not None:
            answer, value = _logarithms(answer), _logarithms(value)
        difference = np.abs(answer - value).max() / (np.abs(value).max() or 1.0)
        error = float(np.maximum(error, difference))  # NaN stays
    return Comparison(len(inputs), error, agreement, allowed)


def _answers(model, inputs):
    """What a model answers, in the precision that it says."""
    if keras.backend.backend() != "tensorflow":
        return model.predict(inputs, batch_size=BATCH_SIZE, verbose=0)
    import tensorflow as tf

    # A function of its own: that of `predict` may have been compiled for TF32 before.
    answer = tf.function(lambda images: model(images, training=False), reduce_retracing=True)
    with run_exported.full_precision():
        parts = [
            answer(tf.convert_to_tensor(inputs[start : start + BATCH_SIZE]))
            for start in range(0, len(inputs), BATCH_SIZE)
        ]
    return keras.tree.map_structure(lambda *part: np.concatenate(part), *parts)


def _logarithms(probabilities):
    """What a network that is sure of its class computed: its probabilities are all 0 or 1."""
    logarithms = np.log(np.maximum(np.asarray(probabilities, np.float64), LEAST_PROBABILITY))
    return logarithms - 1  # none is near 0, so that the largest is a measure of all


def check_names(answers, class_names):
    """Refuses names that are not those of the classes that a network answers with.

    A SavedModel says them too: they have to be the best of its probabilities.
    """
    probabilities = answers.get("probabilities", answers.get("logits"))
    number = 0 if probabilities is None else probabilities.shape[-1]
    if number != len(class_names or ()):
        raise ValueError(
            f"The network answers with {number} classes, and {record.NAME} names "
            f"{len(class_names or ())}: it was changed, or is of another network. Export again."
        )
    if "classes" not in answers:
        return
    classes = answers["classes"]
    best = np.argsort(-probabilities, kind="stable")[:, : classes.shape[1]]
    named = [
        [class_names[index].encode("utf-8", "backslashreplace") for index in row] for row in best
    ]
    scores = np.take_along_axis(probabilities, best, 1)
    if classes.tolist() != named or not np.array_equal(scores, answers["scores"]):
        raise ValueError(
            "The SavedModel's classes and scores are not the best of its probabilities, by the "
            "names in export.json. Export it again."
        )


def model_inputs(model, preprocessing, images) -> np.ndarray:
    """Encoded images, bytes by name, as a model takes them."""
    inputs = preprocessing.batch(images, normalise=not normalises_itself(model))
    return np.asarray(laid_out(model, inputs.astype(np.float32)))


def sample(shape, dtype) -> np.ndarray:
    """Noise for a network to answer: values of normalised images, or of pixels."""
    shape = (IMAGES, *(side or FREE_SIDE for side in shape))
    random = np.random.default_rng(0)
    if dtype == "uint8":
        return random.integers(0, 256, shape, np.uint8)
    return random.normal(size=shape).astype(dtype)


def verify(artefact, images, model, *, preprocessing=None) -> Comparison:
    """Has an exported network and the model answer the same images.

    Args:
        artefact: The version folder of a SavedModel, or a .onnx, .tflite or .xml file, with the
            export.json that was written with it.
        images: Encoded images, bytes, by the name that an error calls them.
        model: The model that was exported.
        preprocessing: The evaluation transform, if export.json names none.

    Returns:
        The comparison. `check` raises if the answers differ.

    Raises:
        ValueError: if an image cannot be decoded, the files are not those that were written, or
            the model has other weights than the one that was exported.
    """
    said = record.read(artefact)
    if record.file_hashes(artefact) != said.get("files_sha256"):
        raise ValueError(
            f"{artefact} is damaged, or another file than the one that {record.place(artefact)} "
            "describes: its sha256 differs. Export again."
        )
    if record.weights_hash(model) != said["weights_sha256"]:
        raise ValueError(
            f"{artefact} was not made from this model: the weights differ. Pass the model that "
            "was exported."
        )
    preprocessing = record.preprocessing_of(said) or preprocessing
    if preprocessing is None:
        raise ValueError(
            f"{artefact} was exported without the preprocessing of its images: pass it."
        )
    inputs = model_inputs(model, preprocessing, images)
    given: np.ndarray | list[bytes] = inputs
    if said["preprocessing_inside"] == "all":
        given = list(images.values())
    elif said["preprocessing_inside"] == "normalisation":
        given = np.asarray(laid_out(model, preprocessing.batch(images, normalise=False)))
    answers = opened(artefact)(given)
    check_names(answers, said["class_names"])
    return compare(answers, model, inputs, None if said.get("quantize") else tolerance(model))


def answers_in_new_process(artefact, inputs) -> dict[str, np.ndarray]:
    """Has an exported network answer in a process that does not know this package.

    Args:
        artefact: The version folder of a SavedModel, or a .onnx, .tflite or .xml file.
        inputs: An array of images as the network takes them or, for a SavedModel, a list of
            encoded images, bytes.

    Returns:
        Each output by its name.

    Raises:
        ValueError: if the process fails; its last line is in the message.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if isinstance(inputs, list):
            given = folder / "images"
            given.mkdir()
            for number, content in enumerate(inputs):
                (given / f"{number:06}").write_bytes(content)
        else:
            given = folder / "images.npy"
            np.save(given, inputs)
        output = folder / "answers.npz"
        # -P: the program's own folder is not searched for modules.
        command = [sys.executable, "-P", run_exported.__file__, artefact, given, output]
        done = subprocess.run(  # noqa: S603 (our own program)
            [str(part) for part in command],
            capture_output=True,
            text=True,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
            check=False,
        )
        if done.returncode:
            *_, reason = ["", *done.stderr.splitlines()]
            said = reason.removeprefix("Error: ") or f"its process ended with {done.returncode}"
            raise ValueError(f"{artefact} could not be run: {said}")
        with np.load(output) as answers:
            return dict(answers)
