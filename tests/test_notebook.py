"""The tutorial notebook runs."""

from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "examples" / "tutorial.ipynb"


@pytest.fixture
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_it_is_stored_clean(notebook):
    """It is valid, has no outputs, and contains nothing of the machine it was written on."""
    nbformat.validate(notebook)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    assert notebook.metadata == {"kernelspec": kernel}
    for cell in notebook.cells:
        assert cell.metadata == {}
    for cell in code_cells(notebook):
        assert cell.outputs == [] and cell.execution_count is None
        compile(cell.source, cell.id, "exec")


@pytest.mark.slow
def test_it_runs(notebook, tmp_path, monkeypatch):
    import nbclient

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=600, resources=resources).execute()
    outputs = {cell.id: cell.outputs for cell in code_cells(notebook)}
    texts = {
        name: "".join(output.get("text", "") for output in found) for name, found in outputs.items()
    }
    streams = [output.get("name") for found in outputs.values() for output in found]
    assert "stderr" not in streams  # no warnings
    kinds = {
        name: [kind for output in found for kind in output.get("data", {}) if "image" in kind]
        for name, found in outputs.items()
    }
    assert kinds["draw"] == ["image/png"] and kinds["build"] == ["image/svg+xml"]
    assert kinds["curves"] == kinds["predict"] == ["image/png", "image/png"]
    assert "layer2.0/downsample.0/kernel" in texts["build"] and "bias" not in texts["build"]
    assert float(texts["train"].split("Validation accuracy ")[1].split()[0].rstrip(".")) > 0.6
    *rows, saved_model, onnx = texts["export"].splitlines()
    assert len(rows) == 8
    for row in rows:
        _, _, by_saved_model, _, by_onnx = row.split()
        assert by_saved_model == by_onnx
    for line in (saved_model, onnx, texts["pth"].splitlines()[-1]):
        assert float(line.split()[-1]) < 1e-5
    assert (tmp_path / "runs" / "tutorial" / "report.md").is_file()
