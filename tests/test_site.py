"""The site, and links between pages."""

import ast
import html.parser
import importlib
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parents[1]


class Page(html.parser.HTMLParser):
    """The links and anchors of a page."""

    def __init__(self, file):
        super().__init__()
        self.links, self.anchors = [], set()
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.anchors |= {found.get("id"), found.get("name")}
        self.links += [found[name] for name in ("href", "src") if found.get(name)]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site") / "site"
    command = [sys.executable, ROOT / "tools" / "build_site.py", folder]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return {file: Page(file) for file in folder.rglob("*.html") if file.name != "404.html"}


def test_links_of_the_site(site):
    """They lead to files and anchors of the site, or to other sites over https."""
    for file, page in site.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme:
                assert parts.scheme in ("https", "data", "mailto"), (file, link)
                continue
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            target = target / "index.html" if target.is_dir() else target
            assert target.is_file(), (file, link)
            if parts.fragment and target in site:
                assert unquote(parts.fragment) in site[target].anchors, (file, link)


def test_every_page_is_on_the_site_and_in_its_navigation(site):
    home = next(file for file in site if len(file.parents) == min(len(f.parents) for f in site))
    reached = {(home.parent / urlsplit(link).path).resolve() for link in site[home].links}
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/**/*.md")]:
        path = page.relative_to(ROOT).with_suffix("")
        folder = path.parent if path.name in ("README", "index") else path
        assert home.parent / folder in reached, page


def test_the_index_names_every_page_and_example():
    for index, pattern in (("docs/index.md", "docs/*.md"), ("examples/README.md", "examples/*.*")):
        text = (ROOT / index).read_text(encoding="utf-8")
        for file in ROOT.glob(pattern):
            assert file == ROOT / index or f"]({file.name})" in text, file


def test_public_classes_and_functions_are_in_the_reference(site):
    anchors = set().union(*(page.anchors for page in site.values()))
    for file in [*ROOT.glob("keras_resnet/*.py"), *ROOT.glob("keras_resnet/*/__init__.py")]:
        name = file.parent.name if file.name == "__init__.py" else file.stem
        if name in ("__main__", "keras_resnet"):
            continue
        module = importlib.import_module(f"keras_resnet.{name}")
        for public in getattr(module, "__all__", ()):
            found = getattr(module, public)
            if callable(found):  # constants have no docstrings
                places = {f"keras_resnet.{name}", getattr(found, "__module__", "")}
                assert {f"{place}.{public}" for place in places} & anchors, (name, public)


def texts_of_the_code():
    """Yields every string of the package, with "…" in place of the fields of f-strings."""
    for file in [*ROOT.glob("keras_resnet/**/*.py"), *ROOT.glob("keras_resnet_cli/*.py")]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                yield "".join(
                    getattr(part, "value", "…") if isinstance(part, ast.Constant) else "…"
                    for part in node.values
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_messages_on_the_page_of_troubles_are_those_of_the_code():
    known = "\n".join(texts_of_the_code())
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    quoted = [line.removeprefix("> ") for line in page.splitlines() if line.startswith("> ")]
    parts = [part.strip() for message in quoted for part in message.split("…")]
    assert len(quoted) > 20
    assert [part for part in parts if part not in known] == []
