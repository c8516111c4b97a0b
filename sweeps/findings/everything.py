"""All that is found in a sweep, as plain JSON: tables, summaries and reports are folds over it."""

from sweeps.findings.arms import seed_noise, study_facts
from sweeps.findings.outcomes import RULES, outcome
from sweeps.findings.results import Facts, Study, sweep_facts
from sweeps.findings.stability import stability


def findings(of: Study) -> Facts:
    """What summary.json holds, the figures aside: of a study the arms against their baseline, of
    other sweeps the ranking and what it rests on."""
    met = {outcome(trial) for trial in of.sweep.trials.values()}
    more = {"outcomes": [kind for kind in RULES if kind in met], "noise": seed_noise(of)}
    if of.is_study:
        return {**study_facts(of), **more}
    return {
        **sweep_facts(of),
        **more,
        "stability": stability(of.audited(of.trials), of.metric),
    }
