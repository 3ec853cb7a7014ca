"""SavedModels for TensorFlow Serving, with the image transform inside."""

import contextlib
import os
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_resnet import features
from keras_resnet.decoding import plainly
from keras_resnet.export import comparison, folding, record
from keras_resnet.export.network import (
    check_backend,
    check_sizes,
    checked_names,
    fitting_thresholds,
    gives_logits,
    laid_out,
    named_outputs,
    transform,
)
from keras_resnet.export.warmup import serving_messages, write_warmup
from keras_resnet.files import disk_errors
from keras_resnet.layers import convolution_path
from keras_resnet.preprocessing import Preprocessing, pair

UNFINISHED = ".unfinished"
DAY = 24 * 3600  # seconds


def saved_model(
    model: keras.Model,
    directory: str | os.PathLike[str],
    *,
    preprocessing: Preprocessing | None = None,
    class_names: Sequence[str] | None = None,
    thresholds: Sequence[float] | None = None,
    top_k: int = 5,
    fold: bool = True,
    warmup: bool = False,
    source: str | os.PathLike[str] | None = None,
    layer: str | None = None,
) -> Path:
    """Exports a model as a SavedModel, the next version in `directory`.

    Signatures: `tensor` accepts normalised images, float32 (batch, height, width, channels), or
    channels first if the model is. With `preprocessing`, `serving_default` accepts `image_bytes`,
    string (batch,), the contents of JPEG, PNG, GIF, BMP or WebP files; without, it is the same as
    `tensor`. A classifier returns `classes`, string (batch, top_k), and `scores`, float32 (batch,
    top_k), highest first, and `probabilities`, float32 (batch, classes); with `thresholds` also
    `predicted`, bool (batch, classes), which classes reach them. A backbone returns
    `features`, a pyramid its levels by name, and both have a third signature, `features`, which is
    the same as `tensor`. One unreadable image fails its whole batch.

    The new version is run once and compared with the model. Its export.json describes it.

    Args:
        model: A model of this package, which returns probabilities or logits, or has no top.
        directory: The model's folder; versions are its subfolders `1`, `2`, ....
        preprocessing: The `Preprocessing` to include.
        class_names: Class names, also written to the asset class_names.txt, one per line. Default:
            the class indices.
        thresholds: Least probability at which each class is predicted, for a network that ends in a
            sigmoid.
        top_k: Number of classes in `classes` and `scores`.
        fold: Whether to fold batch normalization into the convolutions.
        warmup: Whether to add warm-up requests, as `write_warmup` does.
        source: The file of the model's weights, if any, for export.json.
        layer: Export the model that `features.pooled` makes for this layer instead of the
            classifier; it returns `features`, float32 (batch, channels).

    Returns:
        The folder of the new version.

    Raises:
        ValueError: if the numbers of names and classes differ, the backend is not TensorFlow, or
            the new version's predictions differ from the model's; it is then removed.
        OSError: if the disk is full.
    """
    check_backend()
    model = model if layer is None else features.pooled(model, layer)
    names, least = checked_names(model, class_names), fitting_thresholds(model, thresholds)
    check_sizes(model, None, preprocessing)
    if top_k < 1:
        raise ValueError(f"top_k should be 1 or more. Received: top_k={top_k}")
    if warmup:
        serving_messages()  # raises ImportError without the serving extra
    directory = Path(directory)
    if directory.is_file():
        raise ValueError(f"{directory} is a file. Choose a folder for the versions.")
    directory.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(directory)
    # Servers that watch the folder ignore names that are not numbers.
    unfinished = directory / f".{uuid.uuid4().hex}{UNFINISHED}"
    try:
        with disk_errors(directory), tempfile.TemporaryDirectory() as folder:
            network = folding.fold(model) if fold else model
            table = None if names is None else _name_table(names, Path(folder))
            predict = _predict(model, network, table, top_k, least)
            signature = _write(model, predict, unfinished, preprocessing, table)
        compared = _try(unfinished, model, preprocessing, names)
        said = record.describe(
            "saved_model",
            model,
            unfinished,
            signature=signature,
            preprocessing=preprocessing,
            inside="all" if preprocessing else "none",
            class_names=names,
            layer=layer,
            thresholds=least,
            comparison=compared,
            source=source,
            modules=("keras", "tensorflow"),
        )
        named = names and min(top_k, len(names))
        record.write({**said, "folded": bool(fold), "top_k": named}, unfinished)
        if warmup:
            write_warmup(unfinished)
        return _place(unfinished, directory)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _write(model, predict, target, preprocessing, table):
    """Writes a SavedModel; returns the inputs and outputs of each signature."""
    archive = keras.export.ExportArchive()
    # Without archive.track(network): the variables are found anyway, and would be written twice.
    if table is not None:
        archive.track(table)
    images = tf.TensorSpec((None, *model.input_shape[1:]), tf.float32, name="images")

    def tensor(images):
        return predict(images)

    @plainly
    def prepare(content):
        return tf.cast(transform(model, preprocessing)(content), tf.float32)

    def image_bytes(image_bytes):
        spec = tf.TensorSpec((*preprocessing.sides, 3), tf.float32)
        images = tf.map_fn(prepare, image_bytes, fn_output_signature=spec)
        return predict(laid_out(model, images))

    endpoints = {"serving_default": (tensor, images), "tensor": (tensor, images)}
    if preprocessing is not None:
        contents = tf.TensorSpec((None,), tf.string, name="image_bytes")
        endpoints["serving_default"] = (image_bytes, contents)
    if table is None:
        endpoints["features"] = (tensor, images)
    functions = {
        name: archive.add_endpoint(name, function, [spec])
        for name, (function, spec) in endpoints.items()
    }
    # Gradients are not needed, and tracing them for every convolution tripled the time.
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    # Grouped convolutions as plain ones: TensorFlow's own need a server with oneDNN.
    with convolution_path("eigen"):
        archive.write_out(str(target), options=options, verbose=False)
        return {
            name: {
                "inputs": _specs({spec.name: spec}),
                "outputs": _specs(functions[name].get_concrete_function().structured_outputs),
            }
            for name, (_, spec) in sorted(endpoints.items())
        }


def _name_table(names, folder):
    """Makes a lookup table from class index to name, from the asset class_names.txt."""
    file = folder / "class_names.txt"
    text = "".join(f"{name}\n" for name in names)
    file.write_bytes(text.encode("utf-8", "backslashreplace"))
    numbered = tf.lookup.TextFileInitializer(
        str(file),
        tf.int64,
        tf.lookup.TextFileIndex.LINE_NUMBER,
        tf.string,
        tf.lookup.TextFileIndex.WHOLE_LINE,
    )
    return tf.lookup.StaticHashTable(numbered, default_value="")


def _predict(model, network, table, top_k, thresholds):
    """Returns a function from normalised images to the outputs of a signature."""

    def outputs(images):
        found = named_outputs(model, network(images, training=False))
        return {name: tf.cast(value, tf.float32) for name, value in found.items()}

    if table is None:
        return outputs

    def predict(images):
        (probabilities,) = outputs(images).values()
        if gives_logits(model):
            probabilities = tf.nn.softmax(probabilities)
        scores, indices = tf.math.top_k(probabilities, min(top_k, probabilities.shape[-1]))
        answer = {
            "classes": table.lookup(tf.cast(indices, tf.int64)),
            "scores": scores,
            "probabilities": probabilities,
        }
        if thresholds is not None:
            answer["predicted"] = probabilities >= tf.constant(thresholds, tf.float32)
        return answer

    return predict


def _try(version, model, preprocessing, names):
    """Runs a SavedModel on tensors and on images, and compares it with the model."""
    allowed = comparison.tolerance(model)
    inputs = comparison.sample(model.input_shape[1:], "float32")
    predict, expect = comparison.opened(version), comparison.predictor(model)
    pairs: list[tuple[Any, np.ndarray]] = [(inputs[:1], inputs[:1]), (inputs, inputs)]
    if preprocessing is not None:
        side, _ = pair(preprocessing.resize)
        pixels = comparison.sample((side, side + 17, 3), "uint8")
        contents = {str(number): tf.io.encode_png(p).numpy() for number, p in enumerate(pixels)}
        inputs = comparison.model_inputs(model, preprocessing, contents)
        pairs.append((list(contents.values()), inputs))
    for given, inputs in pairs:
        outputs = predict(given)
        compared = comparison.compare(outputs, model, inputs, allowed, expect)
        compared.check("The SavedModel")
        comparison.check_names(outputs, names)
    return compared


def _specs(tensors):
    return {
        name: record.spec(tensor.dtype.name, tensor.shape)
        for name, tensor in sorted(tensors.items())
    }


def _place(unfinished, directory):
    """Renames a complete SavedModel to the next version; retries if it exists already."""
    while True:
        numbers = (int(entry) for entry in os.listdir(directory) if re.fullmatch("[0-9]+", entry))
        version = directory / str(max(numbers, default=0) + 1)
        try:
            return unfinished.rename(version)
        except OSError:
            if not version.exists():
                raise


def _remove_abandoned(directory):
    """Removes unfinished folders of killed processes that are older than a day."""
    for entry in directory.glob(f".*{UNFINISHED}"):
        with contextlib.suppress(FileNotFoundError):  # removed by another process
            if time.time() - entry.stat().st_mtime > DAY:
                shutil.rmtree(entry, ignore_errors=True)
