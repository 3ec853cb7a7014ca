"""Labels of images of which each may show several classes."""

import dataclasses

import numpy as np
import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class LabelSets:
    """The classes of each of many images, in 4 bytes an image and 4 a label.

    Args:
        members: Indices of classes, a ragged int32 tensor (images, None); numbers of its own would
            double the memory.
        classes: Number of classes.
    """

    members: tf.RaggedTensor
    classes: int

    def counts(self, chosen):
        """How many of the chosen images show each class, int64 (classes,)."""
        selected = np.zeros(self.members.nrows().numpy(), bool)
        selected[chosen] = True
        shown = self.members.values.numpy()[np.repeat(selected, self.members.row_lengths())]
        return np.bincount(shown, minlength=self.classes)

    def multi_hot(self, indices):
        """Labels of some images, int64 (n,), as float32 (n, classes): 1 for each that is shown."""
        found = tf.gather(self.members, indices)
        where = tf.stack([found.value_rowids(), found.values], 1)
        shape = tf.stack([tf.size(indices), self.classes])
        hot = tf.scatter_nd(where, tf.ones_like(found.values, tf.float32), shape)
        return tf.ensure_shape(hot, (None, self.classes))
