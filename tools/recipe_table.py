"""Prints the table of a recipe's fields for docs/training.md.

python tools/recipe_table.py
"""

import dataclasses

from keras_resnet_cli import quiet

with quiet():
    from keras_resnet.data import Augmentation
    from keras_resnet.training import Recipe


def table():
    """Returns the table as Markdown."""
    lines = ["| field | default | description |", "| --- | --- | --- |"]
    for prefix, owner in (("", Recipe()), ("augmentation.", Augmentation())):
        for field in dataclasses.fields(owner):
            value = getattr(owner, field.name)
            default = "" if dataclasses.is_dataclass(value) else f"`{value!r}`"
            about = field.metadata["about"]
            lines.append(f"| `{prefix}{field.name}` | {default} | {about} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
