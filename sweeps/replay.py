"""Replay early-stopping policies on recorded learning curves, in virtual time.

python -m sweeps.replay CURVES.csv --policy asha --workers 8 --repeats 200
python -m sweeps.replay CURVES.csv --compare
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from sweeps import exits, ledger
from sweeps import text as words
from sweeps.policies import SCHEDULES, Schedule
from sweeps.simulate.curves import Curve, arrivals, read_curves
from sweeps.simulate.judge import Judgment, check_reach, judged
from tinylm.config import ConfigError, did_you_mean, problems

_FIGURES = (".svg", ".png", ".pdf")
_GRACE = {"grace": "1/8"}

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def settings(name: str, given: Mapping[str, Any]) -> Schedule:
    """The settings of a policy by its name; `ConfigError` for settings that it does not have."""
    if name not in SCHEDULES:
        near = did_you_mean(name, SCHEDULES)
        raise ConfigError(
            [f"--policy {name}: no such policy; there are {', '.join(SCHEDULES)}{near}"]
        )
    schedule = SCHEDULES[name]
    try:
        return schedule.model_validate({"policy": name, **given})
    except ValidationError as error:
        raise ConfigError(problems(error, f"--policy {name}", schedule.model_fields)) from error


def fitting(name: str, given: Mapping[str, Any]) -> Schedule:
    """The settings of a policy, from the given ones; settings that it does not have are ignored."""
    schedule = SCHEDULES[name]
    raw = get_args(schedule.model_fields["score"].annotation) == ("raw",)
    names = set(schedule.model_fields) - ({"score"} if raw else set())
    return settings(name, {key: value for key, value in given.items() if key in names})


def schedules(
    policy: str | None, given: Mapping[str, Any], *, compare: bool
) -> dict[str, Schedule]:
    """The policies to replay with their settings, by name; `ConfigError` for a wrong one."""
    if compare:
        if policy is not None:
            raise ConfigError(
                [f"--policy {policy}: --compare replays all policies; leave out one of the two"]
            )
        return {name: fitting(name, {**_GRACE, **given}) for name in SCHEDULES}
    name = policy or "asha"
    has_grace = "grace" in SCHEDULES.get(name, Schedule).model_fields
    return {name: settings(name, {**(_GRACE if has_grace else {}), **given})}


def warn_of_short(curves: Sequence[Curve]) -> None:
    """Print a warning if curves end before the longest one."""
    budget = max(curve.tokens[-1] for curve in curves)
    short = [c for c in curves if c.tokens[-1] < budget and not c.diverged]
    if short:
        typer.echo(
            f"warning: curves that end before {budget} tokens: {len(short)} of {len(curves)}. Their last "
            "scores are used as final scores, so cost and regret are not reliable",
            err=True,
        )


def print_table(results: Mapping[str, Judgment], timed: bool, console: Console) -> None:
    """Print the cost and the results of each policy, the cheapest first."""
    time = words.duration if timed else words.count
    table = Table("policy", box=None, pad_edge=False)
    names = ("cost", "regret", "95% interval", "best kept", "false kills", "finished")
    for name in (*names, "wall-clock" if timed else "wall-clock (tokens)", "busy"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, result in sorted(results.items(), key=lambda item: item[1].cost):
        regret = result.regret
        table.add_row(
            name,
            f"{result.cost:.1%}",
            words.loss(regret.mean),
            "" if regret.low is None else f"{regret.low:.4f} to {regret.high:.4f}",
            f"{result.best_kept:.0%}",
            f"{result.false_kills:.1%}",
            f"{result.finished:.1f}",
            time(result.wall_clock),
            f"{result.utilization:.0%}",
        )
    console.print(table)


def draw(results: Mapping[str, Judgment], out: Path) -> None:
    """Write the figure of cost against regret; `StorageError` if it can't be written."""
    from sweeps.report import plots

    each = {name: result.as_json() for name, result in results.items()}
    figure = plots.cost_against_regret(each, out.suffix.removeprefix("."))
    try:
        ledger.write_whole(out, figure)
    except OSError as error:
        raise exits.StorageError(f"{out}: {error.strerror or error}") from error


@app.command()
def main(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="CURVES.csv", help="Recorded curves, with the columns trial, tokens, score, ..."
        ),
    ],
    *,
    policy: Annotated[
        str | None, typer.Option(help=f"The policy: {', '.join(SCHEDULES)}. Default: asha.")
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Compare all policies in a table and a figure.")
    ] = False,
    eta: Annotated[
        int | None, typer.Option(help="One in ETA trials of a rung continues. Default: 3.")
    ] = None,
    grace: Annotated[
        str | None, typer.Option(help="The first rung, as a share of the budget. Default: 1/8.")
    ] = None,
    finish: Annotated[
        int | None, typer.Option(help="Finish at least this many trials. Default: 1.")
    ] = None,
    score: Annotated[
        str | None,
        typer.Option(
            help="raw uses the column score. decayed uses the column decayed, and adds the cost of the "
            "decay branches. Default: raw."
        ),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, help="Number of trials that train at the same time.")
    ] = 2,
    repeats: Annotated[
        int, typer.Option(min=1, max=100_000, help="Number of replays, each in a random order.")
    ] = 200,
    order: Annotated[
        Literal["random", "given"],
        typer.Option(help="The order of the trials. given: one replay in the order of the file."),
    ] = "random",
    top: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Count stopping one of the best TOP trials as a false kill. Default: FINISH.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed for the random orders.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    out: Annotated[
        Path, typer.Option(help="File for the figure of --compare, of cost against regret.")
    ] = Path("replay.svg"),
) -> None:
    """Replay early-stopping policies on recorded learning curves, in virtual time."""
    named = {"eta": eta, "grace": grace, "finish": finish, "score": score}
    given = {name: value for name, value in named.items() if value is not None}
    with exits.reported():
        if compare and out.suffix not in _FIGURES:
            raise exits.UsageError(
                f"--out {out}: expected a file name ending in .svg, .png or .pdf"
            )
        chosen = schedules(policy, given, compare=compare)
        curves = read_curves(path)
        for schedule in chosen.values():
            check_reach(curves, schedule, str(path))
        warn_of_short(curves)
        orders = [curves] if order == "given" else arrivals(curves, repeats, seed)
        results = {
            name: judged(curves, schedule, workers, orders, top or finish or 1)
            for name, schedule in chosen.items()
        }
        if as_json:
            each = {name: result.as_json() for name, result in results.items()}
            print(json.dumps(each if compare else next(iter(each.values())), indent=1))
        else:
            timed = any(curve.seconds != curve.tokens for curve in curves)
            wide = Console() if sys.stdout.isatty() else Console(width=160)
            print_table(results, timed, wide)
        if compare:
            draw(results, out)
            typer.echo(out, err=as_json)


if __name__ == "__main__":
    app()
