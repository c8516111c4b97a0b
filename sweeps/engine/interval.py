"""How far apart the checkpoints of a trial are, by Young's formula."""

import math
from dataclasses import dataclass, field

from sweeps.ledger import Row


@dataclass
class Interval:
    """When a checkpoint is due, by the rows so far, if saving takes C seconds and workers fail once in M: after
    sqrt(2 C M) seconds (Young 1974, doi:10.1145/361147.361115), at the nearest record."""

    mtbf: float  # M, in seconds
    _spent: float = 0.0  # seconds in which checkpoints were saved
    _saves: int = 0
    # By trial, as `t` of the rows: when its attempt began or saved last, and its last two records.
    _since: dict[str, float] = field(default_factory=dict)
    _records: dict[str, tuple[float, float]] = field(default_factory=dict)

    def observe(self, row: Row) -> None:
        """Fold a row in; those of version 0.1 have no `t`, and say nothing."""
        trial, t = row.get("trial", ""), row.get("t")
        if t is None:
            return
        if row["kind"] == "started":
            self._since[trial] = t
            self._records[trial] = t, t
        elif row["kind"] == "measured":
            self._records[trial] = self._records[trial][1], t
        elif row["kind"] == "checkpointed":
            self._spent += t - self._records[trial][1]  # the trial has waited for it
            self._saves += 1
            self._since[trial] = t

    @property
    def seconds(self) -> float | None:
        """The interval; None before a checkpoint was saved."""
        return math.sqrt(2 * self._spent / self._saves * self.mtbf) if self._saves else None

    def is_due(self, trial: str) -> bool | None:
        """Whether a trial is to save at its last record; None if it is not known how long that takes."""
        before, last = self._records[trial]
        half = (last - before) / 2
        return None if self.seconds is None else last - self._since[trial] + half >= self.seconds
