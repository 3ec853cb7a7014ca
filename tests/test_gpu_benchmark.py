"""The GPU benchmark without the other libraries installed."""

import json
from pathlib import Path

import pytest

GPU = Path(__file__).parents[1] / "benchmarks" / "gpu.py"
BLOCK = "import sys; sys.modules.update({name: None for name in ('torch', 'jax', 'PIL')})\n"


def words(text):
    return ["--quick", "--json", "rows", "--only", *text.split()]


@pytest.fixture
def run_gpu(run_python, tmp_path):
    """Runs the benchmark in a new process without torch, JAX and Pillow."""
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "sitecustomize.py").write_text(BLOCK)

    def run(*arguments):
        path = {"PYTHONPATH": f"{blocked}:{GPU.parents[1]}"}
        done = run_python(GPU, *arguments, variables=path)
        lines = (tmp_path / "rows").read_text().splitlines() if done.returncode == 0 else []
        return done, [json.loads(line) for line in lines]

    return run


def test_missing_libraries_are_rows_that_are_not_repeated(run_gpu, tmp_path):
    done, rows = run_gpu(*words("torchvision bf16"))
    assert done.returncode == 0, done.stderr
    assert [row["error"] for row in rows] == ["not installed: torch"] * 2
    assert [row["task"] for row in rows] == ["training", "inference"]
    assert "| torchvision | not installed: torch |" in done.stdout
    done, rows = run_gpu(*words("torchvision torch.compile bf16 inference"), "--resume")
    assert [row["contestant"] for row in rows] == ["torchvision", "torchvision", "torch.compile"]
    done, rows = run_gpu(*words("torchvision torch.compile bf16"), "--resume", "--minutes", "0.2")
    assert len(rows) == 3 and "1 rows are left" in done.stdout  # its expected time is longer


def test_unknown_words_and_resume_without_rows_are_refused(run_gpu):
    done, _ = run_gpu(*words("tensorrt"))
    assert done.returncode == 1 and "'tensorrt'. There are" in done.stderr
    done, _ = run_gpu("--quick", "--resume")
    assert done.returncode == 2 and "--json" in done.stderr


def test_a_timeout_ends_the_contestant(monkeypatch):
    monkeypatch.syspath_prepend(GPU.parent)
    import gpu

    (job,) = gpu.only(gpu.every_job(quick=True), ["keras_resnet", "bf16", "training"])
    (row,) = gpu.run([job], gpu.Conditions(True, ""), seconds=0.5)
    assert row == {**job._asdict(), "error": "took more than 0.5 s"}


@pytest.mark.slow
def test_missing_libraries_do_not_prevent_other_measurements(run_gpu):
    done, rows = run_gpu(*words("keras_resnet-no-xla keras_resnet-jax train-folder tf32"))
    assert done.returncode == 0, done.stderr
    found = {(row["contestant"], row["task"]): row for row in rows}
    assert found["keras_resnet-jax", "training"]["error"] == "not installed: jax"
    assert found["train-folder", "training"]["error"] == "not installed: PIL"
    for task in ("training", "inference"):
        row = found["keras_resnet-no-xla", task]
        assert row["images_per_second"] > 0 and row["first_step_seconds"] > 0
