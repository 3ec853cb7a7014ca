"""Knowledge distillation: a network learns what another, its teacher, answers on the same images.

Source: Hinton et al., https://arxiv.org/abs/1503.02531, section 2.
"""

from pathlib import Path

import keras
import numpy as np
from keras import ops

from keras_resnet.models import at_size
from keras_resnet.trained import Network
from keras_resnet.weights import CheckpointError
from keras_resnet.weights.description import RECIPE


class Distillation(keras.layers.Layer):
    """The loss between a network's logits and its teacher's answers.

    Args:
        teacher: From normalised images to probabilities; it does not train.
        share: Of this loss in the whole one.
        temperature: Of both distributions.
        scale: Of the images, before the teacher sees them: for each channel.
        offset: What is added then.
    """

    def __init__(self, teacher, share, temperature, scale, offset):
        super().__init__(name="distillation", dtype="float32")
        teacher.trainable = False
        self.teacher, self.share, self.temperature = teacher, share, temperature
        self.scale, self.offset = scale, offset
        self.built = True  # as the teacher is

    def call(self, images, logits):
        """The loss, a scalar, of (batch, height, width, 3) and (batch, classes)."""
        images = ops.cast(images, "float32") * self.scale + self.offset
        answers = ops.cast(self.teacher(images, training=False), "float32")
        smallest = np.finfo(np.float32).tiny
        # Softmax forgets what is added to all logits: their logarithms will do.
        return self.share * divergence(
            logits, ops.log(ops.maximum(answers, smallest)), self.temperature
        )


def divergence(logits, teachers, temperature):
    """The Kullback-Leibler divergence from the teacher's distribution, times temperature squared.

    Args:
        logits: The network's, (batch, classes).
        teachers: The teacher's.
        temperature: By which both are divided.

    Returns:
        The mean over the batch.
    """
    ours = ops.log_softmax(logits / temperature)
    theirs = ops.log_softmax(teachers / temperature)
    each = ops.sum(ops.exp(theirs) * (theirs - ours), -1)
    return temperature**2 * ops.mean(each)


def create_distillation(recipe, class_names) -> Distillation | None:
    """The part of a recipe's loss that its teacher makes; None without one.

    Raises:
        ValueError: if the teacher cannot be read, or does not know the same classes.
    """
    if recipe.teacher is None:
        return None
    network = _open(recipe)
    model, classes = network.model, len(class_names)
    if network.run is not None and tuple(network.class_names) != tuple(class_names):
        raise ValueError(
            f"The teacher {recipe.teacher} was trained on other classes: "
            f"{', '.join(network.class_names[:5])}, .... The data has {', '.join(class_names[:5])}."
        )
    if model.output_shape[-1] != classes:
        raise ValueError(
            f"The teacher {recipe.teacher} has {model.output_shape[-1]} classes, and the data "
            f"{classes}. Choose one that was trained on these classes."
        )
    model = at_size(model, None)
    answers = np.asarray(model(np.zeros((1, recipe.image_size, recipe.image_size, 3), np.float32)))
    if answers.ndim != 2 or (answers < 0).any() or abs(answers.sum() - 1) > 1e-3:
        raise ValueError(
            f"The teacher {recipe.teacher} should answer with a probability for each class: let "
            "it end with softmax."
        )
    # The teacher's own normalisation, of images that are normalised already.
    ours, theirs = recipe.preprocessing, network.preprocessing
    scale = np.float32(ours.std) / np.float32(theirs.std)
    offset = (np.float32(ours.mean) - np.float32(theirs.mean)) / np.float32(theirs.std)
    return Distillation(
        model, recipe.teacher_share, recipe.temperature, scale.tolist(), offset.tolist()
    )


def _open(recipe):
    """The teacher: a run, weights of one of our networks, or a Keras model."""
    path = Path(recipe.teacher)
    if (path / RECIPE).is_file():
        return Network.from_run(path)
    try:
        return Network.from_weights(None, recipe.teacher)
    except CheckpointError as error:
        if path.suffix != ".keras":
            raise
        try:
            model = keras.saving.load_model(path, compile=False, safe_mode=True)
        except Exception as other:  # of Keras, zipfile, h5py: there is no end of them
            said = " ".join(str(other).split())[:300]
            raise ValueError(f"The teacher {path} cannot be read: {said}") from error
    return Network(model, recipe.preprocessing, None, path)
