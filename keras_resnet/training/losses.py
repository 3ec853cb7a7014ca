"""Training losses, for logits and labels that are probabilities of each class."""

import keras
from keras import ops


class BinaryCrossEntropy(keras.losses.Loss):
    """Binary cross-entropy for each class, averaged over classes and images.

    Args:
        threshold: Labels above it become 1, and others 0. None to use labels as they are.

    Source: timm.loss.BinaryCrossEntropy (https://arxiv.org/abs/2110.00476).
    """

    def __init__(self, threshold: float | None = None):
        super().__init__()
        self.threshold = threshold

    def call(self, labels, logits):
        """Returns the loss of each image, (batch,), for labels and logits (batch, classes)."""
        if self.threshold is not None:
            labels = ops.cast(labels > self.threshold, logits.dtype)
        # The formula uses the logits once: TensorFlow adds the gradients of three or more uses in
        # an order that differs from step to step, even with op determinism.
        signs = ops.convert_to_tensor([-1.0, 1.0], logits.dtype)
        costs = ops.softplus(ops.expand_dims(logits, -1) * signs)
        return ops.mean(ops.sum(costs * ops.stack([labels, 1 - labels], -1), -1), -1)


def create_loss(recipe) -> keras.losses.Loss:
    """Makes the loss of a recipe, a function of labels and logits (batch, classes)."""
    if recipe.loss == "binary_cross_entropy":
        return BinaryCrossEntropy(recipe.target_threshold)
    return keras.losses.CategoricalCrossentropy(from_logits=True)
