"""All that is found in a sweep, as plain JSON: tables, summaries and reports are folds over it."""

from sweeps.comparison import seed_noise, study_facts
from sweeps.stability import stability
from sweeps.study import Facts, Study, sweep_facts


def findings(of: Study) -> Facts:
    """What summary.json holds, the figures aside: of a study the arms against their baseline, of
    other sweeps the ranking and what it rests on."""
    if of.is_study:
        return study_facts(of)
    more = {"stability": stability(of.audited(of.trials), of.metric), "noise": seed_noise(of)}
    return {**sweep_facts(of), **more}
