"""The contents of a release, and the files for GitHub."""

import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from run_markdown import FENCE

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").iterdir())
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").iterdir())


def tracked_files():
    """Returns the files that git tracks, and new ones; skips the test outside of a checkout."""
    if not (ROOT / ".git").exists():
        pytest.skip("needs a git checkout, to list the files of the repository")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return sorted(name for name in names.splitlines() if (ROOT / name).is_file())


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the repository, since builds leave files in it."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in tracked_files():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder


def built(hook, checkout, **variables):
    """Returns the path of what setuptools builds, without the overhead of pip."""
    code = "import sys; from setuptools import build_meta as b; print(getattr(b, sys.argv[1])('.'))"
    environment = {k: v for k, v in os.environ.items() if k != "KERAS_RESNET_URL"}
    done = subprocess.run(
        [sys.executable, "-c", code, hook],
        cwd=checkout,
        env={**environment, **variables},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return checkout / done.stdout.splitlines()[-1]


def test_the_source_distribution_has_every_file(checkout):
    with tarfile.open(built("build_sdist", checkout)) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names >= set(tracked_files())


@pytest.mark.parametrize("url", ["", "https://example.org/owner/name"])
def test_readme_outside_of_the_repository(checkout, url):
    """Links are absolute, to files of the release, or removed; code blocks are unchanged."""
    folder = built("prepare_metadata_for_build_wheel", checkout, KERAS_RESNET_URL=url)
    metadata = email.message_from_bytes((folder / "METADATA").read_bytes())
    assert metadata["Author"] and metadata["License-Expression"] == "Apache-2.0"
    page, readme = metadata.get_payload(), (ROOT / "README.md").read_text(encoding="utf-8")
    assert FENCE.findall(page) == FENCE.findall(readme)
    links = re.findall(r"\]\(([^)]+)\)", FENCE.sub("", page))
    assert all(link.startswith("https://") for link in links)
    ours = [link.removeprefix(url) for link in links if url and link.startswith(url)]
    for link in ours:
        assert re.match(r"/(blob|raw)/v\d+\.\d+\.\d+/", link), link
        assert (ROOT / urlsplit(link).path.split("/", 3)[3]).exists(), link
    relative = re.findall(r"\]\((?!https://)[^)]+\)", FENCE.sub("", readme))
    assert len(ours) == (len(relative) if url else 0)
    assert len(metadata.get_all("Project-URL", [])) == (4 if url else 0)


def test_the_version_is_the_same_everywhere():
    """In CITATION.cff, in the first heading of the changelog, and in tags of container images."""
    package = (ROOT / "keras_resnet" / "__init__.py").read_text()
    version = re.search(r'^__version__ = "(.+)"$', package, re.MULTILINE)[1]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[0] == version
    for file in [*ROOT.glob("docs/*.md"), *ROOT.glob("examples/**/*")]:
        text = file.read_text(errors="replace") if file.is_file() else ""
        for tag in re.findall(r"keras-resnet(?:-serving)?:(\d+[.\d]*\d)", text):
            assert tag == version, file


def passes(*command):
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_workflows(file):
    """Checked with actionlint, which its package installs under another name."""
    program = Path(sys.executable).with_name("jactionlint")
    passes(program, "--profile", "correctness", "--strict-exit", "--shellcheck=", file)


def test_the_workflow_covers_supported_versions():
    """All Python versions of the classifiers, lowest and newest packages, both modes of oneDNN."""
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text())["jobs"]
    rows = jobs["tests"]["strategy"]["matrix"]["include"]
    promised = re.findall(r"Python :: (3\.\d+)", (ROOT / "setup.cfg").read_text())
    assert {row["python"] for row in rows} == set(promised)
    assert {row["versions"] for row in rows} == {"lowest", "newest"}
    assert {row["onednn"] for row in rows} == {"on", "off"}
    nightly = jobs["nightly"]["strategy"]["matrix"]["include"]
    assert {row["tests"] for row in nightly} == {"slow", "backend", "parity", "engine"}


@pytest.mark.parametrize("file", FORMS, ids=lambda file: file.name)
def test_issue_forms(file):
    schema = "config" if file.name == "config.yml" else "forms"
    check = (sys.executable, "-m", "check_jsonschema")
    passes(*check, "--builtin-schema", f"vendor.github-issue-{schema}", file)
