"""Creates the notebooks of the lesson from its pages, and runs them.

    python tools/lesson_notebooks.py

docs/lesson.md becomes examples/lesson.ipynb, and likewise the Chinese one. Pictures and printed
results on a page are omitted, as the cells have their own outputs. Each took 5 minutes of CPU time,
8 minutes on 2 CPU cores with other load. `--only en` or zh-CN creates one of them; `--words` runs
nothing, for pages whose code is unchanged.
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
# A code block with its language and note, or a picture on a separate line.
SHOWN = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```\n|^!\[[^\n]*\)\n", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")


def notebook(page):
    """Converts a page to a notebook without outputs."""
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
    """Converts a link in docs/ to one from examples/, and links to pages to their notebooks."""
    target = dict(NOTEBOOKS.values()).get(f"docs/{link[1]}", f"docs/{link[1]}")
    return f"]({os.path.relpath(target, 'examples')}"


def run(made, folder):
    """Runs a notebook in a folder; examples are imported from the repository."""
    import nbclient

    os.environ["PYTHONPATH"] = os.pathsep.join(map(str, (ROOT, ROOT / "examples")))
    resources = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(made, timeout=600, resources=resources).execute()
    for cell in made.cells:
        cell.metadata = {}  # timestamps of the cells
    made.metadata.pop("language_info", None)  # the Python version


def main():
    """Creates, runs and writes the notebooks, and the pictures of the pages."""
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
    """Copies the outputs of a notebook with the same code."""
    stored = nbformat.read(ROOT / file, as_version=4)
    old, new = ([cell for cell in one.cells if cell.cell_type == "code"] for one in (stored, made))
    if [cell.source for cell in old] != [cell.source for cell in new]:
        raise SystemExit(f"The code of {file} was changed: run this without --words.")
    for cell, before in zip(new, old, strict=True):
        cell.update(outputs=before.outputs, execution_count=before.execution_count)


def copy_pictures(page, runs):
    """Copies the pictures drawn by a notebook to the page's images/lesson_NAME."""
    for name in re.findall(r"\(images/lesson_(\S+)\)", (ROOT / page).read_text(encoding="utf-8")):
        (source,) = runs.glob(f"*/{name}")
        shutil.copyfile(source, ROOT / "docs" / "images" / f"lesson_{name}")


if __name__ == "__main__":
    main()
