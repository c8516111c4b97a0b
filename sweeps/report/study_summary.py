"""The summary of a study: verdicts on its arms, and their re-tune grids."""

from sweeps.findings.arms import ArmFindings
from sweeps.findings.comparison import ArmsComparison, CriticalBatch
from sweeps.findings.everything import StudyFindings
from sweeps.findings.results import METRICS, Results, status_words, steered_words
from sweeps.findings.tuning import Tuned, Unsettled
from sweeps.outcomes import outcome
from sweeps.report.markdown import LOSS, TOKENS, Column, escaped, listed, sizes, table
from sweeps.report.speedup import speedup_section
from sweeps.report.stability import stability_words
from sweeps.selection import when
from sweeps.stats import NOISE_MARGIN, POWER
from sweeps.text import duration, loss, named, probability, quantity, signed, whole

ARM = Column[ArmFindings]("arm", lambda a: f"`{a.name}`", is_text=True)


def _interval(arm: ArmFindings) -> str:
    effect = arm.effect
    known = effect is not None and effect.low is not None and effect.high is not None
    return f"{effect.low:+.4f} to {effect.high:+.4f}" if effect and known else ""


EFFECTS = (
    ARM,
    Column[ArmFindings]("changes", lambda a: escaped(named(a.runs.changes)), True),
    Column[ArmFindings]("runs at", lambda a: escaped(named(a.runs.chosen or {})), True),
    Column[ArmFindings]("seeds", lambda a: f"{a.n} of {len(a.runs.runs)}"),
    Column[ArmFindings]("mean", lambda a: loss(a.mean)),
    Column[ArmFindings]("difference", lambda a: signed(a.effect and a.effect.mean)),
)


def interval_kinds(compared: ArmsComparison) -> str:
    """The kinds of interval that the arms have: 95% interval or 90% interval."""
    kinds = {arm.interval_words for arm in compared.arms if not arm.runs.is_baseline}
    return " or ".join(sorted(kinds, reverse=True)) or "95% interval"


def allows_for_looks(results: Results, compared: ArmsComparison) -> bool:
    """Whether intervals allow for several looks: they are then wider than those of a t test."""
    return len(results.space.looks) > 1 or interval_kinds(compared) != "95% interval"


def _verdicts(kinds: str) -> tuple[Column[ArmFindings], ...]:
    """The columns of the verdicts, whose intervals are of these kinds."""
    return (
        *EFFECTS,
        Column[ArmFindings](kinds, _interval),
        Column[ArmFindings]("p (Holm)", lambda a: probability(a.p_holm)),
        Column[ArmFindings]("verdict", lambda a: escaped(a.verdict.words), True),
    )


COSTS = (
    ARM,
    Column[ArmFindings]("in bits per byte", lambda a: signed(a.differences["bits_per_byte"])),
    Column[ArmFindings]("time", lambda a: "" if a.seconds is None else duration(a.seconds)),
    Column[ArmFindings]("tokens/s", lambda a: whole(a.tokens_per_s)),
    Column[ArmFindings]("parameters", lambda a: whole(a.runs.params)),
    Column[ArmFindings]("more", lambda a: f"{a.more_params:+.1%}" if a.more_params else ""),
    Column[ArmFindings]("FLOPs/token", lambda a: whole(a.runs.flops_per_token)),
)

TUNED = Column[Tuned]("tuned", lambda p: escaped(named(p.tuned)), is_text=True)
WHAT_HAPPENED = Column[Tuned](
    "what happened", lambda p: escaped(outcome(p.trial) or status_words(p.trial)), is_text=True
)


_NOISE_OF = {
    "seeds": "pooled over the baseline and the arms whose spread is no larger",
    "repeats": "from repeats of the baseline's first seed",
}


_POWER = f"With 'N more seeds', the chance of detecting a difference of the observed size is {POWER:.0%}."


OWN_SEEDS = (
    "Losses are means over each arm's own seeds, differences over those that it shares with the baseline, up to the "
    "look that settled it."
)


def verdict_words(found: StudyFindings) -> list[str]:
    """The arms compared with the baseline, with hypotheses, and the unsettled arms."""
    compared = found.comparison
    if compared is None:
        return ["## Arms", "", "The baseline is not settled.", "", *_unsettled_words(found)]
    noise, noise_of = compared.noise, compared.noise_of
    lines = [
        "## Arms against the baseline",
        "",
        f"Difference in {METRICS[found.results.metric]} ({compared.unit}) {when(compared.point)}: arm "
        f"minus baseline, paired by seed. Negative is better. {_interval_words(found.results, compared)} is for its "
        "arm alone; verdicts use p-values adjusted for all arms (Holm). "
        + (
            f"The noise (standard deviation of a run over {noise_of}) is {noise.sd:.4f} "
            f"(95% interval {noise.low:.4f} to {noise.high:.4f}), {_NOISE_OF[noise_of]}."
            + f" {_POWER}"
            * any(arm.verdict.seeds is not None for arm in compared.arms)
            if noise is not None and noise_of is not None
            else "The noise is not known yet."
        )
        + f" {OWN_SEEDS}" * compared.seeds_differ,
        "",
        *table(compared.arms, *_verdicts(interval_kinds(compared))),
        *table(compared.arms, *COSTS),
    ]
    if compared.critical_batch is not None:
        lines += [_critical_words(compared.critical_batch), ""]
    return [
        *lines,
        *_dropped_words(compared),
        *speedup_section(compared, found.results),
        *_pairing_words(compared),
        *_hypothesis_words(compared),
        *_unsettled_words(found),
    ]


def _interval_words(results: Results, compared: ArmsComparison) -> str:
    """The kind of interval that the arms of a study have."""
    if not allows_for_looks(results, compared):
        return "Each 95% t interval"
    *others, last = map(str, results.space.looks)
    looks = f"Arms are looked at after {', '.join(others)} and {last} seeds, and get no more once they are settled. "
    return f"{looks * bool(others)}P-values and intervals allow for all looks; each interval"


def _critical_words(critical: CriticalBatch) -> str:
    beyond = (
        f"At {critical.beyond} it is higher."
        if critical.beyond is not None
        else f"{critical.largest} is the largest that was tried."
    )
    return (
        f"Critical batch size: up to {critical.largest}, the loss stays within {NOISE_MARGIN:g} standard "
        f"deviations (of the noise) of the lowest loss, which is at {critical.best}. {beyond}"
        + (f" {critical.best} is the smallest that was tried." if critical.smallest else "")
        + ("" if critical.retuned else " The learning rate was not re-tuned for each size.")
    )


def _dropped_words(compared: ArmsComparison) -> list[str]:
    """What was found of arms that the study has no more."""
    lines = [
        f"`{one.arm}` ({escaped(named(one.changes))}): {one.verdict.headline}, in {METRICS[one.metric]} "
        f"after {quantity(one.seeds, 'seed')}."
        for one in compared.dropped
    ]
    return ["Looked at before the space was changed:", "", *listed(lines)] if lines else []


def _pairing_words(compared: ArmsComparison) -> list[str]:
    """What it bought to compare runs at equal seeds."""
    lines = [
        f"`{arm.name}` correlates with the baseline by {found.correlation:.2f} (95% interval "
        f"{found.low:.2f} to {found.high:.2f}, {found.n} seeds): {_bought(found.times)}."
        for arm in compared.arms
        if (found := arm.pairing) is not None
    ]
    return ["What pairing by seed bought:", "", *listed(lines)] if lines else []


def _bought(times: float) -> str:
    """What pairing bought that saves as many seeds as this many times those there are."""
    if times <= 1:
        return "pairing bought no precision"
    many = f"{times:.1f}" if times < 10 else f"{times:,.0f}"
    return f"without pairing, the same precision would take {many} times the seeds"


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
    return ["Not settled yet, so not run:", "", *listed(arms)]


def _waiting_words(one: Unsettled) -> str:
    if not one.grid:
        return "it waits for the values that the baseline's re-tune grid will choose."
    if one.is_stopped:
        return f"its re-tune grid chose no values: {steered_words(one.grid, 'trial')}."
    return f"its re-tune grid has results for {one.ended} of {quantity(len(one.grid), 'trial')}."


def tuning_words(found: StudyFindings) -> list[str]:
    """The re-tune grid of each arm."""
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
        lines += table(grid.trial_results, *columns, *sizes(grid.trial_results))
        lines += listed(stability_words(grid.stability))
    return lines
