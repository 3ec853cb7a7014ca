"""The table in docs/training.md of the differences between recipe fields and their references."""

import os
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "training.md"
HEADING = "| field | compared with | largest difference |\n| --- | --- | --- |\n"


def compared(field, reference, difference, limit):
    """Checks a difference, and its row of the table; KERAS_RESNET_WRITE_TABLE=1 updates the row.

    Args:
        field: Field of the recipe, and what was compared.
        reference: The function or class that it was compared with.
        difference: The measured difference.
        limit: The largest difference allowed.
    """
    assert difference <= limit, (field, reference, difference)
    before, heading, rest = PAGE.read_text(encoding="utf-8").partition(HEADING)
    assert heading
    table, end, after = rest.partition("\n\n")
    rows = {tuple(row.split(" | ")[:2]): row for row in table.splitlines()}
    start = (f"| {field}", reference)
    if os.environ.get("KERAS_RESNET_WRITE_TABLE"):
        rows[start] = f"{' | '.join(start)} | {difference:.1g} |"
        table = "\n".join(rows.values())
        PAGE.write_text(before + heading + table + end + after, encoding="utf-8")
    assert float(rows[start].split(" | ")[2].rstrip(" |")) <= limit
