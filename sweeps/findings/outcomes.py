"""What went wrong in a training, by stated rules; the constants of these stand here and in
`tinylm.train`, which ends the trainings that diverge."""

import re

from sweeps.ledger import Trial
from sweeps.selection import last_record, records

SPIKE_NATS = 1.0
ABOVE_INIT_NATS = 1.0  # that a training ends above its loss at init, to have blown up at its end

RULES = {
    "non-finite": "a loss was not a finite number",
    "blown up": "the training loss, the warm-up over, stayed far above its value at init for many "
    "updates in a row (how far, and how many, says the reason), or the validation loss ended more than "
    f"{ABOVE_INIT_NATS:g} nat above it",
    "spiked": f"the training loss, the warm-up over and smoothed over about ten updates, rose more "
    f"than {SPIKE_NATS:g} nat above its lowest, and the training went on",
    "stuck": "a training that ended never had a validation loss below the entropy of the corpus's "
    "single tokens",
    "out of memory": "the process or the device ran out of memory",
    "failed": "the training ended with another error",
}
_MEMORY = re.compile(r"out of memory|outofmemory|memoryerror|can't allocate memory", re.IGNORECASE)


def outcome(trial: Trial) -> str:
    """The class of what went wrong in a trial, of `RULES`; nothing where nothing did."""
    if trial.status == "diverged":
        return trial.how or "blown up"
    if trial.status == "failed":
        return "out of memory" if _MEMORY.search(trial.reason) else "failed"
    entropy, last = trial.unigram_entropy, last_record(trial)
    if (
        trial.status == "finished"
        and last is not None
        and trial.loss_init is not None
        and last.val_loss > trial.loss_init + ABOVE_INIT_NATS
    ):
        return "blown up"
    if (
        trial.status == "finished"
        and entropy is not None
        and min(record.val_loss for record in records(trial)) >= entropy
    ):
        return "stuck"
    if last is not None and (last.spike or 0.0) > SPIKE_NATS:
        return "spiked"
    return ""
