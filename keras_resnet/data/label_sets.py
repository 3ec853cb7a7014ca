"""Labels of multi-label images."""

import dataclasses

import numpy as np
import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class LabelSets:
    """The labels of images, in 4 bytes per image and 4 per label.

    Args:
        members: Class indices, a ragged int32 tensor (images, None).
        classes: Number of classes.
    """

    members: tf.RaggedTensor
    classes: int

    def counts(self, chosen):
        """Number of images with each class, int64 (classes,)."""
        selected = np.zeros(self.members.nrows().numpy(), bool)
        selected[chosen] = True
        shown = self.members.values.numpy()[np.repeat(selected, self.members.row_lengths())]
        return np.bincount(shown, minlength=self.classes)

    def multi_hot(self, indices):
        """Returns the labels of images, int64 indices (n,), as float32 (n, classes) of 0 and 1."""
        found = tf.gather(self.members, indices)
        where = tf.stack([found.value_rowids(), found.values], 1)
        shape = tf.stack([tf.size(indices), self.classes])
        hot = tf.scatter_nd(where, tf.ones_like(found.values, tf.float32), shape)
        return tf.ensure_shape(hot, (None, self.classes))
