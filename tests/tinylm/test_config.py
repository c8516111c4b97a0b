"""The config tree: strict, frozen, changed in one way, named by its digest."""

import json
import math
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tinylm import config as cfg

SMOKE = cfg.load("smoke")


@pytest.mark.parametrize("name", ["smoke", "cpu", "tinystories_17m", "baseline_17m"])
def test_every_shipped_config_loads(name: str) -> None:
    assert cfg.load(name).steps > 0


def test_no_shipped_config_is_forgotten_here() -> None:
    shipped = {file.stem for file in cfg.CONFIGS.glob("*.yaml")}
    assert shipped == {"smoke", "cpu", "tinystories_17m", "baseline_17m"}


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        ("cpu", "model.n_layers", 4),
        ("cpu", "model.d_model", 128),
        ("cpu", "model.context_length", 128),
        ("cpu", "model.vocab_size", 2_048),
        ("cpu", "data.corpus", "sotu"),
        ("tinystories_17m", "model.vocab_size", 10_000),
        ("tinystories_17m", "model.context_length", 256),
        ("tinystories_17m", "model.d_model", 512),
        ("tinystories_17m", "model.d_ff", 1_344),
        ("tinystories_17m", "model.n_layers", 4),
        ("tinystories_17m", "model.n_heads", 16),
        ("tinystories_17m", "model.rope_theta", 10_000.0),
        ("tinystories_17m", "budget.tokens", 327_680_000),
        ("baseline_17m", "model.n_layers", 12),
        ("baseline_17m", "model.d_model", 768),
        ("baseline_17m", "model.n_heads", 12),
        ("baseline_17m", "model.d_ff", 3_072),
        ("baseline_17m", "model.context_length", 512),
        ("baseline_17m", "optim.batch_size", 64),
        ("baseline_17m", "optim.lr", 6e-4),
        ("baseline_17m", "optim.schedule", "cosine"),
        ("baseline_17m", "optim.beta1", 0.9),
        ("baseline_17m", "optim.beta2", 0.999),
        ("baseline_17m", "optim.weight_decay", 0.1),
        ("baseline_17m", "optim.clip_norm", 1.0),
    ],
)
def test_a_shipped_config_has_the_numbers_of_its_source(
    name: str, path: str, value: object
) -> None:
    assert cfg.flatten(cfg.load(name).model_dump())[path] == value


@pytest.mark.parametrize(
    ("name", "steps"), [("smoke", 32), ("cpu", 384), ("tinystories_17m", 10_000)]
)
def test_steps_follow_from_the_token_budget(name: str, steps: int) -> None:
    assert cfg.load(name).steps == steps


def test_baseline_17m_takes_10_000_updates_500_of_them_warm_up_and_ends_at_6e_5() -> None:
    config = cfg.load("baseline_17m")
    assert config.steps == 10_000
    assert config.optim.warmup_fraction * config.steps == 500
    assert math.isclose(config.optim.lr * config.optim.lr_final_fraction, 6e-5, rel_tol=1e-15)


@pytest.mark.parametrize("path", ["optim.lr", "model.norm"])
def test_a_config_is_frozen(path: str) -> None:
    section, name = path.split(".")
    with pytest.raises(ValidationError, match="frozen"):
        setattr(getattr(SMOKE, section), name, 1)


def test_overlay_changes_the_path_it_names_and_nothing_else() -> None:
    changed = cfg.overlay(SMOKE, {"optim.lr": 0.5})
    assert changed.optim.lr == 0.5
    assert cfg.overlay(changed, {"optim.lr": SMOKE.optim.lr}) == SMOKE


def test_a_section_that_overlay_does_not_change_is_the_same_object() -> None:
    """Else each of the 100,000 configs of a large plan is checked, and held, as a whole."""
    changed = cfg.overlay(SMOKE, {"optim.lr": 0.5})
    shared = [
        name for name in cfg.Config.model_fields if getattr(changed, name) is getattr(SMOKE, name)
    ]
    assert shared == ["model", "data", "budget", "eval", "run"]


def test_overlay_leaves_its_argument_alone() -> None:
    cfg.overlay(SMOKE, {"optim.lr": 0.5})
    assert cfg.load("smoke") == SMOKE


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"optim.lrr": 1e-3}, "optim.lrr: unknown path; did you mean 'optim.lr'?"),
        ({"model.n_layer": 1}, "model.n_layer: unknown path; did you mean 'model.n_layers'?"),
        ({"zzz": 1}, "zzz: unknown path"),
        (
            {"budget": 3},
            "budget: is a section; write one of its paths: budget.tokens, budget.seconds",
        ),
        ({"model": {"n_layers": 3}}, "model: write whole paths, e.g. model.n_layers"),
        ({"optim.lr": "fast"}, 'optim.lr: expected a number, got "fast"'),
        ({"optim.lr": -1.0}, "optim.lr: expected a number above 0, got -1.0"),
        ({"optim.lr": math.nan}, "optim.lr: expected a finite number, got NaN"),
        ({"optim.lr": math.inf}, "optim.lr: expected a finite number, got Infinity"),
        ({"model.n_layers": 2.0}, "model.n_layers: expected a whole number, got 2.0"),
        ({"model.n_layers": True}, "model.n_layers: expected a whole number, got true"),
        ({"model.qk_norm": "no"}, 'model.qk_norm: expected true or false, got "no"'),
        ({"model.vocab_size": 65_537}, "at most 65536, got 65537"),
        ({"model.vocab_size": 256}, "at least 257, got 256"),
        ({"model.n_heads": 3}, "model: n_heads 3 must divide d_model 32"),
        ({"model.n_heads": 32}, "model: rope needs an even head width, got 1"),
        ({"model.norm": "Pre"}, "model.norm: expected 'pre', 'post' or 'none', got \"Pre\""),
        ({"data.corpus": "text"}, "data: path is missing"),
        ({"data.path": "x"}, "data: path 'x' is for corpus text, not for sotu"),
        ({"optim.schedule": "wsd", "optim.decay_fraction": 1.0}, "add up to more than 1"),
        (
            {"budget.tokens": 257},
            "budget.tokens 257 is not a multiple of 256 (tokens of one update",
        ),
        ({"eval.every_tokens": 255}, "eval.every_tokens 255 is not a multiple of 256"),
        ({"eval.tokens": 33}, "eval.tokens 33 is not a multiple of 32 (model.context_length)"),
        (
            {"eval.block": 768},
            "eval: tokens 2048 is not a multiple of block 768; the nearest is 1536 or 2304",
        ),
        ({"eval.block": 4096}, "2048 is not a multiple of block 4096; the nearest is 4096"),
        ({"eval.block": 16}, "eval.block 16 is not a multiple of 32 (model.context_length)"),
        ({"run.checkpoint_every_tokens": 1}, "not a multiple of 1024 (eval.every_tokens)"),
        ({"run.accumulate": 3}, "optim.batch_size 8 is not a multiple of 3 (run.accumulate)"),
    ],
)
def test_overlay_refuses_with_source_path_rule_and_value(
    changes: dict[str, object], problem: str
) -> None:
    with pytest.raises(cfg.ConfigError) as caught:
        cfg.overlay(SMOKE, changes, "--set")
    assert len(caught.value.problems) == 1
    assert str(caught.value).startswith("--set: ")
    assert problem in str(caught.value)


def test_tf32_is_for_cuda() -> None:
    on_cuda = cfg.overlay(cfg.load("smoke"), {"run.device": "cuda", "run.precision": "tf32"})
    assert on_cuda.run.precision == "tf32"
    with pytest.raises(cfg.ConfigError, match="run: precision tf32 needs device cuda, got cpu"):
        cfg.overlay(on_cuda, {"run.device": "cpu"})


def test_a_run_repeats_bit_for_bit_on_a_cpu_or_where_it_is_asked_to() -> None:
    smoke = cfg.load("smoke")
    cases: dict[bool, list[dict[str, object]]] = {
        True: [{}, {"run.device": "cuda", "run.deterministic": True}],
        False: [{"run.device": "cuda"}, {"run.device": "mps"}, {"budget.seconds": 1.0}],
    }
    for expected, changes in cases.items():
        assert [cfg.overlay(smoke, one).is_repeatable for one in changes] == [expected] * len(
            changes
        )
    with pytest.raises(cfg.ConfigError, match="deterministic needs device cuda or cpu, got mps"):
        cfg.overlay(smoke, {"run.device": "mps", "run.deterministic": True})


def test_a_value_that_has_two_kinds_is_refused_under_the_path_that_was_written() -> None:
    with pytest.raises(cfg.ConfigError) as caught:
        cfg.overlay(SMOKE, {"model.init_std": -1.0})
    assert caught.value.problems == (
        "--set: model.init_std: expected 'glorot', got -1.0",
        "--set: model.init_std: expected a number above 0, got -1.0",
    )


def test_all_problems_of_an_overlay_are_raised_together() -> None:
    with pytest.raises(cfg.ConfigError) as caught:
        cfg.overlay(SMOKE, {"optim.lrr": 1, "optim.lr": -1.0, "run.seed": -1, "model.n_heads": 3})
    assert len(caught.value.problems) == 4


def test_all_rules_between_sections_are_raised_together() -> None:
    with pytest.raises(cfg.ConfigError) as caught:
        cfg.overlay(SMOKE, {"budget.tokens": 257, "eval.tokens": 33, "run.accumulate": 3})
    assert str(caught.value).count("is not a multiple of") == 3


def test_all_problems_of_a_file_are_raised_together_with_its_path(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("model: {norm: Pre}\noptim: {betta1: 0.9}\ndata: {corpus: sotu}\nevall: {}\n")
    with pytest.raises(cfg.ConfigError) as caught:
        cfg.load(str(file))
    problems = set(caught.value.problems)
    assert {line.split(": ")[0] for line in problems} == {str(file)}
    assert {
        f"{file}: optim.betta1: unknown key; did you mean 'optim.beta1'?",
        f"{file}: evall: unknown key; did you mean 'eval'?",
        f"{file}: model.norm: expected 'pre', 'post' or 'none', got \"Pre\"; did you mean 'pre'?",
        f"{file}: model.vocab_size: missing",
        f"{file}: optim.lr: missing",
        f"{file}: budget: missing",
    } <= problems


def test_a_misspelled_name_of_a_shipped_config_is_refused_with_the_right_one() -> None:
    with pytest.raises(cfg.ConfigError, match=r"did you mean 'baseline_17m'\?"):
        cfg.load("baseline_17")


def test_assignments_are_read_as_yaml() -> None:
    texts = ["optim.lr=3e-3", "model.norm = post", "data.path=a=b"]
    assert cfg.parse_assignments(texts) == {
        "optim.lr": 3e-3,
        "model.norm": "post",
        "data.path": "a=b",
    }


def test_all_texts_that_are_no_assignment_are_raised_together() -> None:
    with pytest.raises(cfg.ConfigError) as caught:
        cfg.parse_assignments(["optim.lr", "optim.eps=[1", "run.seed=1"])
    assert len(caught.value.problems) == 2
    assert caught.value.problems[0] == (
        "--set: expected PATH=VALUE, e.g. optim.lr=3e-3, got 'optim.lr'"
    )
    assert caught.value.problems[1].startswith("--set optim.eps: line 1")


def test_a_config_survives_json(tmp_path: Path) -> None:
    file = tmp_path / "smoke.json"
    file.write_text(json.dumps(SMOKE.model_dump()))
    assert cfg.load(str(file)) == SMOKE


CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "optim.lr": st.sampled_from([1e-3, 0.001, 1, 1.0, 2e-3]),
        "run.seed": st.integers(0, 2),
        "model.norm": st.sampled_from(["pre", "post", "none"]),
        "model.init_std": st.sampled_from(["glorot", 0.02, 1]),
        "optim.beta1": st.floats(0.25, 0.75),
    },
)


@settings(database=None, deadline=None)
@given(CHANGES, CHANGES)
def test_digests_are_equal_exactly_where_configs_are(
    one: dict[str, object], other: dict[str, object]
) -> None:
    a, b = cfg.overlay(SMOKE, one), cfg.overlay(SMOKE, other)
    assert (cfg.identity(a) == cfg.identity(b)) == (a == b)


# As if this field had been added after the first sweeps.
LATER = {"model.qk_norm": False}


def without_later(config: cfg.Config) -> dict[str, dict[str, object]]:
    """The tree of a config from before that field, and before `standard` embeddings."""
    tree = cfg.overlay(config, {"model.embedding_std": 1.0}).model_dump()
    del tree["model"]["qk_norm"]
    return tree


def test_a_tree_from_before_a_field_is_read_with_the_value_implied_then() -> None:
    old = cfg.validate(without_later(SMOKE), "old")
    assert old.model.qk_norm is False


def test_a_field_at_its_implied_value_leaves_the_id_as_it_was() -> None:
    assert cfg.identity(SMOKE, LATER) == cfg.digest(without_later(SMOKE))


def test_a_field_at_another_value_is_another_id() -> None:
    other = cfg.overlay(SMOKE, {"model.qk_norm": True})
    assert cfg.identity(other, LATER) == cfg.identity(other, {})
    assert cfg.identity(other, LATER) != cfg.identity(SMOKE, LATER)


@pytest.mark.parametrize(("tied", "number"), [(False, 1.0), (True, 0.02)])
def test_a_named_value_is_the_number_that_it_stands_for(tied: bool, number: float) -> None:
    named = cfg.overlay(SMOKE, {"model.tie_embeddings": tied})
    written = cfg.overlay(named, {"model.embedding_std": number})
    assert cfg.identity(named) == cfg.identity(written)
    assert cfg.difference(named.model_dump(), written.model_dump()) == {}
    assert cfg.identity(named) != cfg.identity(cfg.overlay(named, {"model.embedding_std": 0.5}))


def test_a_tree_from_before_a_field_differs_only_where_the_field_has_another_value() -> None:
    other = cfg.overlay(SMOKE, {"model.qk_norm": True})
    assert cfg.difference(without_later(SMOKE), SMOKE.model_dump(), LATER) == {}
    assert cfg.difference(without_later(SMOKE), other.model_dump(), LATER) == {
        "model.qk_norm": "  model.qk_norm: False there, True here"
    }


def test_every_implied_value_is_the_default_of_its_field() -> None:
    sections = (cfg.Model, cfg.Data, cfg.Optim, cfg.Budget, cfg.Eval, cfg.Run)
    defaults = {
        f"{section.__name__.lower()}.{name}": field.default
        for section in sections
        for name, field in section.model_fields.items()
    }
    assert {path: defaults[path] for path in cfg.IMPLIED} == cfg.IMPLIED


def test_ids_are_what_they_were_when_the_first_sweeps_were_run() -> None:
    changed = {"run.precision": "fp32", "run.compile": False, "data.test_fraction": 0.0}
    then = cfg.overlay(cfg.load("cpu"), changed)
    assert cfg.identity(then) == "6eb697a13e00"


def test_a_digest_does_not_depend_on_the_order_of_keys() -> None:
    assert cfg.digest({"a": 1, "b": [2.5]}) == cfg.digest({"b": [2.5], "a": 1})


def in_a_process(code: str, **environment: str) -> str:
    """What a Python process prints."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=900,
    ).stdout


@pytest.mark.parametrize("hash_seed", ["0", "1"])
def test_a_digest_is_the_same_in_every_process(hash_seed: str) -> None:
    code = "from tinylm import config; print(config.digest(config.load('smoke').model_dump()))"
    printed = in_a_process(code, PYTHONHASHSEED=hash_seed)
    assert printed.strip() == cfg.digest(SMOKE.model_dump())


def test_reading_a_config_loads_neither_torch_nor_numpy_nor_ray() -> None:
    code = "import sys, tinylm.config as c; c.load('smoke'); print(*sys.modules)"
    assert not {"torch", "numpy", "ray"} & set(in_a_process(code).split())


@pytest.mark.parametrize(("above", "high"), [(0.99, False), (1.01, True)])
def test_a_loss_at_init_more_than_a_nat_above_ln_v_is_high(
    tiny: cfg.Config, above: float, high: bool
) -> None:
    assert tiny.model.starts_high(math.log(tiny.model.vocab_size) + above) is high


def test_an_error_crosses_processes_whole() -> None:
    error = pickle.loads(pickle.dumps(cfg.ConfigError(["a.b: wrong", "a.c: wrong too"])))
    assert (error.problems, str(error)) == (
        ("a.b: wrong", "a.c: wrong too"),
        "a.b: wrong\na.c: wrong too",
    )
