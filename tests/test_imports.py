"""The floors: which module may import what, proved in a fresh interpreter."""

import subprocess
import sys

import pytest

FORBIDDEN = {
    "tinylm.yaml": {"torch", "ray", "sweeps", "numpy", "pandas", "matplotlib"},
    "tinylm.files": {"torch", "ray", "sweeps", "numpy", "pandas", "matplotlib", "pydantic"},
    "tinylm.config": {"torch", "ray", "sweeps", "numpy", "pandas", "matplotlib"},
    "tinylm.data": {"torch", "ray", "sweeps", "pandas", "matplotlib"},
    "tinylm.model": {"ray", "sweeps", "pandas", "matplotlib"},
    "tinylm.train": {"ray", "sweeps", "pandas", "matplotlib"},
    "tinylm.measure": {"ray", "sweeps", "pandas", "matplotlib"},
    "tinylm.generate": {"ray", "sweeps", "pandas", "matplotlib"},
    "tinylm.__main__": {"torch", "ray", "sweeps", "pandas", "matplotlib"},
    "sweeps.ledger": {"torch", "ray", "numpy", "pandas", "matplotlib", "pydantic"},
    "sweeps.space": {"torch", "ray", "pandas", "matplotlib", "optuna"},
    "sweeps.policies": {"torch", "ray", "pandas", "matplotlib"},
    "sweeps.curves": {"torch", "ray", "numpy", "pandas", "matplotlib", "scipy"},
    "sweeps.replay": {"torch", "ray", "pandas", "matplotlib", "scipy"},
    "sweeps.forecast": {"torch", "ray", "pandas", "matplotlib", "scipy"},
    "sweeps.trial": {"ray", "pandas", "matplotlib"},
    "sweeps.sample": {"ray", "pandas", "matplotlib"},
    "sweeps.driver": {"torch", "ray", "pandas", "matplotlib"},
    "sweeps.run": {"ray", "pandas", "matplotlib", "torch"},
    "sweeps.analyze": {"torch", "ray"},
    "sweeps.log": {"torch", "ray", "matplotlib"},
    "sweeps.report": {"torch", "ray", "matplotlib"},
    "sweeps.watch": {"torch", "ray", "matplotlib"},
    "sweeps.experiment": {"torch", "ray", "matplotlib"},
    "sweeps.plots": {"torch", "ray"},
    "sweeps.events": {"torch", "ray"},
}
PROGRAM = """
import importlib, sys
importlib.import_module(sys.argv[1])
loaded = {name.partition('.')[0] for name in sys.modules}
print(' '.join(sorted(loaded & set(sys.argv[2:]))))
"""


def imported(module: str, names: set[str]) -> str:
    """Which of the names a fresh interpreter has loaded once it has imported the module."""
    command = [sys.executable, "-c", PROGRAM, module, *sorted(names)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("module", FORBIDDEN)
def test_a_module_keeps_to_its_floor(module: str) -> None:
    assert imported(module, FORBIDDEN[module]) == ""


def test_a_module_above_its_floor_is_found() -> None:
    assert imported("tinylm.model", {"torch", "ray"}) == "torch"
