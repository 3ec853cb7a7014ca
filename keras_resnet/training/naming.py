"""What a trained network says is on images."""

from pathlib import Path

import numpy as np

BATCH_SIZE = 32


def probabilities(model, preprocessing, images) -> np.ndarray:
    """A network's answers to encoded images.

    Args:
        model: From normalised images to probabilities.
        preprocessing: The evaluation transform.
        images: Encoded images, bytes, by the name that an error calls them.

    Returns:
        float32 (images, classes).

    Raises:
        ValueError: if there are none, or one is no image.
    """
    if not images:
        raise ValueError("There are no images to name: pass one or more.")
    return model.predict(preprocessing.batch(images), batch_size=BATCH_SIZE, verbose=0)


def name_files(
    model, preprocessing, class_names, files, top
) -> dict[Path, list[tuple[str, float]]]:
    """What `Run.name_files` answers, by a model as of `probabilities` and its class names."""
    files = list(dict.fromkeys(map(Path, files)))
    answers = probabilities(model, preprocessing, {str(file): file.read_bytes() for file in files})
    return {
        file: [(class_names[index], float(row[index])) for index in np.argsort(-row)[:top]]
        for file, row in zip(files, answers, strict=True)
    }
