"""Draws a small data set of five kinds of flowers, to train on without a download.

Colors, sizes and positions are equally distributed in all classes, which differ in shape only.
"""

import colorsys
import math
import os
import random
import shutil
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from keras_resnet.files import temporary_path

KINDS = ("daisy", "dandelion", "rose", "sunflower", "tulip")
SCALE = 3  # drawn this many times larger, then downsampled for smooth edges


def drawn_flowers(
    directory: str | os.PathLike, *, train: int = 160, val: int = 40, seed: int = 0
) -> Path:
    """Writes drawings of daisies, dandelions, roses, sunflowers and tulips as JPEG files.

    The files are `train/<kind>/<number>.jpg` and `val/<kind>/<number>.jpg`, RGB, with sides of 70
    to 280 pixels. An existing folder is left unchanged.

    Args:
        directory: The folder to create.
        train: Number of training images of each class.
        val: Number of validation images of each class.
        seed: Random seed; the same seed draws the same images.

    Returns:
        The folder.

    Raises:
        ValueError: if the folder contains something else.
    """
    directory = Path(directory)
    jobs = [
        (Path(split, kind, f"{number:03}.jpg"), kind, f"{seed}/{split}/{kind}/{number}")
        for split, count in (("train", train), ("val", val))
        for kind in KINDS
        for number in range(count)
    ]
    if not directory.exists():
        _draw_all(jobs, directory)
    missing = [name for name, *_ in jobs if not (directory / name).is_file()]
    if missing:
        raise ValueError(
            f"{directory} exists, but does not contain this set of drawn flowers: {missing[0]} "
            f"and {len(missing) - 1} other files are missing. Choose another folder or remove it."
        )
    return directory


def _draw_all(jobs, directory):
    """Draws into a temporary folder, which is then renamed."""
    unfinished = temporary_path(directory)
    try:
        for folder in {(unfinished / name).parent for name, *_ in jobs}:
            folder.mkdir(parents=True)
        for name, kind, key in jobs:
            image, quality = draw(kind, key)
            image.save(unfinished / name, quality=quality)
        try:
            unfinished.rename(directory)
        except OSError:
            if not directory.is_dir():  # otherwise another process was faster
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def draw(kind, key) -> tuple[Image.Image, int]:
    """Draws an image of `kind`; also returns its JPEG quality. The key is the random seed."""
    rng = random.Random(key)  # noqa: S311 (drawings, not secrets)
    width = rng.randint(100, 200)
    height = round(width * rng.uniform(0.7, 1.4))
    image = _background(rng, width * SCALE, height * SCALE)
    side = min(width, height) * SCALE
    radius = side * rng.uniform(0.32, 0.5)
    centre = tuple(
        length / 2 + rng.uniform(-0.3, 0.3) * max(length - 1.8 * radius, 0)
        for length in (width * SCALE, height * SCALE)
    )
    pen = ImageDraw.Draw(image)
    petals, heart = _colour(rng), _colour(rng)
    FLOWERS[kind](pen, rng, centre, radius, rng.uniform(0, 2 * math.pi), petals, heart)
    image = image.resize((width, height), Image.Resampling.LANCZOS)
    if rng.random() < 0.3:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.9)))
    noise = np.random.default_rng(rng.getrandbits(32)).normal(
        0, rng.uniform(1, 9), (height, width, 3)
    )
    light = rng.uniform(0.8, 1.15)
    pixels = np.clip(np.asarray(image) * light + noise, 0, 255).astype(np.uint8)
    return Image.fromarray(pixels), rng.randint(75, 95)


def cut_out(kind, key, side) -> Image.Image:
    """Draws a flower on a transparent background, RGBA, with a longer side of `side` pixels."""
    rng = random.Random(key)  # noqa: S311
    radius = side * SCALE / 2
    image = Image.new("RGBA", (round(6 * radius),) * 2)  # large enough for a tulip with its stem
    centre = (3 * radius,) * 2
    petals, heart = _colour(rng), _colour(rng)
    FLOWERS[kind](
        ImageDraw.Draw(image), rng, centre, radius, rng.uniform(0, 2 * math.pi), petals, heart
    )
    image = image.crop(image.getbbox())
    factor = side / max(image.size)
    return image.resize(
        [max(1, round(length * factor)) for length in image.size], Image.Resampling.LANCZOS
    )


def background(key, width, height) -> Image.Image:
    """Draws a background without a flower."""
    image = _background(random.Random(key), width * SCALE, height * SCALE)  # noqa: S311
    return image.resize((width, height), Image.Resampling.LANCZOS)


def _colour(rng, value=(0.55, 1.0)):
    hue, saturation = rng.random(), rng.uniform(0.15, 1.0)
    return _rgb(hue, saturation, rng.uniform(*value))


def _rgb(hue, saturation, value):
    return tuple(round(255 * part) for part in colorsys.hsv_to_rgb(hue % 1, saturation, value))


def _shade(colour, factor):
    return tuple(min(255, round(part * factor)) for part in colour)


def _background(rng, width, height):
    """Draws a gradient between two colors, blurred blobs, and blades of grass."""
    corners = np.array(
        [[_colour(rng, (0.15, 0.8)) for _ in range(2)] for _ in range(2)], dtype=np.uint8
    )
    blurred = (width // SCALE, height // SCALE)  # blurred parts need no detail
    image = Image.fromarray(corners).resize(blurred, Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(image)
    for _ in range(rng.randint(0, 12)):
        place = rng.uniform(0, blurred[0]), rng.uniform(0, blurred[1])
        _disc(pen, place, rng.uniform(0.03, 0.2) * blurred[0], _colour(rng, (0.2, 0.9)))
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(1, 6)))
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    pen = ImageDraw.Draw(image)
    for _ in range(rng.randint(0, 8)):
        x, y = rng.uniform(0, width), rng.uniform(0.3, 1.2) * height
        tip = (x + rng.uniform(-0.3, 0.3) * width, y - rng.uniform(0.2, 0.8) * height)
        thickness = rng.randint(1, 4) * SCALE
        pen.line((x, y, *tip), fill=_colour(rng, (0.2, 0.8)), width=thickness)
    return image


def _polar(centre, angle, radius):
    return centre[0] + radius * math.cos(angle), centre[1] + radius * math.sin(angle)


def _disc(pen, centre, radius, fill):
    x, y = centre
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)


def _petal(pen, centre, angle, start, end, half_width, fill, tip=0.55):
    """Draws a petal from radius `start` to `end`, widest at the fraction `tip` of its length."""
    steps = 12
    left, right = [], []
    for step in range(steps + 1):
        t = step / steps
        exponent = math.log(0.5) / math.log(tip)
        spread = half_width * math.sin(math.pi * t**exponent)
        x, y = _polar(centre, angle, start + (end - start) * t)
        dx, dy = -math.sin(angle) * spread, math.cos(angle) * spread
        left.append((x + dx, y + dy))
        right.append((x - dx, y - dy))
    pen.polygon(left + right[::-1], fill=fill, outline=_shade(fill, 0.7))


def _daisy(pen, rng, centre, radius, angle, petals, heart):
    """Draws a few long petals with gaps between them, around a small plain center."""
    count = rng.randint(9, 15)
    core = radius * rng.uniform(0.2, 0.3)
    for number in range(count):
        turn = angle + 2 * math.pi * (number + rng.uniform(-0.12, 0.12)) / count
        length = radius * rng.uniform(0.9, 1.05)
        half_width = 0.75 * math.pi * radius * 0.6 / count
        shade = _shade(petals, rng.uniform(0.9, 1.1))
        _petal(pen, centre, turn, core * 0.6, length, half_width, shade, tip=0.7)
    _disc(pen, centre, core, heart)


def _dandelion(pen, rng, centre, radius, angle, petals, heart):
    """Draws a ball of thin rays that end in small stars."""
    for _ in range(rng.randint(70, 120)):
        turn = rng.uniform(0, 2 * math.pi)
        length = radius * math.sqrt(rng.uniform(0.15, 1.0))
        end = _polar(centre, turn, length)
        colour = _shade(petals, rng.uniform(0.8, 1.15))
        pen.line((*centre, *end), fill=_shade(colour, 0.85), width=SCALE // 2)
        for point in range(5):
            ray = _polar(end, turn + 2 * math.pi * point / 5, radius * 0.09)
            pen.line((*end, *ray), fill=colour, width=SCALE // 2)
    _disc(pen, centre, radius * rng.uniform(0.06, 0.1), heart)


def _rose(pen, rng, centre, radius, angle, petals, heart):
    """Draws round petals that overlap in a spiral, with darker inner rings."""
    rings = rng.randint(4, 5)
    for ring in range(rings):
        share = 1 - ring / rings
        count = max(2, 6 - ring)
        for number in range(count):
            turn = angle + ring * 0.7 + 2 * math.pi * (number + rng.uniform(-0.15, 0.15)) / count
            middle = _polar(centre, turn, radius * share * 0.45)
            size = radius * share * rng.uniform(0.5, 0.58)
            fill = _shade(petals, 0.62 + 0.4 * share + rng.uniform(-0.06, 0.06))
            _disc(pen, middle, size, _shade(fill, 0.72))
            _disc(pen, _polar(middle, turn + math.pi, size * 0.07), size * 0.93, fill)
    box = [part + sign * radius * 0.14 for sign in (-1, 1) for part in centre]
    pen.arc(box, math.degrees(angle), math.degrees(angle) + 260, fill=heart, width=SCALE)


def _sunflower(pen, rng, centre, radius, angle, petals, heart):
    """Draws two rings of short pointed petals around a wide center with spirals of seeds."""
    count = rng.randint(17, 26)
    core = radius * rng.uniform(0.48, 0.62)
    for ring in range(2):
        for number in range(count):
            turn = angle + 2 * math.pi * (number + 0.5 * ring + rng.uniform(-0.1, 0.1)) / count
            length = radius * (rng.uniform(0.95, 1.08) - 0.08 * ring)
            half_width = 1.1 * math.pi * radius * 0.7 / count
            shade = _shade(petals, 0.8 + 0.2 * ring)
            _petal(pen, centre, turn, core * 0.85, length, half_width, shade, tip=0.4)
    _disc(pen, centre, core, heart)
    for seed in range(140):  # sunflower seeds are at multiples of the golden angle
        place = _polar(centre, seed * 2.39996 + angle, core * 0.95 * math.sqrt(seed / 140))
        _disc(pen, place, core * 0.045, _shade(heart, 0.45))


def _tulip(pen, rng, centre, radius, angle, petals, heart):
    """Draws a cup of three pointed petals from the side, on a stem with two leaves."""
    lean = rng.gauss(0, 0.5)
    up, side = lean - math.pi / 2, lean
    foot = _polar(centre, up + math.pi, radius * 0.75)
    end = _polar(foot, up + math.pi + rng.uniform(-0.3, 0.3), radius * rng.uniform(0.8, 1.6))
    pen.line((*foot, *end), fill=_shade(heart, 0.7), width=max(2, round(radius * 0.09)))
    for sign in (-1, 1):
        turn = up + sign * rng.uniform(0.35, 0.8)
        _petal(pen, end, turn, 0, radius * rng.uniform(0.7, 1.2), radius * 0.12, _shade(heart, 0.8))
    for offset, factor in ((-0.34, 0.85), (0.34, 0.85), (0.0, 1.0)):
        base = _polar(foot, side, offset * radius * 0.5)
        turn = up + offset * rng.uniform(0.5, 0.9)
        length = radius * rng.uniform(1.45, 1.7)
        shade = _shade(petals, factor * rng.uniform(0.92, 1.08))
        _petal(pen, base, turn, 0, length, radius * 0.44, shade, tip=0.42)


FLOWERS = {
    "daisy": _daisy,
    "dandelion": _dandelion,
    "rose": _rose,
    "sunflower": _sunflower,
    "tulip": _tulip,
}
