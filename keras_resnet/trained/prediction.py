"""Predictions of a trained network for image files."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_resnet.data.images import image_files
from keras_resnet.data.pipeline import evaluation_batches
from keras_resnet.data.skipped import Skipped
from keras_resnet.data.source import Source
from keras_resnet.data.unreadable import why_bad_file, why_bad_image

BATCH_SIZE = 32
TOP = 5  # classes of an image


def answers(model, images, flip=False) -> np.ndarray:
    """Computes class probabilities; with `flip`, the mean with those of the mirrored images.

    Args:
        model: The model, from normalised images to probabilities.
        images: float32 (batch, height, width, 3).
        flip: Whether to also use horizontally mirrored images (Krizhevsky et al., 2012,
            section 4.1).
    """
    rows = np.asarray(model.predict_on_batch(images))
    return (rows + np.asarray(model.predict_on_batch(images[:, :, ::-1]))) / 2 if flip else rows


def probabilities(model, preprocessing, images, flip=False) -> np.ndarray:
    """Implements `Network.probabilities`."""
    images = {f"Image {number}": image for number, image in enumerate(images)}
    skipped = Skipped()
    source = _source(
        list(images), list(images.values()), tf.identity, lambda name: why_bad_image(images[name])
    )
    rows = [row for _, row in _answers(model, preprocessing, source, skipped, flip)]
    if skipped:
        _refuse(skipped)
    return np.stack(rows)


def predict(
    model, preprocessing, class_names, files, top, skipped=None, thresholds=None, flip=False
) -> Iterator[tuple[Path, list[tuple[str, float]]]]:
    """Implements `Network.predict`."""
    bad, none = Skipped() if skipped is None else skipped, True
    found = [image_files(file) for file in files]
    for _, unusable in found:
        bad.add_all(unusable)
    files = [image for images, _ in found for image in images]
    paths = [os.fsencode(file) for file in files]
    source = _source(paths, paths, tf.io.read_file, why_bad_file)
    for place, row in _answers(model, preprocessing, source, bad, flip):
        none = False
        if top is None and thresholds is not None:
            best = [index for index in np.argsort(-row) if row[index] >= thresholds[index]]
        else:
            best = [*np.argsort(-row)[: TOP if top is None else top]]
        yield files[place], [(class_names[index], float(row[index])) for index in best]
    if none and skipped is None:
        _refuse(bad)


def _refuse(skipped):
    name, reason = next(iter(skipped.reasons.items()))
    more = f" {len(skipped) - 1} more cannot be decoded either." if len(skipped) > 1 else ""
    raise ValueError(f"{name} cannot be decoded: {reason}.{more}")


def _source(names, items, read, why_bad) -> Source:
    """Makes a source of unlabelled images; labels are their indices, and -1 for placeholders."""
    if not names:
        raise ValueError("There are no images to classify: pass one or more.")
    all_names, all_items = tf.constant(names), tf.constant(items)

    def example(index):
        return all_names[index], tf.strings.as_string(index), index

    def read_item(item):
        return tf.cond(
            item == "",  # a placeholder for a batch of unreadable images
            lambda: tf.io.encode_png(tf.zeros((1, 1, 3), tf.uint8)),
            lambda: read(all_items[tf.strings.to_number(item, tf.int64)]),
        )

    return Source(
        (),
        len(names),
        lambda _, start: tf.data.Dataset.range(start, len(names)).map(example),
        read_item,
        lambda key: (tf.constant(""), tf.constant(""), tf.constant(-1, tf.int64)),
        why_bad,
    )


def _answers(model, preprocessing, source, skipped, flip):
    """Yields (index, probabilities) of each readable image, in order."""
    batches = evaluation_batches(source, preprocessing, batch_size=BATCH_SIZE, skipped=skipped)
    for images, places, _ in batches:
        rows = answers(model, images.numpy(), flip)
        yield from (
            (place, row) for place, row in zip(places.numpy(), rows, strict=True) if place >= 0
        )
