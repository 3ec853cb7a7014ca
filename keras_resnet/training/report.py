"""What a run folder says in words and tables."""

import csv
import platform
from importlib.metadata import version

from keras_resnet.files import replacing

PACKAGES = ("keras3-resnet", "keras", "tensorflow", "numpy")
SHOWN = 20  # Rows of a table in the report; the CSV files have them all.


def write_csv(path, header, rows):
    """Writes a table beside its target and renames it."""
    with (
        replacing(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def write_skipped(skipped, folder):
    """Writes skipped.csv; returns its (file, reason) rows."""
    rows = [row for part in skipped for row in [*part.unread.items(), *part.reasons.items()]]
    write_csv(folder / "skipped.csv", ("file", "reason"), rows)
    return rows


def write_history(history, folder):
    """Writes history.csv; `history` has a dictionary for each epoch."""
    header = list(history[0])
    rows = [[row[name] for name in header] for row in history]
    write_csv(folder / "history.csv", header, rows)


def report(title, *, facts, classes, skipped, mistakes, missing, command) -> str:
    """The text of report.md.

    Args:
        title: The run's name.
        facts: (name, value) pairs.
        classes: The columns of the table of classes, {header: cells}.
        skipped: (file, reason) rows.
        mistakes: (file, label, predicted, probability) rows, the most certain first.
        missing: {file: why} of pictures that could not be made.
        command: The command line that made the run.
    """

    def picture(name, file):
        return [] if file in missing else [f"![{name}]({file})", ""]

    lines = [f"# {title}", "", *_table(("", ""), facts), "", *picture("Curves", "curves.png")]
    if missing:
        lines += ["## Missing", "", *_table(("what", "why"), missing.items()), ""]
    lines += ["## Classes", "", *_table(classes, zip(*classes.values(), strict=True)), ""]
    lines += picture("Confusion matrix", "confusion_matrix.png")
    lines += ["## Mistakes on validation images, the most certain first", ""]
    header = ("file", "label", "predicted", "probability")
    lines += _table(header, mistakes[:SHOWN]) if mistakes else ["None."]
    lines += ["", *(picture("Mistakes", "mistakes.png") if mistakes else [])]
    lines += ["All predictions are in predictions.csv.", "", "## Skipped files", ""]
    lines += _table(("file", "reason"), skipped[:SHOWN]) if skipped else ["None."]
    if len(skipped) > SHOWN:
        lines += ["", f"{len(skipped) - SHOWN} more are in skipped.csv."]
    lines += ["", "## Made by", "", "```", command, "```", ""]
    lines += _table(("package", "version"), [(name, _version(name)) for name in PACKAGES])
    lines += ["", f"Python {platform.python_version()} on {platform.platform()}", ""]
    lines += picture("The network", "model.svg")
    return "\n".join(lines)


def _table(header, rows):
    yield "| " + " | ".join(header) + " |"
    yield "|" + " --- |" * len(header)
    for row in rows:
        yield "| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |"


def _version(package):
    try:
        return version(package)
    except ImportError:  # importlib.metadata's PackageNotFoundError: run from a checkout
        return "not installed"
