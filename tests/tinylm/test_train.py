"""Training: the same numbers however it is cut into pieces."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tinylm import checkpoint, data
from tinylm import config as cfg
from tinylm.data import Corpus
from tinylm.model import size
from tinylm.optim import learning_rate
from tinylm.train import (
    DIVERGED_NATS,
    DIVERGED_UPDATES,
    Diverged,
    Record,
    State,
    _watch,
    decay_branch,
    evaluate,
    probe,
    product_flops,
    start,
    train,
)

# Training loss, validation loss and gradient norm of each record of the tiny training.
GOLDEN = [
    (5.80882, 5.71547, 1.14850),
    (5.62456, 5.57809, 1.09971),
    (5.43366, 5.51330, 1.17225),
    (5.52199, 5.49487, 1.13425),
]
CLOCK = {"seconds", "tokens_per_s", "peak_memory"}


def facts(record: Record) -> dict[str, float]:
    """What a record says about the training and not about the machine."""
    said = {key: value for key, value in dataclasses.asdict(record).items() if key not in CLOCK}
    return said | {f"loss of {n}": loss for n, loss in enumerate(said.pop("first_losses"))}


def run(config: cfg.Config, corpus: Corpus) -> tuple[list[Record], State]:
    """All records of a training, and its state at the end."""
    state = start(config)
    return list(train(state, corpus, config)), state


def weights(state: State) -> dict[str, Tensor]:
    return state.model.state_dict()


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether two sets of weights are equal bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.fixture(scope="module")
def whole(tiny: cfg.Config, corpus: Corpus) -> tuple[list[Record], State]:
    """The tiny training without an interruption."""
    return run(tiny, corpus)


# Records --------------------------------------------------------------------------------------


def test_records_come_at_every_so_many_tokens_and_at_the_end(
    whole: tuple[list[Record], State],
) -> None:
    assert [record.step for record in whole[0]] == [3, 6, 9, 11]
    assert [record.tokens for record in whole[0]] == [195, 390, 585, 715]


def test_a_record_has_the_rate_of_its_last_update(
    tiny: cfg.Config, whole: tuple[list[Record], State]
) -> None:
    assert [record.lr for record in whole[0]] == [learning_rate(s, tiny) for s in (2, 5, 8, 10)]


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


def test_a_repeat_is_the_same_training(
    tiny: cfg.Config, corpus: Corpus, whole: tuple[list[Record], State]
) -> None:
    records, _ = run(cfg.overlay(tiny, {"run.repeat": 1}), corpus)
    assert [facts(r) for r in records] == [facts(r) for r in whole[0]]


def test_the_loss_falls(whole: tuple[list[Record], State]) -> None:
    assert whole[0][-1].val_loss < whole[0][0].val_loss < whole[0][0].loss_init


def test_the_clock_runs_forward(whole: tuple[list[Record], State]) -> None:
    seconds = [0.0, *(record.seconds for record in whole[0])]
    assert seconds == sorted(set(seconds))


def test_tokens_per_second_are_of_the_time_since_the_last_record(
    whole: tuple[list[Record], State],
) -> None:
    last, before = whole[0][-1], whole[0][-2]
    assert last.tokens_per_s == pytest.approx(130 / (last.seconds - before.seconds), rel=1e-9)


def test_bits_per_byte_are_the_nats_over_the_bytes_of_the_targets(
    tiny: cfg.Config, corpus: Corpus, whole: tuple[list[Record], State]
) -> None:
    record = whole[0][-1]
    targets = data.validation_windows(corpus.validation, 7, 13)[:, 1:]
    spelt = corpus.tokenizer().decode_batch(targets.tolist(), skip_special_tokens=False)
    spelt_bytes = corpus.bytes_of_token[targets].sum()
    assert record.bits_per_byte == pytest.approx(
        record.val_loss * targets.size / math.log(2) / spelt_bytes, rel=1e-12
    )
    # Windows that begin or end within a character spell a replacement for it: some bytes more.
    assert abs(sum(len(text.encode()) for text in spelt) - spelt_bytes) < 0.2 * spelt_bytes


def test_the_golden_trace(whole: tuple[list[Record], State]) -> None:
    """To a relative 1e-4, since other kernels sum in another order."""
    trace = [(record.train_loss, record.val_loss, record.grad_norm) for record in whole[0]]
    assert trace == [pytest.approx(golden, rel=1e-4) for golden in GOLDEN]


# The same numbers, however it is cut ----------------------------------------------------------


@pytest.mark.parametrize("records", [1, 2, 3])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"run.precision": "bf16"},
        {"model.norm": "none", "model.position": "learned", "model.tie_embeddings": True},
    ],
    ids=["plain", "bf16", "learned"],
)
def test_a_resumed_training_equals_an_uninterrupted_one_bit_for_bit(
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


def test_a_training_goes_on_from_a_state_at_the_end_by_saying_nothing(
    tiny: cfg.Config, corpus: Corpus, whole: tuple[list[Record], State]
) -> None:
    assert list(train(whole[1], corpus, tiny)) == []


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


def test_another_seed_is_another_training(
    tiny: cfg.Config, corpus: Corpus, whole: tuple[list[Record], State]
) -> None:
    records, _ = run(cfg.overlay(tiny, {"run.seed": 1}), corpus)
    assert records[0].train_loss != whole[0][0].train_loss


# A budget in seconds ----------------------------------------------------------------------------

TIMED = {"budget.seconds": 0.5, "budget.tokens": 65 * 11**6}


@pytest.fixture(scope="module")
def timed(tiny: cfg.Config, corpus: Corpus) -> list[Record]:
    """The records of a training of half a second."""
    return run(cfg.overlay(tiny, TIMED), corpus)[0]


def test_a_training_that_is_given_seconds_uses_them_and_no_more(timed: list[Record]) -> None:
    each = timed[-1].seconds / timed[-1].step
    assert 0.5 - 2 * each < timed[-1].seconds < 0.5 + 20 * each


def test_its_schedule_ends_with_the_time(tiny: cfg.Config, timed: list[Record]) -> None:
    final = tiny.optim.lr * tiny.optim.lr_final_fraction
    assert timed[-1].lr == pytest.approx(final, rel=0.05)
    assert max(record.lr for record in timed) == pytest.approx(tiny.optim.lr, rel=0.05)


def test_the_last_record_says_that_it_is(
    timed: list[Record], whole: tuple[list[Record], State]
) -> None:
    for records in (timed, whole[0]):
        assert [record.last for record in records] == [False] * (len(records) - 1) + [True]


def test_tokens_are_the_most_that_a_timed_training_uses(tiny: cfg.Config, corpus: Corpus) -> None:
    records, _ = run(cfg.overlay(tiny, {"budget.seconds": 1000.0}), corpus)
    assert (records[-1].step, records[-1].last) == (11, True)
    assert records[-1].lr == learning_rate(10, tiny)


def test_time_before_an_interruption_counts(
    tiny: cfg.Config, corpus: Corpus, tmp_path: Path
) -> None:
    config, saved = cfg.overlay(tiny, TIMED), tmp_path / "checkpoint.pt"
    state = start(config)
    first = next(train(state, corpus, config))
    checkpoint.save(saved, state, corpus, config)
    records = list(train(checkpoint.load(saved, corpus, config), corpus, config))
    assert first.seconds < records[0].seconds and records[-1].seconds < 1


# Evaluation -----------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{"optim.batch_size": 1}, {"run.seed": 1}, {"optim.lr": 1e-4}])
def test_evaluation_reads_the_same_windows_whatever_the_training(
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
    window_BT = torch.from_numpy(data.validation_windows(corpus.validation, 7, 13))
    with torch.no_grad():
        chance_BTV = model(window_BT[:, :-1]).log_softmax(-1)
    expected = -chance_BTV.gather(-1, window_BT[:, 1:, None]).double().mean().item()
    assert evaluate(model, corpus, tiny)[0] == pytest.approx(expected, rel=1e-6)


# Divergence -----------------------------------------------------------------------------------

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


def fold(config: cfg.Config, *losses: float) -> State:
    """The state of a training whose updates so far had these losses."""
    state = start(config)
    state.step = len(losses)
    _watch(state, list(losses), config)
    return state


ABOVE = 5.0 + DIVERGED_NATS + 0.5


def test_updates_far_above_count_once_the_warm_up_is_over(tiny: cfg.Config) -> None:
    """The warm-up of the 60 updates is 6 long."""
    config = cfg.overlay(tiny, LONG)
    assert fold(config, 5.0, *[ABOVE] * (5 + DIVERGED_UPDATES - 1)).updates_above == 19
    with pytest.raises(Diverged) as caught:
        fold(config, 5.0, *[ABOVE] * 50)
    assert caught.value.step == 6 + DIVERGED_UPDATES


def test_a_loss_that_comes_back_is_no_divergence(tiny: cfg.Config) -> None:
    spikes = [*[ABOVE] * (DIVERGED_UPDATES - 1), 5.0 + DIVERGED_NATS] * 2
    state = fold(cfg.overlay(tiny, LONG), *[5.0] * 7, *spikes)
    assert (state.updates_above, state.peak_loss, state.loss_init) == (0, ABOVE, 5.0)


def test_a_spike_is_the_rise_of_the_smoothed_loss_above_its_lowest(tiny: cfg.Config) -> None:
    state = fold(cfg.overlay(tiny, LONG), 5.0, *[5.0] * 9, 8.0, 5.0)
    assert state.spike == pytest.approx(0.1 * 3.0)
    assert state.lowest_loss == 5.0


def test_a_rise_within_the_warm_up_is_no_spike(tiny: cfg.Config) -> None:
    """It is 6 updates long."""
    assert fold(cfg.overlay(tiny, LONG), 5.0, 5.0, 9.0, 5.0, 5.0, 5.0).spike == 0.0


def test_the_updates_above_are_counted_across_an_interruption(
    tiny: cfg.Config, corpus: Corpus, tmp_path: Path
) -> None:
    config = cfg.overlay(tiny, LONG)
    state = fold(config, 5.0, *[ABOVE] * 20)
    checkpoint.save(tmp_path / "checkpoint.pt", state, corpus, config)
    resumed = checkpoint.load(tmp_path / "checkpoint.pt", corpus, config)
    resumed.step += 5
    with pytest.raises(Diverged) as caught:
        _watch(resumed, [ABOVE] * 5, config)
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


def test_a_training_is_slower_than_a_matrix_product(tiny: cfg.Config) -> None:
    """By far: what a peak is measured for is a share below 1."""
    flops = size(tiny.model).flops_per_token
    assert 0 < probe(tiny) * flops < product_flops(tiny)


def test_a_probe_measures_a_rate_without_a_corpus(tiny: cfg.Config) -> None:
    assert 0 < probe(tiny) < math.inf


# Devices --------------------------------------------------------------------------------------


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_here_is_refused(tiny: cfg.Config) -> None:
    with pytest.raises(cfg.ConfigError, match=r"run\.device: no cuda device here"):
        start(cfg.overlay(tiny, {"run.device": "cuda"}))


# Decay branches ------------------------------------------------------------------------------------


def test_a_decay_branch_leaves_the_training_as_it_is(
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
