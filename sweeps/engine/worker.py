"""One attempt at a trial: drive `tinylm.train` and say what happened, record by record."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sweeps.engine.driver import Job
from tinylm import checkpoint, data, train
from tinylm import config as cfg


class Attempt:
    """A trial in training. Iterating trains; between two events its state may be saved."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.config = cfg.validate(job.config, job.label)
        self.corpus = data.find(job.corpus) or data.prepare(self.config)
        if self.corpus.digest != job.corpus:
            raise ValueError(
                f"{self.config.data.path or self.config.data.corpus}: the corpus on this machine "
                f"has digest {self.corpus.digest}, the trial was planned with {job.corpus}"
            )
        self._from = Path(job.checkpoint) if job.checkpoint else None

    def save(self, file: Path) -> None:
        """Write a checkpoint of the last event."""
        checkpoint.save(file, self._state, self.corpus, self.config)

    def events(self) -> Iterator[dict[str, Any]]:
        """A `measured` event for each record, with `save` where a checkpoint is due, and a
        `diverged` one at the end of a training that diverges. What fails raises."""
        config = self.config
        self._state = (
            checkpoint.load(self._from, self.corpus, config) if self._from else train.start(config)
        )
        try:
            for record in train.train(self._state, self.corpus, config):
                at_rung = record.tokens in self.job.rungs
                save = at_rung or checkpoint.is_due(record, config)
                event = {"event": "measured", "save": save, **asdict(record)}
                if self.job.branch and at_rung:
                    event |= self._branch(record.step)
                yield event
        except train.Diverged as diverged:
            yield {
                "event": "diverged",
                "how": diverged.how,
                "save": False,
                "step": diverged.step,
                "tokens": diverged.tokens,
                "peak_loss": diverged.peak_loss,
                "loss_init": diverged.loss_init,
                "reason": diverged.reason,
            }

    def _branch(self, step: int) -> dict[str, Any]:
        """What a decay branch from here ends at; None for the losses of one that diverged."""
        updates = max(1, round(step * self.job.branch))
        last = train.decay_branch(self._state, self.corpus, self.config, updates)
        return {
            "decayed_val_loss": last and last.val_loss,
            "decayed_bits_per_byte": last and last.bits_per_byte,
            "branch_tokens": updates * self.config.tokens_per_step,
        }
