"""Measures recall and speed of an approximate index of embeddings, compared with an exact one.

    python benchmarks/similar.py PHOTOS WEIGHTS [--rows 60000] [--threshold 0.95]

The embeddings are those of random patches of photographs, by a network with the given weights. The
queries are 1,000 further patches. Recall is the share of the ten nearest, by NumPy, that are found.
1,000 patches have a copy, saved as JPEG of quality 95; the number of these among the duplicates at
the threshold is reported, and the total number of duplicates. Needs the similar extra.
"""

import argparse
import io
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from keras_resnet import bulk, trained

QUERIES, COPIES, SIDE = 1000, 1000, 32


def patches(folder, count):
    """Returns 32 px patches of the photographs in a folder, uint8; the last ones are copies."""
    rng = np.random.default_rng(0)
    files = sorted(file for file in Path(folder).rglob("*") if file.suffix.lower() == ".jpg")
    pixels = np.empty((count, SIDE, SIDE, 3), np.uint8)
    places = np.array_split(rng.permutation(count), len(files))
    for file, mine in zip(files, places, strict=True):
        photo = Image.open(file).convert("RGB")
        photo.thumbnail((192, 192))
        for place in mine:
            side = int(rng.integers(SIDE, min(photo.size) + 1))
            left, top = (int(rng.integers(0, length - side + 1)) for length in photo.size)
            box = (left, top, left + side, top + side)
            pixels[place] = np.asarray(photo.resize((SIDE, SIDE), box=box))
    for place in range(COPIES):
        saved = io.BytesIO()
        Image.fromarray(pixels[QUERIES + place]).save(saved, "JPEG", quality=95, subsampling=0)
        pixels[place - COPIES] = np.asarray(Image.open(saved))
    return pixels


def _row(path):
    return int(path.rpartition("/")[2])


def main():
    """Measures both, and prints a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", help="folder of .jpg files")
    parser.add_argument("weights", help="weights file")
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--threshold", type=float, default=0.95)
    arguments = parser.parse_args()
    network = trained.open_network(weights=arguments.weights)
    with tempfile.TemporaryDirectory() as temporary:
        pixels = patches(arguments.photos, arguments.rows + QUERIES)
        for name, part in (("rows", pixels[QUERIES:]), ("queries", pixels[:QUERIES])):
            np.savez(f"{temporary}/{name}.npz", x=part)
            bulk.embed(network, f"{temporary}/{name}.npz", f"{temporary}/{name}", batch_size=256)
        (_, queries), *_ = bulk.Index(f"{temporary}/queries")._batches()
        rows = np.concatenate([v for _, v in bulk.Index(f"{temporary}/rows")._batches()])
        print(f"{len(rows):,} embeddings of {rows.shape[1]} numbers")
        nearest = np.argsort(-(queries @ rows.T), axis=1)[:, :10]
        for approximate in (False, True):
            began = time.perf_counter()
            index = bulk.Index(f"{temporary}/rows", approximate=approximate)
            opened = time.perf_counter()
            found = index.nearest(queries)
            searched = time.perf_counter()
            for query in queries[:20]:
                index.nearest(query[None])
            singly = time.perf_counter()
            groups = index.duplicates(arguments.threshold)
            grouped = time.perf_counter()
            names = [{_row(path) for path, _ in row} for row in found]
            hits = sum(len(set(row) & some) for row, some in zip(nearest, names, strict=True))
            copies = {_row(path) for group in groups for path, _ in group.copies}
            known = sum(row >= len(rows) - COPIES for row in copies)
            print(
                f"{'approximate' if approximate else 'exact'}: opened in {opened - began:.2f} s; "
                f"{QUERIES / (searched - opened):,.0f} queries/s, one alone in "
                f"{(singly - searched) / 20 * 1000:.1f} ms, recall {hits / (10 * QUERIES):.4f}; "
                f"{len(copies):,} duplicates in {grouped - singly:.1f} s, "
                f"{known / COPIES:.3f} of the known ones",
                flush=True,
            )


if __name__ == "__main__":
    main()
