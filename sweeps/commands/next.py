"""Write the search space of the next sweep, which the results of one ask for.

sweeps next NAME [FILE] [--path PATH]
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sweeps import exits
from sweeps.commands.shared import AsJson, SweepName, print_json, write_new
from sweeps.ledger import Files, find_sweep

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweeps.findings.results import Results
    from sweeps.report.next_steps import Step

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    name: SweepName,
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE]",
            help="The file to write; it must be new. Default: search_spaces/SPACE-next.yaml.",
        ),
    ] = None,
    *,
    path: Annotated[
        str,
        typer.Option(
            metavar="PATH",
            help="Settle the value of this path, e.g. optim.weight_decay, at the best values of the "
            "others. Default: the first next step that needs a space.",
        ),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Write the search space of the next sweep, and print the command that runs it.

    It is the first next step of the summary and of the log that changes the space.
    """
    with exits.reported():
        from sweeps.findings.everything import Reader
        from sweeps.plan.reading import SPACES
        from sweeps.report.next_steps import as_yaml, space_of, steps_of
        from sweeps.text import short_name

        files = find_sweep(name)
        found = Reader().findings(files)
        steps = steps_of(found)
        if found.is_unfinished:
            raise exits.UsageError(f"{files.name}: has not finished; {steps[0].words}")
        step = _settling(files, steps, path) if path else _first(files, steps)
        space = space_of(found.results, step)
        assert space is not None  # the step has one
        # Its sweep is named after it and the scale.
        first = files.name.removesuffix(f"-{found.results.scale}")
        last = f"-{short_name(path)}" if path else ""
        target = file or SPACES / f"{first}-next{last}.yaml"
        content = f"# After the sweep {files.name}.\n{as_yaml(space)}"
        write_new(target, content, f"choose another: sweeps next {name} FILE")
        command = _command(files, found.results, step, target)
        if as_json:
            print_json({"file": str(target), "why": step.why, "run": command, "space": space})
            return
        print(f"{target}: {step.why}")
        print(f"Run: {command}")


def _first(files: Files, steps: "Sequence[Step]") -> "Step":
    """The first step that needs a space; `UsageError` if none does."""
    chosen = next((step for step in steps if step.space is not None), None)
    if chosen is None:
        words = "\n".join(step.words for step in steps)
        none = "the data suggest no next step"
        head = f"the next step needs no other space:\n{words}" if words else none
        raise exits.UsageError(f"{files.name}: {head}")
    return chosen


def _settling(files: Files, steps: "Sequence[Step]", path: str) -> "Step":
    """The step that settles the value of a path; `UsageError` if there is none."""
    from tinylm.config import did_you_mean

    settling = {step.path: step for step in steps if step.path}
    if path not in settling:
        hint = did_you_mean(path, settling) or f"; there are {', '.join(settling) or 'none'}"
        raise exits.UsageError(
            f"--path {path}: not a path of {files.name} whose value is not settled{hint}"
        )
    return settling[path]


def _command(files: Files, results: "Results", step: "Step", target: Path) -> str:
    """The command that runs the space, in the folder of the sweep where it extends it."""
    import shlex

    assert results.sweep.request is not None  # it has results
    seed = results.sweep.request["seed"]
    parts = ["python", "-m", "sweeps.run", str(target), "--scale", results.scale]
    parts += ["--seed", str(seed)] if seed else []
    parts += [] if step.is_new else ["--out", str(files.folder)]
    return shlex.join(parts)


if __name__ == "__main__":
    app()
