"""What TensorBoard shows of a training."""

import importlib.util
import logging

import keras
import numpy as np
import tensorflow as tf

from keras_resnet import decoding
from keras_resnet.data.pipeline import training_batches
from keras_resnet.training.adorning import adorning, until_it_fails

logger = logging.getLogger("keras_resnet")

FOLDER = "tensorboard"
SHOWN = 8  # training images


def callbacks(folder, missing):
    """Callbacks that write losses, accuracies and the learning rate of each epoch.

    Args:
        folder: The run folder.
        missing: As of `adorning`.
    """
    if importlib.util.find_spec("tensorboard") is None:
        logger.info("No TensorBoard logs: pip install tensorboard, or keras3-resnet[tensorboard].")
        return []
    with adorning(FOLDER, missing):
        logs = keras.callbacks.TensorBoard(folder / FOLDER, write_graph=False)
        return [until_it_fails(logs, FOLDER, missing)]
    return []


def write_pictures(recipe, source, folder, step):
    """Adds augmented training images, the confusion matrix and the mistakes, if there are logs.

    Args:
        recipe: A `Recipe`.
        source: The images that train.
        folder: The run folder.
        step: The epoch that they are shown at.
    """
    if not (folder / FOLDER).is_dir():
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
    with tf.summary.create_file_writer(str(folder / FOLDER / "validation")).as_default():
        tf.summary.image(name, images, step=step, max_outputs=SHOWN)
