"""What a worker is told of an attempt."""

import json
from dataclasses import asdict, dataclass
from typing import Any, Self


@dataclass(frozen=True)
class Job:
    """What a worker needs to know to start or resume a trial."""

    trial: str
    label: str
    attempt: int
    config: dict[str, Any]
    corpus: str  # digest of the documents, split and vocabulary that the trial was planned with
    rungs: tuple[int, ...]  # tokens at which a checkpoint is always due
    branch: float  # share of the updates so far that a decay branch at a rung takes; 0 for none
    # The file to resume from, or its name in the store; None starts at step 0.
    checkpoint: str | None
    store: str = ""  # the URL where checkpoints are kept; empty if that is the sweep's folder

    @property
    def name(self) -> str:
        """The label of the trial, and its id."""
        return f"{self.label} ({self.trial})"

    def to_json(self) -> str:
        """The job as text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The job that `to_json` wrote."""
        fields = json.loads(text)
        return cls(**{**fields, "rungs": tuple(fields["rungs"])})
