"""Every code block of README.md and docs/ runs, and the names in it exist."""

import json
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import typer
from run_markdown import FENCE, blocks, run_blocks
from safetensors.numpy import save_file

import keras_resnet
import keras_resnet_cli
from keras_resnet import weights

ROOT = Path(__file__).parents[1]
# Chinese pages, and the English ones with the same code blocks.
CHINESE = {"README.zh-CN.md": "README.md", "docs/lesson.zh-CN.md": "docs/lesson.md"}
PAGES = ["README.md", *sorted(f"docs/{file.name}" for file in (ROOT / "docs").glob("*.md"))]
PAGES = [page for page in PAGES if page not in CHINESE]
ALL_PAGES = [*PAGES, *CHINESE, "examples/serving/README.md"]
# Allowed reasons not to run a block.
REASONS = ("docker", "gpu", "kubernetes", "network", "slurm")


def write_36_classes(path):
    """Writes the weights of a ResNet-50 with another head."""
    state = dict(weights.read_state_dict(path.parent / "resnet50-0676ba61.pth"))
    for name in ("fc.weight", "fc.bias"):
        state[name] = np.ascontiguousarray(state[name][:36])
    save_file(state, path)


def save_th(model, path):
    """Saves with the suffix of published CIFAR weights, which `weights.save` does not support."""
    weights.save(model, path.with_suffix(".pth")).rename(path)


# Files that readers are assumed to have, written in this order if a page mentions them.
FILES = {
    "model.pth": lambda path: weights.save(keras_resnet.ResNet20(), path),
    "resnet18.pth": lambda path: weights.save(keras_resnet.ResNet18(), path),
    "resnet50-0676ba61.pth": lambda path: weights.save(keras_resnet.ResNet50(), path),
    "resnet50-11ad3fa6.pth": lambda path: weights.save(keras_resnet.ResNet50(), path),
    "my_36_classes.safetensors": write_36_classes,
    "resnet20-12fca82f.th": lambda path: save_th(keras_resnet.ResNet20(), path),
    "resnet56-4bfd9763.th": lambda path: save_th(keras_resnet.ResNet56(), path),
}


@pytest.fixture(scope="session")
def world(tmp_path_factory, draw_flowers):
    """A folder with what readers are assumed to have: photographs, arrays and weights."""
    folder = tmp_path_factory.mktemp("world")
    drawn = draw_flowers(tmp_path_factory.mktemp("drawn") / "flowers", train=8, val=3)
    shutil.copytree(drawn / "train", folder / "photos")
    shutil.copytree(drawn / "val", folder / "more_photos")
    for kind in ("rose", "tulip"):
        shutil.copy(drawn / "val" / kind / "000.jpg", folder / f"{kind}.jpg")
    pixels = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), np.uint8)
    np.savez(folder / "cifar10_test.npz", x=pixels, y=np.arange(20) % 10)
    for name in ("examples", "tools", "tests", "pyproject.toml"):
        (folder / name).symlink_to(ROOT / name)
    return folder


@pytest.fixture(scope="session")
def runs(tmp_path_factory, draw_flowers):
    """The output of examples/train_flowers.py as far as pages need it, without training."""
    folder = tmp_path_factory.mktemp("runs")
    drawn = draw_flowers(folder / "drawn_flowers", train=2, val=1)
    run = folder / "flowers"
    run.mkdir()
    keras_resnet.ResNet18(classes=5, input_shape=(64, 64, 3)).save(run / "best.keras")
    names = sorted(entry.name for entry in (drawn / "val").iterdir())
    (run / "class_indices.json").write_text(json.dumps(dict(enumerate(names))))
    recipe = {"resize": 73, "image_size": 64, "mean": [0.5] * 3, "std": [0.2] * 3}
    (run / "recipe.json").write_text(json.dumps({**recipe, "data": str(drawn)}))
    (run / "report.md").write_text("Nothing was trained.")
    return folder


def starts_from_a_run(page):
    """Returns whether a page assumes that the reader has a run, and says how to create it."""
    text = " ".join((ROOT / page).read_text().split())
    return "written by `python examples/train_flowers.py`" in text


@pytest.fixture
def fresh_folder(page, world, folder_here, monkeypatch, request):
    """The current folder: a copy of the world, with hard links instead of copies of files.

    It contains a run only if the page assumes one.
    """
    code = "".join(block.code for block in blocks(ROOT / page) if block.runs)
    for name, write in FILES.items():
        if name in code and not (world / name).exists():
            write(world / name)
    shutil.copytree(world, folder_here, symlinks=True, dirs_exist_ok=True, copy_function=link)
    if starts_from_a_run(page):
        made = request.getfixturevalue("runs")
        shutil.copytree(made, folder_here / "runs", copy_function=link)
    here = str(Path(sys.executable).parent)
    monkeypatch.setenv("PATH", f"{here}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("COLUMNS", "100")


def link(source, target, **_):
    os.link(source, target, follow_symlinks=False)


# Pages with full-size networks and images, or that start processes.
LARGE = [
    f"docs/{name}.md"
    for name in (
        "backbone",
        "command_line",
        "data",
        "export",
        "migrate",
        "pictures",
        "scale",
        "similar",
    )
]


@pytest.mark.filterwarnings("ignore")  # warnings of the converters about their own code
@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=pytest.mark.slow) if page in LARGE else page for page in PAGES],
)
def test_blocks_run(page, fresh_folder):
    run_blocks(ROOT / page, slow=False)


@pytest.mark.parametrize("page, english", CHINESE.items())
def test_pages_in_chinese_have_the_same_blocks(page, english):
    """If those of the English page run, these do too. Only the exercises' hints are Chinese."""
    (same, here) = (
        [(block.language, block.note, block.code) for block in blocks(ROOT / name)]
        for name in (english, page)
    )
    assert here == [
        (*kind, code.replace('Exercises("en")', 'Exercises("zh-CN")')) for *kind, code in same
    ]


@pytest.mark.parametrize("page, english", CHINESE.items())
def test_pages_in_two_languages_name_each_other_first(page, english):
    for name, other in ((page, english), (english, page)):
        first = "".join((ROOT / name).read_text(encoding="utf-8").splitlines()[:4])
        assert f"]({Path(other).name})" in first


def slow_pages():
    return [page for page in PAGES if any(block.note == "slow" for block in blocks(ROOT / page))]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("page", slow_pages())
def test_slow_blocks_run(page, fresh_folder):
    run_blocks(ROOT / page, slow=True)


RUN = re.compile(r"runs/(?!drawn_flowers)[\w-]+")
TRAINS = re.compile(r"keras-resnet(?::\S+)? train|train_flowers\.py|training\.train\(")


@pytest.mark.parametrize("page", ALL_PAGES)
def test_runs_are_created_once_before_they_are_used(page):
    """A second training would go to another folder, so each run is created once on a page."""
    made = ["runs/flowers"] * starts_from_a_run(page)
    for block in blocks(ROOT / page):
        for line in block.code.replace("\\\n", " ").splitlines():
            named = RUN.findall(line)
            if block.language in ("sh", "python") and TRAINS.search(line):
                made += named or ["runs/flowers"]
                assert len(named) <= 1, (page, line)
            elif block.language in ("sh", "python"):
                assert all(made.count(run) == 1 for run in named), (page, line, made)


@pytest.mark.parametrize("page", ALL_PAGES)
def test_names_on_pages_exist(page):
    """Links, files, subcommands, options and names exist, also in blocks that do not run."""
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", FENCE.sub("", text)):
        if not target.startswith("https://"):
            assert ((ROOT / page).parent / target).exists(), target
    commands = typer.main.get_command(keras_resnet_cli.app).commands
    for block in blocks(ROOT / page):
        if block.note.startswith("no-run:"):
            print(f"{page}:{block.line} does not run: {block.note}")
            assert block.note.removeprefix("no-run: ").split()[0] in REASONS, block
        for file in re.findall(r"(?:examples|benchmarks)/[\w/]+\.\w+", block.code):
            assert (ROOT / file).exists(), file
        for file in re.findall(r"(?<!\S)\.\./[\w/]+\.\w+", block.code):
            assert ((ROOT / page).parent / file).exists(), file
        code = block.code.replace("\\\n", " ")
        for name, rest in re.findall(r"keras-resnet(?::\S+)? ([a-z-]+)([^#\n]*)", code):
            known = {option for part in commands[name].params for option in part.opts}
            assert set(re.findall(r"(?<!\S)--[a-z0-9-]+", rest)) <= known, (page, block.line)
        for name in re.findall(r"keras_resnet\.(\w+)", block.code):
            assert name in keras_resnet.__all__, (page, name)
