"""What is done with many pictures: a part at a time, each the same whoever computes it."""

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

GIVES_UP = 100  # pictures of a part, if none of them can be read


@dataclasses.dataclass(frozen=True)
class Job:
    """All that a process needs to compute parts. It can be pickled.

    Args:
        rows: The pictures.
        network: The network.
        layer: The layer whose features are taken; None for probabilities.
        runtime: What computes them, as for `trained.open_runtime`.
        columns: What is written of them.
        parts: Where to.
        batch_size: Pictures that the network sees at once.
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
        """A function from normalised images to what the network says of them."""
        return open_runtime(self.network, self.runtime, layer=self.layer)

    def run(self, numbers: Iterable[int], on_rows: Callable[[int], object] = int) -> None:
        """Computes and writes parts.

        A batch never has rows of two parts, and always the same size: what is missing of it, bad
        pictures too, is zeros. So a row does not depend on which others were computed before it.

        Args:
            numbers: Of the parts.
            on_rows: Function of a number of rows that were computed.
        """
        numbers = list(numbers)
        load = Loader(self.network.preprocessing, self.sha256)
        bounds = [self.parts.bounds(number) for number in numbers]
        rows = itertools.chain.from_iterable(self.rows.rows(*part) for part in bounds)
        with ThreadPoolExecutor(PARALLEL) as pool:
            # While the network has a batch, the next one is loaded.
            loaded = in_turn(pool, load, rows, self.batch_size + PARALLEL)
            for number, (start, stop) in zip(numbers, bounds, strict=True):
                pictures, kept = [], []
                for first in range(start, stop, self.batch_size):
                    size = min(self.batch_size, stop - first)
                    batch = list(itertools.islice(loaded, size))
                    if len(batch) < size:
                        raise DataError(
                            f"There are {size - len(batch)} pictures fewer than were counted."
                        )
                    answers = self.answer(self._images(batch))[:size]
                    kept.append(self.columns.kept(answers))
                    pictures += [dataclasses.replace(one, pixels=None) for one in batch]
                    on_rows(size)
                self.parts.write(number, self._table(pictures, kept))

    def _images(self, batch):
        """A batch's normalised images, float32 (batch size, height, width, 3)."""
        preprocessing = self.network.preprocessing
        pixels = np.zeros((self.batch_size, *preprocessing.sides, 3), np.uint8)
        for place, one in enumerate(batch):
            if one.pixels is not None:
                pixels[place] = one.pixels
        return preprocessing.normalise(pixels).numpy()

    def _table(self, pictures, kept):
        """The table of a part."""
        import pyarrow as pa

        errors = [one.error for one in pictures]
        missing = np.array([error is not None for error in errors])
        if len(missing) >= GIVES_UP and missing.all():
            raise DataError(
                f"None of {len(missing)} images in a row can be read. Check that the disk is still "
                f"there. The first: {pictures[0].name}: {errors[0]}."
            )
        hashes = {"sha256": [one.sha256 for one in pictures]} if self.sha256 else {}
        texts = {"path": [one.name for one in pictures], **hashes, "error": errors}
        columns: dict[str, Any] = {
            name: pa.array(values, pa.string()) for name, values in texts.items()
        }
        error = columns.pop("error")
        arrays = [np.concatenate(column) for column in zip(*kept, strict=True)]
        return pa.table({**columns, **self.columns.columns(arrays, missing), "error": error})
