"""All that is found in a sweep, as plain JSON: tables, summaries and reports are folds over it."""

from sweeps.findings.arms import seed_noise, study_facts
from sweeps.findings.outcomes import RULES, outcome
from sweeps.findings.results import Facts, Results, sweep_facts
from sweeps.findings.stability import stability


def findings(results: Results) -> Facts:
    """What summary.json holds, the figures aside: of a study the arms against their baseline, of
    other sweeps the ranking and what it rests on."""
    met = {outcome(trial) for trial in results.sweep.trials.values()}
    more = {"outcomes": [kind for kind in RULES if kind in met], "noise": seed_noise(results)}
    if results.is_study:
        return {**study_facts(results), **more}
    return {
        **sweep_facts(results),
        **more,
        "stability": stability(results.audited(results.trials), results.metric),
    }
