"""How a sweep looked for its answer, as lines of text."""

from collections.abc import Iterator, Mapping
from typing import Any

from sweeps.findings.results import Results
from sweeps.ledger import Row
from sweeps.plan.sections import Looks, OptunaSearch, RandomSearch
from sweeps.report.next_steps import flow
from sweeps.text import joined, quantity


def strategy(results: Results) -> list[str]:
    """How the values or arms of a sweep were chosen, on which seeds, and what was stopped early; one
    line each."""
    return [*_search(results), *_seeds(results), _policy(results)]


def _search(results: Results) -> Iterator[str]:
    space, written = results.space, _written(results)
    if space.is_study:
        arms = quantity(len(space.arms or ()), "arm")
        arms = f"an arm for each value of `{space.each.path}`" if space.each else arms
        yield f"Search: none; {arms} beside the baseline"
        if space.retune:
            yield f"Re-tune grid of each arm: {_domains(written['retune'])}"
        return
    match space.search:
        case RandomSearch(samples=samples):
            how = f"random, {quantity(samples, 'sample')}"
        case OptunaSearch(samples=samples):
            how = f"Optuna (tree-structured Parzen estimator), {quantity(samples, 'sample')}"
        case _:
            how = "grid, every combination" if len(space.space) > 1 else "grid, every value"
    yield (
        f"Search: {how} of {_domains(written['space'])}"
        if space.space
        else "Search: none; one config"
    )


def _written(results: Results) -> Row:
    """The space as it was written."""
    assert results.sweep.request is not None  # it has results
    space: Row = results.sweep.request["space"]
    return space


def _domains(tree: Mapping[str, Any]) -> str:
    return joined([f"`{path}: {flow(domain)}`" for path, domain in tree.items()])


def _seeds(results: Results) -> Iterator[str]:
    space = results.space
    if isinstance(space.seeds, Looks):
        yield f"Seeds: added until the verdicts are settled; looks after {joined([str(n) for n in space.looks])}"
    else:
        first = results.sweep.asked_seeds
        seeds = sorted({seed + asked for seed in space.seeds for asked in first})
        yield f"Seeds: {joined([str(seed) for seed in seeds])}"
    if space.confirm:
        yield f"Confirmation: the best values again, on {quantity(space.confirm, 'new seed')}"


def _policy(results: Results) -> str:
    schedule = results.space.schedule
    if not schedule.shares():
        return "Early stopping: none"
    settings = schedule.model_dump(mode="json")
    return f"Early stopping: `{flow({'policy': settings['policy'], **settings})}`"
