"""Tables of image files and their labels: CSV and Parquet."""

import array
import collections
import contextlib
import csv
import dataclasses
import hashlib
import math
import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_resnet.data.images import Images
from keras_resnet.data.label_sets import LabelSets
from keras_resnet.data.source import DataError

SUFFIXES = (".csv", ".parquet")
ROLES = ("file", "label", "labels", "weight")  # of columns
SEPARATORS = "[;|]"  # between labels
ZERO_OR_ONE = {"0": 0, "0.0": 0, "false": 0, "1": 1, "1.0": 1, "true": 1}
HEADER = 1 << 16  # maximum bytes of a header
ROWS = 1024  # of a Parquet file to read at a time
EXPECTED = (
    "Expected the columns file and label (one class); or file and labels (several, separated by ; "
    "or |); or file and a column of 0 and 1 for each class; and perhaps weight"
)


def table_of(path: str | os.PathLike[str]) -> Path | None:
    """Finds the table of a path: itself, or labels.csv or labels.parquet in a folder."""
    path = Path(path)
    tables = [path] if is_table(path) else [path / f"labels{suffix}" for suffix in SUFFIXES]
    found = [table for table in tables if table.is_file()]
    if len(found) > 1:
        raise DataError(f"{path} has both {' and '.join(t.name for t in found)}. Keep one of them.")
    return found[0] if found else None


def is_table(path: Path) -> bool:
    """Whether a path has the suffix of a table."""
    return path.suffix.lower() in SUFFIXES


def list_table(path: Path, class_names: Sequence[str] | None = None) -> Images:
    """Reads a table of image files and their labels.

    Args:
        path: A .csv file, in UTF-8, with a header, separated by commas, semicolons or tabs; or a
            .parquet file, for which pyarrow is needed. Paths of files are below the table's folder.
        class_names: Allowed classes. Default: those of the table, in alphabetical order.

    Raises:
        DataError: if the table is invalid; the message has the line.
    """
    rows = _rows_of_parquet(path) if path.suffix.lower() == ".parquet" else _rows_of_csv(path)
    with contextlib.closing(rows):
        _, header = next(rows)
        columns = _Columns.of(header, path)
        reader = _Reader(path, columns, class_names)
        for place, cells in rows:
            try:
                reader.add(place, cells)
            except ValueError as error:
                raise DataError(f"{path}, {place}: {error}") from None
    return reader.images()


@dataclasses.dataclass(frozen=True)
class _Columns:
    """Indices of the columns of a table.

    Args:
        file: Paths of the images.
        label: Single labels; None without.
        labels: Several labels; None without.
        classes: {class name: column of 0 and 1}.
        weight: Weights of the images; None without.
    """

    file: int
    label: int | None
    labels: int | None
    classes: dict[str, int]
    weight: int | None

    @classmethod
    def of(cls, header, path):
        """Finds the columns in a header."""
        names = [str(name).strip() for name in header]
        twice = [name for name, count in collections.Counter(names).items() if count > 1]
        if twice:
            raise DataError(f"{path} has several columns called {twice[0]!r}. Rename them.")
        number = {name: index for index, name in enumerate(names)}
        said = f"{EXPECTED}. Received: {', '.join(names)[:300]}"
        if "file" not in number or {"label", "labels"} <= number.keys():
            what = "label and labels; keep one" if "file" in number else "no column file"
            raise DataError(f"{path} has {what}. {said}")
        file, (label, labels, weight) = number["file"], map(number.get, ROLES[1:])
        classes: dict[str, int] = {}
        if label is None and labels is None:
            classes = {name: index for name, index in number.items() if index not in (file, weight)}
            if not classes or "" in classes:
                raise DataError(f"{path} has no labels, or a column without a name. {said}")
        return cls(file, label, labels, classes, weight)


class _Reader:
    """Collects the rows of a table, in about 50 bytes each, plus the file names."""

    def __init__(self, path, columns, class_names):
        self.path, self.columns, self.given = path, columns, class_names
        self.root = os.path.join(os.path.abspath(path.parent), "")
        self.numbers = {name: number for number, name in enumerate(class_names or ())}
        if class_names is None:
            self.numbers = {name: number for number, name in enumerate(sorted(columns.classes))}
        elif columns.classes and sorted(columns.classes) != sorted(class_names):
            names = sorted({*columns.classes} ^ {*class_names})
            raise DataError(
                f"{path} should have a column for each of the {len(class_names)} classes. Only in "
                f"one of both: {', '.join(names[:10])}{', ...' * (len(names) > 10)}."
            )
        self.names, self.hashes = bytearray(), array.array("Q")
        self.members, self.splits = array.array("i"), array.array("i", [0])
        self.weights = array.array("f")
        self.unusable: dict[str, str] = {}

    def add(self, place, cells):
        """Adds a row; raises a ValueError if it is invalid."""
        columns = self.columns
        file = self._below(_text(cells[columns.file]))
        if columns.label is not None:
            labels = [self._number(_text(cells[columns.label]))]
        elif columns.labels is not None:
            labels = sorted(set(map(self._number, _parts(cells[columns.labels]))))
        else:
            labels = sorted(
                self._number(name)
                for name, column in columns.classes.items()
                if _zero_or_one(name, cells[column])
            )
        weight = 1.0 if columns.weight is None else _weight(cells[columns.weight])
        why = _why_unusable(self.root + file)
        if why:
            self.unusable[self.root + file] = f"{why} ({place} of {self.path.name})"
            return
        name = os.fsencode(file)
        self.names += name + b"\0"
        digest = hashlib.blake2b(name, digest_size=8).digest()
        self.hashes.append(int.from_bytes(digest, "little"))
        self.members.extend(labels)
        self.splits.append(len(self.members))
        if columns.weight is not None:
            self.weights.append(weight)

    def _below(self, file):
        """Returns the path of a file, relative to the table's folder."""
        if not file:
            raise ValueError("the file is empty")
        if "\0" in file:
            raise ValueError("the file has a zero byte in its name")
        path = os.path.normpath(os.path.join(self.root, file))
        if not path.startswith(self.root):
            raise ValueError(
                f"{file} is outside of the table's folder, {self.root}. Files should lie below it: "
                "move the table, or link the images' folder"
            )
        return path.removeprefix(self.root)

    def _number(self, label):
        """Returns the index of a class."""
        if not label:
            raise ValueError("the label is empty")
        if label in self.numbers:
            return self.numbers[label]
        if self.given is not None:
            raise ValueError(
                f"{label!r} is none of the {len(self.given)} classes: "
                f"{', '.join(self.given[:10])}{', ...' * (len(self.given) > 10)}"
            )
        return self.numbers.setdefault(label, len(self.numbers))

    def images(self):
        """Returns the images that were read."""
        count = len(self.hashes)
        if not count:
            why = "".join(f" The first: {f}: {why}." for f, why in [*self.unusable.items()][:1])
            raise DataError(f"{self.path} lists no image file that exists.{why}")
        self.names.pop()  # the last separator
        names = tf.strings.split(bytes(self.names), "\0")
        self._check_each_once(names)
        classes = tuple(self.given or sorted(self.numbers))
        one_each = self.columns.label is not None
        if self.given is None and one_each and len(classes) < 2:
            raise DataError(
                f"{self.path} has only one class, {classes[0]!r}. Expected two or more."
            )
        if not classes:
            raise DataError(f"{self.path} has no labels: every image's are empty.")
        rank = np.empty(len(classes), np.int32)
        rank[[self.numbers[name] for name in classes]] = np.arange(len(classes))
        members = rank[np.frombuffer(self.members, np.int32)]
        gone = np.flatnonzero(np.bincount(members, minlength=len(classes)) == 0)
        if self.given is None and not self.columns.classes and len(gone):
            raise DataError(
                f"No file of the class {classes[gone[0]]!r} in {self.path} exists. Add the files, "
                "or remove their rows."
            )
        said = hashlib.sha256("\0".join(classes).encode())
        for part in (members.tobytes(), self.splits.tobytes(), self.weights.tobytes()):
            said.update(part)
        labels: np.ndarray | LabelSets = members
        if not one_each:
            splits = np.frombuffer(self.splits, np.int32)
            ragged = tf.RaggedTensor.from_row_splits(members, splits, validate=False)
            labels = LabelSets(ragged, len(classes))
        return Images(
            classes,
            names,
            labels,
            np.arange(count),
            os.fsencode(os.path.join(self.path.parent, "")),
            self.unusable,
            weights=tf.constant(self.weights, tf.float32) if self.weights else None,
            digest=said.hexdigest()[:16],
        )

    def _check_each_once(self, names):
        hashes = np.array(self.hashes, np.uint64)
        order = np.argsort(hashes, kind="stable")
        same = np.flatnonzero(np.diff(hashes[order]) == 0)
        if len(same):
            file = os.fsdecode(names[order[same[0]]].numpy())
            raise DataError(
                f"{self.path} lists {file} more than once. Give each file one row; several labels "
                "go into one cell of the column labels, separated by ; or |."
            )


def _text(cell):
    """Converts a cell to text, "" if it is empty."""
    return "" if cell is None else str(cell).strip()


def _parts(cell):
    """Splits the labels of a cell, which is text, or a list in Parquet files."""
    if isinstance(cell, (list, tuple)):
        return map(_text, cell)
    text = _text(cell)
    return [part.strip() for part in re.split(SEPARATORS, text)] if text else []


def _zero_or_one(name, cell):
    text = _text(cell).lower()
    if text not in ZERO_OR_ONE:
        raise ValueError(
            f"{name} should be 0 or 1, as every column beside file and weight where there is no "
            f"column label or labels. Received: {text!r:.40}"
        )
    return ZERO_OR_ONE[text]


def _weight(cell):
    try:
        weight = float(_text(cell))
    except ValueError:
        weight = math.nan
    if not 0 <= weight < math.inf:
        raise ValueError(f"weight should be a number, 0 or more. Received: {_text(cell)!r:.40}")
    return weight


def _why_unusable(path):
    """Returns the reason why a file cannot be read; None if it can."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:  # not a valid path
        return getattr(error, "strerror", None) or str(error)
    return None if stat.S_ISREG(mode) else "it is not a file"


def _rows_of_csv(path):
    """Yields (line, cells) of a CSV file, starting with the header."""
    # Invalid UTF-8 becomes surrogates, which are reported with their line.
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        first = file.readline(HEADER)
        file.seek(0)
        delimiter = next((sign for sign in ",;\t" if sign in first), ",")
        reader, width = csv.reader(file, delimiter=delimiter, strict=True), 0
        try:
            for cells in reader:
                place = f"line {reader.line_num}"
                if not _is_utf8(cells):
                    raise DataError(f"{path}, {place}, is not in UTF-8. Save the table as UTF-8.")
                width = width or len(cells)
                if len(cells) not in (0, width):
                    raise DataError(
                        f"{path}, {place}: expected {width} cells, as in the header. Received: "
                        f"{len(cells)}. A cell with a {delimiter!r} in it should be in quotes."
                    )
                if cells:  # skips empty lines
                    yield place, cells
        except csv.Error as error:
            raise DataError(f"{path}, line {reader.line_num}: {error}.") from error
    if not width:
        raise DataError(f"{path} is empty. {EXPECTED}.")


def _is_utf8(cells):
    try:
        "".join(cells).encode()
    except UnicodeEncodeError:
        return False
    return True


def _rows_of_parquet(path):
    """Yields (row, cells) of a Parquet file, starting with the header."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(
            f"To read {path}, pyarrow is needed: pip install 'keras3-resnet[parquet]'"
        ) from error
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if not {"label", "labels"}.isdisjoint(names):  # the rest may be the images themselves
                names = [name for name in names if name in ROLES]
            yield "header", names
            number = 0
            for batch in file.iter_batches(ROWS, columns=names):
                for cells in zip(*(batch[name].to_pylist() for name in names), strict=True):
                    number += 1
                    yield f"row {number}", cells
    except (pyarrow.ArrowException, OSError) as error:
        said = " ".join(str(error).split())[:300]
        raise DataError(f"{path} cannot be read as Parquet: {said}") from error
