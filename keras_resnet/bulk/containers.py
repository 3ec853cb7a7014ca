"""Images inside larger files: TFRecord, Parquet, NumPy arrays and tensorflow-datasets."""

import bisect
import dataclasses
import functools
import itertools
import os

import numpy as np
import tensorflow as tf

from keras_resnet.bulk.paths import Files, is_url, located
from keras_resnet.bulk.rows import Row, Rows, Several
from keras_resnet.data.datasets import tfds_builder
from keras_resnet.data.shards import FEATURES, records
from keras_resnet.data.source import DataError

AT_A_TIME = 64  # rows of a Parquet file to read at a time
PATHS = ("path", "file", "filename", "file_name", "url")  # usual names for a column of paths


@dataclasses.dataclass(frozen=True)
class Shards:
    """Images in TFRecord files.

    Args:
        files: Paths of the files.
        places: int64 (images, 3): index of the file, offset and length of the data.
        firsts: Index of each file's first image.
    """

    files: tuple[str, ...]
    places: np.ndarray
    firsts: np.ndarray

    @classmethod
    def open(cls, files):
        """Finds the records of some files."""
        found = [
            np.fromiter(itertools.chain.from_iterable(records(file)), np.int64).reshape(-1, 2)
            for file in files
        ]
        counts = [len(places) for places in found]
        which = np.repeat(np.arange(len(files)), counts)
        places = np.column_stack([which, np.concatenate(found)])
        return cls(tuple(files), places, np.cumsum([0, *counts[:-1]]))

    @property
    def count(self):
        """As for `Rows`."""
        return len(self.places)

    def rows(self, start, stop):
        """As for `Rows`."""
        for number, (which, place, length) in enumerate(self.places[start:stop].tolist(), start):
            with open(self.files[which], "rb") as stream:
                stream.seek(place)
                record = stream.read(length)
            yield _record(record, f"{self.files[which]}/{number - self.firsts[which]}")

    def said(self):
        """As for `Rows`."""
        yield from map(os.fsencode, self.files)
        yield self.places.tobytes()


@tf.function(input_signature=[tf.TensorSpec((), tf.string)], autograph=False)
def _parsed(record):
    names = ("image/encoded", "image/filename")
    return tf.io.parse_single_example(record, {name: FEATURES[name] for name in names})


def _record(record, name):
    """Reads the image of a record."""
    try:
        parsed = _parsed(record)
    except tf.errors.InvalidArgumentError:
        return Row(name, bytes)  # empty
    return Row(os.fsdecode(parsed["image/filename"].numpy()) or name, parsed["image/encoded"].numpy)


@dataclasses.dataclass(frozen=True)
class Table:
    """Images in a column of bytes of a Parquet file.

    Args:
        file: Path or URL of the file.
        column: Name of the column, "image.bytes" for a field of a struct.
        path: Name of the column with the images' names; None if there is none.
        groups: Number of rows in each row group.
        query: As for `Files`.
    """

    file: str
    column: str
    path: str | None
    groups: tuple[int, ...]
    query: str = ""

    @property
    def count(self):
        """As for `Rows`."""
        return sum(self.groups)

    def rows(self, start, stop):
        """As for `Rows`."""
        ends = list(itertools.accumulate(self.groups))
        first, last = bisect.bisect_right(ends, start), bisect.bisect_left(ends, stop)
        number = ends[first] - self.groups[first]
        columns = [name for name in (self.column, self.path) if name]
        groups = list(range(first, last + 1))
        with _parquet(self.file, self.query) as table:
            for batch in table.iter_batches(AT_A_TIME, groups, columns):
                values = _column(batch, self.column)
                names = _column(batch, self.path) if self.path else None
                for place in range(max(start - number, 0), min(stop - number, len(batch))):
                    name = names[place].as_py() if names is not None else None
                    name = name or f"{self.file}/{number + place}"
                    yield Row(name, values[place].as_py if values[place].is_valid else bytes)
                number += len(batch)
                if number >= stop:
                    return

    def said(self):
        """As for `Rows`."""
        yield f"{self.file} {self.column} {self.path} {self.groups}".encode()


def _parquet(file, query):
    import pyarrow.parquet as pq

    system, path = located(file, query) if is_url(file) else (None, file)
    return pq.ParquetFile(path, filesystem=system)


def _column(batch, name):
    """Returns a column of a record batch, or a field of a struct."""
    column, _, field = name.partition(".")
    return batch[column].field(field) if field else batch[column]


def open_tables(files, column=None, query="") -> Rows:
    """Opens Parquet files with image files, or with their paths or URLs.

    Args:
        files: Paths or URLs of the Parquet files.
        column: As for `open_inputs`.
        query: As for `Files`.
    """
    import pyarrow as pa

    found: list[Rows] = []
    for file in files:
        try:
            table = _parquet(file, query)
        except pa.ArrowInvalid as error:
            raise DataError(f"{file} cannot be read: {error}") from error
        with table:
            chosen, path = _chosen(table.schema_arrow, column, file)
            if path == chosen:
                batches = table.iter_batches(columns=[chosen])
                names = [batch[0].cast(pa.large_binary()) for batch in batches]
                found.append(Files(pa.chunked_array(names, pa.large_binary()), query=query))
                continue
            meta = table.metadata
            groups = (meta.row_group(number).num_rows for number in range(meta.num_row_groups))
            found.append(Table(file, chosen, path, tuple(groups), query))
    return Several(tuple(found))


def _chosen(schema, column, file):
    """Returns the columns of images and of names, which are the same for a column of paths."""
    from pyarrow import types

    contents, texts = [], []
    for field in schema:
        if types.is_struct(field.type) and "bytes" in {inner.name for inner in field.type}:
            contents.append(f"{field.name}.bytes")  # images in Hugging Face data sets
        elif types.is_binary(field.type) or types.is_large_binary(field.type):
            contents.append(field.name)
        elif types.is_string(field.type) or types.is_large_string(field.type):
            texts.append(field.name)
    usual = [name for name in PATHS if name in texts][:1]
    if column is None:
        found = contents or usual
    else:
        found = [name for name in (*contents, *texts) if column in (name, name.split(".")[0])]
    if len(found) != 1:
        raise DataError(
            f"{file} has the columns {', '.join(schema.names)}. Pass as column the one with the "
            f"bytes or the paths of the images. Received: column={column!r}"
        )
    if found[0] in texts:
        return found[0], found[0]
    if found[0].endswith(".bytes"):
        name, beside = found[0].split(".")[0], "path"
        inner = {one.name for one in schema.field(name).type}
        return found[0], f"{name}.path" if beside in inner else None
    return found[0], usual[0] if usual else None


@dataclasses.dataclass(frozen=True)
class Arrays:
    """Images in the array x of a .npz file.

    Args:
        file: Path of the file.
        pixels: uint8 (images, height, width, 3).
    """

    file: str
    pixels: np.ndarray

    @classmethod
    def open(cls, file):
        """Reads a .npz file."""
        try:
            with np.load(file, allow_pickle=False) as arrays:
                pixels = arrays["x"]
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{file} cannot be read: expected the array x. {error}") from error
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3:
            raise DataError(
                f"{file} should contain x, uint8 (images, height, width, 3). Received: "
                f"{pixels.dtype} {pixels.shape}"
            )
        return cls(file, pixels)

    @property
    def count(self):
        """As for `Rows`."""
        return len(self.pixels)

    def rows(self, start, stop):
        """As for `Rows`."""
        for number in range(start, stop):
            yield Row(f"{self.file}/{number}", functools.partial(_encoded, self.pixels[number]))

    def said(self):
        """As for `Rows`."""
        yield os.fsencode(self.file)
        yield self.pixels.tobytes()


def _encoded(pixels):
    return tf.io.encode_png(pixels).numpy()  # lossless


@dataclasses.dataclass(frozen=True)
class Split:
    """Images of a split of a tensorflow-datasets data set."""

    name: str
    split: str
    count: int

    def rows(self, start, stop):
        """As for `Rows`."""
        import tensorflow_datasets

        examples = tfds_builder(self.name).as_dataset(
            split=f"{self.split}[{start}:{stop}]",
            decoders={"image": tensorflow_datasets.decode.SkipDecoding()},
            shuffle_files=False,
            read_config=tensorflow_datasets.ReadConfig(try_autocache=False),
        )
        for number, example in enumerate(examples, start):
            yield Row(f"{self.name}/{self.split}/{number}", example["image"].numpy)

    def said(self):
        """As for `Rows`."""
        yield f"{tfds_builder(self.name).info.full_name}/{self.split} {self.count}".encode()


def open_splits(name) -> Rows:
    """Opens all splits of a tensorflow-datasets data set."""
    splits = tfds_builder(name).info.splits
    return Several(tuple(Split(name, key, splits[key].num_examples) for key in sorted(splits)))
