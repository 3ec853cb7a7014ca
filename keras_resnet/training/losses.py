"""What a training minimises: losses of logits, and of labels as shares of each class."""

import keras
from keras import ops


class BinaryCrossEntropy(keras.losses.BinaryCrossentropy):
    """The binary cross-entropy of each class by itself, averaged over classes and images.

    Labels that are smoothed or mixed are taken as they are, or, with a threshold, as 0 or 1.

    Args:
        threshold: A share of a class above this counts as 1, any other as 0.

    Source: timm.loss.BinaryCrossEntropy (https://arxiv.org/abs/2110.00476).
    """

    def __init__(self, threshold: float | None = None):
        super().__init__(from_logits=True)
        self.threshold = threshold

    def call(self, labels, logits):
        """The loss of each image: (batch, classes) twice to (batch,)."""
        if self.threshold is not None:
            labels = ops.cast(labels > self.threshold, logits.dtype)
        return super().call(labels, logits)


def create_loss(recipe) -> keras.losses.Loss:
    """The loss of a recipe, of labels and logits, (batch, classes)."""
    if recipe.loss == "binary_cross_entropy":
        return BinaryCrossEntropy(recipe.target_threshold)
    return keras.losses.CategoricalCrossentropy(from_logits=True)
