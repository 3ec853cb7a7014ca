"""The lesson's exercises are checked correctly, and its notebooks match its pages."""

import re
import runpy
import tempfile
from pathlib import Path

import nbformat
import numpy as np
import pytest
import tensorflow as tf
from run_markdown import blocks, lines

ROOT = Path(__file__).parents[1]
NOTEBOOKS = {
    "docs/lesson.md": "examples/lesson.ipynb",
    "docs/lesson.zh-CN.md": "examples/lesson.zh-CN.ipynb",
}
EPSILON = 1e-5


def fold(kernel, gamma, beta, mean, variance, epsilon=EPSILON):
    factor = gamma / np.sqrt(variance + epsilon)
    return kernel * factor, beta - mean * factor


def fold_without_epsilon(*arguments):
    return fold(*arguments, epsilon=0.0)


def fold_without_mean(kernel, gamma, beta, mean, variance):
    return fold(kernel, gamma, beta, 0 * mean, variance)


def shortcut_a(x, channels):
    more = channels - x.shape[-1]
    nothing = (0, 0)
    return np.pad(
        x[:, ::2, ::2], (nothing, nothing, nothing, (more // 2, more - more // 2)), "constant"
    )


def zeros_behind(x, channels):
    return np.pad(x[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (0, channels - x.shape[-1])))


def averaged(x, channels):
    batch, height, width, old = x.shape
    means = x.reshape(batch, height // 2, 2, width // 2, 2, old).mean((2, 4))
    return shortcut_a(np.repeat(np.repeat(means, 2, 1), 2, 2), channels)


def convolve(x, kernel):
    return np.asarray(tf.nn.conv2d(x, kernel, 1, "SAME"))


def grouped(x, kernel, groups):
    inputs, kernels = np.split(x, groups, axis=-1), np.split(kernel, groups, axis=-1)
    return np.concatenate(list(map(convolve, inputs, kernels)), axis=-1)


def same_group(x, kernel, groups):
    return convolve(x[..., : kernel.shape[2]], kernel)


def interleaved(x, kernel, groups):
    parts = [convolve(x[..., g::groups], kernel[..., g::groups]) for g in range(groups)]
    return np.stack(parts, axis=-1).reshape(*x.shape[:-1], -1)


def recall(matrix):
    return np.diag(matrix) / matrix.sum(axis=1)


def precision(matrix):
    return np.diag(matrix) / matrix.sum(axis=0)


def accuracy(matrix):
    return np.diag(matrix).sum() / matrix.sum()


# For each exercise: the right answer and two wrong ones.
ANSWERS = {
    1: (18, 36, 27),
    2: (fold, fold_without_epsilon, fold_without_mean),
    3: (11**10, 1.1**10, 11),
    4: (shortcut_a, zeros_behind, averaged),
    5: (256 * 128 * (56**2 - 28**2), 256 * 128 * 56**2, 379_322_368),
    6: (200, 204, 134),
    7: (grouped, same_group, interleaved),
    8: ([75, 38, 19, 10], [75, 37, 18, 9], [150, 75, 38, 19]),
    9: (recall, precision, accuracy),
    10: (111, 166, 333),
}


@pytest.fixture(scope="module")
def exercises():
    return runpy.run_path(str(ROOT / "examples" / "lesson_exercises.py"))


def test_every_exercise_has_answers_and_is_asked(exercises):
    assert list(ANSWERS) == list(exercises["CHECKS"]) == list(range(1, 11))
    for page in NOTEBOOKS:
        text = (ROOT / page).read_text(encoding="utf-8")
        assert re.findall(r"^check\((\d+), ", text, re.MULTILINE) == list(map(str, ANSWERS))
        assert len(re.findall(r"^> \*\*\w+ (\d+)\.\*\*", text, re.MULTILINE)) == len(ANSWERS)


@pytest.mark.parametrize("language", ["en", "zh-CN"])
@pytest.mark.parametrize("number", ANSWERS)
def test_right_and_wrong_answers(number, language, exercises, capsys):
    check = exercises["Exercises"](language)
    right, *wrong = ANSWERS[number]
    good, said = check.verdict(number, right)
    assert good is True and said.endswith(("right.", "正确。"))
    for answer in wrong:
        good, said = check.verdict(number, answer)
        judged, hint = re.fullmatch(
            r"(Exercise \d+: not yet\. |练习 \d+：还不对。)(.+)", said
        ).groups()
        assert good is False and judged.isascii() == (language == "en") and len(hint) > 10
        assert hint.isascii() == (language == "en")
    check(number, right)
    assert str(number) in capsys.readouterr().out


def raises(*_):
    raise ValueError("nothing fits")


@pytest.mark.parametrize("number", ANSWERS)
def test_missing_and_invalid_answers(number, exercises):
    """An ellipsis is not graded; invalid answers are reported without an exception."""
    check = exercises["Exercises"]("en")
    good, said = check.verdict(number, ...)
    assert good is None and "three dots" in said
    if callable(ANSWERS[number][0]):
        good, said = check.verdict(number, lambda *_: None)
        assert good is None and "three dots" in said
        good, said = check.verdict(number, raises)
        assert good is False and "ValueError: nothing fits" in said
    good, said = check.verdict(number, "eleven")
    assert good is False


def test_a_result_of_another_shape(exercises):
    good, said = exercises["Exercises"]("en").verdict(4, lambda x, channels: x)
    assert good is False and "(2, 3, 3, 10)" in said and "(2, 6, 6, 4)" in said


@pytest.fixture(scope="module")
def tool():
    return runpy.run_path(str(ROOT / "tools" / "lesson_notebooks.py"))


def texts(notebook):
    """Returns the text printed by each code cell."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return ["".join(output.get("text", "") for output in cell.outputs) for cell in cells]


def check_results(notebook, page):
    """The cells ran in order without errors or warnings, and printed what the page says."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert "stderr" not in {output.get("name") for output in outputs}
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 7
    assert sum("image/svg+xml" in output.get("data", {}) for output in outputs) == 1
    found, ran = iter(texts(notebook)), ""
    for block in blocks(ROOT / page):
        if block.runs:
            ran = next(found)
        elif block.language == "text":
            assert lines(ran) == lines(block.code), f"{page}:{block.line}"


@pytest.mark.parametrize("page, file", NOTEBOOKS.items())
def test_a_notebook_is_its_page_with_results(page, file, tool):
    """`python tools/lesson_notebooks.py` has been run since the last change of the page."""
    stored = nbformat.read(ROOT / file, as_version=4)
    nbformat.validate(stored)
    made = tool["notebook"](page)
    assert stored.metadata == made.metadata
    keys = ("id", "cell_type", "source", "metadata")
    assert [[cell[key] for key in keys] for cell in stored.cells] == [
        [cell[key] for key in keys] for cell in made.cells
    ]
    check_results(stored, page)
    text = (ROOT / file).read_text(encoding="utf-8")
    machine = (ROOT, Path.home(), tempfile.gettempdir())
    assert not any(f"{place}/" in text for place in machine)


@pytest.mark.parametrize("page, file", NOTEBOOKS.items())
def test_links_of_a_notebook(page, file, tool):
    for cell in tool["notebook"](page).cells:
        if cell.cell_type == "markdown":
            for target in re.findall(r"\]\((?!https:)([^)#]+)", cell.source):
                assert ((ROOT / file).parent / target).exists(), target


@pytest.mark.slow
@pytest.mark.parametrize("page", NOTEBOOKS)
def test_a_notebook_runs(page, tool, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "")  # set by the tool
    notebook = tool["notebook"](page)
    tool["run"](notebook, tmp_path)
    check_results(notebook, page)
    said = "".join(texts(notebook))
    last = dict(re.findall(r"(plain-\d+|residual-\d+): loss ([\d.]+)", said))
    assert float(last["plain-56"]) > float(last["plain-20"])
    assert float(last["plain-56"]) > float(last["residual-56"])
    assert float(said.split("Validation accuracy ")[1].split()[0].rstrip(".")) > 0.6
