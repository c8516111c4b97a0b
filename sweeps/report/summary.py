"""The findings of a sweep in words: Markdown, and a table for the terminal."""

import html
import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sweeps import text as words
from sweeps.findings.arms import ArmFindings
from sweeps.findings.audit import Audited
from sweeps.findings.comparison import ArmsComparison, CriticalBatch
from sweeps.findings.compute import Compute
from sweeps.findings.everything import Findings, SearchFindings, StudyFindings
from sweeps.findings.outcomes import RULES, outcome
from sweeps.findings.ranking import BestValue, Ended, Ranked, Spread, Stopped
from sweeps.findings.results import ENDINGS, METRICS, UNITS, Place
from sweeps.findings.stability import Stability
from sweeps.findings.tuning import Tuned, Unsettled
from sweeps.selection import Metric, when

ONE_SEED = "One seed: a difference smaller than the seed noise means nothing."


def escaped(text: str) -> str:
    """Text that Markdown shows as it is, in one line and in a table's cell."""
    flat = html.escape(" ".join(text.split()), quote=False)
    return re.sub(r"([\\`*\[\]|~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))", r"\\\1", flat)


def paragraph(text: str) -> str:
    """The same as a paragraph of its own, which no sign at its beginning makes a heading, a rule or a
    list."""
    shown = re.sub(r"^(\d+)(?=[.)])", r"\1\\", escaped(text))
    return re.sub(r"^([-+#=])", r"\\\1", shown)


_STATUS = {status: status for status in (*ENDINGS, "unfinished")} | {"stopped": "stopped early"}


# Tables -----------------------------------------------------------------------------------------

Line = TypeVar("Line", contravariant=True)


@dataclass(frozen=True)
class Column(Generic[Line]):
    """A column of a Markdown table: its header, and the cell of a line."""

    header: str
    cell: Callable[[Line], str]
    is_text: bool = False  # text leans left, numbers right


def _table(lines: Sequence[Line], *columns: Column[Line]) -> list[str]:
    """A Markdown table."""
    rows = [[column.header for column in columns]]
    rows += [[column.cell(line) for column in columns] for line in lines]
    head, *body = ["| " + " | ".join(row) + " |" for row in rows]
    rule = "|" + "|".join(" --- " if column.is_text else " ---: " for column in columns) + "|"
    return [head, rule, *body, ""]


TRIAL = Column[Place]("trial", lambda p: escaped(p.trial.label), is_text=True)
STATUS = Column[Place]("status", lambda p: _STATUS[p.status], is_text=True)
REASON = Column[Place]("reason", lambda p: escaped(p.reason), is_text=True)
ID = Column[Place]("id", lambda p: f"`{p.trial.trial}`", is_text=True)
VAL_LOSS = Column[Place]("validation loss", lambda p: words.loss(p.loss("val_loss")))
BITS = Column[Place]("validation bits per byte", lambda p: words.loss(p.loss("bits_per_byte")))
TRAIN_LOSS = Column[Place]("training loss", lambda p: words.loss(p.record and p.record.train_loss))
TOKENS = Column[Place]("tokens", lambda p: words.whole(p.record and p.record.tokens))
SIZES = (
    Column[Place]("parameters", lambda p: words.whole(p.trial.params)),
    Column[Place]("FLOPs/token", lambda p: words.whole(p.trial.flops_per_token)),
)
LOSS: dict[Metric, Column[Place]] = {"val_loss": VAL_LOSS, "bits_per_byte": BITS}

RANK = Column[Ranked]("rank", lambda p: words.whole(p.rank))
BEHIND = Column[Ranked]("behind", lambda p: words.loss(p.behind))
BEST = Column[Ranked](
    "best (step)",
    lambda p: "" if p.best is None else f"{words.loss(p.best.val_loss)} ({p.best.step:,})",
)
SPEED = Column[Ranked]("tokens/s", lambda p: words.whole(p.tokens_per_s))

LEADER = Column[Stopped]("leader there", lambda p: words.loss(p.leader))
DECAYED = Column[Stopped]("after a decay branch", lambda p: words.loss(p.decayed))
LEADER_DECAYED = Column[Stopped]("leader's", lambda p: words.loss(p.leader_decayed))

REACHED = (
    Column[Ended]("reached step", lambda p: words.whole(p.reached_step)),
    Column[Ended]("reached tokens", lambda p: words.whole(p.reached_tokens)),
    Column[Ended](
        "last validation loss (step)",
        lambda p: "" if p.record is None else f"{p.record.val_loss:.4f} ({p.record.step:,})",
    ),
)

SEEDS = (
    Column[Spread]("values", lambda g: escaped(words.named(g.values)) or "nothing varied", True),
    Column[Spread]("n", lambda g: f"{g.n} of {g.planned}"),
    Column[Spread]("mean", lambda g: words.loss(g.mean)),
    Column[Spread]("std", lambda g: words.loss(g.std)),
    Column[Spread]("min", lambda g: words.loss(g.min)),
    Column[Spread]("max", lambda g: words.loss(g.max)),
    Column[Spread]("finished", lambda g: words.whole(g.finished)),
    Column[Spread]("their mean at the end", lambda g: words.loss(g.finished_mean)),
)

ARM = Column[ArmFindings]("arm", lambda a: f"`{a.name}`", is_text=True)


def _interval(arm: ArmFindings) -> str:
    effect = arm.effect
    known = effect is not None and effect.low is not None and effect.high is not None
    return f"{effect.low:+.4f} to {effect.high:+.4f}" if effect and known else ""


VERDICTS = (
    ARM,
    Column[ArmFindings]("changes", lambda a: escaped(words.named(a.runs.changes)), True),
    Column[ArmFindings]("runs at", lambda a: escaped(words.named(a.runs.chosen or {})), True),
    Column[ArmFindings]("seeds", lambda a: f"{a.n} of {len(a.runs.runs)}"),
    Column[ArmFindings]("mean", lambda a: words.loss(a.mean)),
    Column[ArmFindings]("difference", lambda a: words.signed(a.effect and a.effect.mean)),
    Column[ArmFindings]("95% interval", _interval),
    Column[ArmFindings]("p (Holm)", lambda a: words.probability(a.p_holm)),
    Column[ArmFindings]("verdict", lambda a: escaped(a.verdict.words), True),
)
COSTS = (
    ARM,
    Column[ArmFindings]("in bits per byte", lambda a: words.signed(a.differences["bits_per_byte"])),
    Column[ArmFindings]("time", lambda a: "" if a.seconds is None else words.duration(a.seconds)),
    Column[ArmFindings]("tokens/s", lambda a: words.whole(a.tokens_per_s)),
    Column[ArmFindings]("parameters", lambda a: words.whole(a.runs.params)),
    Column[ArmFindings]("more", lambda a: f"{a.more_params:+.1%}" if a.more_params else ""),
    Column[ArmFindings]("FLOPs/token", lambda a: words.whole(a.runs.flops_per_token)),
)

TUNED = Column[Tuned]("tuned", lambda p: escaped(words.named(p.tuned)), is_text=True)
WHAT_HAPPENED = Column[Tuned](
    "what happened", lambda p: escaped(outcome(p.trial) or _STATUS[p.status]), is_text=True
)


def _sizes(places: Sequence[Place]) -> tuple[Column[Place], ...]:
    """Columns of the models' sizes, where these differ."""
    return SIZES if len({place.trial.params for place in places}) > 1 else ()


def between(numbers: Iterable[int]) -> str:
    """One number, or the range of several."""
    several = sorted(set(numbers))
    low, high = several[0], several[-1]
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _models(places: Sequence[Place]) -> str:
    """Parameters and FLOPs per token in words."""
    params = between(place.trial.params for place in places)
    flops = between(place.trial.flops_per_token for place in places)
    return f"{params} parameters, {flops} FLOPs per token"


def _steps(places: Sequence[Place]) -> str:
    return between(place.record.step for place in places if place.record is not None)


# Any sweep --------------------------------------------------------------------------------------


def _title(found: Findings) -> list[str]:
    results = found.results
    planned, unfinished = len(results.trials), found.count("unfinished")
    counts = {status: found.count(status) for status in ENDINGS}
    parts = [f"{count} {_STATUS[status]}" for status, count in counts.items() if count]
    state = "the only trial has" if planned == 1 else f"all {planned} trials have"
    if unfinished:
        state = f"**unfinished:** {planned - unfinished} of {planned} trials have"
    lines = [
        f"# {escaped(results.question)}",
        "",
        f"`{results.name}` at scale `{results.scale}`, "
        f"{results.begun[:16].replace('T', ' ')} to {results.latest[:16].replace('T', ' ')} UTC; "
        f"{state} a result"
        f"{': ' + ', '.join(parts) if parts else ''}.",
        "",
    ]
    return lines + [line for note in found.notes for line in (escaped(f"{note}."), "")]


def _ended_words(found: Findings) -> list[str]:
    lines = []
    titles = {
        "Diverged": found.diverged,
        "Failed": found.failed,
        "Unfinished": found.unfinished,
    }
    for title, places in titles.items():
        if places:
            lines += [f"## {title}", "", f"Not ranked; {_models(places)}.", ""]
            lines += _table(places, TRIAL, *REACHED, REASON, ID, *_sizes(places))
    return lines


def _noise_words(found: Findings) -> list[str]:
    if found.noise is None:
        return []
    lines = ["## Noise", ""]
    noise = found.noise.noise
    if noise is not None:
        groups = ", ".join(map(str, found.noise.groups))
        lines += [
            f"Over seeds, the {METRICS[found.results.metric]} {when(found.noise.point)} has "
            f"a standard deviation of **{noise.sd:.4f}** (95% interval {noise.low:.4f} to "
            f"{noise.high:.4f}; {noise.freedom} degrees of freedom, seeds per group: {groups}).",
            "",
        ]
    apart = found.noise.repeats_apart
    if apart is not None:
        how = (
            "are identical bit for bit"
            if apart == 0
            else f"differ by up to {apart:.2g} in their recorded losses"
        )
        runs = ", ".join(map(str, found.noise.repeats))
        lines += [f"Repeats of one config and seed ({runs} runs) {how}.", ""]
    return lines


def _rule_words(found: Findings) -> list[str]:
    """The rules of what went wrong in any trial."""
    if not found.outcomes:
        return []
    lines = [f"- {kind}: {RULES[kind]}." for kind in found.outcomes]
    return ["## Problems, by rule", "", *lines, ""]


def _compute_words(found: Findings) -> list[str]:
    spent = found.compute
    parts = {
        "repeated": spent.tokens_repeated,
        "in decay branches": spent.tokens_branches,
        "in audits": spent.tokens_audit,
    }
    detail = ", ".join(f"{tokens:,} {what}" for what, tokens in parts.items() if tokens)
    share = f"{spent.tokens / spent.tokens_full:.0%}" if spent.tokens_full else "none"
    lines = [
        "## Compute",
        "",
        f"Trained {spent.tokens:,} tokens{f' ({detail})' if detail else ''}, {share} of the "
        f"{spent.tokens_full:,} tokens of training every trial to the end. Used "
        f"{words.count(spent.flops)} of {words.count(spent.flops_full)} FLOPs and "
        f"{words.duration(spent.seconds)} of training time, summed over trials and without evaluation.",
        "",
    ]
    return [*lines, *_forecast_words(spent)]


def _forecast_words(spent: Compute) -> list[str]:
    forecast = spent.forecast
    if forecast is None:
        return []
    used = spent.tokens - spent.tokens_audit
    low, high = forecast.low, forecast.high
    spread = f" ({low:,} to {high:,})" if low < high else ""
    expected = (
        f" Expected time: {words.duration(forecast.seconds)}, without evaluation and start-up."
        if forecast.seconds
        else ""
    )
    audited = ", including the audit" if spent.tokens_audit else ""
    return [
        f"The forecast (replay of {forecast.basis}) was {forecast.tokens:,} tokens{spread}; "
        f"{used:,} were used ({used / forecast.tokens - 1:+.0%}).{expected} "
        f"The sweep took {words.duration(spent.wall_clock)}{audited}.",
        "",
    ]


# Searches ---------------------------------------------------------------------------------------


def _head(found: SearchFindings) -> list[str]:
    lines = []
    places = found.ranking.places
    metric = found.results.metric
    if found.ranking.leader is not None:
        lead = "Best of the finished trials" if len(places) > 1 else "The only finished trial"
        first = " and ".join(f"**{escaped(p.trial.label)}**" for p in places if p.rank == 1)
        lines += [
            f"{lead}: {first}, {METRICS[metric]} "
            f"**{words.loss(places[0].loss(metric))}** {UNITS[metric]} "
            f"{when(found.ranking.point)}.",
            "",
        ]
    one_seed = max((group.planned for group in found.spread), default=0) == 1
    return [*lines, ONE_SEED, ""] if one_seed else lines


def _ranking_words(found: SearchFindings) -> list[str]:
    places, point = found.ranking.places, found.ranking.point
    title = ["## Finished trials", ""]
    if not places:
        return [*title, "No trial has finished.", ""]
    if point is None:
        unranked = "They have no token count in common, so they are not ranked."
        table = _table(places, TRIAL, TOKENS, VAL_LOSS, BITS, TRAIN_LOSS, ID, *_sizes(places))
        return [*title, unranked, "", *table]
    losses = (VAL_LOSS, BITS, TRAIN_LOSS)
    return [
        *title,
        f"By {METRICS[found.results.metric]}, all {when(point)} "
        f"(step {_steps(places)}); {_models(places)}.",
        "",
        *_table(places, RANK, TRIAL, *losses, BEHIND, BEST, SPEED, ID, *_sizes(places)),
    ]


def _stopped_words(found: SearchFindings) -> list[str]:
    places = found.stopped
    if not places:
        return []
    metric = found.results.metric
    columns: tuple[Column[Stopped], ...] = (TRIAL, TOKENS, LOSS[metric], LEADER)
    why = ""
    if any(place.decayed is not None for place in places):
        columns = (*columns, DECAYED, LEADER_DECAYED)
        why = " The policy compared them by the losses after a decay branch."
    return [
        "## Stopped early",
        "",
        "Not ranked. Each trial is compared with the best finished trial at the token count where it "
        f"stopped, by {METRICS[metric]}; {_models(places)}.{why}",
        "",
        *_table(places, *columns, REASON, ID, *_sizes(places)),
    ]


def _audit_words(found: SearchFindings) -> list[str]:
    audit = found.audit
    if audit is None:
        return []
    among = "the best" if audit.top == 1 else f"among the best {audit.top}"
    interval = f" (95% interval {audit.low:.0%} to {audit.high:.0%})"
    if audit.audited == audit.stopped:
        interval = ""  # nothing was left to sample
    regret = (
        f"The best of them ends {words.loss(audit.regret)} below the best ranked trial."
        if audit.regret
        else "None ends below the best ranked trial."
    )
    rung = Column[Audited]("stopped at", lambda p: words.whole(p.rung))
    columns = (TRIAL, rung, LOSS[found.results.metric], ID)
    return [
        "## Audit of the stopping",
        "",
        f"{audit.audited} of the {audit.stopped} stopped trials, drawn at random, were "
        f"trained to the end. They are not ranked. {audit.false_kills} would have been "
        f"{among}, a false-kill rate of {audit.rate:.0%}"
        f"{interval}. {regret}",
        "",
        f"{when(audit.point).capitalize()} (trials without a loss diverged):",
        "",
        *_table(audit.places, *columns, *_sizes(audit.places)),
    ]


def _common_words(found: SearchFindings) -> list[str]:
    places, point = found.common.places, found.common.point
    title = ["## All trials at the latest common token count", ""]
    if point is None:
        return [*title, "The trials have no token count in common.", ""]
    absent = ", ".join(escaped(trial.label) for trial in found.missing)
    text = (
        f"{when(point).capitalize()} (step {_steps(places)}), the latest that all measured trials "
        "share, except those that diverged or failed."
    )
    if point != found.ranking.point:
        text += " Early losses may rank trials differently from final ones."
    if absent:
        text += f" Not measured there: {absent}."
    if len(places) == len(found.ranking.places) and point == found.ranking.point:
        return [*title, text, "That is the ranking above.", ""]
    columns = (RANK, TRIAL, STATUS, LOSS[found.results.metric], BEHIND)
    return [*title, text, "", *_table(places, *columns, *_sizes(places))]


def _best_words(found: SearchFindings) -> list[str]:
    if not found.best:
        return []
    return [
        "## Best values",
        "",
        f"Among finished trials, by the mean over seeds {when(found.ranking.point)}:",
        "",
        *(f"- {_best_value_words(best)}" for best in found.best),
        "",
    ]


def _best_value_words(best: BestValue) -> str:
    beside = ", ".join(
        f"{words.show(near.value)} ({'/'.join(_STATUS[s] for s in near.statuses)})"
        for near in best.beside
    )
    early = any("stopped" in near.statuses and not near.audited for near in best.beside)
    line = (
        f"`{best.path}`: **{words.show(best.best)}** of {best.tried} values from "
        f"{words.show(best.lowest)} to {words.show(best.highest)}"
    )
    line += f"; next to it: {beside}." if beside else "."
    line += " A stopped neighbor might have ended lower." * early
    if best.edge:
        more = ", ".join(words.show(value) for value in best.next)
        line += (
            f" **At the {best.edge} edge of what was tried: the optimum may lie beyond.**"
            f"{f' Try next: {more}.' if more else ''}"
        )
    return line


def _spread_words(found: SearchFindings) -> list[str]:
    groups, point = found.spread, found.common.point
    if point is None or max((group.planned for group in groups), default=0) <= 1:
        return []
    return [
        "## Over seeds",
        "",
        f"{METRICS[found.results.metric].capitalize()} {when(point)} (std is the sample standard "
        "deviation), and the mean of those that finished "
        f"{when(found.ranking.point)}.",
        "",
        *_table(groups, *SEEDS),
    ]


def stability_words(found: Stability | None) -> list[str]:
    """What is known of the learning rate, in sentences."""
    if found is None:
        return []
    return [_edge_words(found), _fit_words(found), *_sensitivity_words(found)]


def _edge_words(found: Stability) -> str:
    if found.first_unstable is None:
        line = (
            f"Training was stable up to {words.show(found.highest_stable)}, the highest measured rate. "
            "The edge of stability lies higher."
        )
    else:
        line = (
            f"Edge of stability: {words.show(found.highest_stable)} is the highest stable rate and "
            f"{words.show(found.first_unstable)} the lowest unstable one "
            f"({' and '.join(found.unstable_how)}). The best rate is {_times(found.edge_ratio)}the highest "
            "stable one."
        )
    if found.first_diverging is not None:
        line += (
            f" The lowest rate that diverged is {words.show(found.first_diverging)}; the best rate is "
            f"{_times(found.diverging_ratio)}that."
        )
    if found.unmeasured:
        line += f" Rates not measured: {found.unmeasured}."
    if found.stopped_unseen:
        line += f" Trials stopped early, and stable until then: {found.stopped_unseen}."
    if found.highest_whole is not None and found.highest_whole < found.highest_stable:
        line += (
            f" The highest rate that was stable to the end is {words.show(found.highest_whole)}."
        )
    return line


def _times(ratio: float | None) -> str:
    """A ratio before what it is a multiple of; nothing for one."""
    return "" if ratio is None or ratio == 1 else f"{ratio:.3g} times "


def _fit_words(found: Stability) -> str:
    fit = found.fit
    if fit is not None:
        interval = (
            f"95% interval {fit.low:.2g} to {fit.high:.2g}"
            if fit.low is not None
            else "too few points, or too flat, for an interval"
        )
        return (
            f"A parabola in the logarithm of the rate, fitted to {fit.points} final losses within a "
            f"factor of 4 of the best rate, has its minimum at {fit.rate:.3g} ({interval})."
        )
    if found.rates_finished < found.rates:
        were = "was" if found.rates_finished == 1 else "were"
        return (
            f"Only {found.rates_finished} of {found.rates} rates {were} trained to the end, not enough to "
            "fit a parabola; `--audit 1` finishes the others."
        )
    return "No parabola is fitted: the lowest loss is not bracketed."


def _sensitivity_words(found: Stability) -> list[str]:
    sensitivity = found.sensitivity
    if sensitivity is None:
        return []
    return [
        f"Sensitivity to the rate: {words.loss(sensitivity.nats)} nats over "
        f"{sensitivity.decades:.1f} decades, {when(sensitivity.point)} "
        "(mean loss, capped at the loss at init, minus the lowest)."
    ]


def _listed(sentences: Sequence[str]) -> list[str]:
    """A Markdown list of sentences; nothing of none."""
    return [*(f"- {sentence}" for sentence in sentences), ""] if sentences else []


def _rate_words(found: SearchFindings) -> list[str]:
    lines = _listed(stability_words(found.stability))
    return ["## The learning rate", "", *lines] if lines else []


def _selection_words(found: SearchFindings) -> list[str]:
    chosen = found.selection
    if chosen is None or chosen.among < 2:
        return []
    metric, unit = METRICS[found.results.metric], UNITS[found.results.metric]
    seeds = "one seed" if chosen.seeds == 1 else f"{chosen.seeds} seeds"
    text = (
        f"The best of {chosen.among}, with {seeds}, has a mean {metric} of {words.loss(chosen.mean)} "
        f"{unit}. It was chosen by that loss, so it won partly by luck"
    )
    if chosen.optimism is None:
        text += "; one seed" if chosen.seeds == 1 else "; other values with fewer seeds"
        text += " cannot say how much."
    elif chosen.optimism < 5e-5:
        text += "; but leaving out any one seed gives the same choice."
    else:
        text += f": seeds left out of the choice end {chosen.optimism:.4f} higher."
    confirmed = chosen.confirmed
    if confirmed:
        mean = sum(confirmed) / len(confirmed)
        text += (
            f" On {len(confirmed)} fresh seeds it ends at {mean:.4f} "
            f"({words.loss(min(confirmed))} to {words.loss(max(confirmed))}): quote this loss."
        )
    else:
        text += " Add `confirm: 3` to the space to run it again on fresh seeds."
    return ["## The best is a selection", "", text, ""]


# Studies ----------------------------------------------------------------------------------------


_NOISE_OF = {
    "seeds": "pooled over the baseline and the arms that scatter no more",
    "repeats": "from repeats of the baseline's first seed",
}


def _verdict_words(found: StudyFindings) -> list[str]:
    compared = found.comparison
    if compared is None:
        return ["## Arms", "", "The baseline is not settled.", "", *_unsettled_words(found)]
    noise, noise_of = compared.noise, compared.noise_of
    lines = [
        "## Arms against the baseline",
        "",
        f"Difference in {METRICS[found.results.metric]} ({compared.unit}) {when(compared.point)}: arm "
        "minus baseline, paired by seed. Negative is better. Each 95% t interval is for its arm alone; "
        "verdicts use p-values adjusted for all arms (Holm). "
        + (
            f"The noise (standard deviation of a run over {noise_of}) is {noise.sd:.4f} "
            f"(95% interval {noise.low:.4f} to {noise.high:.4f}), {_NOISE_OF[noise_of]}. "
            "Numbers of further seeds are for a power of 80%, if the difference is as large as it seems."
            if noise is not None and noise_of is not None
            else "The noise is not known yet."
        ),
        "",
        *_table(compared.arms, *VERDICTS),
        *_table(compared.arms, *COSTS),
    ]
    if compared.critical_batch is not None:
        lines += [_critical_words(compared.critical_batch), ""]
    return [
        *lines,
        *_caution_words(compared),
        *_hypothesis_words(compared),
        *_unsettled_words(found),
    ]


def _critical_words(critical: CriticalBatch) -> str:
    beyond = (
        f"At {critical.beyond} it is higher."
        if critical.beyond is not None
        else f"{critical.largest} is the largest that was tried."
    )
    return (
        f"Critical batch size: up to {critical.largest}, the loss is within two standard deviations of "
        f"the noise of the lowest, at {critical.best}. {beyond}"
        + (f" {critical.best} is the smallest that was tried." if critical.smallest else "")
        + ("" if critical.retuned else " The learning rate was not re-tuned for each size.")
    )


def _caution_words(compared: ArmsComparison) -> list[str]:
    cautions = [
        f"`{arm.name}`: {escaped('; '.join(arm.caution_texts))}."
        for arm in compared.arms
        if arm.cautions
    ]
    return ["Caveats:", "", *_listed(cautions)] if cautions else []


def _hypothesis_words(compared: ArmsComparison) -> list[str]:
    lines = [
        f"- `{arm.name}`: {escaped(arm.runs.hypothesis)}"
        for arm in compared.arms
        if arm.runs.hypothesis
    ]
    return ["Hypotheses:", "", *lines, ""]


def _unsettled_words(found: StudyFindings) -> list[str]:
    if not found.unsettled:
        return []
    arms = [f"`{one.arm}`: {_waiting_words(one)}" for one in found.unsettled]
    return ["Not settled yet, so not run:", "", *_listed(arms)]


def _waiting_words(one: Unsettled) -> str:
    if not one.tried:
        return "it runs at what the baseline's re-tune grid chooses"
    return f"{one.ended} of the {one.tried} trials of its re-tune grid have ended"


def _tuning_words(found: StudyFindings) -> list[str]:
    if not found.tuning:
        return []
    lines = [
        "## Re-tuning",
        "",
        "Each arm was tuned on a separate seed, and its trials competed only with each other. These "
        "losses choose the arm's values; they are not compared between arms.",
        "",
    ]
    loss = LOSS[found.results.metric]
    for grid in found.tuning:
        columns = (TUNED, TOKENS, loss, WHAT_HAPPENED)
        lines += [f"### `{grid.arm}`", ""]
        lines += _table(grid.places, *columns, *_sizes(grid.places))
        lines += _listed(stability_words(grid.stability))
    return lines


# The whole --------------------------------------------------------------------------------------


def markdown(found: SearchFindings | StudyFindings, figures: Sequence[str]) -> str:
    """summary.md, with links to the figures of these names."""
    lines = _title(found)
    if isinstance(found, StudyFindings):
        lines += [*_verdict_words(found), *_tuning_words(found)]
        lines += [*_noise_words(found), *_ended_words(found)]
    else:
        lines += [*_head(found), *_ranking_words(found), *_best_words(found)]
        lines += [*_rate_words(found), *_selection_words(found), *_stopped_words(found)]
        lines += [*_audit_words(found), *_ended_words(found), *_common_words(found)]
        lines += [*_spread_words(found), *_noise_words(found)]
    lines += [*_rule_words(found), *_compute_words(found)]
    links = [f"![{name.replace('_', ' ')}]({name}.svg)\n" for name in figures]
    return "\n".join([*lines, "## Figures", "", *links])


def print_result(found: SearchFindings | StudyFindings, console: Console) -> None:
    """Print what came of a sweep in a table that fits 80 columns."""
    console.print(Text(found.results.question), style="bold")
    if isinstance(found, StudyFindings):
        _print_arms(found, console)
    else:
        _print_ranking(found, console)


def _print_arms(found: StudyFindings, console: Console) -> None:
    """Print the verdict on each arm."""
    table = Table(box=None, pad_edge=False)
    table.add_column("arm", overflow="fold", max_width=24)
    for name in ("seeds", "loss", "difference"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", min_width=20)
    for arm in found.comparison.arms if found.comparison is not None else ():
        loss, difference = words.loss(arm.mean), words.signed(arm.effect and arm.effect.mean)
        table.add_row(*map(Text, (arm.name, str(arm.n), loss, difference, arm.verdict.words)))
    console.print(table)


_PRINTED = 24


def _print_ranking(found: SearchFindings, console: Console) -> None:
    """Print the trials, the finished ones by rank and first."""
    rest = (*found.stopped, *found.unfinished, *found.diverged, *found.failed)
    rows = [_printed(place, place.rank) for place in found.ranking.places]
    rows += [_printed(place, None) for place in rest]
    table = Table(box=None, pad_edge=False)
    table.add_column("rank", justify="right")
    table.add_column("trial", overflow="fold")
    for name in ("val loss", "bits/byte", "at tokens"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("outcome", no_wrap=True)
    for row in rows[:_PRINTED]:
        table.add_row(*map(Text, row))
    console.print(table)
    if len(rows) > _PRINTED:
        console.print(f"and {len(rows) - _PRINTED} more", highlight=False)


def _ending(place: Place) -> str:
    """How a trial ended, in few words; its whole reason stands in the summary."""
    match place.status:
        case "diverged":
            return f"diverged at step {place.trial.step or None}"
        case "unfinished":
            return textwrap.shorten(place.reason, 24, placeholder="…")
        case status:
            return _STATUS[status]


def _printed(place: Place, rank: int | None) -> tuple[str, ...]:
    return (
        words.whole(rank),
        place.trial.label,
        words.loss(place.loss("val_loss")),
        words.loss(place.loss("bits_per_byte")),
        words.whole(place.record and place.record.tokens),
        _ending(place),
    )
