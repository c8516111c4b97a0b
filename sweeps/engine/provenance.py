"""Where and with what a session runs: versions, machine, commit, command."""

import ast
import hashlib
import io
import os
import platform
import subprocess
import tokenize
from collections.abc import Iterable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tinylm.machine import memory, processor

_ROOT = Path(__file__).resolve().parents[2]
# The modules that a curve depends on.
_TINYLM = ("config", "texts", "documents", "data", "size", "model", "optim", "train", "checkpoint")
_TRAINING = (*(f"tinylm/{name}.py" for name in _TINYLM), "sweeps/engine/worker.py")


def _git(*arguments: str) -> str | None:
    """What git prints in the folder above the package; None without git or outside a repository."""
    try:
        done = subprocess.run(
            ["git", "-C", str(_ROOT), *arguments],  # noqa: S607 the user's own git
            capture_output=True, text=True, timeout=10, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def code(root: Path = _ROOT) -> str:
    """A digest of the code that trains, in the folder of both packages: of what is run, whatever its comments
    and docstrings say, and whatever the version of Python."""
    return _digest(root / name for name in _TRAINING)


def engine_code(folder: Path = _ROOT / "sweeps" / "engine") -> str:
    """The same of the code that runs trainings, on both sides of a worker."""
    return _digest(sorted(folder.glob("*.py")))


def _digest(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(_what_runs(file.read_text(encoding="utf-8")).encode())
    return digest.hexdigest()[:12]


def _what_runs(source: str) -> str:
    """The lines of a module without docstrings, comments and blank lines."""
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            text = node.body[0] if ast.get_docstring(node, clean=False) is not None else None
            if text is not None and text.end_lineno is not None:
                lines[text.lineno - 1 : text.end_lineno] = [""] * (
                    text.end_lineno - text.lineno + 1
                )
    return "\n".join(line.rstrip() for line in lines if line.strip())


@cache
def program() -> dict[str, Any]:
    """The fields of a `session` row that say what trains."""
    names = ("torch", "ray", "numpy", "tokenizers")
    versions = {"python": platform.python_version(), **{name: version(name) for name in names}}
    return {"code": code(), "versions": versions}


def _gpus(device: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What runs on a CUDA device add to the machine and to the versions."""
    if device != "cuda":
        return {}, {}
    import torch

    names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return {"gpu": ", ".join(names)}, {"cuda": torch.version.cuda}


def describe(device: str) -> dict[str, Any]:
    """The fields of a `session` row that explain why two runs of one config may differ."""
    machine, versions = _gpus(device)
    checkout = _git("ls-files", "--error-unmatch", "sweeps/ledger.py") is not None
    changes = _git("status", "--porcelain") if checkout else None
    constraints = _ROOT / "constraints.txt"
    trains = program()
    return {
        "code": trains["code"],
        "versions": {**trains["versions"], **versions},
        "machine": {
            "system": platform.platform(),
            "processor": processor(),
            "cpus": os.cpu_count(),
            "memory": memory(),
            **machine,
        },
        "commit": _git("rev-parse", "HEAD") if checkout else None,
        "changed": None if changes is None else bool(changes),
        "constraints": (
            hashlib.sha256(constraints.read_bytes()).hexdigest()[:12]
            if constraints.exists()
            else None
        ),
    }
