"""Tables with several labels for each drawn flower."""

import csv

CLASSES = ("even", "first", "round", "yellow")


def labels_of(name, number):
    """Returns the labels of a drawn flower, from its kind and number."""
    shown = {"even": number % 2 == 0, "first": number == 0}
    shown |= {"round": name in ("daisy", "rose"), "yellow": name in ("dandelion", "sunflower")}
    return [label for label in CLASSES if shown[label]]


def write_tables(folder):
    """Writes train.csv and val.csv with weights into a folder of drawn flowers."""
    for part in ("train", "val"):
        with (folder / f"{part}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["file", "labels", "weight"])
            for path in sorted((folder / part).rglob("*.jpg")):
                shown = ";".join(labels_of(path.parent.name, int(path.stem)))
                writer.writerow([path.relative_to(folder), shown, 1 + int(path.stem) % 2])
