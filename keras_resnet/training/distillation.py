"""Knowledge distillation: a network learns the predictions of another one, its teacher.

Source: Hinton et al., https://arxiv.org/abs/1503.02531, section 2.
"""

import zlib
from pathlib import Path

import keras
import numpy as np
from keras import ops

from keras_resnet.models import at_size
from keras_resnet.trained import Network
from keras_resnet.weights import CheckpointError
from keras_resnet.weights.description import RECIPE


class Distillation(keras.layers.Layer):
    """The distillation loss of a network.

    Args:
        teacher: A model from normalised images to probabilities, which is not trained.
        share: Share of this loss in the training loss.
        temperature: Temperature of both distributions.
        scale: Factor for each channel of the images, from the network's normalisation to the
            teacher's.
        offset: Offset for each channel, added after that.
    """

    def __init__(self, teacher, share, temperature, scale, offset):
        super().__init__(name="distillation", dtype="float32")
        teacher.trainable = False
        self.teacher, self.share, self.temperature = teacher, share, temperature
        self.scale, self.offset = np.float32(scale), np.float32(offset)
        self.built = True  # like the teacher

    def checksum(self) -> str:
        """Returns the CRC-32 of the teacher's weights, in hexadecimal."""
        found = 0
        for weight in self.teacher.weights:
            found = zlib.crc32(ops.convert_to_numpy(weight).tobytes(), found)
        return f"{found:08x}"

    def call(self, images, logits):
        """Returns the loss, for images (batch, height, width, 3) and logits (batch, classes)."""
        images = ops.cast(images, "float32") * self.scale + self.offset
        answers = ops.cast(self.teacher(images, training=False), "float32")
        smallest = np.finfo(np.float32).tiny
        # Log-probabilities are logits up to a constant, which softmax ignores.
        return self.share * divergence(
            logits, ops.log(ops.maximum(answers, smallest)), self.temperature
        )


def divergence(logits, teachers, temperature):
    """Computes the KL divergence from the teacher's distribution, times the temperature squared.

    Args:
        logits: Logits of the network, (batch, classes).
        teachers: Logits of the teacher, (batch, classes).
        temperature: Both are divided by it.

    Returns:
        The mean over the batch, a scalar.
    """
    ours = ops.log_softmax(logits / temperature)
    theirs = ops.log_softmax(teachers / temperature)
    each = ops.sum(ops.exp(theirs) * (theirs - ours), -1)
    return temperature**2 * ops.mean(each)


def create_distillation(recipe, class_names) -> Distillation | None:
    """Makes the distillation loss of a recipe; None without a teacher.

    Raises:
        ValueError: if the teacher cannot be read, or was trained on other classes.
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
            f"{classes}. Choose a teacher that was trained on these classes."
        )
    model = at_size(model, None)
    answers = np.asarray(model(np.zeros((1, recipe.image_size, recipe.image_size, 3), np.float32)))
    if answers.ndim != 2 or (answers < 0).any() or abs(answers.sum() - 1) > 1e-3:
        raise ValueError(
            f"The outputs of the teacher {recipe.teacher} should be class probabilities. Add a "
            "softmax at its end."
        )
    ours, theirs = recipe.preprocessing, network.preprocessing
    scale = np.float32(ours.std) / np.float32(theirs.std)
    offset = (np.float32(ours.mean) - np.float32(theirs.mean)) / np.float32(theirs.std)
    return Distillation(model, recipe.teacher_share, recipe.temperature, scale, offset)


def _open(recipe):
    """Opens the teacher: a run, weights of a network of this package, or a Keras model."""
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
        except Exception as other:  # Keras, zipfile and h5py raise many kinds
            said = " ".join(str(other).split())[:300]
            raise ValueError(f"The teacher {path} cannot be read: {said}") from error
    return Network(model, recipe.preprocessing, None, path)
