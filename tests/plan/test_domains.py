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

ABOVE: dict[str, Value] = {"model.norm": "pre", "model.d_model": 96}  # of the paths above
EXAMPLES: dict[str, dict[str, Any]] = {
    "grid": {"grid": [False, 2.5, "x", 4]},
    "choice": {"choice": ["pre", "post", "none"]},
    "uniform": {"uniform": [0.1, 0.4]},
    "loguniform": {"loguniform": [1e-4, 1e-2]},
    "one_minus_loguniform": {"one_minus_loguniform": [1e-3, 1e-1]},
    "int": {"int": [1, 7]},
    "logint": {"logint": [64, 4096], "step": 8},
    "times": {"times": "8/3", "of": "model.d_model", "round_to": 64},
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
        return domain.values.index(value) / max(1, len(domain.values) - 1)
    distribution = domain.distribution()
    scale = math.log if distribution.log else float
    low, high = scale(distribution.low), scale(distribution.high)
    return (scale(domain.coordinate(value)) - low) / (high - low)


VARIED = [kind for kind in DOMAINS if kind != "times"]  # has one value once it is resolved


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
        assert kind in definition["required"] and "description" in definition

    def test_errors_show_how_it_is_written(self, kind: str) -> None:
        with pytest.raises(ValidationError) as caught:
            parse({"among": [1, 2]})
        assert f"{{{kind}: " in str(caught.value)

    def test_it_lists_values_or_has_bounds(self, kind: str) -> None:
        domain = example(kind)
        assert bool(domain.values) == (domain.bounds is None)

    def test_draws_lie_within_it(self, kind: str) -> None:
        domain = example(kind)
        positions = [position(domain, value) for value in draws(domain)]
        assert 0 <= min(positions) <= max(positions) <= 1

    def test_it_has_every_draw(self, kind: str) -> None:
        domain = example(kind)
        assert all(domain.has(value) for value in draws(domain))

    def test_it_does_not_have_another_value(self, kind: str) -> None:
        assert not any(example(kind).has(value) for value in (-1, 1e9, "other", True))

    def test_one_stream_draws_the_same_again(self, kind: str) -> None:
        assert draws(example(kind), 20) == draws(example(kind), 20)

    def test_its_optuna_distribution_holds_every_draw(self, kind: str) -> None:
        domain = example(kind)
        distribution = domain.distribution()
        drawn = [domain.coordinate(value) for value in draws(domain)]
        assert all(distribution._contains(distribution.to_internal_repr(one)) for one in drawn)

    def test_what_its_optuna_distribution_draws_lies_within_it(self, kind: str) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        domain = example(kind)
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        drawn = [study.ask({"x": domain.distribution()}).params["x"] for _ in range(50)]
        values = [domain.at(coordinate) for coordinate in drawn]
        assert all(domain.has(value) for value in values)
        positions = [position(domain, value) for value in values]
        assert 0 <= min(positions) <= max(positions) <= 1


@pytest.mark.parametrize("kind", VARIED)
def test_draws_reach_both_ends(kind: str) -> None:
    domain = example(kind)
    positions = [position(domain, value) for value in draws(domain)]
    assert min(positions) < 0.01 and max(positions) > 0.99


@pytest.mark.parametrize("kind", VARIED)
def test_draws_are_even_on_its_scale(kind: str) -> None:
    """Their mean is the middle: 0.03 is more than three standard errors."""
    domain = example(kind)
    mean = np.mean([position(domain, value) for value in draws(domain)])
    assert mean == pytest.approx(0.5, abs=0.03)


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
        "one_minus_loguniform": "FloatDistribution(high=0.1, log=True, low=0.001, step=None)",
        "logint": "IntDistribution(high=4096, log=True, low=64, step=1)",
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


def test_one_minus_a_logarithm_is_near_one() -> None:
    drawn = [float(value) for value in draws(example("one_minus_loguniform"))]
    assert 0.9 <= min(drawn) < 0.901 and 0.998 < max(drawn) <= 0.999


def test_an_int_with_a_step_takes_every_step_from_its_lower_bound() -> None:
    assert set(draws(parse({"int": [32, 128], "step": 32}))) == {32, 64, 96, 128}


def test_a_step_that_does_not_reach_the_upper_bound_is_refused_with_one_that_is_reached() -> None:
    with pytest.raises(ValidationError, match="with step 32 the last one below it is 96"):
        parse({"int": [32, 100], "step": 32})


@pytest.mark.parametrize(
    ("tree", "own", "expected"),
    [
        ({"times": "8/3", "round_to": 64}, 96, 256),
        ({"times": 4}, 96, 384),
        ({"times": "8/3", "round_to": 1}, 64, 171),
        ({"times": "8/3", "round_to": 64}, 4, 64),
        ({"times": 0.1}, 3e-3, 3e-4),
        ({"times": 2.5, "round_to": 2}, 2, 6),
    ],
)
def test_a_multiple_is_rounded_to_the_nearest_multiple_above_zero(
    tree: dict[str, Any], own: Value, expected: Value
) -> None:
    (value,) = parse({**tree, "of": "x"}).resolve({"x": own}).values
    assert (value, type(value)) == (expected, type(expected))


@pytest.mark.parametrize(
    "factor", [0, -1, True, "4*d", "1e9", "1/0", float("inf"), float("nan"), 10**400, "9" * 400]
)
def test_a_factor_that_is_no_number_above_zero_is_refused(factor: object) -> None:
    with pytest.raises(ValidationError, match=r"expected a number above 0 such as 4, 0\.1 or 8/3"):
        parse({"times": factor, "of": "model.d_model"})


def test_two_kinds_in_one_mapping_are_refused() -> None:
    with pytest.raises(ValidationError, match="expected one of"):
        parse({"grid": [1], "choice": [1]})


WHOLE: dict[str, tuple[dict[str, Any], Any]] = {
    "a list": ({"grid": [12, 18, 30]}, 6),
    "whole numbers a step apart": ({"int": [24, 60], "step": 18}, 6),
    "whole numbers on a log scale": ({"logint": [64, 4096], "step": 24}, 8),
    "a whole multiple": ({"times": 5, "of": "model.d_model"}, 480),
    "a multiple that need not be rounded": (
        {"times": "5/2", "of": "model.d_model", "round_to": 16},
        240,
    ),
    "a rounded multiple": ({"times": "5/2", "of": "model.d_model", "round_to": 7}, 7),
    "a rounded multiple of floats": ({"times": 20, "of": "optim.lr", "round_to": 10}, 10),
    "cases": (
        {
            "depends": {
                "on": "model.norm",
                "cases": {"pre": {"grid": [12]}, "none": {"int": [18, 36]}},
            }
        },
        1,
    ),
    "floats": ({"uniform": [1, 2]}, None),
    "a list with a float": ({"grid": [12, 18.5]}, None),
    "a case of floats": (
        {
            "depends": {
                "on": "model.norm",
                "cases": {"pre": {"grid": [12]}, "none": {"grid": [2.5]}},
            }
        },
        None,
    ),
}


@pytest.mark.parametrize(("tree", "divisor"), WHOLE.values(), ids=WHOLE)
def test_the_values_of_a_domain_have_a_common_divisor(
    tree: dict[str, Any], divisor: int | None
) -> None:
    assert parse(tree).divisor({"model.d_model": 96, "optim.lr": None}) == divisor


@pytest.mark.parametrize("name", [name for name, (_, divisor) in WHOLE.items() if divisor])
def test_every_draw_is_a_multiple_of_the_divisor(name: str) -> None:
    tree, divisor = WHOLE[name]
    domain = parse(tree).resolve({**ABOVE, "optim.lr": 1.7})
    assert not any(value % divisor for value in draws(domain, 200))
