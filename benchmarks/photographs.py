"""Generates images that take as long to decode as photographs: 500 x 375 JPEGs of about 100 kB.

    python benchmarks/photographs.py FOLDER TRAIN VAL

They are crops of noise with the spectrum of photographs, whose amplitudes are about proportional
to 1 / frequency (Field, 1987, https://doi.org/10.1364/JOSAA.4.002379), TRAIN for training and VAL
for validation. FOLDER gets `folder`, with class folders of files, and `shards`, the same as
TFRecords; it is created only when it is complete.
"""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from keras_resnet.data import write_shards

WIDTH, HEIGHT = 500, 375
CLASSES = "ab"


def canvas(rng):
    """Generates a picture four times as wide and high."""
    size = 4 * HEIGHT, 4 * WIDTH
    frequency = np.hypot(np.fft.fftfreq(size[0])[:, None], np.fft.rfftfreq(size[1]))
    frequency[0, 0] = 1
    shape = 3, *frequency.shape
    waves = (rng.normal(size=shape) + 1j * rng.normal(size=shape)) / frequency**1.2
    light, red, blue = (plane / plane.std() for plane in np.fft.irfft2(waves, size))
    colours = (light + 0.4 * red, light - 0.2 * (red + blue), light + 0.4 * blue)
    return Image.fromarray(np.clip(128 + 50 * np.stack(colours, -1), 0, 255).astype(np.uint8))


def write(folder, counts):
    """Writes `train` and `val` folders of JPEGs."""
    rng = np.random.default_rng(0)
    whole = canvas(rng)

    def write_one(number, file):
        left, top = corners[number]
        whole.crop((left, top, left + WIDTH, top + HEIGHT)).save(file, quality=90)

    corners = rng.integers((whole.width - WIDTH, whole.height - HEIGHT), size=(sum(counts), 2))
    corners = corners.tolist()
    files = []
    for part, count in zip(("train", "val"), counts, strict=True):
        for name in CLASSES:
            Path(folder, part, name).mkdir(parents=True)
        for number in range(count):
            name = CLASSES[number % len(CLASSES)]
            files.append(Path(folder, part, name, f"{number}.jpg"))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(write_one, range(len(files)), files))


def main(folder, *counts):
    """Writes the folder and the shards."""
    unfinished = Path(f"{folder}.unfinished")
    write(unfinished / "folder", [int(count) for count in counts])
    write_shards(unfinished / "folder", unfinished / "shards")
    unfinished.rename(folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
