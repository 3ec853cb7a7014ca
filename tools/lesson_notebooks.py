"""Makes the notebooks of the lesson from its pages, and runs them: outputs are saved.

    python tools/lesson_notebooks.py

docs/lesson.md becomes examples/lesson.ipynb, and so the Chinese one. What a page shows of a block's
results, its pictures and what it prints, is left out: there the cell has them itself. Each took
5 minutes of processor time: 8 on 2 CPU cores that had other work. `--only en` or zh-CN makes one of
them; `--words` runs nothing, for pages of which no code was changed.
"""

import argparse
import os
import re
import shutil
import tempfile
import time
from pathlib import Path

import nbformat

ROOT = Path(__file__).parents[1]
NOTEBOOKS = {
    "en": ("docs/lesson.md", "examples/lesson.ipynb"),
    "zh-CN": ("docs/lesson.zh-CN.md", "examples/lesson.zh-CN.ipynb"),
}
# A fence with its language and note, or a picture in a line of its own.
SHOWN = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```\n|^!\[[^\n]*\)\n", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")


def notebook(page):
    """A page's notebook, not run yet."""
    text = (ROOT / page).read_text(encoding="utf-8")
    cells, place = [], 0
    for shown in [*SHOWN.finditer(text), None]:
        words = text[place : shown.start() if shown else len(text)].strip()
        if words:
            cells.append(nbformat.v4.new_markdown_cell(LINK.sub(moved, words)))
        if shown and shown[1] == "python":
            cells.append(nbformat.v4.new_code_cell(shown[2].strip()))
        place = shown.end() if shown else place
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})


def moved(link):
    """A link of a page in docs/ as it is from examples/; a page's notebook in its place."""
    target = dict(NOTEBOOKS.values()).get(f"docs/{link[1]}", f"docs/{link[1]}")
    return f"]({os.path.relpath(target, 'examples')}"


def run(made, folder):
    """Runs a notebook in a folder, to which it writes; the examples are imported from here."""
    import nbclient

    os.environ["PYTHONPATH"] = os.pathsep.join(map(str, (ROOT, ROOT / "examples")))
    resources = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(made, timeout=600, resources=resources).execute()
    for cell in made.cells:
        cell.metadata = {}  # when each cell ran
    made.metadata.pop("language_info", None)  # of the machine's Python


def main():
    """Makes, runs and writes them, and the pages' pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=NOTEBOOKS, help="one language")
    parser.add_argument("--words", action="store_true", help="keep the results")
    arguments = parser.parse_args()
    for language in [arguments.only] if arguments.only else NOTEBOOKS:
        page, file = NOTEBOOKS[language]
        made = notebook(page)
        if arguments.words:
            keep_results(made, file)
        else:
            started = time.monotonic()
            with tempfile.TemporaryDirectory() as folder:
                run(made, folder)
                if language == "en":
                    copy_pictures(page, Path(folder, "runs"))
            print(f"{file} ran in {time.monotonic() - started:.0f} s.")
        nbformat.write(made, ROOT / file)


def keep_results(made, file):
    """Takes over the results of a notebook that has the same code."""
    stored = nbformat.read(ROOT / file, as_version=4)
    old, new = ([cell for cell in one.cells if cell.cell_type == "code"] for one in (stored, made))
    if [cell.source for cell in old] != [cell.source for cell in new]:
        raise SystemExit(f"The code of {file} was changed: run this without --words.")
    for cell, before in zip(new, old, strict=True):
        cell.update(outputs=before.outputs, execution_count=before.execution_count)


def copy_pictures(page, runs):
    """The page's pictures, images/lesson_NAME, from where the notebook has drawn NAME."""
    for name in re.findall(r"\(images/lesson_(\S+)\)", (ROOT / page).read_text(encoding="utf-8")):
        (source,) = runs.glob(f"*/{name}")
        shutil.copyfile(source, ROOT / "docs" / "images" / f"lesson_{name}")


if __name__ == "__main__":
    main()
