"""Training: the same numbers however a run is cut into pieces."""

import dataclasses
import gc
import itertools
import math
import os
import shutil
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tinylm import checkpoint, data
from tinylm import config as cfg
from tinylm.data import END_OF_TEXT, Corpus
from tinylm.optim import Progress, learning_rate
from tinylm.train import (
    DIVERGED_NATS,
    DIVERGED_UPDATES,
    Diverged,
    LossWatch,
    Record,
    State,
    Updater,
    decay_branch,
    evaluate,
    on_device,
    start,
    train,
    windows_of,
)

# Training loss, validation loss and gradient norm of each record of the tiny run.
GOLDEN = [
    (5.80882, 5.71547, 1.14850),
    (5.62456, 5.57809, 1.09971),
    (5.43366, 5.51330, 1.17225),
    (5.52199, 5.49487, 1.13425),
]
CLOCK = {"seconds", "tokens_per_s", "compile_seconds", "mfu", "peak_memory"}


def facts(record: Record) -> dict[str, float]:
    """What a record says about the run and not about the machine."""
    said = {key: value for key, value in dataclasses.asdict(record).items() if key not in CLOCK}
    return said | {f"loss of {n}": loss for n, loss in enumerate(said.pop("first_losses"))}


def run(config: cfg.Config, corpus: Corpus) -> tuple[list[Record], State]:
    """All records of a run, and its state at the end."""
    state = start(config)
    return list(train(state, corpus, config)), state


@pytest.mark.slow
@pytest.mark.skipif(
    " " in sys.prefix or shutil.which("g++") is None,
    reason="the compiler of torch.compile can't link here: no g++, or an environment below a path with a space",
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*")  # torch's, of its own modules
def test_a_compiled_run_is_the_same_after_runs_of_other_shapes(
    tiny: cfg.Config, corpus: Corpus
) -> None:
    """In one process, as a worker trains one trial after the other."""
    config = cfg.overlay(tiny, {"run.compile": True, "model.n_layers": 1})
    records, state = run(config, corpus)
    torch.compiler.reset()
    tokens = dict.fromkeys(
        ("budget.tokens", "eval.every_tokens", "run.checkpoint_every_tokens"), 10 * 13
    )
    run(cfg.overlay(config, {"optim.batch_size": 10, **tokens}), corpus)
    run(cfg.overlay(config, {"model.d_ff": 41, "run.seed": 1}), corpus)
    again, last = run(config, corpus)
    assert [facts(one) for one in again] == [facts(one) for one in records]
    assert same(weights(last), weights(state))


def weights(state: State) -> dict[str, Tensor]:
    return state.model.state_dict()


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether two sets of weights are equal bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.fixture(scope="module")
def whole(tiny: cfg.Config, corpus: Corpus) -> tuple[list[Record], State]:
    """The tiny run without an interruption."""
    return run(tiny, corpus)


def test_records_come_at_every_multiple_of_their_tokens_and_at_the_end(
    whole: tuple[list[Record], State],
) -> None:
    assert [record.step for record in whole[0]] == [3, 6, 9, 11]
    assert [record.tokens for record in whole[0]] == [195, 390, 585, 715]


def test_a_record_has_the_rate_of_its_last_update(
    tiny: cfg.Config, whole: tuple[list[Record], State]
) -> None:
    assert [record.lr for record in whole[0]] == [
        learning_rate(Progress(step, 11), tiny.optim) for step in (3, 6, 9, 11)
    ]


def test_the_train_loss_is_the_mean_since_the_last_record(
    tiny: cfg.Config, corpus: Corpus, whole: tuple[list[Record], State]
) -> None:
    every = {"eval.every_tokens": 65, "run.checkpoint_every_tokens": 65}
    losses = [record.train_loss for record in run(cfg.overlay(tiny, every), corpus)[0]]
    means = [math.fsum(losses[a:b]) / (b - a) for a, b in ((0, 3), (3, 6), (6, 9), (9, 11))]
    assert [record.train_loss for record in whole[0]] == pytest.approx(means, rel=1e-15)
    assert {record.loss_init for record in whole[0]} == {losses[0]}
    assert whole[0][-1].peak_loss == max(losses)


def test_the_first_ten_losses_are_in_the_first_record(
    tiny: cfg.Config, corpus: Corpus, whole: tuple[list[Record], State]
) -> None:
    assert [len(record.first_losses) for record in whole[0]] == [3, 0, 0, 0]
    at_once = {"eval.every_tokens": 715, "run.checkpoint_every_tokens": 715}
    (record,) = run(cfg.overlay(tiny, at_once), corpus)[0]
    assert record.first_losses[:3] == whole[0][0].first_losses
    assert (len(record.first_losses), record.first_losses[0]) == (10, record.loss_init)


def test_a_repeat_is_the_same_run(
    tiny: cfg.Config, corpus: Corpus, whole: tuple[list[Record], State]
) -> None:
    records, _ = run(cfg.overlay(tiny, {"run.repeat": 1}), corpus)
    assert [facts(r) for r in records] == [facts(r) for r in whole[0]]


def test_the_loss_falls(whole: tuple[list[Record], State]) -> None:
    assert whole[0][-1].val_loss < whole[0][0].val_loss < whole[0][0].loss_init


def test_seconds_are_of_training_alone(tiny: cfg.Config, corpus: Corpus) -> None:
    """Here an update takes 2 seconds, and what the caller does between two records takes 100."""
    state, pauses = start(tiny), [0.0]
    records = train(state, corpus, tiny, clock=lambda: 2.0 * state.step + pauses[0])
    first = next(records)
    pauses[0] = 100.0
    assert (first.seconds, next(records).seconds) == (6.0, 12.0)


def test_tokens_per_second_are_of_the_time_since_the_last_record(
    tiny: cfg.Config, corpus: Corpus
) -> None:
    """Here the time of an update grows with its number."""
    state = start(tiny)
    records = train(state, corpus, tiny, clock=lambda: float(state.step**2))
    assert [record.tokens_per_s for record in records] == [
        3 * 65 / 9,
        3 * 65 / 27,
        3 * 65 / 45,
        2 * 65 / 40,
    ]


def test_the_bytes_of_the_targets_are_about_those_they_spell(
    tiny: cfg.Config, corpus: Corpus
) -> None:
    """Windows that begin or end within a character spell a replacement for it: some bytes more."""
    targets = data.fixed_windows(corpus.validation, 7, 13)[:, 1:]
    spelled = corpus.tokenizer().decode_batch(targets.tolist(), skip_special_tokens=True)
    spelled_bytes = corpus.bytes_of_token[targets].sum()
    assert abs(sum(len(text.encode()) for text in spelled) - spelled_bytes) < 0.2 * spelled_bytes


def test_the_golden_trace(whole: tuple[list[Record], State]) -> None:
    """To a relative 1e-4, since other kernels sum in another order."""
    trace = [(record.train_loss, record.val_loss, record.grad_norm) for record in whole[0]]
    assert trace == [pytest.approx(golden, rel=1e-4) for golden in GOLDEN]


@pytest.mark.parametrize("records", [1, 2, 3])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"run.precision": "bf16"},
        {"model.norm": "none", "model.position": "learned", "model.tie_embeddings": True},
        {"model.dropout": 0.3, "run.accumulate": 5},
    ],
    ids=["plain", "bf16", "learned", "dropout"],
)
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    tiny: cfg.Config, corpus: Corpus, tmp_path: Path, records: int, changes: dict[str, object]
) -> None:
    config = cfg.overlay(tiny, changes)
    uninterrupted, expected = run(config, corpus)
    state, saved = start(config), tmp_path / "checkpoint.pt"
    loop = train(state, corpus, config)
    before = [next(loop) for _ in range(records)]
    checkpoint.save(saved, state, corpus, config)
    resumed = checkpoint.load(saved, corpus, config)
    after = list(train(resumed, corpus, config))
    assert [facts(r) for r in before + after] == [facts(r) for r in uninterrupted]
    assert same(weights(resumed), weights(expected))
    assert after[0].seconds > before[-1].seconds


def test_a_run_resumes_from_a_state_at_the_end_without_a_record(
    tiny: cfg.Config, corpus: Corpus, whole: tuple[list[Record], State]
) -> None:
    assert list(train(whole[1], corpus, tiny)) == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*")  # torch's, of its own modules
def test_to_prepare_changes_nothing(tiny: cfg.Config, corpus: Corpus) -> None:
    """What a compiler makes is left out: it is the pass through the model that may change a state."""
    state, other = start(tiny), start(tiny)
    updater = Updater(state, corpus, cfg.overlay(tiny, {"run.compile": True}))
    with torch.compiler.set_stance("force_eager"):
        updater.prepare()
    assert state.step == 0 and same(weights(state), weights(other))
    losses = [Updater(one, corpus, tiny).update(0.0)[0].item() for one in (state, other)]
    assert losses[0] == losses[1]


def test_a_run_that_has_ended_leaves_no_memory(tiny: cfg.Config, corpus: Corpus) -> None:
    """At once, not when Python looks for what refers to itself: the next run needs the memory."""
    gc.disable()
    try:
        state = start(tiny)
        for _ in train(state, corpus, tiny):
            decay_branch(state, corpus, tiny, 1)
        model = weakref.ref(state.model)
        del state
        assert model() is None
    finally:
        gc.enable()


def test_arithmetic_is_that_of_the_last_run(tiny: cfg.Config) -> None:
    torch.set_float32_matmul_precision("high")
    torch.use_deterministic_algorithms(True)
    start(tiny)
    assert torch.get_float32_matmul_precision() == "highest"
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*")  # torch's, of its own modules
def test_only_the_first_record_has_seconds_of_compiling(tiny: cfg.Config, corpus: Corpus) -> None:
    assert {record.compile_seconds for record in train(start(tiny), corpus, tiny)} == {0.0}
    compiled = cfg.overlay(tiny, {"run.compile": True})
    ticks = itertools.count()
    with torch.compiler.set_stance("force_eager"):
        records = list(train(start(tiny), corpus, compiled, clock=lambda: float(next(ticks))))
    assert [record.compile_seconds for record in records] == [1.0, *[0.0] * (len(records) - 1)]


def test_ids_on_a_device_are_those_of_the_file() -> None:
    """They are kept there as signed numbers of 16 bits."""
    ids = np.array([0, 1, 32_767, 32_768, 65_535], np.uint16)
    copied = on_device(data.Tokens(ids, documents=1), "cpu")
    assert windows_of(copied, torch.tensor([0, 2]), torch.arange(3)).tolist() == [
        [0, 1, 32_767],
        [32_767, 32_768, 65_535],
    ]


def loss_of_update(state: State, corpus: Corpus, config: cfg.Config) -> float:
    """The training loss of an update that changes no weight."""
    still = cfg.overlay(config, {"optim.weight_decay": 0.0})
    return Updater(state, corpus, still).update(0.0)[0].item()


@pytest.mark.parametrize("changes", [{}, {"run.seed": 1}], ids=["step", "seed"])
def test_dropout_masks_depend_on_step_and_seed(
    tiny: cfg.Config, corpus: Corpus, changes: dict[str, object]
) -> None:
    config = cfg.overlay(tiny, {"model.dropout": 0.3})
    same_windows = data.Tokens(np.full_like(corpus.train.ids, 65), documents=1)
    corpus = dataclasses.replace(corpus, train=same_windows)
    state = start(config)
    before = loss_of_update(state, corpus, config)
    state.step = 0 if changes else 1
    assert loss_of_update(state, corpus, cfg.overlay(config, changes)) != before
    state.step = 0
    assert loss_of_update(state, corpus, config) == before


def test_an_evaluation_is_without_dropout(tiny: cfg.Config, corpus: Corpus) -> None:
    config = cfg.overlay(tiny, {"model.dropout": 0.3})
    state = start(config)
    assert evaluate(state.model, corpus, config) == evaluate(start(tiny).model, corpus, tiny)
    Updater(state, corpus, config).update(0.0)
    assert not state.model.training


def test_dropout_leaves_the_random_numbers_of_the_program_alone(
    tiny: cfg.Config, corpus: Corpus
) -> None:
    config = cfg.overlay(tiny, {"model.dropout": 0.3})
    state, before = start(config), torch.get_rng_state()
    list(train(state, corpus, config))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("accumulate", [5, 2])
def test_accumulated_micro_batches_equal_the_whole_batch(
    tiny: cfg.Config, corpus: Corpus, accumulate: int
) -> None:
    """But for the order of fp32 sums."""
    config = cfg.overlay(
        tiny,
        {"optim.batch_size": 10, "budget.tokens": 6 * 130}
        | {"eval.every_tokens": 130, "run.checkpoint_every_tokens": 130},
    )
    one, whole_batch = run(config, corpus)
    other, parts = run(cfg.overlay(config, {"run.accumulate": accumulate}), corpus)
    assert [facts(r) for r in other] == [pytest.approx(facts(r), rel=1e-5) for r in one]
    torch.testing.assert_close(weights(parts), weights(whole_batch), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"eval.every_tokens": 65, "run.checkpoint_every_tokens": 65},
        {"eval.every_tokens": 715, "run.checkpoint_every_tokens": 715},
        {"eval.tokens": 13},
        {"eval.batch_size": 1},
    ],
)
def test_evaluation_does_not_disturb_the_trajectory(
    tiny: cfg.Config, corpus: Corpus, whole: tuple[list[Record], State], changes: dict[str, object]
) -> None:
    _, state = run(cfg.overlay(tiny, changes), corpus)
    assert same(weights(state), weights(whole[1]))


def test_what_a_caller_does_with_random_numbers_changes_nothing(
    tiny: cfg.Config, corpus: Corpus, whole: tuple[list[Record], State]
) -> None:
    torch.manual_seed(12345)
    _, state = run(tiny, corpus)
    assert same(weights(state), weights(whole[1]))


def test_another_seed_is_another_run(
    tiny: cfg.Config, corpus: Corpus, whole: tuple[list[Record], State]
) -> None:
    records, _ = run(cfg.overlay(tiny, {"run.seed": 1}), corpus)
    assert records[0].train_loss != whole[0][0].train_loss


EACH = 0.125  # seconds an update takes by the clock of these tests
# 32 updates of a schedule whose every rate is a whole number of 2**-10
TIMED: dict[str, object] = {
    "budget.seconds": 32 * EACH,
    "budget.tokens": 65 * 2**20,
    "eval.every_tokens": 65,
    "run.checkpoint_every_tokens": 65,
    "optim.lr": 2.0**-7,
    "optim.lr_final_fraction": 0.25,
    "optim.schedule": "linear",
    "optim.warmup_fraction": 0.25,
}


def train_timed(state: State, corpus: Corpus, config: cfg.Config) -> Iterator[Record]:
    """The records of a run whose every update takes `EACH` seconds."""
    return train(state, corpus, config, clock=lambda: EACH * state.step)


@pytest.fixture(scope="module")
def timed(tiny: cfg.Config, corpus: Corpus) -> list[Record]:
    """The records of a run of four seconds."""
    config = cfg.overlay(tiny, TIMED)
    return list(train_timed(start(config), corpus, config))


def test_a_run_with_a_budget_in_seconds_uses_all_of_them_and_no_more(timed: list[Record]) -> None:
    assert [record.seconds for record in timed] == [EACH * step for step in range(1, 33)]


def test_an_update_that_would_not_end_in_time_is_not_begun(
    tiny: cfg.Config, corpus: Corpus
) -> None:
    config = cfg.overlay(tiny, TIMED | {"budget.seconds": 32 * EACH - 2.0**-20})
    assert list(train_timed(start(config), corpus, config))[-1].step == 31


def test_a_budget_in_seconds_has_the_schedule_of_as_many_updates(
    tiny: cfg.Config, timed: list[Record]
) -> None:
    """But for the first update, whose time is not known before it is made."""
    in_updates = {"budget.seconds": None, "budget.tokens": 32 * 65}
    config = cfg.overlay(tiny, TIMED | in_updates)
    rates = [learning_rate(Progress(step, 32), config.optim) for step in range(1, 33)]
    assert [record.lr for record in timed[1:]] == rates[1:]
    assert (rates[7], rates[-1]) == (2.0**-7, 2.0**-9)


def test_the_first_update_of_a_timed_run_has_the_rate_of_its_share_of_the_tokens(
    timed: list[Record],
) -> None:
    assert timed[0].lr == 2.0**-7 * 2.0**-20 / 0.25


def test_the_last_record_says_that_it_is(
    timed: list[Record], whole: tuple[list[Record], State]
) -> None:
    assert [record.last for record in timed] == [False] * 31 + [True]
    assert [record.last for record in whole[0]] == [False] * 3 + [True]


def test_tokens_are_the_most_that_a_timed_run_uses(tiny: cfg.Config, corpus: Corpus) -> None:
    config = cfg.overlay(tiny, {"budget.seconds": 1000.0})
    records = list(train_timed(start(config), corpus, config))
    assert (records[-1].step, records[-1].last) == (11, True)
    assert records[-1].lr == learning_rate(Progress(11, 11), tiny.optim)


def test_time_before_an_interruption_counts(
    tiny: cfg.Config, corpus: Corpus, timed: list[Record], tmp_path: Path
) -> None:
    config, saved = cfg.overlay(tiny, TIMED), tmp_path / "checkpoint.pt"
    state = start(config)
    first = next(train_timed(state, corpus, config))
    checkpoint.save(saved, state, corpus, config)
    rest = list(train_timed(checkpoint.load(saved, corpus, config), corpus, config))
    assert [facts(record) for record in [first, *rest]] == [facts(record) for record in timed]
    assert [record.seconds for record in rest] == [record.seconds for record in timed[1:]]


@pytest.mark.parametrize("changes", [{"optim.batch_size": 1}, {"run.seed": 1}, {"optim.lr": 1e-4}])
def test_evaluation_reads_the_same_windows_whatever_the_run(
    tiny: cfg.Config, corpus: Corpus, changes: dict[str, object]
) -> None:
    model = start(tiny).model
    other = cfg.overlay(tiny, changes)
    assert evaluate(model, corpus, tiny) == evaluate(model, corpus, other)


@pytest.mark.parametrize("batch_size", [1, 2, 7, 100])
def test_the_evaluation_batch_changes_no_loss(
    tiny: cfg.Config, corpus: Corpus, batch_size: int
) -> None:
    model = start(tiny).model
    other = cfg.overlay(tiny, {"eval.batch_size": batch_size})
    assert evaluate(model, corpus, other) == pytest.approx(evaluate(model, corpus, tiny), rel=1e-6)


def test_the_validation_loss_is_the_mean_over_the_windows(tiny: cfg.Config, corpus: Corpus) -> None:
    model = start(tiny).model
    window_BT = torch.from_numpy(data.fixed_windows(corpus.validation, 7, 13))
    with torch.no_grad():
        chance_BTV = model(window_BT[:, :-1]).log_softmax(-1)
    expected = -chance_BTV.gather(-1, window_BT[:, 1:, None]).double().mean().item()
    assert evaluate(model, corpus, tiny)[0] == pytest.approx(expected, rel=1e-6)


def loss_without_context(tiny: cfg.Config, corpus: Corpus, changes: dict[str, object]) -> float:
    """The loss of a model that predicts tokens by how frequent they are, from none before them."""
    logit_V = torch.randn(307, generator=torch.Generator().manual_seed(0))
    config = cfg.overlay(tiny, {"eval.tokens": 2 * 3 * 5 * 7, **changes})
    return evaluate(lambda token_BT: logit_V.expand(*token_BT.shape, -1), corpus, config)[0]


def length(context: int, update: int = 5) -> dict[str, object]:
    """The changes that make a run of a context length, with so many windows in an update."""
    every = ("budget.tokens", "eval.every_tokens", "run.checkpoint_every_tokens")
    return {"model.context_length": context, **dict.fromkeys(every, context * update)}


@pytest.mark.parametrize("context", [2, 3, 5, 6, 7, 35])
def test_without_context_the_loss_on_equal_blocks_is_that_of_every_context_length(
    tiny: cfg.Config, corpus: Corpus, context: int
) -> None:
    block = {"eval.block": 210}
    whole = loss_without_context(tiny, corpus, {**length(210), **block})
    short = loss_without_context(tiny, corpus, {**length(context), **block})
    assert short == pytest.approx(whole, rel=1e-12)


def test_on_windows_of_their_own_it_is_not(tiny: cfg.Config, corpus: Corpus) -> None:
    whole = loss_without_context(tiny, corpus, length(210))
    assert abs(loss_without_context(tiny, corpus, length(2)) - whole) > 1e-3


def test_a_block_of_one_window_changes_no_loss(tiny: cfg.Config, corpus: Corpus) -> None:
    model = start(tiny).model
    blocks = cfg.overlay(tiny, {"eval.block": 13})
    assert evaluate(model, corpus, blocks) == evaluate(model, corpus, tiny)


@pytest.mark.parametrize("end_logit", [0.0, -20.0, 5.0])
def test_bits_per_byte_leave_out_the_ends_of_documents(
    tiny: cfg.Config, corpus: Corpus, end_logit: float
) -> None:
    """All tokens but `<|endoftext|>` are equally probable: each costs ln(306 + e**end_logit)."""
    config = cfg.overlay(tiny, {"eval.tokens": 31 * 13})
    targets = data.fixed_windows(corpus.validation, 31, 13)[:, 1:]
    end = corpus.tokenizer().token_to_id(END_OF_TEXT)
    ends, bytes_ = int((targets == end).sum()), int(corpus.bytes_of_token[targets].sum())
    assert ends > 0
    logit_V = torch.zeros(307)
    logit_V[end] = end_logit
    nats = math.log(306 + math.exp(end_logit))
    loss, bits_per_byte = evaluate(
        lambda token_BT: logit_V.expand(*token_BT.shape, -1), corpus, config
    )
    text = targets.size - ends
    assert loss == pytest.approx(nats - end_logit * ends / targets.size, rel=1e-6)
    assert bits_per_byte == pytest.approx(text * nats / math.log(2) / bytes_, rel=1e-6)


LONG = {"budget.tokens": 60 * 65, "optim.warmup_fraction": 0.1}


def test_a_loss_that_is_not_finite_has_diverged(tiny: cfg.Config, corpus: Corpus) -> None:
    config = cfg.overlay(tiny, {"optim.lr": 1e30, "model.norm": "none", "optim.warmup_fraction": 0})
    with pytest.raises(Diverged) as caught:
        run(config, corpus)
    assert (caught.value.step, caught.value.tokens) == (2, 130)
    assert (caught.value.how, caught.value.reason) == ("non-finite", "training loss nan at step 2")
    assert math.isfinite(caught.value.peak_loss)


def test_a_loss_that_stays_far_above_its_value_at_init_has_diverged(
    tiny: cfg.Config, corpus: Corpus
) -> None:
    config = cfg.overlay(tiny, LONG | {"optim.lr": 10.0})
    with pytest.raises(Diverged, match="more than 1 nat above its value at init") as caught:
        run(config, corpus)
    assert caught.value.how == "blown up"
    assert caught.value.step < 60
    assert caught.value.tokens == 65 * caught.value.step
    assert caught.value.peak_loss > math.log(307) + DIVERGED_NATS


def watched(config: cfg.Config, *losses: float) -> LossWatch:
    """The watch over a run whose updates so far had these losses."""
    watch = LossWatch()
    watch.observe(losses, len(losses), 0.0, config)
    return watch


ABOVE = 5.0 + DIVERGED_NATS + 0.5


def test_updates_far_above_count_after_warm_up(tiny: cfg.Config) -> None:
    """The warm-up of the 60 updates is 6 long."""
    config = cfg.overlay(tiny, LONG)
    assert watched(config, 5.0, *[ABOVE] * (5 + DIVERGED_UPDATES - 1)).updates_above == 19
    with pytest.raises(Diverged) as caught:
        watched(config, 5.0, *[ABOVE] * 50)
    assert caught.value.step == 6 + DIVERGED_UPDATES


def test_a_loss_that_comes_back_is_no_divergence(tiny: cfg.Config) -> None:
    spikes = [*[ABOVE] * (DIVERGED_UPDATES - 1), 5.0 + DIVERGED_NATS] * 2
    watch = watched(cfg.overlay(tiny, LONG), *[5.0] * 7, *spikes)
    assert (watch.updates_above, watch.peak_loss, watch.loss_init) == (0, ABOVE, 5.0)


def test_a_spike_is_the_rise_of_the_smoothed_loss_above_its_lowest(tiny: cfg.Config) -> None:
    watch = watched(cfg.overlay(tiny, LONG), 5.0, *[5.0] * 9, 8.0, 5.0)
    assert watch.spike == pytest.approx(0.1 * 3.0)
    assert watch.lowest_loss == 5.0


def test_a_rise_within_warm_up_is_no_spike(tiny: cfg.Config) -> None:
    """It is 6 updates long."""
    assert watched(cfg.overlay(tiny, LONG), 5.0, 5.0, 9.0, 5.0, 5.0, 5.0).spike == 0.0


def test_the_warm_up_of_a_timed_run_is_a_share_of_its_seconds(tiny: cfg.Config) -> None:
    config = cfg.overlay(tiny, LONG | {"budget.seconds": 10.0})
    in_warmup, after = LossWatch(5.0, smooth_loss=5.0), LossWatch(5.0, smooth_loss=5.0)
    in_warmup.observe([4.0, 9.0], 5, 1.0, config)
    after.observe([4.0, 9.0], 5, 1.25, config)
    assert in_warmup.spike == 0.0 < after.spike


def test_the_updates_above_are_counted_across_an_interruption(
    tiny: cfg.Config, corpus: Corpus, tmp_path: Path
) -> None:
    config = cfg.overlay(tiny, LONG)
    state = start(config)
    next(train(state, corpus, config))
    state.step, state.watch = 21, watched(config, 5.0, *[ABOVE] * 20)
    for moments in state.optimizer.state.values():
        moments["step"].fill_(21)
    checkpoint.save(tmp_path / "checkpoint.pt", state, corpus, config)
    resumed = checkpoint.load(tmp_path / "checkpoint.pt", corpus, config)
    with pytest.raises(Diverged) as caught:
        resumed.watch.observe([ABOVE] * 5, resumed.step + 5, 0.0, config)
    assert caught.value.step == 6 + DIVERGED_UPDATES


def test_a_high_loss_at_init_is_no_divergence(tiny: cfg.Config, corpus: Corpus) -> None:
    high = {"model.norm": "none", "model.tie_embeddings": True, "model.embedding_std": 2.0}
    records, _ = run(cfg.overlay(tiny, LONG | high), corpus)
    assert records[0].loss_init > 20
    assert records[-1].step == 60


def test_a_validation_loss_that_is_not_finite_has_diverged(
    tiny: cfg.Config, corpus: Corpus
) -> None:
    """The last update may break the weights after its own loss was fine."""
    config = cfg.overlay(
        tiny,
        {"optim.lr": 1e30, "model.norm": "none", "optim.warmup_fraction": 0}
        | {"budget.tokens": 65, "eval.every_tokens": 65, "run.checkpoint_every_tokens": 65},
    )
    with pytest.raises(Diverged, match="validation loss nan at step 1"):
        run(config, corpus)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_available_is_refused(tiny: cfg.Config) -> None:
    with pytest.raises(cfg.ConfigError, match=r"run\.device: cuda is not available here"):
        start(cfg.overlay(tiny, {"run.device": "cuda"}))


def test_a_decay_branch_leaves_the_run_as_it_is(
    tiny: cfg.Config, corpus: Corpus, whole: tuple[list[Record], State]
) -> None:
    state, records = start(tiny), []
    for record in train(state, corpus, tiny):
        records.append(facts(record))
        decay_branch(state, corpus, tiny, 2)
    assert records == [facts(record) for record in whole[0]]
    assert same(weights(state), weights(whole[1]))


def test_a_branch_from_a_constant_rate_ends_as_warm_up_stable_decay_does(
    tiny: cfg.Config, corpus: Corpus
) -> None:
    """Six updates and a branch of five are eleven updates of which wsd decays the last five."""
    changes = {"optim.warmup_fraction": 0.0, "optim.schedule": "constant"}
    constant = cfg.overlay(tiny, changes)
    state = start(constant)
    records = train(state, corpus, constant)
    next(records), next(records)
    branch = decay_branch(state, corpus, constant, 5)
    wsd = {"optim.schedule": "wsd", "optim.decay_fraction": 5 / 11}
    (*_, last), _ = run(cfg.overlay(constant, wsd), corpus)
    assert branch is not None and branch.val_loss == last.val_loss


def test_a_branch_that_diverges_has_no_record(tiny: cfg.Config, corpus: Corpus) -> None:
    state = start(tiny)
    next(train(state, corpus, tiny))
    with torch.no_grad():
        next(state.model.parameters()).fill_(math.nan)
    assert decay_branch(state, corpus, tiny, 1) is None


def test_what_is_compiled_is_kept_in_the_cache_folder(
    tiny: cfg.Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    monkeypatch.setenv("TINYLM_CACHE", str(tmp_path))
    start(tiny)
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "compiled")
