"""Domains: the laws that every kind keeps, then what each kind draws.

A new kind is tested once it is listed in `AnyDomain` and has an example here.
"""

import math
from typing import Any

import numpy as np
import pytest
import yaml
from pydantic import TypeAdapter, ValidationError

from sweeps.plan.domains import DOMAINS, AnyDomain, Domain, Value
from sweeps.plan.space import schema

ABOVE: dict[str, Value] = {"model.norm": "pre"}  # values of the paths above
EXAMPLES: dict[str, dict[str, Any]] = {
    "grid": {"grid": [False, 2.5, "x", 4]},
    "choice": {"choice": ["pre", "post", "none"]},
    "uniform": {"uniform": [0.1, 0.4]},
    "loguniform": {"loguniform": [1e-4, 1e-2]},
    "int": {"int": [1, 7]},
    "depends": {
        "depends": {
            "on": "model.norm",
            "cases": {"pre": {"uniform": [1.0, 2.0]}, "none": {"choice": [3.0, 4.0]}},
        }
    },
}


def parse(tree: object) -> Domain:
    """The domain that a mapping of a space file describes."""
    domain: Domain = TypeAdapter(AnyDomain).validate_python(tree)
    return domain


def example(kind: str) -> Domain:
    """The example of a kind, as it applies below `ABOVE`."""
    return parse(EXAMPLES[kind]).resolve(ABOVE)


def draws(domain: Domain, count: int = 2000) -> list[Value]:
    """Draws from one stream."""
    rng = np.random.default_rng([5, 0])
    return [domain.draw(rng) for _ in range(count)]


def position(domain: Domain, value: Any) -> float:
    """Where a value lies between the ends of a domain, 0 to 1, on the domain's own scale."""
    if domain.bounds is None:
        return domain.values.index(value) / (len(domain.values) - 1)
    scale = math.log if domain.is_log else float
    low, high = map(scale, domain.bounds)
    return (scale(value) - low) / (high - low)


@pytest.mark.parametrize("kind", DOMAINS)
class TestEveryDomain:
    """The laws of all kinds."""

    def test_its_class_is_found_by_its_key(self, kind: str) -> None:
        assert type(parse(EXAMPLES[kind])) is DOMAINS[kind]

    def test_it_is_read_back_from_the_yaml_it_writes(self, kind: str) -> None:
        domain = parse(EXAMPLES[kind])
        assert parse(yaml.safe_load(yaml.safe_dump(domain.model_dump()))) == domain

    def test_an_unknown_key_beside_its_own_is_refused(self, kind: str) -> None:
        with pytest.raises(ValidationError):
            DOMAINS[kind].model_validate({**EXAMPLES[kind], "more": 1})

    def test_the_schema_of_a_space_describes_it(self, kind: str) -> None:
        definition = schema()["$defs"][DOMAINS[kind].__name__]
        assert (definition["required"], "description" in definition) == ([kind], True)

    def test_errors_show_how_it_is_written(self, kind: str) -> None:
        with pytest.raises(ValidationError) as caught:
            parse([1, 2])
        assert f"{{{kind}: " in str(caught.value)

    def test_it_lists_values_or_has_bounds(self, kind: str) -> None:
        domain = example(kind)
        assert bool(domain.values) == (domain.bounds is None)

    def test_draws_lie_within_it(self, kind: str) -> None:
        domain = example(kind)
        positions = [position(domain, value) for value in draws(domain)]
        assert 0 <= min(positions) <= max(positions) <= 1

    def test_draws_reach_both_ends(self, kind: str) -> None:
        domain = example(kind)
        positions = [position(domain, value) for value in draws(domain)]
        assert min(positions) < 0.01 and max(positions) > 0.99

    def test_draws_are_even_on_its_scale(self, kind: str) -> None:
        """Their mean is the middle: 0.03 is more than three standard errors."""
        domain = example(kind)
        mean = np.mean([position(domain, value) for value in draws(domain)])
        assert mean == pytest.approx(0.5, abs=0.03)

    def test_one_stream_draws_the_same_again(self, kind: str) -> None:
        assert draws(example(kind), 20) == draws(example(kind), 20)

    def test_its_optuna_distribution_holds_every_draw(self, kind: str) -> None:
        domain = example(kind)
        distribution = domain.distribution()
        assert all(distribution._contains(distribution.to_internal_repr(v)) for v in draws(domain))

    def test_what_its_optuna_distribution_draws_lies_within_it(self, kind: str) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        domain = example(kind)
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        values = [study.ask({"x": domain.distribution()}).params["x"] for _ in range(50)]
        positions = [position(domain, value) for value in values]
        assert 0 <= min(positions) <= max(positions) <= 1


@pytest.mark.parametrize(
    ("kind", "first"),
    {
        "choice": ["none", "none", "pre"],
        "uniform": [0.3415008771236141, 0.34238223692094816, 0.25459766831264263],
        "loguniform": [0.0040738576294966945, 0.0041293489030193135, 0.0010731270004412318],
        "int": [5, 6, 1],
    }.items(),
)
def test_draws_are_those_of_the_sweeps_before(kind: str, first: list[Value]) -> None:
    """A draw that changed would give every trial of a random search another id."""
    assert draws(example(kind), 3) == first


@pytest.mark.parametrize(
    ("kind", "expected"),
    {
        "grid": "CategoricalDistribution(choices=(False, 2.5, 'x', 4))",
        "choice": "CategoricalDistribution(choices=('pre', 'post', 'none'))",
        "uniform": "FloatDistribution(high=0.4, log=False, low=0.1, step=None)",
        "loguniform": "FloatDistribution(high=0.01, log=True, low=0.0001, step=None)",
        "int": "IntDistribution(high=7, log=False, low=1, step=1)",
    }.items(),
)
def test_optuna_draws_from_the_same_values(kind: str, expected: str) -> None:
    assert str(example(kind).distribution()) == expected


def test_a_dependent_domain_is_that_of_the_case_that_applies() -> None:
    domain = parse(EXAMPLES["depends"])
    assert domain.resolve({"model.norm": "none"}) == parse({"choice": [3.0, 4.0]})


def test_a_case_within_a_case_names_both_conditions() -> None:
    inner = {"depends": {"on": "model.qk_norm", "cases": {"true": {"int": [1, 2]}}}}
    domain = parse({"depends": {"on": "model.norm", "cases": {"pre": inner}}})
    values: dict[str, Value] = {"model.norm": "pre", "model.qk_norm": True}
    assert domain.condition(values) == "|model.norm=pre|model.qk_norm=true"


def test_a_dependent_domain_lists_the_values_of_all_its_cases() -> None:
    assert parse(EXAMPLES["depends"]).values == [3.0, 4.0]


def test_only_a_grid_is_not_drawn_from() -> None:
    assert [kind for kind, domain in DOMAINS.items() if not domain.is_drawn] == ["grid"]
