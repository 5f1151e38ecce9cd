"""The tutorial runs from the first cell to the last."""

import io
from base64 import b64decode
from pathlib import Path

import pytest
from PIL import Image

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.ipynb"


@pytest.fixture
def notebook():
    nbformat = pytest.importorskip("nbformat")
    return nbformat.read(TUTORIAL, as_version=4)


def test_the_tutorial_is_stored_without_outputs(notebook):
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert TUTORIAL.stat().st_size < 20_000


@pytest.mark.slow
def test_the_tutorial_runs(notebook, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("TUTORIAL_OUTPUT", str(tmp_path))
    place = {"metadata": {"path": str(TUTORIAL.parent)}}
    nbclient.NotebookClient(notebook, timeout=300, resources=place).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    printed = "".join(output.get("text", "") for output in shown)
    assert printed.count("* accuracy: ") == 5
    data = [output.data for output in shown if "data" in output]
    table = next(entry["text/markdown"] for entry in data if "text/markdown" in entry)
    assert "| Spotlighter" in table
    assert "| ZeroshotCLIP" in table
    pictures = [b64decode(entry["image/png"]) for entry in data if "image/png" in entry]
    widths = [Image.open(io.BytesIO(picture)).width for picture in pictures]
    assert widths[:2] == [64, 64]
    assert len(widths) == 4
    assert min(widths[2:]) > 400
