"""What the tests of layers share: an error relative to a reference, and XLA."""

import numpy as np
import tensorflow as tf


def relative_error(ours, reference):
    """The largest difference, relative to the largest value of the reference."""
    ours, reference = np.asarray(ours, np.float64), np.asarray(reference, np.float64)
    assert ours.shape == reference.shape
    return np.abs(ours - reference).max() / np.abs(reference).max()


def with_xla(step):
    return tf.function(step, jit_compile=True)
