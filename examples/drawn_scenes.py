"""Drawn scenes of one to three flowers, with boxes and masks."""

import dataclasses
import random

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from keras_resnet.drawn_flowers import KINDS, background, cut_out


@dataclasses.dataclass(frozen=True)
class Scene:
    """An image with its annotations.

    Args:
        image: RGB, uint8 (size, size, 3).
        labels: Classes of the flowers, indices into KINDS, int64 (flowers,).
        boxes: Their left, top, right and bottom edges in pixels, float32 (flowers, 4).
        mask: 0 on the background, 1 + class on a flower, uint8 (size, size).
    """

    image: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray
    mask: np.ndarray


def draw_scenes(count: int, size: int, key: str) -> list[Scene]:
    """Draws scenes of size x size pixels; `key` is the random seed."""
    return [draw_scene(size, f"{key}/{number}") for number in range(count)]


def draw_scene(size: int, key: str) -> Scene:
    """Draws one to three flowers with lengths of 0.3 to 0.65 times that of the image."""
    rng = random.Random(key)  # noqa: S311 (drawings, not secrets)
    picture = background(f"{key}/background", size, size)
    mask = np.zeros((size, size), np.uint8)
    labels, boxes = [], []
    for number in range(8):  # attempts; flowers that would hide another one are omitted
        if len(labels) == 3:
            break
        label = rng.randrange(len(KINDS))
        flower = cut_out(KINDS[label], f"{key}/{number}", round(size * rng.uniform(0.3, 0.65)))
        x, y = (rng.randint(0, size - length) for length in flower.size)
        place = np.s_[y : y + flower.height, x : x + flower.width]
        if mask[place].any():
            continue
        picture.paste(flower, (x, y), mask=flower)
        covered = flower_mask(flower)
        mask[place][covered] = 1 + label
        labels.append(label)
        boxes.append(tight_box(covered) + np.array([x, y, x, y], np.float32))
    noise = np.random.default_rng(rng.getrandbits(32)).normal(0, 4, (size, size, 3))
    pixels = np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8)
    return Scene(pixels, np.array(labels), np.array(boxes), mask)


def flower_mask(flower: Image.Image) -> np.ndarray:
    """Returns the mask of a flower, an RGBA image, bool (height, width).

    It includes pixels that are covered by a fifth or more, and narrow gaps, for example between the
    rays of a dandelion: a maximum filter closes them, and a minimum filter removes the margin.
    """
    gap = max(flower.size) // 16 * 2 + 1
    cover = ImageOps.expand(flower.getchannel("A").point(lambda alpha: 255 * (alpha > 50)), gap)
    closed = cover.filter(ImageFilter.MaxFilter(gap)).filter(ImageFilter.MinFilter(gap))
    return np.asarray(ImageOps.crop(closed, gap)) > 0


def tight_box(mask: np.ndarray) -> np.ndarray:
    """Returns the left, top, right and bottom edge of a mask; a pixel is from x to x + 1."""
    columns, rows = mask.any(axis=0).nonzero()[0], mask.any(axis=1).nonzero()[0]
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)
