"""Writes the tables of docs/models.md: families, and all networks.

    python tools/models_table.py          # builds every network, which takes minutes
    python tools/models_table.py --check  # builds them, and checks that the page is up to date
    python tools/models_table.py --new    # builds only those that are not on the page

The text before MARK is kept. If docs/family.csv exists, with the columns name and error, the tables
have the largest error of that comparison.
"""

import argparse
import csv
import re
import sys
from pathlib import Path

from keras_resnet_cli import quiet

with quiet():
    import keras

    import keras_resnet
    from keras_resnet import visualize
    from keras_resnet.configs import CONFIGS
    from keras_resnet.kinds import by_kind
    from keras_resnet.weights.registry import best_of

DOCS = Path(__file__).parents[1] / "docs"
PAGE, ERRORS = DOCS / "models.md", DOCS / "family.csv"
MARK = "<!-- What follows is written by tools/models_table.py. -->\n"


def counts(name):
    """Returns (parameters, multiply-adds) of a network with its default classes and image size."""
    keras.utils.clear_session()
    stages = visualize.summary(keras_resnet.create(name))
    return tuple(sum(getattr(s, what) for s in stages) for what in ("parameters", "multiply_adds"))


def counted(page):
    """Reads {name: (parameters, multiply-adds)} from a page."""
    rows = re.findall(r"^\| `(\w+)` \| ([\d,]+) \| ([\d.]+) G \|", page, re.MULTILINE)
    return {name: (int(p.replace(",", "")), round(float(g) * 1e9)) for name, p, g in rows}


def accuracy(name):
    """Returns the best published accuracy on ImageNet, with image size, and its weights."""
    best = best_of(name)
    if best is None:
        return "", ""
    figure, side = best.best
    return f"{figure:.2f} at {side} px", f"`{best.name}`"


def errors():
    """Reads {name: largest error} of a comparison with other libraries, if it exists."""
    if not ERRORS.is_file():
        return {}
    with ERRORS.open(newline="", encoding="utf-8") as file:
        return {row["name"]: row["error"] for row in csv.DictReader(file)}


def tables(counts_of, compared):
    """Returns the tables as Markdown.

    Args:
        counts_of: {name: (parameters, multiply-adds)}.
        compared: From `errors`.
    """
    families = by_kind(CONFIGS)
    lines = ["", "| family | networks | what is different | paper |", "| --- | --- | --- | --- |"]
    for kind, names in families.items():
        papers = dict.fromkeys(CONFIGS[name].paper for name in names)
        lines.append(
            f"| [{kind.name}](#{_anchor(kind)}) | {len(names)} | {kind.about} | {_links(papers)} |"
        )
    titles = ["network", "parameters", "multiply-adds", "best top-1, %", "weights"]
    titles += ["error"] * bool(compared)
    for kind, names in families.items():
        lines += [
            "",
            f"## {kind.name}",
            "",
            f"| {' | '.join(titles)} |",
            "| --- " * len(titles) + "|",
        ]
        for name in names:
            parameters, multiply_adds = counts_of[name]
            cells = [
                f"`{name}`",
                f"{parameters:,}",
                f"{multiply_adds / 1e9:.2f} G",
                *accuracy(name),
            ]
            if compared:
                cells.append(compared.get(name, ""))
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _anchor(kind):
    return kind.name.lower().replace("/", "").replace(" ", "-")


def _links(papers):
    links = dict.fromkeys(
        word.strip(",.") for paper in papers for word in paper.split() if "//" in word
    )
    return ", ".join(f"[{link.rpartition('/')[2]}]({link})" for link in links)


def main():
    """Writes or checks the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit with 1 if it differs"
    )
    parser.add_argument(
        "--new", action="store_true", help="build only networks that are not on the page"
    )
    arguments = parser.parse_args()
    page = PAGE.read_text(encoding="utf-8")
    counts_of = counted(page) if arguments.new else {}
    for number, name in enumerate(CONFIGS, 1):
        if name not in counts_of:
            counts_of[name] = counts(name)
            print(f"{number}/{len(CONFIGS)} {name}", *counts_of[name], file=sys.stderr)
    new = page.partition(MARK)[0] + MARK + tables(counts_of, errors())
    if not arguments.check:
        PAGE.write_text(new, encoding="utf-8")
    elif new != page:
        sys.exit(f"{PAGE} is out of date: run python tools/models_table.py")


if __name__ == "__main__":
    main()
