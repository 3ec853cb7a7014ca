"""The table of docs/training.md that says how far a recipe's fields are from another library's."""

import os
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "training.md"
HEADING = "| field | compared with | largest difference |\n| --- | --- | --- |\n"


def compared(field, reference, difference, limit):
    """Checks a difference, and the row of the table; KERAS_RESNET_WRITE_TABLE=1 writes it anew.

    Args:
        field: The first column.
        reference: The second.
        difference: What was measured.
        limit: The largest that is right.
    """
    assert difference <= limit, (field, reference, difference)
    before, heading, rest = PAGE.read_text(encoding="utf-8").partition(HEADING)
    assert heading
    table, end, after = rest.partition("\n\n")
    rows = {tuple(row.split(" | ")[:2]): row for row in table.splitlines()}
    start = (f"| {field}", reference)
    if os.environ.get("KERAS_RESNET_WRITE_TABLE"):
        rows[start] = f"{' | '.join(start)} | {difference:.1e} |"
        table = "\n".join(rows.values())
        PAGE.write_text(before + heading + table + end + after, encoding="utf-8")
    assert float(rows[start].split(" | ")[2].rstrip(" |")) <= limit
