"""The notebook: it runs from its log to its folder, and is committed as it was written, not as it was run."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from tests.hub import TOKEN, running

NOTEBOOK = Path(__file__).parents[1] / "docs" / "from-log-to-hub.ipynb"


@pytest.mark.heavy
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient", reason="pip install -c constraints.txt -e '.[docs]'")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("SMALL", "1")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")  # `!rectune`
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code" and "!rectune" in cell.source:  # Jupyter goes on after a command that failed
            cell.source = f"_exit_code = 0\n{cell.source}\nassert _exit_code == 0"
    with running() as hub:
        for name, value in {
            "HF_TOKEN": TOKEN, "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_DISABLE_TELEMETRY": "1", "REPOSITORY": "anna/tea-shop",
        }.items():  # fmt: skip
            monkeypatch.setenv(name, value)
        nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    pushed = hub.repositories["models/anna/tea-shop"]
    assert "model.safetensors" in pushed.commits[pushed.refs["main"]]
    assert (tmp_path / "runs" / "shop" / "report.html").exists()
    assert (tmp_path / "shop" / "model.safetensors").exists()
    assert "every file is equal" in "".join(output.get("text", "") for output in notebook.cells[-1].outputs)


def test_the_notebook_is_committed_without_outputs_and_paths_of_a_machine() -> None:
    text = NOTEBOOK.read_text()
    code = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert not [place for place in ("/home/", "/root/", "/Users/", "/tmp/", "/content/", "C:\\") if place in text]
