"""Whether a record falls on every rung of a space's policy, given the base config."""

import math
from fractions import Fraction
from typing import Any

from sweeps.plan.domains import divisors
from sweeps.plan.sections import BATCH, BUDGET, CONTEXT
from sweeps.plan.space import Space
from tinylm import config as cfg
from tinylm.config import ConfigError


def missed_rung(space: Space, config: cfg.Config) -> str | None:
    """The first rung of a config on which no record falls, and why; None if there is none."""
    budget, every = config.budget.tokens, config.eval.every_tokens
    for share in space.schedule.shares():
        if share * budget % every:
            return (
                f"no record falls on the rung at {float(share * budget):g} tokens ({share} of {budget}): "
                f"eval.every_tokens is {every}"
            )
    return None


def _nearest_grace(space: Space, budget: int, every: int) -> Fraction | None:
    """The share nearest to the first rung whose multiples all have records; None if there is none."""
    last = (budget - 1) // every
    nearest = min(max(1, round(space.schedule.shares()[0] * budget / every)), last)
    return Fraction(nearest * every, budget) if nearest else None


def check_rungs(space: Space, base: cfg.Config, source: str) -> None:
    """Raise `ConfigError` if a trial may have a rung on which no record falls, whatever is drawn."""
    shares = space.schedule.shares()
    if not shares:
        return
    default = "" if "schedule" in space.model_fields_set else "missing; by default "
    if base.budget.seconds is not None:
        raise ConfigError(
            [
                f"{source}: schedule.policy: {default}{space.schedule.policy} needs a budget of tokens, but "
                f"budget.seconds is {base.budget.seconds:g}; use {{policy: none}}"
            ]
        )
    every = base.eval.every_tokens
    if BUDGET not in space.space:
        missed = missed_rung(space, base)
        nearest = _nearest_grace(space, base.budget.tokens, every)
        if missed is not None:
            advice = f"; the nearest grace with a record is {nearest}" if nearest else ""
            raise ConfigError([f"{source}: schedule.grace: {default}{missed}{advice}"])
        return
    common = divisors(space.space, cfg.flatten(base.model_dump()))[BUDGET]
    needed = math.lcm(*((share / every).denominator for share in shares))
    if common is not None and common % needed:
        raise ConfigError(
            [f"{source}: space.{BUDGET}: {_off_the_rungs(space, base, common, needed)}"]
        )


def _common_update(space: Space, base: cfg.Config) -> int | None:
    """The fewest tokens that are whole updates in every trial; None if that is not known."""
    sizes: list[list[Any]] = []
    for path, own in (
        (BATCH, base.optim.batch_size),
        (CONTEXT, base.model.context_length),
    ):
        domain = space.space.get(path)
        sizes.append([own] if domain is None else domain.values)
    batches, lengths = sizes
    whole = all(type(size) is int for size in (*batches, *lengths)) and batches and lengths
    return math.lcm(*(batch * length for batch in batches for length in lengths)) if whole else None


def _off_the_rungs(space: Space, base: cfg.Config, common: int, needed: int) -> str:
    """Why budgets that have this divisor in common do not all have records at their rungs, and what
    would help."""
    shares, every = space.schedule.shares(), base.eval.every_tokens
    advice = [f"budgets like that (round_to: {needed})"]
    # The longest interval between records that falls on all rungs and checkpoints.
    finer = math.gcd(*(int(share * common) for share in shares), base.run.checkpoint_every_tokens)
    on_them = all((share * common).denominator == 1 for share in shares)
    update = _common_update(space, base)
    if on_them and update is not None and finer % update == 0:
        advice.append(f"base: {{eval.every_tokens: {finer}}}")
    grace = _nearest_grace(space, common, every)
    if grace is not None and (update is None or common % update == 0):
        advice.append(f"grace: {grace}")
    return (
        f"a record must fall on each rung of every trial ({', '.join(map(str, shares))} of its budget). "
        f"With eval.every_tokens {every}, every budget must be a multiple of {needed}, and these are "
        f"multiples of {common}. Use {', or '.join(advice)}"
    )
