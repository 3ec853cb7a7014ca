"""Images whose color encodes their number, and helpers for tests of batches."""

import numpy as np
from PIL import Image

COUNT = 22  # images: 3 batches of 8, the last with 6


def make(folder, count=COUNT):
    """Writes images of two classes; the red value of each is 10 times its number."""
    for number in range(count):
        path = folder / "ab"[number % 2] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 36), (10 * number, 0, 90)).save(path)
    return folder


def arguments(**changes):
    return {"training": True, "image_size": 32, "batch_size": 8, "seed": 3, **changes}


def numbers(images):
    """Returns the numbers of the images in a batch, from the color of their center."""
    red = (np.asarray(images)[:, 16, 16, 0] * 0.229 + 0.485) * 255
    return np.rint(red / 10).astype(int).tolist()


def epoch_numbers(batches):
    return [number for images, _ in batches for number in numbers(images)]
