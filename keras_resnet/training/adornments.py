"""Optional output of a training: if it fails, a warning is logged and training continues."""

import contextlib
import functools
import importlib.util
import logging

import keras
import numpy as np
import tensorflow as tf

from keras_resnet import decoding
from keras_resnet.data.pipeline import training_batches

logger = logging.getLogger("keras_resnet")

TENSORBOARD = "tensorboard"  # the folder of its logs
SHOWN = 8  # number of training images


@contextlib.contextmanager
def adorning(what, missing):
    """Converts any error in its block to a warning.

    Args:
        what: What the block creates, a file for example.
        missing: {what: reason}, to which a failure is added.
    """
    try:
        yield
    except Exception as error:
        missing[what] = " ".join(str(error).split()) or type(error).__name__
        logger.warning("Could not create %s: %s", what, missing[what])


def until_it_fails(callback, what, missing):
    """Wraps a Keras callback to disable it after its first error; arguments as for `adorning`."""

    def harmless(hook):
        @functools.wraps(hook)
        def call(*arguments, **named):
            if what not in missing:
                with adorning(what, missing):
                    hook(*arguments, **named)

        return call

    for name in dir(callback):
        if name.startswith(("on_", "set_")):
            setattr(callback, name, harmless(getattr(callback, name)))
    return callback


def tensorboard(folder, missing):
    """Returns callbacks that log losses, accuracies and the learning rate of each epoch.

    Args:
        folder: The run folder.
        missing: As for `adorning`.
    """
    if importlib.util.find_spec("tensorboard") is None:
        logger.info("No TensorBoard logs: pip install tensorboard, or keras3-resnet[tensorboard].")
        return []
    with adorning(TENSORBOARD, missing):
        logs = keras.callbacks.TensorBoard(folder / TENSORBOARD, write_graph=False)
        return [until_it_fails(logs, TENSORBOARD, missing)]
    return []


def write_pictures(recipe, source, folder, step):
    """Adds augmented training images, the confusion matrix and mistakes to TensorBoard's logs.

    Args:
        recipe: A `Recipe`.
        source: The training images.
        folder: The run folder.
        step: The epoch at which they are shown.
    """
    if not (folder / TENSORBOARD).is_dir():
        return
    preprocessing = recipe.training_preprocessing
    batches = training_batches(
        source,
        preprocessing=preprocessing,
        batch_size=SHOWN,
        seed=recipe.seed,
        augmentation=recipe.augmentation,
        first_step=0,
    )
    shown = next(iter(batches))[0] * np.array(preprocessing.std) + np.array(preprocessing.mean)
    _write(folder, "training images, augmented", tf.clip_by_value(shown, 0, 1), 0)
    for name in ("confusion_matrix", "mistakes"):
        file = folder / f"{name}.png"
        if file.exists():
            _write(folder, name, decoding.decode(file.read_bytes())[tf.newaxis], step)


def _write(folder, name, images, step):
    with tf.summary.create_file_writer(str(folder / TENSORBOARD / "validation")).as_default():
        tf.summary.image(name, images, step=step, max_outputs=SHOWN)
