"""A request, which is a space with its base config, and the trials that are planned for it."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sweeps.exits import refuse_url
from sweeps.ledger import BITS, LONGEST_NAME, RESULTS, Role, is_name, pool_of
from sweeps.plan.domains import Multiple, Value
from sweeps.plan.reading import find, read
from sweeps.plan.sections import BATCH, BUDGET, CONTEXT
from sweeps.plan.space import CONFIRMING_SEED, TUNING_SEED, Space
from sweeps.policies.pools import Pools
from sweeps.text import short_name, show
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
            "bits": BITS,
        }

    @cached_property
    def flat(self) -> dict[str, Any]:
        """The values of the base config by their paths."""
        return cfg.flatten(self.base.model_dump())

    @property
    def seeds(self) -> list[int]:
        """All seeds that trials may have, plus the seed of the command line."""
        return [number + self.seed for number in self.space.every_seed]

    @property
    def tuning_seed(self) -> int:
        """The seed of re-tune grids."""
        return TUNING_SEED + self.seed

    @property
    def fresh_seeds(self) -> range:
        """The seeds on which the best values run again."""
        first = CONFIRMING_SEED + self.seed
        return range(first, first + self.space.confirm)

    @property
    def looks(self) -> tuple[int, ...]:
        """The numbers of seeds after which a study is looked at."""
        return self.space.looks

    def config(self, changes: Mapping[str, Value], where: str = "") -> cfg.Config:
        """The base config with changes and, under `match`, the batch size that goes with them;
        `ConfigError` with what is wrong in them, which the space has at `where`."""
        source = f"{self.source}: {where}" if where else self.source
        return cfg.overlay(self.base, {**changes, **self._matched(changes, source)}, source)

    def _matched(self, changes: Mapping[str, Value], source: str) -> dict[str, Value]:
        length = {**self.flat, **changes}[CONTEXT]
        if self.space.match is None or type(length) is not int or length < 1:
            return {}
        tokens = self.base.tokens_per_step
        if tokens % length:
            problem = f"the {tokens} tokens of an update are not a multiple of {CONTEXT} {length}"
            raise cfg.ConfigError([f"{source}: match: {problem}"])
        return {BATCH: tokens // length}

    @property
    def budget(self) -> int | None:
        """The tokens of every trial that competes with others; None if each has its own."""
        return None if BUDGET in self.space.space else self.base.budget.tokens

    def policy(self, *, each_seed: bool = False) -> Pools:
        """The space's policy before any row; each re-tune grid has its own. It decides on values as a
        whole, or on each of their seeds."""
        return Pools(self.space.schedule, self.score_field, self.budget, each_seed=each_seed)

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
    label: str  # empty if it is the only one, which is called like its sweep
    role: Role = "search"
    arm: str = ""  # of a study
    grid: str = ""  # names the re-tune grid of that arm
    draws: int = 1  # that it took; 0 for a start point

    @property
    def pool(self) -> str | None:
        """The key that it shares with the trials that its policy compares it with; None for none."""
        return pool_of(self.role, self.arm, self.grid)

    @cached_property
    def trial(self) -> str:
        """The id of the config."""
        return cfg.identity(self.config)


def label_of(values: Mapping[str, Value]) -> str:
    """Values with the short names of their paths, or with the paths if two have one short name."""
    names = [short_name(path) for path in values]
    return " ".join(
        f"{path if names.count(name) > 1 else name}={show(value)}"
        for name, (path, value) in zip(names, values.items(), strict=True)
    )


def without_multiples(
    config: cfg.Config, changes: Mapping[str, Value | Multiple]
) -> dict[str, Value]:
    """The changes of a config, with multiples of other values as the numbers that they are."""
    plain = {path: value for path, value in changes.items() if not isinstance(value, Multiple)}
    known = {**cfg.flatten(config.model_dump()), **plain}
    for path, value in changes.items():
        if isinstance(value, Multiple):
            known[path] = value.value(known)
    return {path: known[path] for path in changes}


def base_config(scale: str, changes: Mapping[str, Value | Multiple], source: str) -> cfg.Config:
    """The config of a scale with the changes; `ConfigError` with everything that is wrong."""
    config = cfg.load(scale)
    return cfg.overlay(config, without_multiples(config, changes), source)


def with_shared_blocks(space: Space, base: cfg.Config, changes: Collection[str]) -> cfg.Config:
    """The base config in which trials of all context lengths predict the same validation tokens.

    Where the space varies the context length, these are one block of `eval.tokens`. Every length that can
    be evaluated divides it, so that lengths can be added to a sweep later. A base config that states its
    blocks, among the changes of its scale or in the scale, stays as it is.
    """
    varies = any(path == CONTEXT for _, path in space.varied())
    if not varies or "eval.block" in changes or base.eval.block != "window":
        return base
    return cfg.overlay(base, {"eval.block": base.eval.tokens})


@contextmanager
def _kept(wrong: list[str]) -> Iterator[None]:
    """Add the problems of a `ConfigError` to others, instead of raising it."""
    try:
        yield
    except cfg.ConfigError as error:
        wrong += error.problems


def read_request(space: str, scale: str, changes: list[str], seed: int) -> Request:
    """What a command line asks for; `ConfigError` with everything that is wrong in it."""
    wrong: list[str] = []
    with _kept(wrong):
        cfg.load(scale)
    assigned: dict[str, Any] = {}
    with _kept(wrong):
        assigned = cfg.parse_assignments(changes)
    varied: set[str] = set()
    with _kept(wrong):
        path = find(space)
        parsed, written = read(path)
        varied = {path for _, path in parsed.varied()}
        wrong += [f"--set {name}: the sweep varies {name}" for name in assigned if name in varied]
    if "run.seed" in assigned:
        wrong.append("--set run.seed: trials take their seeds from `seeds` and --seed")
    if wrong:
        others = {path: value for path, value in assigned.items() if path not in varied}
        raise cfg.ConfigError([*wrong, *cfg.change_problems(others)])
    source = f"{path} with --set" if assigned else f"{path}: base"
    settings = {**parsed.base, **assigned}
    base = with_shared_blocks(parsed, base_config(scale, settings, source), settings)
    return Request(parsed, written, str(path), base, scale, seed)


def experiment_request(name: str, config: str, changes: list[str], why: str) -> Request:
    """What a named experiment asks: one config, trained once to its end. `ConfigError` with what is
    wrong in it."""
    wrong: list[str] = []
    assigned: dict[str, Any] = {}
    with _kept(wrong):
        assigned = cfg.parse_assignments(changes)
    if not is_name(name):
        rule = f"letters, digits, _, - and ., at most {LONGEST_NAME} characters"
        wrong.append(f"--name {name}: expected {rule}")
    with _kept(wrong):
        cfg.load(config)
    if wrong:
        raise cfg.ConfigError([*wrong, *cfg.change_problems(assigned)])
    base = cfg.overlay(cfg.load(config), assigned)
    written = {
        "question": why.strip() or name,
        "search": {"method": "grid"},
        "seeds": [base.run.seed],
        "schedule": {"policy": "none"},
    }
    return Request(Space.model_validate(written), written, config, base, config, 0)


def sweep_folder(request: Request, out: Path | None) -> Path:
    """The folder of a request's sweep: `--out`, else `results/<space>-<scale>`."""
    name = f"{Path(request.source).stem}-{Path(request.scale).stem}".replace(" ", "_")
    folder = out if out is not None else RESULTS / name
    refuse_url("--out", folder)
    wrong = []
    if not is_name(folder.name.replace(" ", "_")) or ".." in folder.parts:
        wrong.append(
            f"--out {folder}: expected a folder name of letters, digits, spaces, _, - and . "
            f"(and no ..), at most {LONGEST_NAME} characters"
        )
    elif folder.exists() and not folder.is_dir():
        wrong.append(f"--out {folder}: not a folder")
    if wrong:
        raise cfg.ConfigError(wrong)
    return folder
