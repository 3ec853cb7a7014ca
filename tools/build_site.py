"""Builds the site: all pages of the repository, and the API reference.

    python tools/build_site.py

writes site/index.html, and fails on broken links. Needs the docs extra. If the environment variable
KERAS_RESNET_URL is the repository's URL, the site links to it.
"""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "keras_resnet"
COPIED = ("*.md", "LICENSE", "docs", "examples")
CONFIGURATION = """
[project]
site_name = "keras_resnet"
site_description = "Residual networks for Keras 3, with torchvision's numbers"
docs_dir = "pages"
site_dir = "site"
nav = {navigation}
{repository}

[project.theme]
font = false
features = ["navigation.sections", "navigation.footer", "content.code.copy", "toc.follow"]

[project.plugins.mkdocstrings.handlers.python]
paths = [{root}]

[project.plugins.mkdocstrings.handlers.python.options]
extensions = [{examples}]
docstring_style = "google"
docstring_options.warnings = false
heading_level = 2
members_order = "source"
separate_signature = true
show_signature_annotations = true
show_root_heading = false
show_root_toc_entry = false
show_source = false
"""
HEADING = "    options:\n      show_root_heading: true\n      show_root_toc_entry: true\n"


def public_modules():
    """Returns {name: (first line of the docstring, `__all__`)} of modules with an `__all__`."""
    found = {}
    for file in sorted([*PACKAGE.glob("*.py"), *PACKAGE.glob("*/__init__.py")]):
        name = file.parent.name if file.name == "__init__.py" else file.stem
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in tree.body if name != PACKAGE.name else ():
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                first = ast.get_docstring(tree).splitlines()[0]
                found[name] = first, ast.literal_eval(node.value)
    return found


def write_reference(folder):
    """Writes a page for each public module, and one that lists them."""
    folder.mkdir()
    lines = ["# Reference", "", "The public API, generated from the docstrings.", ""]
    lines += ["| module | |", "| --- | --- |"]
    for name, (first, public) in public_modules().items():
        lines.append(f"| [`keras_resnet.{name}`]({name}.md) | {first} |")
        # A function with the same name as its module hides it: weights.download
        hidden = [
            f"{name}.{one}.{one}" for one in public if (PACKAGE / name / f"{one}.py").exists()
        ]
        more = "".join(f"\n::: keras_resnet.{one}\n{HEADING}" for one in hidden)
        page = f"# keras_resnet.{name}\n\n::: keras_resnet.{name}\n{more}"
        (folder / f"{name}.md").write_text(page, encoding="utf-8")
    (folder / "index.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def copy_pages(pages):
    """Copies pages and the files that they link to, with the same relative paths."""
    for source in (file for pattern in COPIED for file in ROOT.glob(pattern)):
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, pages / source.name, ignore=ignored)
        else:
            shutil.copy(source, pages)
    for page in pages.rglob("*.md"):
        text = page.read_text(encoding="utf-8")
        # Notes after the language of a code block are for the tests: ```sh slow
        text = re.sub(r"^( *```\w+) .*$", r"\1", text, flags=re.MULTILINE)
        page.write_text(text, encoding="utf-8")


def navigation(pages):
    """Returns the navigation as TOML: docs in the order of their index, then other pages."""
    index = (pages / "docs" / "index.md").read_text(encoding="utf-8")
    named = [f"docs/{name}" for name in re.findall(r"\]\(([\w.-]+\.md)\)", index)]
    docs = sorted(f"docs/{file.name}" for file in (pages / "docs").glob("*.md"))
    guide = dict.fromkeys(["docs/index.md", *named, *docs])
    examples = sorted(str(file.relative_to(pages)) for file in (pages / "examples").rglob("*.md"))
    reference = [f"reference/{name}.md" for name in ("index", *public_modules())]
    project = sorted(file.name for file in pages.glob("*.md") if file.name != "README.md")
    sections = {"Guide": [*guide], "Examples": examples, "Reference": reference, "Project": project}
    every = ["README.md", *({title: paths} for title, paths in sections.items())]
    return json.dumps(every, ensure_ascii=False).replace('": [', '" = [')  # TOML syntax


def build(folder):
    """Writes the site to a folder; replaces an older one."""
    if folder.exists() and not (folder / "search.json").exists():
        sys.exit(f"{folder} exists, but is not a site. Choose another folder.")
    with tempfile.TemporaryDirectory() as temporary:
        pages = Path(temporary) / "pages"
        pages.mkdir()
        copy_pages(pages)
        write_reference(pages / "reference")
        url = os.environ.get("KERAS_RESNET_URL")
        configuration = CONFIGURATION.format(
            navigation=navigation(pages),
            repository=f"repo_url = {json.dumps(url)}" if url else "",
            root=json.dumps(str(ROOT)),
            examples=json.dumps(str(ROOT / "tools" / "docstring_examples.py")),
        )
        file = Path(temporary) / "zensical.toml"
        file.write_text(configuration, encoding="utf-8")
        program = Path(sysconfig.get_path("scripts"), "zensical")
        command = [program, "build", "--clean", "--strict", "--config-file", file]
        subprocess.run(command, cwd=temporary, check=True)  # noqa: S603 (a fixed command)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.move(Path(temporary) / "site", folder)


if __name__ == "__main__":
    build(Path(*sys.argv[1:] or ["site"]))
