"""The folder that a job writes: parts with numbers, and what they are parts of."""

import dataclasses
import json
from pathlib import Path

from keras_resnet.data.source import DataError
from keras_resnet.files import LOCK, read_json, remove_leftovers, replacing, write_text

JOB = "_job.json"  # readers of folders of Parquet files pass over what starts so


@dataclasses.dataclass(frozen=True)
class Parts:
    """Which rows are in which file.

    Args:
        folder: Where the files are.
        count: How many rows there are.
        rows_per_part: How many of them are in each file; the last one has what is left.
    """

    folder: Path
    count: int
    rows_per_part: int

    def __len__(self):
        """How many parts there are."""
        return -(-self.count // self.rows_per_part)

    def file(self, number) -> Path:
        """The file of a part."""
        return self.folder / f"part-{number:05}.parquet"

    def bounds(self, number) -> tuple[int, int]:
        """The first row of a part, and the first that is not in it."""
        start = number * self.rows_per_part
        return start, min(start + self.rows_per_part, self.count)

    def rows(self, numbers) -> int:
        """How many rows some parts have."""
        return sum(stop - start for start, stop in map(self.bounds, numbers))

    def there(self) -> list[int]:
        """The parts that are complete."""
        return [number for number in range(len(self)) if self.file(number).exists()]

    def write(self, number, table):
        """Writes a part, which has its name once it is whole."""
        import pyarrow.parquet as pq

        names = ["label", "top_labels.list.element"]
        with replacing(self.file(number)) as temporary:
            pq.write_table(table, temporary, compression="zstd", use_dictionary=names)

    def begin(self, job):
        """Notes what the parts are of; checks it if they were begun before.

        Args:
            job: A JSON dictionary of all that decides about their content.

        Raises:
            DataError: if the folder has something else.
        """
        file = self.folder / JOB
        if file.exists():
            advice = "Remove the folder, or choose another one."
            before = read_json(file, advice=advice, error=DataError)
            changed = [key for key in {**before, **job} if before.get(key) != job.get(key)]
            if changed:
                said = ", ".join(
                    f"{key} was {before.get(key)!r:.80} and is {job.get(key)!r:.80}"
                    for key in changed
                )
                raise DataError(
                    f"{self.folder} has parts of another job: {said}. Run the same command as "
                    "before to go on, or choose another folder."
                )
        elif any(not entry.name.startswith(LOCK) for entry in self.folder.iterdir()):
            raise DataError(f"{self.folder} contains other files. Choose another folder.")
        else:
            write_text(file, json.dumps(job, indent=2) + "\n")

    def clean(self):
        """Removes what a killed process left half-written."""
        remove_leftovers(self.folder)

    def errors(self, numbers) -> int:
        """How many rows of some parts have an error."""
        from pyarrow import compute, dataset

        if not numbers:
            return 0
        written = dataset.dataset([str(self.file(number)) for number in numbers])
        return written.count_rows(filter=~compute.is_null(compute.field("error")))
