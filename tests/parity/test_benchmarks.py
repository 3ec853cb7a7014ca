"""The benchmarks run, and their contestants compute the same network."""

import json
import sys
from pathlib import Path

import pytest
import torch
import torchvision

import keras_resnet  # isort: skip (torch comes first)

pytestmark = pytest.mark.parity
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.parametrize("task", ["inference", "training"])
def test_quick_run(task, run_python):
    done = run_python(BENCHMARKS / f"{task}.py", "--quick", "--json")
    assert done.returncode == 0, done.stderr[-2000:]
    (result,) = json.loads(done.stdout)
    assert result["title"] == f"resnet18, {task}, batch 2, 64 px"
    rows = {row["contestant"].split(" at ")[0]: row for row in result["rows"]}
    assert {"keras_resnet", "torchvision", "stock Keras layers", "floor"} <= set(rows)
    assert ("onnxruntime" in rows) == (task == "inference")
    for row in rows.values():
        assert row["images_per_second"] * row["seconds"] == pytest.approx(2)
        assert rows["floor"]["seconds"] < row["seconds"] or row is rows["floor"]


def test_quick_run_of_the_formats(run_python):
    done = run_python(BENCHMARKS / "serving_formats.py", "--quick", "--json")
    assert done.returncode == 0, done.stderr[-2000:]
    rows = {row["contestant"]: row for row in json.loads(done.stdout)}
    formats = {"SavedModel", "SavedModel, folded", "ONNX", "OpenVINO", "LiteRT"}
    assert formats | {"ONNX, int8", "LiteRT, int8", "torchvision", "floor"} <= set(rows)
    for name in formats:
        assert 46.7 < rows[name]["megabytes"] < 49  # 11.69 million parameters
        assert rows[name]["2"]["images_per_second"] > 0


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnext50_32x4d"])
def test_the_stock_network_is_the_same_one(name):
    """It has as many parameters as torchvision's, and the same output shape."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        from contestants import stock_network
    finally:
        sys.path.pop(0)
    theirs = torchvision.models.get_model(name)
    stock, ours = stock_network(name), keras_resnet.create(name)
    assert stock.count_params() == ours.count_params()
    trainable = sum(parameter.numel() for parameter in theirs.parameters())
    statistics = sum(
        buffer.numel() for key, buffer in theirs.named_buffers() if "num_batches" not in key
    )
    assert stock.count_params() == trainable + statistics
    assert stock.output_shape == (None, *theirs(torch.zeros(2, 3, 32, 32)).shape[1:])


@pytest.mark.slow
def test_quick_run_of_the_gpus(run_python, tmp_path):
    done = run_python(BENCHMARKS / "gpu.py", "--quick", "--minutes", "20", "--json", "rows")
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [json.loads(line) for line in (tmp_path / "rows").read_text().splitlines()]
    found = {(row["contestant"], row["task"]): row for row in rows}
    networks = ("keras_resnet", "keras_resnet-no-xla", "torchvision", "torch.compile")
    measured = [(name, task) for name in networks for task in ("training", "inference")]
    for key in [*measured, ("pipeline-shards", "training"), ("train-shards", "training")]:
        assert found[key].get("images_per_second", 0) > 0, found[key]
    assert "to torch.compile" in done.stdout and "pipeline alone" in done.stdout
    again = run_python(BENCHMARKS / "gpu.py", "--quick", "--resume", "--json", "rows")
    assert again.returncode == 0 and "..." not in again.stdout  # nothing was measured again
    assert len((tmp_path / "rows").read_text().splitlines()) == len(rows)
