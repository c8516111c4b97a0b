"""A request, which is a space with its base config, and the trials that are planned for it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sweeps.plan.domains import Value
from sweeps.plan.space import Space, rung_tokens
from sweeps.policies.pools import Pools
from sweeps.text import show
from tinylm import config as cfg


@dataclass(frozen=True)
class Request:
    """A space, and the config and seed to run it with."""

    space: Space
    written: dict[str, Any]  # the space file as written
    source: str  # its path
    base: cfg.Config  # of the scale, with the changes of the space and the command line
    scale: str
    seed: int

    def row(self) -> dict[str, Any]:
        """The fields of the ledger's `sweep` row."""
        return {
            "space": self.written,
            "source": self.source,
            "base": self.base.model_dump(),
            "scale": self.scale,
            "seed": self.seed,
        }

    @property
    def seeds(self) -> list[int]:
        """The seeds of the space, plus the seed of the command line."""
        return [number + self.seed for number in self.space.seeds]

    def policy(self) -> Pools:
        """The space's policy before any row; each re-tune grid has one of its own."""
        rungs = rung_tokens(self.space, self.base, self.source)
        return Pools(rungs, lambda: self.space.schedule.policy_at(rungs, self.score_field))

    @property
    def score_field(self) -> str:
        """The field that holds the score in a record at a rung."""
        return self.space.schedule.field(self.space.metric)


@dataclass(frozen=True)
class Machine:
    """The facts about models and this machine that planning needs."""

    size: Callable[[cfg.Model], tuple[int, int]]  # parameters, FLOPs per training token
    fits: Callable[[cfg.Config], bool]  # whether a run fits in memory


@dataclass(frozen=True)
class PlannedTrial:
    """A trial: its whole config, and the values in it that the space chose."""

    config: cfg.Config
    values: dict[str, Value]
    label: str
    # Whom the policy holds it against; None runs to its end whatever others do.
    pool: str | None = ""
    draws: int = 1  # that it took to be within the space's constraint

    @property
    def trial(self) -> str:
        """The id: the digest of the config."""
        return cfg.digest(self.config.model_dump())


def short_name(path: str) -> str:
    """The last part of a dotted path."""
    return path.rpartition(".")[2]


def label_of(values: Mapping[str, Value]) -> str:
    """Values with the short names of their paths, or with the paths if two have one short name."""
    names = [short_name(path) for path in values]
    return " ".join(
        f"{path if names.count(name) > 1 else name}={show(value)}"
        for name, (path, value) in zip(names, values.items(), strict=True)
    )
