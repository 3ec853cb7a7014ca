"""Writes embeddings or predictions of many images to Parquet files: `embed` and `predict`."""

import contextlib
import dataclasses
import importlib
import json
import logging
import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from keras_resnet.bulk.columns import Embeddings, Labels
from keras_resnet.bulk.folder import Parts
from keras_resnet.bulk.inputs import PathLike, fingerprint, open_inputs
from keras_resnet.bulk.job import Job
from keras_resnet.data.source import DataError
from keras_resnet.export import record
from keras_resnet.export.network import checked_names
from keras_resnet.files import LOCK, locked
from keras_resnet.trained import Network
from keras_resnet.trained.runtimes import find_export

logger = logging.getLogger("keras_resnet")


@dataclasses.dataclass(frozen=True)
class Written:
    """The result of `embed` and `predict`.

    Args:
        folder: The folder of Parquet files.
        rows: Number of rows in the folder, including those of earlier calls and other processes.
        errors: Number of rows with an error instead of a result.
        parts: Number of files.
        computed: Number of rows that this call computed.
        seconds: Duration of this call.
    """

    folder: Path
    rows: int
    errors: int
    parts: int
    computed: int
    seconds: float


@dataclasses.dataclass(frozen=True)
class Settings:
    """Options of both `embed` and `predict`.

    Args:
        column: The column of Parquet inputs with paths (strings) or image files (bytes). Default:
            the only column of bytes, else the one named path, file, filename, file_name or url.
        sha256: Whether to add a column with the hash of each image file.
        runtime: "keras", or the export that computes the results, as for `trained.open_runtime`.
        batch_size: Number of images per batch.
        rows_per_part: Number of rows per file.
        processes: Number of processes that share the work; each is started with the same
            arguments except for `process_id`, and writes other parts of the same folder.
        process_id: Index of this process, from 0.
        engine: None, or "ray" for a Ray cluster, which needs the ray extra.
        address: Address of the Ray cluster, "auto" for example. Default: a new one on this machine.
        workers: Number of Ray actors, each with the network.
    """

    column: str | None = None
    sha256: bool = False
    runtime: str = "keras"
    batch_size: int = 32
    rows_per_part: int = 8192
    processes: int = 1
    process_id: int = 0
    engine: str | None = None
    address: str | None = None
    workers: int | None = None

    def __post_init__(self):
        """Validates each field."""
        for name in ("batch_size", "rows_per_part", "processes", "workers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} should be 1 or more. Received: {name}={value}")
        if not 0 <= self.process_id < self.processes:
            raise ValueError(
                f"process_id should be 0 to {self.processes - 1}. Received: "
                f"process_id={self.process_id}"
            )
        if self.engine not in (None, "ray"):
            raise ValueError(f"engine should be 'ray'. Received: engine={self.engine!r}")
        if self.engine is None and (self.address or self.workers):
            raise ValueError("address and workers are of an engine: pass engine='ray'.")
        if self.engine is not None and self.processes > 1:
            raise ValueError("Pass either engine or processes.")


def embed(
    network: Network,
    inputs: PathLike | Iterable[PathLike],
    output: PathLike,
    *,
    layer: str = "avgpool",
    normalize: bool = False,
    dtype: str = "float32",
    on_progress: Callable[[int, int], object] | None = None,
    **settings: Any,
) -> Written:
    """Writes the embeddings of images to a folder of Parquet files, one row per image, in order.

    If interrupted or killed, the same call continues at the first missing part. Memory does not
    grow with the number of images, except for some 100 bytes each for their names.

    Args:
        network: The network.
        inputs: One or several of: a folder of images, at any depth; an image file; a glob,
            "photos/**/*.jpg"; a .txt file with one path or URL per line; a .tfrecord or .parquet
            file, or a folder of these; a .npz file with x, uint8 (images, height, width, 3); or the
            name of a tensorflow-datasets data set (all splits). Images, .txt and .parquet files and
            folders of these can be URLs, s3://bucket/photos.
        output: The folder to write: `part-00000.parquet`, ..., and `_job.json`, which describes
            the job. The columns are path, sha256 on request, embedding (a fixed-size list) and
            error, the reason why an image cannot be read, else null.
        layer: As for `features.pooled`: by default the features that the classifier uses; "layer3",
            "layer3.0" or "C4", averaged over height and width.
        normalize: Whether to divide each embedding by its L2 norm.
        dtype: "float32" or "float16".
        on_progress: Function of (number of rows done, total number), called after each batch.
        **settings: `column`, `sha256`, `runtime`, `batch_size`, `rows_per_part`, `processes`,
            `process_id`, `engine`, `address` and `workers`, as of `bulk.Settings`.

    Returns:
        The result, a `Written`.

    Raises:
        ValueError: if an argument is invalid, there are no images, or the folder has parts of
            another job, other images for example.
        ImportError: if pyarrow is not installed.

    Example:
    >>> network = keras_resnet.trained.open_network("runs/flowers")  # doctest: +SKIP
    >>> keras_resnet.bulk.embed(network, "photos", "embeddings")  # doctest: +SKIP
    """
    if dtype not in ("float32", "float16"):
        raise ValueError(f"dtype should be 'float32' or 'float16'. Received: dtype={dtype!r}")
    said = {"writes": "embeddings", "layer": layer, "normalize": normalize, "dtype": dtype}
    return _run(
        *(network, layer, Embeddings(dtype, normalize), said),
        *(inputs, output, Settings(**settings), on_progress),
    )


def predict(
    network: Network,
    inputs: PathLike | Iterable[PathLike],
    output: PathLike,
    *,
    top: int = 5,
    on_progress: Callable[[int, int], object] | None = None,
    **settings: Any,
) -> Written:
    """Writes the predicted classes of images to a folder of Parquet files, one row per image.

    Args:
        network: The network.
        inputs: As for `embed`.
        output: As for `embed`. The columns are path, sha256 on request, label, probability,
            top_labels and top_probabilities (lists, highest first), and error; of a multi-label
            network also predicted, the list of the classes that reach their thresholds.
        top: Number of classes in these lists.
        on_progress: As for `embed`.
        **settings: As for `embed`.

    Returns:
        The result, a `Written`.

    Raises:
        ValueError: As for `embed`.
        ImportError: As for `embed`.
    """
    names = tuple(checked_names(network.model, network.class_names))
    top = min(top, len(names))
    said = {"writes": "labels", "top": top, "classes": list(names)}
    if network.thresholds is not None:
        said["thresholds"] = list(network.thresholds)
    return _run(
        *(network, None, Labels(names, top, network.thresholds), said),
        *(inputs, output, Settings(**settings), on_progress),
    )


def _run(network, layer, columns, said, inputs, output, settings, on_progress):
    """Implements both."""
    need("pyarrow", "parquet")
    if settings.engine:
        need("ray", "ray")
    runtime, exported = settings.runtime, None
    if export := find_export(network, runtime, layer):
        runtime, exported = str(export[0].resolve()), export[1]["files_sha256"]
    rows, output = open_inputs(inputs, settings.column), Path(output)
    parts = Parts(output, rows.count, settings.rows_per_part)
    batch_size = min(settings.batch_size, rows.count, settings.rows_per_part)
    job = Job(rows, network, layer, runtime, columns, parts, batch_size, settings.sha256)
    said = {
        **said,
        "rows": rows.count,
        "inputs": fingerprint(rows),
        "weights_sha256": record.weights_hash(network.model),
        "export": exported,
        "preprocessing": json.loads(json.dumps(dataclasses.asdict(network.preprocessing))),
        **{"batch_size": batch_size, "rows_per_part": settings.rows_per_part},
        "sha256": settings.sha256,
    }
    began = time.perf_counter()
    with _mine(output, settings):
        parts.begin(said)
        if settings.processes == 1:
            parts.clean()  # otherwise they may belong to another process
        mine, there = range(len(parts))[settings.process_id :: settings.processes], parts.there()
        numbers = sorted({*mine} - {*there})
        computed = parts.rows(numbers)
        _compute(job, numbers, settings, _Progress(parts.rows(mine), computed, on_progress))
        there = parts.there()
    seconds = time.perf_counter() - began
    return Written(*(output, parts.rows(there), parts.errors(there), len(there), computed, seconds))


def _compute(job, numbers, settings, progress):
    """Computes parts in this process or on an engine."""
    if not numbers:
        return
    if settings.engine is None:
        job.run(numbers, progress)
        return
    from keras_resnet.bulk import on_ray

    for rows in on_ray.run(job, numbers, settings.address, settings.workers):
        progress(rows)


@contextlib.contextmanager
def _mine(output, settings):
    """Locks the folder against processes that would write the same parts."""
    output.mkdir(parents=True, exist_ok=True)
    busy = DataError(f"Another process is writing to {output}. Wait for it.")
    # One of several processes only excludes another one with its index.
    name = LOCK if settings.processes == 1 else f"{LOCK}-{settings.process_id}"
    with locked(output, busy, name):
        yield


def need(module, extra):
    """Raises an ImportError if a package of an extra is not installed."""
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f'{module} is not installed. Install it with: pip install "keras3-resnet[{extra}]"'
        ) from error


class _Progress:
    """Reports progress to the caller, and logs speed and remaining time once a minute."""

    def __init__(self, rows, total, on_progress):
        self.rows, self.total, self.done, self.told = rows, total, 0, on_progress
        self.began = self.logged = time.perf_counter()

    def __call__(self, rows):
        self.done += rows
        if self.told:
            self.told(self.rows - self.total + self.done, self.rows)
        now = time.perf_counter()
        if now - self.logged >= 60:
            self.logged, rate = now, self.done / (now - self.began)
            logger.info(
                "%s of %s images, %.0f images/s, %d min left.",
                f"{self.rows - self.total + self.done:,}",
                f"{self.rows:,}",
                rate,
                math.ceil((self.total - self.done) / rate / 60),
            )
