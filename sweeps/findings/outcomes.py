"""Problems of a run, found by fixed rules. The constants are here and in `tinylm.train`, which ends
diverged runs."""

from sweeps.ledger import OUT_OF_MEMORY, Trial
from sweeps.selection import last_record, records

SPIKE_NATS = 1.0
ABOVE_INIT_NATS = 1.0  # a run whose final loss exceeds its loss at init by more has blown up

RULES = {
    "non-finite": "a loss was not a finite number",
    "blown up": "after warm-up, the training loss stayed far above its value at init for many updates "
    "in a row (the reason has the numbers), or the final validation loss was more than "
    f"{ABOVE_INIT_NATS:g} nat above it",
    "spiked": "after warm-up, the training loss, smoothed over about ten updates, rose more than "
    f"{SPIKE_NATS:g} nat above its minimum, but the run continued",
    "stuck": "the run finished, but its validation loss was never below the unigram entropy of the "
    "corpus",
    OUT_OF_MEMORY: "the process or the device ran out of memory",
    "failed": "the run ended with any other error",
}


def outcome(trial: Trial) -> str:
    """The problem of a trial, one of `RULES`; empty if there was none."""
    if trial.status == "diverged":
        return trial.how or "blown up"
    if trial.status == "failed":
        return OUT_OF_MEMORY if trial.how == OUT_OF_MEMORY else "failed"
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
