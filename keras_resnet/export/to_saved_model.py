"""SavedModels for TensorFlow Serving, with the image transform inside."""

import os
import shutil
from pathlib import Path

import keras
import tensorflow as tf

from keras_resnet.layers import convolution_path


def saved_model(model, directory, *, preprocessing=None, class_names=None, top_k=5) -> Path:
    """Exports a model as the next version in `directory`.

    Signatures: `tensor` takes normalised images, float32 (batch, height, width, channels). With
    `preprocessing`, `serving_default` takes `image_bytes`, string (batch,), whole JPEG, PNG, GIF,
    BMP or WebP files; without, it is `tensor`. A classifier returns `classes`, string (batch,
    top_k), and `scores`, float32 (batch, top_k), best first, and `probabilities`, float32 (batch,
    classes); a backbone returns `features`. One image that cannot be decoded fails its batch.

    Args:
        model: A model of this package, with softmax or logits on top, or without a top.
        directory: The model's folder; versions are its subfolders `1`, `2`, ....
        preprocessing: The `Preprocessing` to put in front.
        class_names: Names of the classes; their numbers if None.
        top_k: How many classes `classes` and `scores` name.

    Returns:
        The folder of the new version.

    Raises:
        ValueError: if there are not as many names as classes.
    """
    names = _class_names(model, class_names)
    answer = _answer(model, names, top_k)
    archive = keras.export.ExportArchive()
    archive.track(model)
    images = tf.TensorSpec((None, *model.input_shape[1:]), tf.float32, name="images")

    def tensor(images):
        return answer(images)

    def image_bytes(image_bytes):
        size = (preprocessing.crop, preprocessing.crop, 3)
        spec = tf.TensorSpec(size, tf.float32)
        return answer(tf.map_fn(preprocessing, image_bytes, fn_output_signature=spec))

    if preprocessing is None:
        archive.add_endpoint("serving_default", tensor, [images])
    else:
        contents = tf.TensorSpec((None,), tf.string, name="image_bytes")
        archive.add_endpoint("serving_default", image_bytes, [contents])
    archive.add_endpoint("tensor", tensor, [images])

    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    # A server takes no gradients, and tracing those of every convolution tripled the time.
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    # A name that is no number: a server that watches the folder passes it over.
    unfinished = directory / f".{os.getpid()}.unfinished"
    try:
        # Groups as plain convolutions: TensorFlow's own fail where a server has no oneDNN.
        with convolution_path("eigen"):
            archive.write_out(str(unfinished), options=options, verbose=False)
        version = max((int(entry) for entry in os.listdir(directory) if entry.isdigit()), default=0)
        return unfinished.rename(directory / str(version + 1))
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _class_names(model, class_names):
    """As many names as the model has classes; None for a backbone."""
    if not isinstance(model.layers[-1], keras.layers.Dense):
        return None
    classes = model.output_shape[-1]
    names = [str(number) for number in range(classes)] if class_names is None else class_names
    if len(names) != classes:
        raise ValueError(
            f"class_names should name each of the model's {classes} classes. "
            f"Received: {len(names)} names"
        )
    return names


def _answer(model, names, top_k):
    """Function from normalised images to the dict that a signature returns."""
    if names is None:
        return lambda images: {"features": tf.cast(model(images, training=False), tf.float32)}
    gives_logits = model.layers[-1].activation is keras.activations.linear
    top_k = min(top_k, len(names))

    def answer(images):
        probabilities = tf.cast(model(images, training=False), tf.float32)
        if gives_logits:
            probabilities = tf.nn.softmax(probabilities)
        scores, indices = tf.math.top_k(probabilities, top_k)
        return {
            "classes": tf.gather(tf.constant(list(names)), indices),
            "scores": scores,
            "probabilities": probabilities,
        }

    return answer
