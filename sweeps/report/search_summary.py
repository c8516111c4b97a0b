"""The summary of a search: its ranking, and what it is based on."""

from sweeps.findings.audit import Audited
from sweeps.findings.everything import SearchFindings
from sweeps.findings.ranking import BestValue, Ranked, RankedValue, Spread, Stopped
from sweeps.findings.results import METRICS, STATUSES, UNITS
from sweeps.ledger import BY_HAND
from sweeps.report.answer import POLICYS_RANKING, claim
from sweeps.report.markdown import (
    BITS,
    COMPUTE,
    ID,
    LOSS,
    REASON,
    STATUS,
    TOKENS,
    TRAIN_LOSS,
    TRIAL,
    VAL_LOSS,
    Column,
    escaped,
    listed,
    models,
    problems,
    sizes,
    steps,
    table,
)
from sweeps.report.stability import stability_words
from sweeps.selection import END, when
from sweeps.text import loss, named, quantity, show, whole

RANK = Column[Ranked]("rank", lambda p: whole(p.rank))
BEHIND = Column[Ranked]("behind", lambda p: loss(p.behind))
BEST = Column[Ranked](
    "best (step)",
    lambda p: "" if p.best is None else f"{loss(p.best.val_loss)} ({p.best.step:,})",
)
SPEED = Column[Ranked]("tokens/s", lambda p: whole(p.tokens_per_s))

LEADER = Column[Stopped]("leader there", lambda p: loss(p.leader))
DECAYED = Column[Stopped]("after a decay branch", lambda p: loss(p.decayed))
LEADER_DECAYED = Column[Stopped]("leader's", lambda p: loss(p.leader_decayed))


SEEDS = (
    Column[Spread]("values", lambda g: escaped(named(g.values)) or "nothing varied", True),
    Column[Spread]("n", lambda g: f"{g.n} of {g.planned}"),
    Column[Spread]("mean", lambda g: loss(g.mean)),
    Column[Spread]("std", lambda g: loss(g.std)),
    Column[Spread]("min", lambda g: loss(g.min)),
    Column[Spread]("max", lambda g: loss(g.max)),
    Column[Spread]("finished", lambda g: whole(g.finished)),
    Column[Spread]("their mean at the end", lambda g: loss(g.finished_mean)),
)


VALUES = (
    Column[RankedValue]("rank", lambda v: whole(v.rank)),
    Column[RankedValue]("values", lambda v: escaped(named(v.values)) or "nothing varied", True),
    Column[RankedValue]("n", lambda v: f"{len(v.losses)} of {v.planned}"),
    Column[RankedValue]("mean", lambda v: loss(v.mean)),
    Column[RankedValue]("std", lambda v: loss(v.std)),
    Column[RankedValue]("min", lambda v: loss(min(v.losses))),
    Column[RankedValue]("max", lambda v: loss(max(v.losses))),
    Column[RankedValue]("behind", lambda v: loss(v.behind)),
)


LUCK = "One seed cannot say how much."
LUCK_OF_OTHERS = "Other values have fewer seeds, so the runs do not say how much."
FAVORED = (
    "A longer run has a lower loss at the same share too, so early stopping favors the longer budgets; "
    "with `schedule: {policy: none}` every trial is trained to its end."
)


def values_words(found: SearchFindings) -> list[str]:
    """The values by the mean over their seeds, where they have several."""
    if not found.values:
        return []
    fewer = len({len(value.losses) for value in found.values}) > 1
    return [
        "## Finished values",
        "",
        f"Ranked by the mean {METRICS[found.results.metric]} over seeds {when(found.ranking.point)} (std is the "
        "sample standard deviation)." + " Values with fewer finished seeds come last." * fewer,
        "",
        *table(found.values, *VALUES),
    ]


def ranking_words(found: SearchFindings) -> list[str]:
    """The finished trials by rank."""
    trial_results, point = found.ranking.trial_results, found.ranking.point
    title = ["## Finished trials", ""]
    if not trial_results:
        return [*title, "No trial has finished.", ""]
    by = METRICS[found.results.metric]
    where = f" {when(point)}" if point != END else ", each at the end of its budget"
    if found.results.to_target:
        by = f"the tokens they took to the target. Those that did not reach it come last, by {by}"
        where = ""
    trained = (TOKENS, COMPUTE) if point == END else ()
    behind = () if found.results.to_target else (BEHIND,)
    columns = (RANK, TRIAL, *trained, VAL_LOSS, BITS, TRAIN_LOSS, *behind, BEST, SPEED, ID)
    policys = f" {POLICYS_RANKING}" if found.answer.better else ""
    return [
        *title,
        f"Ranked by {by}{where} (step {steps(trial_results)}).{policys} {models(trial_results)}",
        "",
        *table(trial_results, *columns, *problems(trial_results), *sizes(trial_results)),
    ]


def stopped_words(found: SearchFindings) -> list[str]:
    """The trials that were stopped early, each compared with the leader as far in its schedule."""
    trial_results = found.stopped
    if not trial_results:
        return []
    metric = found.results.metric
    columns: tuple[Column[Stopped], ...] = (TRIAL, TOKENS, LOSS[metric], LEADER)
    why = ""
    if any(result.decayed is not None for result in trial_results):
        columns = (*columns, DECAYED, LEADER_DECAYED)
        why = " The policy compared them by the losses after a decay branch."
    where = "at the token count where it stopped"
    if found.results.budgets_differ:
        where = "when both had trained for the same share of their budgets"
        why += f" {FAVORED}"
    return [
        "## Stopped early",
        "",
        f"Not ranked. Each trial is compared with the best finished trial {where}, by "
        f"{METRICS[metric]}.{why} {models(trial_results)}",
        "",
        *table(
            trial_results, *columns, *problems(trial_results), REASON, ID, *sizes(trial_results)
        ),
    ]


def audit_words(found: SearchFindings) -> list[str]:
    """The results of the audited trials, and the rate of false kills."""
    audit = found.audit
    if audit is None:
        return []
    among = "the best" if audit.top == 1 else f"among the best {audit.top}"
    interval, drawn = f" (95% interval {audit.low:.0%} to {audit.high:.0%})", ", drawn at random,"
    if audit.audited == audit.stopped:
        interval, drawn = "", ""  # every stopped trial was audited
    # Values with several seeds are judged as one.
    of_values = f" of {quantity(audit.choices, 'value')}" if audit.choices != audit.audited else ""
    regret = (
        "No trial is ranked."
        if audit.regret is None
        else f"The best of them ends {loss(audit.regret)} below the best ranked trial."
        if audit.regret
        else "None ends below the best ranked trial."
    )
    rung = Column[Audited]("stopped at", lambda p: whole(p.rung))
    columns = (TRIAL, rung, LOSS[found.results.metric], ID)
    return [
        "## Audit of early stopping",
        "",
        f"{audit.audited} of {quantity(audit.stopped, 'stopped trial')}{drawn} "
        f"{'was' if audit.audited == 1 else 'were'} trained to the end, but not ranked. "
        f"{audit.false_kills}{of_values} would have been {among}, a false-kill rate of {audit.rate:.0%}"
        f"{interval}. {regret}",
        "",
        f"{when(audit.point).capitalize()} (trials without a loss diverged):",
        "",
        *table(audit.trial_results, *columns, *sizes(audit.trial_results)),
    ]


def common_words(found: SearchFindings) -> list[str]:
    """All trials at the latest token count that they share."""
    trial_results, point = found.common.trial_results, found.common.point
    title = ["## All trials at the latest common token count", ""]
    if point is None:
        if found.results.budgets_differ:
            return []
        return [*title, "The trials have no token count in common.", ""]
    absent = ", ".join(escaped(trial.label) for trial in found.missing)
    text = (
        f"{when(point).capitalize()} (step {steps(trial_results)}), the latest token count that all measured "
        "trials share, except those that diverged or failed."
    )
    if point != found.ranking.point:
        text += " Early losses may rank trials differently from final ones."
    if absent:
        text += f" Not measured there: {absent}."
    if len(trial_results) == len(found.ranking.trial_results) and point == found.ranking.point:
        return [*title, text, "This is the same ranking as above.", ""]
    columns = (RANK, TRIAL, STATUS, LOSS[found.results.metric], BEHIND)
    return [*title, text, "", *table(trial_results, *columns, *sizes(trial_results))]


def best_words(found: SearchFindings) -> list[str]:
    """The best value of each swept path, and whether it is at the edge of the tried range."""
    if not found.best:
        return []
    together = {one.path for one in found.not_settled}
    among = "finished trials" if found.answer.better is None else "finished and audited trials"
    return [
        "## Best values",
        "",
        "Among the trials that reached the target, by the mean of their tokens to it:"
        if found.results.to_target
        else f"Among {among}, by the mean over seeds {when(found.ranking.point)}:",
        "",
        *(f"- {_best_value_words(best, best.path in together)}" for best in found.best),
        "",
    ]


def _best_value_words(best: BestValue, varied_together: bool) -> str:
    beside = ", ".join(
        f"{show(near.value)} ({'/'.join(STATUSES[s] for s in near.statuses)})"
        for near in best.beside
    )
    stopped = {"stopped", BY_HAND}
    early = any(stopped & {*near.statuses} and not near.audited for near in best.beside)
    tried = f"{best.tried} values from {show(best.lowest)} to {show(best.highest)}"
    what = f"is that of the best, of {tried}; not settled, because other values varied with it."
    line = f"`{best.path}`: **{show(best.best)}** "
    line += what if varied_together else f"is the best of {tried}."
    line += f" Next to it: {beside}." * bool(beside)
    line += " A stopped neighbor might have ended lower." * early
    if best.edge:
        line += f" **It is at the {best.edge} edge of what was tried, so the optimum may lie beyond it.**"
    return line


def spread_words(found: SearchFindings) -> list[str]:
    """The losses of each config over its seeds."""
    groups, point = found.spread, found.common.point
    if point is None or max((group.planned for group in groups), default=0) <= 1:
        return []
    return [
        "## Over seeds",
        "",
        f"{METRICS[found.results.metric].capitalize()} {when(point)} (std is the sample standard "
        f"deviation), and the mean over the finished trials {when(found.ranking.point)}.",
        "",
        *table(groups, *SEEDS),
    ]


def rate_words(found: SearchFindings) -> list[str]:
    """The findings on the learning rate."""
    lines = listed(stability_words(found.stability))
    return ["## The learning rate", "", *lines] if lines else []


def selection_words(found: SearchFindings) -> list[str]:
    """The selection bias of the best values' loss."""
    chosen = found.selection
    if chosen is None or chosen.among < 2:
        return []
    metric, unit = METRICS[found.results.metric], UNITS[found.results.metric]
    seeds = quantity(chosen.seeds, "seed")
    text = (
        f"{escaped(named(chosen.values))} {claim(found.answer, chosen.among)}, with {seeds} and a mean "
        f"{metric} of {loss(chosen.mean)} {unit}. It was chosen by that loss, so it won partly by luck."
    )
    confirmed, choice = chosen.confirmed, found.answer.choice
    if chosen.is_stable:
        text += " Leaving out any one seed gives the same choice."
    elif chosen.optimism is not None:
        text += f" Seeds left out of the choice end {chosen.optimism:.4f} higher."
    elif not confirmed:  # which would show it
        text += f" {LUCK}" if chosen.seeds == 1 else f" {LUCK_OF_OTHERS}"
    if choice is not None and choice.is_confirmed:
        text += (
            f" On {quantity(choice.seeds, 'fresh seed')} it ends at {loss(choice.loss)} "
            f"({loss(min(confirmed))} to {loss(max(confirmed))}). Report this loss."
        )
    elif not found.results.sweep.confirming:
        text += " Add `confirm: 3` to the space to run it again on fresh seeds."
    return ["## Selection bias", "", text, ""]
