"""Problems of a run, found by fixed rules. The constants are here and in `tinylm.train`, which ends
diverged runs."""

from dataclasses import dataclass

from sweeps.ledger import AT_TARGET, OUT_OF_MEMORY, Row, Trial
from sweeps.selection import Measured, best_record, last_record

SPIKE_NATS = 1.0
ABOVE_INIT_NATS = 1.0  # a run whose last loss exceeds its loss at init by more has blown up
OVERFIT_NATS = 0.05
LEARNING_NATS = 0.05  # a run whose loss falls by more in its second half still learns

RULES = {
    "non-finite": "a loss was not a finite number",
    "blown up": "after warm-up, the training loss stayed far above its value at init for many updates "
    "in a row (the reason has the numbers), or the last validation loss was more than "
    f"{ABOVE_INIT_NATS:g} nat above it",
    "spiked": "after warm-up, the training loss, smoothed over about ten updates, rose more than "
    f"{SPIKE_NATS:g} nat above its minimum, but the run continued",
    "stuck": "the run finished, but its validation loss was never below the unigram entropy of the "
    f"corpus, and fell by less than {LEARNING_NATS:g} nats in the second half of the run",
    "overfitted": f"the last validation loss was more than {OVERFIT_NATS:g} nats above the lowest one, "
    f"and the last training loss more than {OVERFIT_NATS:g} nats below that one and below the training "
    "loss beside it",
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
    overfitted = overfit(trial) is not None  # its validation loss may end anywhere
    if (
        trial.status in {"finished", "stopped"}
        and last is not None
        and trial.loss_init is not None
        and last.val_loss > trial.loss_init + ABOVE_INIT_NATS
        and not overfitted
    ):
        return "blown up"
    if (
        trial.status == "finished"
        and entropy is not None
        and (best := best_record(trial)) is not None
        and best.val_loss >= entropy
        and not overfitted
        and not _still_learns(trial)
        and trial.how != AT_TARGET
    ):
        return "stuck"
    if last is not None and (last.spike or 0.0) > SPIKE_NATS:
        return "spiked"
    return "overfitted" if overfitted else ""


def _still_learns(trial: Trial) -> bool:
    """Whether the validation loss of a run fell in its second half."""
    half = [row for row in trial.curve if 2 * row["tokens"] <= trial.tokens]
    fall = half[-1]["val_loss"] - trial.curve[-1]["val_loss"] if half else 0.0
    return bool(fall > LEARNING_NATS)


@dataclass(frozen=True)
class Overfit:
    """A run that learned its training text at the expense of the validation text."""

    trial: Trial
    best: Measured  # the record with the lowest validation loss
    end: Measured

    @property
    def rise(self) -> float:
        """How far the validation loss rose, in nats."""
        return self.end.val_loss - self.best.val_loss

    def as_json(self) -> Row:
        """The fields of summary.json."""
        return {
            "trial": self.trial.trial,
            "label": self.trial.label,
            "best_tokens": self.best.tokens,
            "best_val_loss": self.best.val_loss,
            "best_gap": self.best.gap,
            "tokens": self.end.tokens,
            "val_loss": self.end.val_loss,
            "gap": self.end.gap,
        }


def overfit(trial: Trial) -> Overfit | None:
    """How far a trial that ended has overfitted; None if it has not, by the rule of `overfitted`.

    After a spike the training loss is above what it was, and a record of the first updates has a
    training loss far above the validation loss: hence the two bounds.
    """
    best, end = best_record(trial), last_record(trial)
    if trial.status not in {"finished", "stopped"} or best is None or end is None:
        return None
    rose = end.val_loss > best.val_loss + OVERFIT_NATS
    fell = end.train_loss < min(best.val_loss, best.train_loss) - OVERFIT_NATS
    return Overfit(trial, best, end) if rose and fell else None
