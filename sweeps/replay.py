"""Replay early-stopping policies on recorded learning curves, in virtual time.

python -m sweeps.replay NAME --policy asha --workers 8 --repeats 200
python -m sweeps.replay CURVES.csv --compare
"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from sweeps import exits
from sweeps.commands.shared import AsJson, console, print_json
from sweeps.ledger import find_sweep

_FIGURES = (".svg", ".png", ".pdf")

# The help states the policies and the defaults of a space as text: reading them takes longer than
# `--help` may. A test compares the two.
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME or CURVES.csv",
            help="Name or folder of a sweep whose curves are replayed, or a file of curves with the columns "
            "trial, tokens, score, ...",
        ),
    ],
    *,
    policy: Annotated[
        str | None,
        typer.Option(
            help="The policy: none, asha, asha_stopping, sha, hyperband, i_epoch, median. Default: asha."
        ),
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Compare all policies in a table and a figure.")
    ] = False,
    eta: Annotated[
        int | None,
        typer.Option(help="One in ETA trials of a rung continues. Default: 3."),
    ] = None,
    grace: Annotated[
        str | None,
        typer.Option(help="The first rung, as a share of the budget. Default: 1/8."),
    ] = None,
    finish: Annotated[
        int | None,
        typer.Option(help="Finish at least this many values. Default: 1."),
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
    as_json: AsJson = False,
    out: Annotated[
        Path, typer.Option(help="File for the figure of --compare, of cost against regret.")
    ] = Path("replay.svg"),
) -> None:
    """Replay early-stopping policies on recorded learning curves, in virtual time."""
    named = {"eta": eta, "grace": grace, "finish": finish, "score": score}
    given = {name: value for name, value in named.items() if value is not None}
    with exits.reported():
        exits.refuse_url("--out", out)
        if compare and out.suffix not in _FIGURES:
            raise exits.UsageError(
                f"--out {out}: expected a file name ending in .svg, .png or .pdf"
            )
        if compare and policy is not None:
            raise exits.UsageError(
                f"--policy {policy}: --compare replays all policies; leave out one of the two"
            )
        from sweeps.policies import DEFAULT_SCHEDULE
        from sweeps.report.terminal import print_recommended, print_replays, warn_of_short
        from sweeps.simulate.curves import arrivals, ended_early, read_curves
        from sweeps.simulate.judge import check_reach, judged
        from sweeps.simulate.settings import every, settings, shipped

        one = policy or DEFAULT_SCHEDULE.policy
        path = _curves(name)
        curves = read_curves(path)
        if compare:
            chosen = every(given, curves)
        else:
            chosen = {one: settings(one, given) if policy else shipped(given, curves)}
        for schedule in chosen.values():
            check_reach(curves, schedule, str(path))
        warn_of_short(len(ended_early(curves)), len(curves))
        orders = [curves] if order == "given" else arrivals(curves, repeats, seed)
        best = top or max(schedule.finishers for schedule in chosen.values())
        results = {
            each: judged(curves, schedule, workers, orders, best)
            for each, schedule in chosen.items()
        }
        if as_json:
            found = {each: result.as_json() for each, result in results.items()}
            print_json(found if compare else found[one])
        else:
            timed = any(curve.seconds != curve.tokens for curve in curves)
            print_replays(results, timed, console())
        if compare:
            from sweeps.report import plots

            plots.write_cost_against_regret(results, out)
            typer.echo(out, err=as_json)
            if not as_json:
                dumps = {each: schedule.model_dump() for each, schedule in chosen.items()}
                # The policy stands first.
                written = {each: {"policy": dump["policy"], **dump} for each, dump in dumps.items()}
                print_recommended(results, written, console())


def _curves(name: str) -> Path:
    """The file of curves that a name stands for; `UsageError` if a sweep has none."""
    path = Path(name)
    if path.is_file() or path.suffix == ".csv":
        return path
    files = find_sweep(name)
    if not files.curves_table.exists():
        raise exits.UsageError(f"{name}: has no curves.csv yet; write it: sweeps analyze {name}")
    return files.curves_table


if __name__ == "__main__":
    app()
