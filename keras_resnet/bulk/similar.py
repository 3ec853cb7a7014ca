"""Finds similar images and duplicates in a folder of embeddings from `embed`."""

import dataclasses
import json
import logging
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from keras_resnet.bulk.folder import JOB
from keras_resnet.bulk.inputs import PathLike
from keras_resnet.bulk.jobs import need
from keras_resnet.data import Skipped
from keras_resnet.data.images import image_files
from keras_resnet.data.source import DataError
from keras_resnet.data.unreadable import why_bad_file
from keras_resnet.export.record import weights_hash
from keras_resnet.files import read_json
from keras_resnet.trained import Network, open_runtime
from keras_resnet.trained.runtimes import find_export

logger = logging.getLogger("keras_resnet")

AT_A_TIME = 4096  # rows of a file to read at a time
SEARCHED = 128  # rows to search for duplicates at a time
# An approximate index has as many cells as the square root of its rows, and is trained on some rows
# of each. A search looks into the nearest cells, into fewer for duplicates, which lie close.
LEAST, TRAINED_ON = 50_000, 64
NEAREST_CELLS, DUPLICATES_CELLS = 24, 8
ROUNDING = 1e-6
JOB_KEYS = ("layer", "weights_sha256", "rows", "preprocessing", "export")
ADVICE = "Write it again: keras-resnet embed."


@dataclasses.dataclass(frozen=True)
class Duplicates:
    """An image and its near duplicates.

    Args:
        path: Path of the image, the first of them in the order of the rows.
        copies: (path, cosine similarity) of the others, most similar first.
    """

    path: str
    copies: list[tuple[str, float]]


class Index:
    """The embeddings in a folder, to search for similar images.

    Similarity is the cosine of two embeddings, 1 for equal ones. All of them are held in memory, 4
    bytes a number: 2 GB for a million of 512. Needs the similar extra (`pip install
    keras3-resnet[similar]`).

    Args:
        folder: A folder that `bulk.embed` wrote.
        approximate: Whether to compare a query only with the embeddings in some regions (an
            inverted file of faiss), which pays for thousands of queries; of fewer than 50,000
            images, all are compared anyway.

    Raises:
        ValueError: if the folder has no embeddings, or a file of it is damaged.
        ImportError: without the similar extra.

    Example:
    >>> index = keras_resnet.bulk.Index("embeddings")  # doctest: +SKIP
    >>> network = keras_resnet.trained.open_network("runs/flowers")  # doctest: +SKIP
    >>> dict(index.similar(network, ["rose.jpg"], top=1))  # doctest: +SKIP
    {PosixPath('rose.jpg'): [('photos/rose/7.jpg', 0.93)]}
    """

    def __init__(self, folder: PathLike, *, approximate: bool = False) -> None:
        """Reads the embeddings."""
        need("faiss", "similar")
        need("pyarrow", "similar")
        import faiss
        import pyarrow as pa

        self.folder = Path(folder)
        if not (self.folder / JOB).is_file():
            raise DataError(
                f"{folder} is not a folder of embeddings, {JOB} was not found. Write one: "
                "keras-resnet embed."
            )
        self.job = read_json(self.folder / JOB, _job, advice=ADVICE, error=DataError)
        self.files = sorted(self.folder.glob("part-*.parquet"))
        rows, size = _sizes(self.files)
        if rows < self.job["rows"]:
            logger.warning(
                "%s has %d of %d rows: run keras-resnet embed again to write the others.",
                *(folder, rows, self.job["rows"]),
            )
        cells = math.isqrt(rows) if approximate and rows >= LEAST else 0
        kind = f"IVF{cells},Flat" if cells else "Flat"
        self.index: Any = faiss.index_factory(size, kind, faiss.METRIC_INNER_PRODUCT)
        if cells:
            step = max(rows // (TRAINED_ON * cells), 1)
            taken = [vectors[::step] for _, vectors in self._batches()]
            self.index.train(np.concatenate(taken))
            faiss.extract_index_ivf(self.index).nprobe = NEAREST_CELLS
        paths = []
        for names, vectors in self._batches():
            self.index.add(vectors)
            paths.append(names)
        self.paths = pa.chunked_array(paths, pa.string())
        if not len(self):
            raise DataError(f"No row of {folder} has an embedding. Each says why: read `error`.")

    def __len__(self) -> int:
        """Number of embeddings."""
        return len(self.paths)

    def nearest(self, embeddings: np.ndarray, *, top: int = 10) -> list[list[tuple[str, float]]]:
        """Finds the images whose embeddings are most similar to given ones.

        Args:
            embeddings: float array (queries, size), of the network and the layer of the folder.
            top: Number of images for each.

        Returns:
            [(path, cosine similarity), ...] for each query, most similar first.

        Raises:
            ValueError: if the embeddings are of another size.
        """
        embeddings = np.asarray(embeddings, np.float32)
        if embeddings.ndim != 2 or embeddings.shape[1] != self.index.d:
            raise ValueError(
                f"embeddings should be (queries, {self.index.d}). Received: {embeddings.shape}"
            )
        similarities, places = self.index.search(_normalised(embeddings), min(top, len(self)))
        return [
            self._named(found[found >= 0], row[found >= 0])
            for found, row in zip(places, similarities, strict=True)
        ]

    def similar(
        self,
        network: Network,
        images: Iterable[PathLike],
        *,
        top: int = 10,
        runtime: str | Path = "keras",
        skipped: Skipped | None = None,
    ) -> Iterator[tuple[Path, list[tuple[str, float]]]]:
        """Finds the images that are most similar to some image files.

        Args:
            network: The network that computed the embeddings.
            images: Paths of image files, or of folders of images.
            top: Number of images for each.
            runtime: As for `trained.open_runtime`.
            skipped: Collects images that cannot be decoded, which are left out. Without it, they
                are an error.

        Yields:
            (path, [(path of a similar image, cosine similarity), ...]) of each file, most similar
            first.

        Raises:
            ValueError: if the network or its preprocessing differs from those of the folder,
                or an image cannot be decoded.
        """
        answer = self.embedder(network, runtime)
        for file in images:
            found, unusable = image_files(file)
            if skipped is not None:
                skipped.add_all(unusable)
            for image in found:
                try:
                    embedding = answer(str(image), image.read_bytes())
                except (ValueError, OSError) as error:
                    if skipped is None:
                        raise
                    skipped.add(str(image), why_bad_file(str(image)) or str(error))
                    continue
                yield image, self.nearest(embedding, top=top)[0]

    def embedder(
        self, network: Network, runtime: str | Path = "keras"
    ) -> Callable[[str, bytes], np.ndarray]:
        """Makes a function from an image file's name and content to its embedding, (1, size).

        The arguments and the errors are those of `similar`.
        """
        if weights_hash(network.model) != self.job["weights_sha256"]:
            raise ValueError(
                f"The embeddings in {self.folder} are of another network than {network.file}. Pass "
                "the one that computed them as run or as weights."
            )
        used = json.loads(json.dumps(dataclasses.asdict(network.preprocessing)))
        if used != self.job["preprocessing"]:
            raise ValueError(
                f"The embeddings in {self.folder} were computed with other preprocessing. Pass the "
                f"same.\nExpected: {self.job['preprocessing']}\nReceived: {used}"
            )
        export = find_export(network, runtime, self.job["layer"])
        if (export and export[1]["files_sha256"]) != self.job["export"]:
            logger.warning(
                "The embeddings in %s were computed by another runtime or export: similarities "
                "differ a little. Pass the same as runtime.",
                self.folder,
            )
        answer = open_runtime(network, runtime, layer=self.job["layer"])
        return lambda name, content: answer(network.preprocessing.batch({name: content}))

    def duplicates(
        self, threshold: float = 0.95, *, on_progress: Callable[[int, int], object] | None = None
    ) -> list[Duplicates]:
        """Finds images that occur several times, or nearly.

        An image belongs to the group of the first image, in the order of the rows, that is at
        least as similar to it as `threshold` and is not in another image's group.

        Args:
            threshold: Least cosine similarity, more than 0 and at most 1.
            on_progress: Function of (number of rows done, total number).

        Returns:
            The groups of two images or more.

        Raises:
            ValueError: if the threshold is out of range.
        """
        if not 0 < threshold <= 1:
            raise ValueError(
                f"threshold should be more than 0 and at most 1. Received: threshold={threshold}"
            )
        import faiss

        few: Any = None
        if isinstance(self.index, faiss.IndexIVF):
            few = faiss.SearchParametersIVF()
            few.nprobe = DUPLICATES_CELLS
        copies, groups, start = np.zeros(len(self), bool), [], 0
        for _, vectors in self._batches():
            for first in range(start, start + len(vectors), SEARCHED):
                rows = np.arange(first, min(first + SEARCHED, start + len(vectors)))
                rows = rows[~copies[rows]]
                if not len(rows):
                    continue
                ends, similarities, places = self.index.range_search(
                    vectors[rows - start], threshold - ROUNDING, params=few
                )
                for number, row in enumerate(rows):
                    if copies[row]:  # of one in the same batch
                        continue
                    found = places[ends[number] : ends[number + 1]]
                    values = similarities[ends[number] : ends[number + 1]][found > row]
                    found = found[found > row]
                    values, found = values[~copies[found]], found[~copies[found]]
                    if len(found):
                        copies[found] = True
                        order = np.argsort(-values, kind="stable")
                        named = self._named(found[order], values[order])
                        groups.append(Duplicates(self.paths[int(row)].as_py(), named))
            start += len(vectors)
            if on_progress:
                on_progress(start, len(self))
        return groups

    def _named(self, places, similarities):
        paths = self.paths.take(places.tolist()).to_pylist()
        return list(zip(paths, map(float, similarities.clip(-1, 1)), strict=True))

    def _batches(self):
        """Yields (paths, normalised embeddings, float32 (rows, size)) of rows that have one."""
        import pyarrow as pa
        import pyarrow.parquet as pq
        from pyarrow import compute

        for file in self.files:
            try:
                with pq.ParquetFile(file) as part:
                    for batch in part.iter_batches(AT_A_TIME, columns=["path", "embedding"]):
                        batch = batch.filter(compute.is_valid(batch["embedding"]))
                        values = batch["embedding"].flatten().to_numpy(zero_copy_only=False)
                        vectors = values.reshape(len(batch), self.index.d).astype(np.float32)
                        finite = np.isfinite(vectors).all(axis=1)
                        if finite.any():
                            names = batch["path"].cast(pa.string()).filter(pa.array(finite))
                            yield names, _normalised(vectors[finite])
            except (pa.ArrowException, KeyError, AttributeError) as error:
                raise DataError(f"{file} cannot be read: {error}. {ADVICE}") from error


def _normalised(vectors):
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(norms, np.finfo(np.float32).tiny)


def _job(values) -> dict[str, Any]:
    """Reads and validates the description of a folder of embeddings."""
    if values["writes"] != "embeddings":
        raise ValueError(f"the folder has {values['writes']!r:.80}, no embeddings")
    texts = (values["layer"], values["weights_sha256"])
    if not all(isinstance(text, str) for text in texts) or not isinstance(values["rows"], int):
        raise TypeError("layer and weights_sha256 should be texts, rows a number")
    return {key: values[key] for key in JOB_KEYS}


def _sizes(files) -> tuple[int, int]:
    """Returns the number of rows in some files, and the size of an embedding."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows, sizes = 0, set[int | None]()
    for file in files:
        try:
            with pq.ParquetFile(file) as part:
                rows += part.metadata.num_rows
                field = part.schema_arrow.field("embedding").type
                sizes.add(field.list_size if pa.types.is_floating(field.value_type) else None)
        except (pa.ArrowException, KeyError, AttributeError) as error:
            raise DataError(f"{file} cannot be read: {error}. {ADVICE}") from error
    size = sizes.pop() if len(sizes) == 1 else None
    if size is None:
        raise DataError(
            f"{len(files)} files were found, but not embeddings of one size in all. {ADVICE}"
        )
    return rows, size
