"""What a sweep prints: its plan before it runs, then a live table in a terminal or lines in a file."""

import math
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from operator import itemgetter
from pathlib import Path

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sweeps import ledger as led
from sweeps.engine.driver import Driver
from sweeps.engine.left import Left
from sweeps.engine.machine import size
from sweeps.engine.sharing import Share, Sharing
from sweeps.engine.state import is_judged
from sweeps.plan import arms
from sweeps.plan.horizons import FACTORS
from sweeps.plan.request import PlannedTrial, Request
from sweeps.plan.sections import Speedup
from sweeps.plan.trials import Load, Plan
from sweeps.selection import context_lengths
from sweeps.simulate.forecast import Forecast
from sweeps.text import (
    cap_amount,
    count,
    duration,
    init_words,
    inits_words,
    joined,
    loss,
    named,
    node_words,
    quantity,
    short_name,
    show,
)
from tinylm import config as cfg
from tinylm.machine import Tried, fastest

_SHOWN = 50  # trials of a plan that are printed
_REFRESH_SECONDS = 0.5
_STYLES = {
    "planned": "dim",
    "running": "bold",
    "paused": "yellow",
    "stopped": "yellow",
    "diverged": "magenta",
    "failed": "red",
    "finished": "green",
}
_ROLES = {"tuning": "re-tune", "confirm": "confirm", "audit": "audit", "horizon": "horizon"}
_LONGEST = 24  # characters of a value in the live table
_ENDING: dict[led.Ending, str] = {
    "node": "its node",
    "worker": "its worker, which was asked to end",
    "signal": "before the sweep ends",
}
_FIRST = ("running", "finished", "paused", "stopped", "diverged", "failed", "planned")


def _order(trial: led.Trial, metric: str) -> tuple[int, int, float]:
    """The sort key of a trial: by state, then by tokens (most first), then by loss."""
    score = trial.curve[-1][metric] if trial.curve else math.inf
    return _FIRST.index(trial.status), -trial.tokens, score


def _by_hand(sweep: led.Sweep, trials: Iterable[str]) -> int:
    """How many of the trials somebody stopped."""
    return sum(sweep.find(one).is_stopped_by_hand for one in trials)


def _chosen(row: led.Row, sweep: led.Sweep) -> str:
    """The choice of an arm's values, or of those to confirm, in a few words."""
    number = row["tried"] - _by_hand(sweep, row.get("grid", ()))
    if row["values"] is None:
        return f"diverged at each of {quantity(number, 'value')}"
    tried = f"the best of {quantity(number, 'value')}"
    at = f" at {named(row['values'])}, {tried}," if row["tried"] else ""
    return f"runs{at} on {quantity(len(row['trials']), 'seed')}"


def _horizon(row: led.Row, sweep: led.Sweep) -> str:
    """What the baseline is to be trained on at another number of tokens, in a few words."""
    tried = quantity(len(row["rates"]) - _by_hand(sweep, row["rates"]), "learning rate")
    if row["values"] is None:
        return f"to be tuned on {tried}"
    on = quantity(len(row["trials"]), "seed")
    return f"runs at {named(row['values'])}, the best of {tried}, on {on}"


def _seen(seen: led.Row) -> str:
    """What a look found of an arm, in a few words."""
    found = seen["decision"]
    found = "not settled" if found == "no conclusion" else found
    return f"{found}, after {quantity(len(seen['seeds']), 'seed')}"


def _of_sweep(row: led.Row, sweep: led.Sweep) -> Iterator[tuple[str, str]]:
    """What a row that is of no trial of a sweep says, each after what it is about."""
    match row["kind"]:
        case "chosen" | "confirming":
            yield row.get("arm", "best values"), _chosen(row, sweep)
        case "horizon":
            yield f"baseline at {count(row['tokens'])} tokens", _horizon(row, sweep)
        case "steered":
            yield "sweep", "ends by hand: nothing new starts"
        case "node":
            yield row["host"], node_words(row)
        case "look":
            yield from ((arm, _seen(seen)) for arm, seen in row["arms"].items())


def _state(trial: led.Trial) -> str:
    """The state of a trial, in a few words."""
    if trial.is_stopped_by_hand:
        return led.BY_HAND
    return "starting" if trial.status == "running" and not trial.curve else trial.status


def _steered(row: led.Row) -> str:
    """How somebody steered a trial."""
    if row["action"] == "stop":
        return f"{led.BY_HAND} at {row['tokens']:,} tokens"
    return "by hand: to be trained to its end, whatever the policy says"


def _capped(row: led.Row) -> str:
    """Why an attempt ended before its trial did."""
    if row["cap"] == "target":
        return "ended: another trial reached the target"
    used = cap_amount(row["cap"], row["used"], row["limit"])
    return f"capped: reached caps.{row['cap']} (used {used})"


def show_choice(tried: Sequence[Tried], console: Console) -> None:
    """Print which setting is the fastest here, and what was measured of each."""
    if tried:
        name, measured = fastest(tried).name, "; ".join(one.words for one in tried)
        words = f"fastest here: {name} ({measured})"
        if not any(one.tokens_per_s for one in tried):
            words = f"no setting could be measured here ({measured}); using {name}"
        console.print(words, highlight=False, markup=False)


def show_plan(
    request: Request, plan: Plan, load: Load, states: Mapping[str, str], console: Console
) -> None:
    """Print the trials of a plan, with their states in a sweep that has begun, and what they cost
    in full."""
    for note in plan.notes:
        console.print(note, highlight=False)
    if plan.trials:
        console.print(_trials_table(plan.trials[:_SHOWN], states))
    if len(plan.trials) > _SHOWN:
        console.print(f"and {quantity(len(plan.trials) - _SHOWN, 'more trial')}")
    space = request.space
    if seeds_wait(request):
        console.print(SEEDS)
    if plan.suggested:
        samples = quantity(plan.suggested, "trial")
        console.print(f"{samples}, suggested by Optuna while the sweep runs")
    if space.retune:
        paths = " and ".join(space.retune)
        runs = sum(len(arms.runs(request, arm, {}, request.looks[0])) for arm in plan.arms)
        of_arms = f"{quantity(runs, 'run')} of {quantity(len(plan.arms), 'arm')}"
        console.print(
            f"seed {request.tuning_seed} is for re-tuning: its trials find the best {paths} of each arm, and no arm "
            "is judged by them",
            highlight=False,
        )
        seeds = joined([str(seed) for seed in request.seeds[: request.looks[0]]])
        console.print(
            f"then {of_arms}, each arm at its best {paths}, on the seeds {seeds}", highlight=False
        )
    if len(request.looks) > 1:
        console.print(looks_words(request.looks), highlight=False)
    if space.speedup is not None:
        console.print(speedup_words(space.speedup, request.tuning_seed), highlight=False)
    if space.confirm:
        fresh = quantity(space.confirm, "fresh seed")
        console.print(
            f"then the best values again, on {fresh} ({_range(request.fresh_seeds)})",
            highlight=False,
        )
    if space.target and space.target.ends != "nothing":
        whole = "the sweep" if space.target.ends == "sweep" else "each trial"
        target = f"{space.target.metric} {space.target.limit:g}"
        console.print(f"{whole} ends at the first record that reaches {target}", highlight=False)
    lengths = context_lengths(config.model_dump() for config in load.configs)
    for sentence in lengths.words if lengths is not None else ():
        console.print(sentence, highlight=False)
    flops = sum(size(config.model)[1] * config.budget.tokens for config in load.configs)
    console.print(f"all trials in full: {count(load.tokens)} tokens, {count(flops)} FLOPs")


SEEDS = (
    "further seeds of a value start once it is promoted on its first seed; from then on they are promoted or "
    "stopped together, by the mean of their losses"
)


def seeds_wait(request: Request) -> bool:
    """Whether the further seeds of values start only when their first one has passed a rung."""
    space = request.space
    return not space.is_study and len(request.seeds) > 1 and bool(space.schedule.shares())


def planned(folder: Path, plan: Plan, load: Load, expected: Forecast, left: Left | None) -> led.Row:
    """A plan for programs: its trials, the tokens and FLOPs of all in full, the forecast, and what a
    sweep that has begun has of it."""
    trials = [
        {
            "trial": one.trial,
            "label": one.label or folder.name,
            "arm": one.arm,
            "values": one.values,
            "seed": one.config.run.seed,
            "params": size(one.config.model)[0],
            "tokens": one.config.budget.tokens,
            "state": "new" if left is None else left.states[one.trial],
        }
        for one in plan.trials
    ]
    begun = left and {
        "kept": left.kept,
        "new": left.new,
        "withdrawn": left.withdrawn,
        "tokens_at_most": left.tokens,
        "cap": left.cap and left.cap["cap"],
    }
    flops = sum(size(config.model)[1] * config.budget.tokens for config in load.configs)
    return {
        "sweep": str(folder),
        "trials": trials,
        "suggested": plan.suggested,
        "notes": list(plan.notes),
        "full": {"tokens": load.tokens, "flops": flops},
        "forecast": expected.fields(),
        "begun": begun,
    }


def _range(numbers: range) -> str:
    """From which number to which."""
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"


def speedup_words(asked: Speedup, seed: int) -> str:
    """What a study trains to say what its arms are worth in tokens."""
    each = quantity(len(FACTORS) + asked.seeds, "run")
    low, high = asked.horizons
    return (
        f"then the baseline at {low:g} and {high:g} times the tokens, {each} each: {len(FACTORS)} learning rates "
        f"on seed {seed}, and the best of them on {quantity(asked.seeds, 'seed')} of the study"
    )


def looks_words(looks: Sequence[int]) -> str:
    """How a study goes on after the runs of its first look."""
    *others, last = map(str, looks)
    return (
        f"{looks[0]} seeds of each arm, and up to {last} of those that are not settled and of the baseline: "
        f"arms are looked at after {', '.join(others)} and {last} seeds"
    )


def show_inits(configs: Sequence[cfg.Config], losses: Sequence[float], console: Console) -> None:
    """Print how many trials start far above the loss of a uniform guess, and what lowers that."""
    high = [
        (loss_init, config.model)
        for loss_init, config in zip(losses, configs, strict=True)
        if config.model.starts_high(loss_init)
    ]
    if high:
        worst, model = max(high, key=itemgetter(0))
        words = init_words(worst, model.uniform_loss, model.lower_init)
        console.print(inits_words(len(high), len(configs), words), highlight=False)


def show_begun(left: Left, expected: int, console: Console) -> None:
    """Print what a sweep that has begun already has of its plan, what it no longer wants, and what is
    left; the whole plan is expected to take so many tokens."""
    kept = quantity(left.kept, "trial")
    console.print(f"{kept} kept, {left.new} new, {len(left.withdrawn)} withdrawn", highlight=False)
    if left.withdrawn:
        console.print(f"withdrawn: {', '.join(left.withdrawn[:_SHOWN])}", highlight=False)
    about = _about_left(left, expected)
    likely = f"about {count(about)} tokens, " if about < left.tokens else ""
    words = f"left to train: {likely}at most {count(left.tokens)} tokens"
    if not left.tokens:
        words = "nothing is left to train"
    elif left.cap is not None and left.cap["cap"] == "target":
        words = "nothing will be trained: the sweep has reached its target"
    elif left.cap is not None:
        used = cap_amount(left.cap["cap"], left.cap["used"], left.cap["limit"])
        words = (
            f"nothing will be trained: the sweep has reached caps.{left.cap['cap']} (used {used})"
        )
    console.print(words, highlight=False)


def _about_left(left: Left, expected: int) -> int:
    """The tokens that are likely left, where the whole plan is expected to take so many."""
    about = expected - left.trained
    return min(about, left.tokens) if about > 0 else left.tokens


def _trials_table(planned: Sequence[PlannedTrial], states: Mapping[str, str]) -> Table:
    """One row per trial: its values, what it costs and, if known, its state."""
    paths = list(dict.fromkeys(path for trial in planned for path in trial.values))
    has_arms = any(trial.arm for trial in planned)
    head = ("trial", *(["arm"] if has_arms else []), *paths)
    table = Table(*head, "seed", "params", "tokens", "FLOPs", box=None)
    for column in table.columns[1 + has_arms :]:
        column.justify = "right"
    if states:
        table.add_column("state")
    for trial in planned:
        params, flops = size(trial.config.model)
        tokens = trial.config.budget.tokens
        values = (show(trial.values.get(path)) for path in paths)
        counts = (count(params), count(tokens), count(flops * tokens))
        arm = [trial.arm] if has_arms else []
        state = [states[trial.trial]] if states else []
        table.add_row(trial.trial, *arm, *values, str(trial.config.run.seed), *counts, *state)
    return table


def caps_reached(request: Request, tokens: int, hours: float | None) -> Iterator[tuple[str, float]]:
    """The caps that a sweep is expected to reach, each with the amount it would use without them."""
    caps = request.space.caps
    expected = {"tokens": tokens, "hours": hours}
    if hours is not None and caps.price_per_hour is not None:
        expected["money"] = hours * caps.price_per_hour
    for cap, amount in expected.items():
        limit = getattr(caps, cap)
        if limit is not None and amount is not None and amount > limit:
            yield cap, amount


def show_forecast(
    request: Request, expected: Forecast, full: int, audit: float, console: Console
) -> None:
    """Print how many tokens a sweep is expected to use, as a share of all trials in full, and how many trials
    are expected to reach each rung."""
    low, high = expected.low, expected.high
    spread = "" if low == high else f" ({count(low)} to {count(high)})"
    if len(request.looks) > 1:
        spread = f" (at least {count(low)}, at most {count(high)})"
    console.print(
        f"with policy {request.space.schedule.policy}: about {count(expected.tokens)} tokens{spread}, "
        f"{expected.tokens / full:.0%} of all trials in full ({expected.basis})"
    )
    if seeds_wait(request):
        spread = f" (at least {expected.fewest}, at most {expected.most})"
        about = "about " if expected.fewest < expected.most else ""
        trials = quantity(round(expected.trials), "trial")
        console.print(f"{about}{trials} will start{spread if about else ''}", highlight=False)
    stages = ", ".join(
        f"{trials:.3g} at {_stage(stage)}" for stage, trials in expected.occupancy.items()
    )
    own = " (a share of each trial's budget)" if request.budget is None else ""
    console.print(f"trials expected to reach each rung{own}: {stages}")
    seconds = expected.whole_seconds()
    hours = None if seconds is None else seconds / 3600
    for cap, amount in caps_reached(request, expected.tokens, hours):
        without = f"without it, it would use about {cap_amount(cap, amount)}"
        console.print(f"caps.{cap} will end the sweep early; {without}")
    if audit:
        more = count(audit * (full - expected.tokens))
        console.print(f"--audit {audit:g}: up to {more} more tokens")


def _stage(stage: int | str) -> str:
    """A token count in words, or a share of a budget in percent."""
    percent = f"{float(100 * Fraction(stage)):.3g}%"
    return f"{count(stage)} tokens" if isinstance(stage, int) else percent


def show_time(
    expected: Forecast,
    speeds: Sequence[float],
    slots: int,
    console: Console,
    left: Left | None = None,
) -> None:
    """Print how long a sweep, or what is left of it, is expected to take here at the speeds of its trials."""
    share, what = 1.0, "time"
    if left is not None:
        share = _about_left(left, expected.tokens) / expected.tokens
        what = "time for what is left"
    seconds = expected.whole_seconds(share)
    assert seconds is not None  # its speeds are known
    slowest, fastest = min(speeds), max(speeds)
    rates = f"{slowest:.0f}" if slowest == fastest else f"{slowest:.0f} to {fastest:.0f}"
    console.print(
        f"{what}: about {duration(seconds)}, {quantity(slots, 'trial')} at a time, "
        f"with {duration(expected.start_up)} of start-up (a trial alone trains at {rates} tokens/s here; "
        "the start of Ray, evaluation and the analysis are not included)"
    )


@dataclass(frozen=True)
class Column:
    """A column of the live table, and how readily it is left out where there is no room."""

    name: str
    cells: Sequence[str]
    is_number: bool = True
    spare: float = -math.inf  # the highest goes first; of -inf it stays

    @property
    def heading(self) -> str:
        """The name on lines that are hardly longer than a number."""
        return "\n".join(textwrap.wrap(self.name.replace("_", " "), 8, break_long_words=False))

    @property
    def width(self) -> int:
        """The characters of the longest line."""
        return min(_LONGEST, max(map(cell_len, [*self.heading.split("\n"), *self.cells])))


def fitting(columns: Sequence[Column], width: int) -> list[Column]:
    """The columns that have room beside one another, two spaces apart."""
    kept = list(columns)
    while sum(column.width + 2 for column in kept) - 2 > width:
        most = max(kept, key=lambda column: column.spare)
        if most.spare == -math.inf:
            break
        kept.remove(most)
    return kept


class View:
    """The display of one session of a driver."""

    def __init__(
        self,
        driver: Driver,
        expected: int,
        console: Console,
        clock: Callable[[], float] = time.monotonic,
        share: Callable[[], Share] = lambda: Share(0, 0),  # of a cluster, while others may use it
    ) -> None:
        self._share, self._sharing = share, Sharing(share().others)
        self._driver = driver
        self._expected = expected  # tokens of the whole sweep
        self._console = console
        self._clock = clock
        self._begun = clock()
        self._spent_before = driver.sweep.spent_tokens
        self._drawn = 0.0
        driver.take_news()  # what was written before is not told
        self._live: Live | None = None

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the sweep while the context lasts."""
        if not self._console.is_terminal:
            self._console.print(self._starting, highlight=False, soft_wrap=True)
            yield
            self.update()
            return
        with Live(self._draw(), console=self._console, auto_refresh=False) as self._live:
            yield
            self._live.update(self._draw(), refresh=True)

    def update(self) -> None:
        """Show what has changed; cheap enough to call often."""
        self._tell()
        if self._live is not None and self._clock() - self._drawn > _REFRESH_SECONDS:
            self._drawn = self._clock()
            self._live.update(self._draw(), refresh=True)

    def _draw(self) -> Group:
        metric = self._driver.request.space.metric
        trials = sorted(self._driver.sweep.attempted, key=lambda trial: _order(trial, metric))
        room = max(3, self._console.size.height - 9)
        shown = trials[:room]
        columns = fitting([*self._asked(shown), *self._reached(shown)], self._console.size.width)
        table = Table(box=None, pad_edge=False)
        for column in columns:
            table.add_column(
                Text(column.heading),
                justify="right" if column.is_number else "left",
                vertical="bottom",
                no_wrap=True,
                overflow="ellipsis",
                max_width=_LONGEST,
            )
        for number, trial in enumerate(shown):
            cells = (Text(column.cells[number]) for column in columns)  # a value is not markup
            table.add_row(*cells, style=_STYLES[trial.status])
        parts: list[RenderableType] = [table]
        if len(trials) > room:
            parts.append(Text(f"and {len(trials) - room} more", style="dim"))
        return Group(*parts, Text(), self._progress())

    def _asked(self, trials: Sequence[led.Trial]) -> Iterator[Column]:
        """What tells the trials apart: the arm, a column for each varied path, the seed and the role."""
        space, planned = self._driver.request.space, self._driver.sweep.trials.values()
        varied = dict.fromkeys(path for trial in planned for path in trial.values)
        if space.is_study:  # the name of an arm says the rest
            yield Column("arm", [trial.arm for trial in trials], is_number=False)
            tuned = {*(space.retune or {}), "run.repeat"}
            varied = {path: None for path in varied if path in tuned}
        names = [*map(short_name, varied), "tokens"]
        for rank, path in enumerate(varied):
            name = short_name(path)
            yield Column(
                name if names.count(name) == 1 else path,
                [show(trial.values.get(path)) for trial in trials],
                is_number=not any(isinstance(trial.values.get(path), str) for trial in trials),
                spare=rank - len(varied),  # the last goes first
            )
        if len({trial.seed for trial in planned}) > 1:
            yield Column("seed", [str(trial.seed) for trial in trials])
        if any(trial.role in _ROLES for trial in trials):
            yield Column("role", [_ROLES.get(trial.role, "") for trial in trials], is_number=False)

    def _reached(self, trials: Sequence[led.Trial]) -> Iterator[Column]:
        """How far the trials are, and their losses."""
        space = self._driver.request.space
        last = [trial.curve[-1] if trial.curve else None for trial in trials]
        begun = [_state(trial) for trial in trials]
        speeds = [
            f"{record['tokens_per_s']:.0f}" if record and trial.status == "running" else ""
            for trial, record in zip(trials, last, strict=True)
        ]
        yield Column("state", begun, is_number=False)
        yield Column("tokens", [count(trial.tokens) for trial in trials], spare=1)
        yield Column("of", [count(trial.budget) for trial in trials], spare=4)
        if space.schedule.shares():
            yield Column("next rung", [self._next_rung(trial) for trial in trials], spare=3)
        yield Column(
            space.metric, [loss(record[space.metric]) if record else "" for record in last]
        )
        yield Column("tokens/s", speeds, spare=2)

    def _next_rung(self, trial: led.Trial) -> str:
        rungs = self._driver.state.rungs(trial) if is_judged(trial) else ()
        after = [rung for rung in rungs if rung > trial.tokens]
        return count(after[0]) if after and trial.status in {"planned", "running"} else ""

    def _progress(self) -> Table:
        sweep = self._driver.sweep
        trials = sweep.trials.values()
        spent = sweep.spent_tokens
        total = max(self._expected, spent)
        passed = self._clock() - self._begun
        here = spent - self._spent_before
        rest = total - spent
        left = f", about {duration(rest * passed / here)} left" if here and rest else ""
        begins = "" if here else f"; {self._starting}"
        full = sum(trial.budget for trial in trials)
        # A study plans most of its trials later.
        whole = f" (all trials in full: {count(full)})" if full >= total else ""
        lines = Table.grid()
        lines.add_row(ProgressBar(total=total or 1, completed=spent, width=40))
        lines.add_row(f"{count(spent)} of about {count(total)} tokens{whole}")
        lines.add_row(f"{duration(round(passed))} so far{left}{begins}")
        if (slots := self._share()).others:
            lines.add_row(slots.words)
        return lines

    @property
    def _starting(self) -> str:
        """What happens before the first record."""
        compiles = self._driver.request.base.run.compile is True
        return f"workers start, load torch{', compile the model' * compiles} and train to the first record"

    def _tell(self) -> None:
        if (line := self._sharing.look(self._share(), self._clock())) and self._live is None:
            self._console.print(line, highlight=False)
        for row in self._driver.take_news():
            # The table shows the states of trials.
            is_of_sweep = row["kind"] == "steered" and "trial" not in row
            told = self._live is None or row["kind"] in {"unusable", "node"} or is_of_sweep
            line = self._sentence(row) if told else ""
            if line:
                self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _score(self, score: float | None) -> str:
        decayed = "decayed " if self._driver.request.space.schedule.branch else ""
        return f"{decayed}loss {'not finite' if score is None else f'{score:.4f}'}"

    def _where(self, row: led.Row) -> str:
        """On which host of a cluster an attempt began, and on which device; empty if it says neither."""
        host = row.get("worker", "").rpartition(":")[0] if self._driver.sweep.nodes else ""
        parts = [part for part in (host, row.get("device", "")) if part]
        return f" on {', '.join(parts)}" if parts else ""

    def _sentence(self, row: led.Row) -> str:
        if "trial" not in row:
            clock = row["time"][11:19]
            return "\n".join(
                f"{clock}  {who:24s}  {what}" for who, what in _of_sweep(row, self._driver.sweep)
            )
        trial = self._driver.sweep.find(row["trial"])
        label = trial.label
        match row["kind"]:
            case "started":
                what = f"resumed at step {row['step']}" if row["step"] else "started"
                what += self._where(row)
            case "paused":
                rung = self._driver.state.policy.rung_words(trial.budget, row["rung"])
                what = f"paused at {rung}, {self._score(row['score'])}"
            case "promoted":
                why = " (so that enough trials finish)" if row["forced"] else ""
                rank = f"rank {row['rank']} of {row['arrived']}"
                rung = self._driver.state.policy.rung_words(trial.budget, row["rung"])
                what = f"promoted at {rung}: {rank}{why}"
            case "steered":
                what = _steered(row)
            case "stopped" | "diverged" | "failed":
                what = f"{row['kind']}: {row['reason']}"
            case "capped":
                what = _capped(row)
            case "preempted":
                what = f"saved at step {trial.step} to leave {_ENDING[row['how']]}"
            case "unusable":
                what = f"the checkpoint of step {row['step']} can't be used: {row['reason']}"
            case "audited":
                what = f"to be audited, drawn from {quantity(row['stopped'], 'stopped trial')}"
            case "finished":
                last = trial.curve[-1]
                early = f": {row['reason']}" if "reason" in row else ""
                what = f"finished{early}, validation loss {last['val_loss']:.4f}"
            case _:
                return ""
        return f"{row['time'][11:19]}  {label:24s}  {what}"
