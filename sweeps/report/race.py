"""The trials on their way to a target, in words."""

from sweeps.findings.results import METRICS, TrialResult
from sweeps.findings.target import Race
from sweeps.report.markdown import COMPUTE, ID, LOSS, STATUS, TOKENS, TRIAL, Column, table
from sweeps.text import duration, quantity


def race_words(race: Race) -> str:
    """Which trial took the fewest tokens to the target, and how many reached it."""
    target = f"{METRICS[race.target.metric]} {race.target.limit:g}"
    trials = quantity(race.trained, "trial")
    if not race.reached:
        return f"None of {trials} reached the target, {target}."
    first = race.reached[0]
    assert first.record is not None  # where it reached the target
    time = duration(first.record.seconds)
    return (
        f"{first.trial.label} took the fewest tokens to the target, {target}: "
        f"{first.record.tokens:,} tokens, {time} of training. {len(race.reached)} of {trials} "
        "reached it."
    )


def race_table(race: Race) -> list[str]:
    """A section with what each trial took to the target; empty if none reached it."""
    time = Column[TrialResult]("time", lambda p: duration(p.record.seconds) if p.record else "")
    columns = (TRIAL, TOKENS, COMPUTE, time, LOSS[race.target.metric], STATUS, ID)
    title = ["## The target", "", "At the first record at or below it:", ""]
    return [*title, *table(race.reached, *columns)] if race.reached else []
