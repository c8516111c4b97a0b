"""Write a search space for a question.

sweeps new NAME --question "Which weight decay?" --vary optim.weight_decay
"""

from typing import Annotated

import typer

from sweeps import exits
from sweeps.commands.shared import AsJson, print_json, write_new

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    name: Annotated[
        str, typer.Argument(help="The name of the space; its file is search_spaces/NAME.yaml.")
    ],
    *,
    question: Annotated[str, typer.Option(help="What the sweep is to answer.")],
    vary: Annotated[
        list[str],
        typer.Option(
            metavar="PATH[=VALUES]",
            help="A path that varies, e.g. optim.lr; may be repeated. VALUES is a list or a domain in YAML, "
            "e.g. 'optim.lr=[1e-3, 2e-3]'. Default: values around that of the scale.",
        ),
    ],
    scale: Annotated[
        str,
        typer.Option(help="The base config, by its name or as a YAML file. Default: as for a run."),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Write a search space for a question, and print the commands that plan and run it.

    One path is a grid, several are a random search. docs/spaces.md lists what else a space may have.
    """
    with exits.reported():
        import shlex

        from sweeps.engine.machine import default_scale
        from sweeps.ledger import is_name
        from sweeps.plan.draft import space_of
        from sweeps.plan.reading import SPACES
        from sweeps.plan.request import read_request
        from sweeps.report.next_steps import as_yaml
        from tinylm import config as cfg

        if not is_name(name):
            raise exits.UsageError(f"{name}: expected a name of letters, digits, _, - and .")
        base = scale or default_scale()
        path = SPACES / f"{name}.yaml"
        space = space_of(question, vary, cfg.load(base))
        write_new(path, as_yaml(space), "choose another name")
        try:
            read_request(str(path), base, [], 0)
        except cfg.ConfigError:
            path.unlink()
            raise
        command = shlex.join(["sweeps", "run", name, *(["--scale", scale] if scale else [])])
        plan = f"{command} --plan"
        if as_json:
            print_json({"file": str(path), "plan": plan, "run": command, "space": space})
        else:
            print(f"{path}: edit it as you like\nPlan: {plan}\nRun: {command}")


if __name__ == "__main__":
    app()
