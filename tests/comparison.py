"""Helpers for numerical tests: relative error, XLA, and the Pillow version to compare with."""

import numpy as np
import PIL
import pytest
import tensorflow as tf

# Since version 13, Pillow resizes vertically first if the height shrinks far more than the width.
pillow_13 = pytest.mark.skipif(
    int(PIL.__version__.split(".")[0]) < 13, reason="bicubic resizing matches Pillow 13 or newer"
)


def relative_error(ours, reference):
    """The largest difference, relative to the largest value of the reference."""
    ours, reference = np.asarray(ours, np.float64), np.asarray(reference, np.float64)
    assert ours.shape == reference.shape
    return np.abs(ours - reference).max() / np.abs(reference).max()


def with_xla(step):
    return tf.function(step, jit_compile=True)
