"""A job that embeds or classifies many images, one part at a time."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from keras_resnet.bulk.columns import Embeddings, Labels
from keras_resnet.bulk.folder import Parts
from keras_resnet.bulk.loading import Loader
from keras_resnet.bulk.rows import Rows
from keras_resnet.data.checking import in_turn
from keras_resnet.data.skipped import PARALLEL
from keras_resnet.data.source import DataError
from keras_resnet.trained import Network, open_runtime

GIVES_UP = 100  # minimum number of images in a part for which it is an error if none can be read


@dataclasses.dataclass(frozen=True)
class Job:
    """Everything that a process needs to compute parts. It can be pickled.

    Args:
        rows: The images.
        network: The network.
        layer: Layer whose features to compute; None for class probabilities.
        runtime: As for `trained.open_runtime`.
        columns: Columns to write.
        parts: Files to write.
        batch_size: Number of images per batch.
        sha256: Whether to write hashes.
    """

    rows: Rows
    network: Network
    layer: str | None
    runtime: str
    columns: Embeddings | Labels
    parts: Parts
    batch_size: int
    sha256: bool

    @functools.cached_property
    def answer(self):
        """Returns a function from normalised images to the network's outputs."""
        return open_runtime(self.network, self.runtime, layer=self.layer)

    def run(self, numbers: Iterable[int], on_rows: Callable[[int], object] = int) -> None:
        """Computes and writes parts.

        Batches never cross parts, and are filled up with zeros, which also replace unreadable
        images. So a row does not depend on which parts were computed before.

        Args:
            numbers: Indices of the parts.
            on_rows: Function of the number of computed rows, called after each batch.
        """
        numbers = list(numbers)
        load = Loader(self.network.preprocessing, self.sha256)
        bounds = [self.parts.bounds(number) for number in numbers]
        rows = itertools.chain.from_iterable(self.rows.rows(*part) for part in bounds)
        with ThreadPoolExecutor(PARALLEL) as pool:
            # The next batch is loaded while the network computes.
            loaded = in_turn(pool, load, rows, self.batch_size + PARALLEL)
            for number, (start, stop) in zip(numbers, bounds, strict=True):
                loaded_images, kept = [], []
                for first in range(start, stop, self.batch_size):
                    size = min(self.batch_size, stop - first)
                    batch = list(itertools.islice(loaded, size))
                    if len(batch) < size:
                        raise DataError(
                            f"There are {size - len(batch)} images fewer than were counted."
                        )
                    answers = self.answer(self._images(batch))[:size]
                    kept.append(self.columns.kept(answers))
                    loaded_images += [dataclasses.replace(one, pixels=None) for one in batch]
                    on_rows(size)
                self.parts.write(number, self._table(loaded_images, kept))

    def _images(self, batch):
        """Normalises the images of a batch, float32 (batch size, height, width, 3)."""
        preprocessing = self.network.preprocessing
        pixels = np.zeros((self.batch_size, *preprocessing.sides, 3), np.uint8)
        for place, one in enumerate(batch):
            if one.pixels is not None:
                pixels[place] = one.pixels
        return preprocessing.normalise(pixels).numpy()

    def _table(self, loaded_images, kept):
        """Makes the table of a part."""
        import pyarrow as pa

        errors = [one.error for one in loaded_images]
        missing = np.array([error is not None for error in errors])
        if len(missing) >= GIVES_UP and missing.all():
            raise DataError(
                f"None of {len(missing)} images in a row can be read. Check that the disk is still "
                f"there. The first: {loaded_images[0].name}: {errors[0]}."
            )
        hashes = {"sha256": [one.sha256 for one in loaded_images]} if self.sha256 else {}
        texts = {"path": [one.name for one in loaded_images], **hashes, "error": errors}
        columns: dict[str, Any] = {
            name: pa.array(values, pa.string()) for name, values in texts.items()
        }
        error = columns.pop("error")
        arrays = [np.concatenate(column) for column in zip(*kept, strict=True)]
        return pa.table({**columns, **self.columns.columns(arrays, missing), "error": error})
