"""The Python API in a notebook, which has a kernel of its own."""

import os
from pathlib import Path

import pytest

nbclient = pytest.importorskip("nbclient", reason="needs the extra dev")

RATES = {
    "question": "Which rate?",
    "search": {"method": "grid"},
    "schedule": {"policy": "none"},
    "space": {"optim.lr": {"grid": [1e-6, 1e-2]}},
}
CELLS = (
    f"import sweeps\nr = sweeps.sweep({RATES}, scale='smoke', name='rates')",
    "r = sweeps.load('rates-smoke')\nr.answer",
    "r.trials[['label', 'status', 'val_loss_final']]",
    "r.best.config.optim.lr, type(r.best.model()).__name__",
    "%matplotlib inline\nr.curves.pivot(index='tokens', columns='label', values='val_loss').plot();",
)


@pytest.mark.slow
def test_a_sweep_is_run_read_and_drawn_in_a_notebook(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nbformat.v4 import new_code_cell, new_notebook

    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]), prepend=os.pathsep)
    notebook = new_notebook(cells=[new_code_cell(cell) for cell in CELLS])
    resources = {"metadata": {"path": str(tmp_path)}}
    client = nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources=resources
    )
    client.execute()
    shown = [cell.outputs[-1]["data"] for cell in notebook.cells[1:]]
    answer, table, best, figure = shown
    assert "lr=0.01 is the best of 2" in answer["text/plain"]
    assert "val_loss_final" in table["text/html"]
    assert best["text/plain"] == "(0.01, 'Transformer')"
    assert "image/png" in figure
