"""Answers images with a SavedModel: a program that knows TensorFlow only, not this package.

Usage: python run_saved_model.py VERSION_FOLDER IMAGES_FOLDER OUTPUT.npy
"""

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf


def main(version, images, output):
    """Saves the probabilities of the images, in order of their names."""
    loaded = tf.saved_model.load(version)
    contents = [path.read_bytes() for path in sorted(Path(images).iterdir())]
    answer = loaded.signatures["serving_default"](image_bytes=tf.constant(contents))
    np.save(output, answer["probabilities"].numpy())


if __name__ == "__main__":
    main(*sys.argv[1:])
