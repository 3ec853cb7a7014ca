"""The output folder of a job: numbered parts, and a description of the job."""

import dataclasses
import json
from pathlib import Path

from keras_resnet.data.source import DataError
from keras_resnet.files import LOCK, read_json, remove_leftovers, replacing, write_text

JOB = "_job.json"  # ignored by readers of Parquet folders because of the underscore


@dataclasses.dataclass(frozen=True)
class Parts:
    """The files of a job, and their rows.

    Args:
        folder: The output folder.
        count: Total number of rows.
        rows_per_part: Number of rows in each file, except for the last one.
    """

    folder: Path
    count: int
    rows_per_part: int

    def __len__(self):
        """Number of parts."""
        return -(-self.count // self.rows_per_part)

    def file(self, number) -> Path:
        """Returns the path of a part."""
        return self.folder / f"part-{number:05}.parquet"

    def bounds(self, number) -> tuple[int, int]:
        """Returns the range of rows of a part, (start, stop)."""
        start = number * self.rows_per_part
        return start, min(start + self.rows_per_part, self.count)

    def rows(self, numbers) -> int:
        """Returns the number of rows in some parts."""
        return sum(stop - start for start, stop in map(self.bounds, numbers))

    def there(self) -> list[int]:
        """Lists the complete parts."""
        return [number for number in range(len(self)) if self.file(number).exists()]

    def write(self, number, table):
        """Writes a part, which gets its name when it is complete."""
        import pyarrow.parquet as pq

        names = ["label", "top_labels.list.element"]
        with replacing(self.file(number)) as temporary:
            pq.write_table(table, temporary, compression="zstd", use_dictionary=names)

    def begin(self, job):
        """Writes the description of the job, or compares it with that of an earlier call.

        Args:
            job: JSON dictionary of everything that determines the content of the parts.

        Raises:
            DataError: if the folder has other files, or parts of another job.
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
        """Removes unfinished files of a killed process."""
        remove_leftovers(self.folder)

    def errors(self, numbers) -> int:
        """Counts the rows with an error in some parts."""
        from pyarrow import compute, dataset

        if not numbers:
            return 0
        written = dataset.dataset([str(self.file(number)) for number in numbers])
        return written.count_rows(filter=~compute.is_null(compute.field("error")))
