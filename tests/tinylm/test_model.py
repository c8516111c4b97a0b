"""The Transformer: closed forms of its sizes, and what each switch does."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from itertools import product
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from tinylm import config as cfg
from tinylm.model import (
    BLOCK,
    FFN,
    POSITION,
    NoPosition,
    RMSNorm,
    Rope,
    Transformer,
    attend,
    build,
    cross_entropy,
)
from tinylm.size import size


def values(switch: str) -> tuple[str, ...]:
    """Every value that the config knows of a switch."""
    return get_args(cfg.Model.model_fields[switch].annotation)


SWITCHES = [
    {"norm": norm, "position": position, "ffn": ffn, "tie_embeddings": tie, "qk_norm": qk}
    for norm, position, ffn, tie, qk in product(
        values("norm"), values("position"), values("ffn"), [False, True], [False, True]
    )
]
FFN_MATRICES = {"swiglu": 3, "silu": 2, "gelu": 2}
ONE_SWITCH = [
    {"norm": "post"},
    {"norm": "none"},
    {"position": "none"},
    {"position": "learned"},
    {"ffn": "silu"},
    {"ffn": "gelu"},
    {"tie_embeddings": True},
    {"qk_norm": True},
    {"n_heads": 7},
    {"n_layers": 3},
]


def name(changes: dict[str, object]) -> str:
    return "-".join(f"{key}={value}" for key, value in changes.items())


def block_of(model: Transformer) -> Any:
    """The first block of a model."""
    return model.blocks[0]


def changed(tiny: cfg.Config, changes: Mapping[str, object]) -> cfg.Model:
    """The tiny model with some of its settings replaced."""
    return cfg.overlay(tiny, {f"model.{key}": value for key, value in changes.items()}).model


def tokens(c: cfg.Model, batch: int = 3) -> Tensor:
    """Random token ids of a whole window, always the same."""
    generator = torch.Generator().manual_seed(5)
    return torch.randint(c.vocab_size, (batch, c.context_length), generator=generator)


@torch.no_grad()
def logits(model: Transformer, token_BT: Tensor) -> Tensor:
    return model(token_BT)


@pytest.mark.parametrize("changes", SWITCHES, ids=name)
def test_the_parameter_count_has_its_closed_form(
    tiny: cfg.Config, changes: dict[str, object]
) -> None:
    c = changed(tiny, changes)
    V, D, F_, T, L, K = c.vocab_size, c.d_model, c.d_ff, c.context_length, c.n_layers, 14
    matrices = 4 * D * D + FFN_MATRICES[c.ffn] * D * F_
    gains = (0 if c.norm == "none" else 2 * D) + (2 * K if c.qk_norm else 0)
    inside = L * (matrices + gains) + (D if c.norm == "pre" else 0)
    position = T * D if c.position == "learned" else 0
    head = 0 if c.tie_embeddings else V * D
    counted = size(c)
    assert counted.params == V * D + position + inside + head
    assert counted.params_without_embeddings == inside
    assert counted.params_without_input_embedding == inside + V * D
    assert counted.flops_per_token == 6 * (L * matrices + V * D) + 12 * L * T * D


@pytest.mark.parametrize("changes", SWITCHES, ids=name)
def test_size_counts_the_model_that_is_built(tiny: cfg.Config, changes: dict[str, object]) -> None:
    c = changed(tiny, changes)
    model, counted = build(c, 0), size(c)
    weights = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear))
    assert counted.params == sum(p.numel() for p in model.parameters())
    assert counted.flops_per_token == 6 * weights + 12 * c.n_layers * c.context_length * c.d_model


@pytest.mark.parametrize(
    ("switch", "classes"), [("norm", BLOCK), ("position", POSITION), ("ffn", FFN)]
)
def test_every_value_of_a_switch_has_a_class(switch: str, classes: dict[str, type]) -> None:
    assert set(classes) == set(values(switch))


@pytest.mark.parametrize(
    ("config", "params", "without_embeddings", "without_input_embedding"),
    [
        ("tinystories_17m", 22_696_448, 12_456_448, 17_576_448),
        ("baseline_17m", 128_625_408, 113_265_408, 120_945_408),
    ],
)
def test_a_shipped_model_has_the_size_of_its_source(
    config: str, params: int, without_embeddings: int, without_input_embedding: int
) -> None:
    counted = size(cfg.load(config).model)
    assert counted.params == params
    assert counted.params_without_embeddings == without_embeddings
    assert counted.params_without_input_embedding == without_input_embedding


def test_the_loss_at_init_is_ln_v_where_logits_are_small(tiny: cfg.Config) -> None:
    """Logits of standard deviation s = 6.5e-4 move the mean of 348 losses by some s / sqrt(348)."""
    c = changed(tiny, {"init_std": 1e-4})
    token_BT = tokens(c, 29)
    logit_BTV = logits(build(c, 0), token_BT)
    loss = F.cross_entropy(logit_BTV[:, :-1].flatten(0, 1), token_BT[:, 1:].flatten())
    assert loss.item() == pytest.approx(math.log(c.vocab_size), abs=1e-4)


@pytest.mark.parametrize("width", [32, 128, 512])
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_a_tied_model_starts_within_a_nat_of_ln_v(tiny: cfg.Config, width: int, norm: str) -> None:
    switches = {"tie_embeddings": True, "norm": norm, "d_model": width, "n_heads": 2, "n_layers": 2}
    c = changed(tiny, switches)
    token_BT = tokens(c, 29)
    logit_BTV = logits(build(c, 0), token_BT)
    loss = F.cross_entropy(logit_BTV[:, :-1].flatten(0, 1), token_BT[:, 1:].flatten())
    assert abs(loss.item() - math.log(c.vocab_size)) < 1


def test_the_same_seed_builds_the_same_weights(tiny: cfg.Config) -> None:
    one, other = build(tiny.model, 3), build(tiny.model, 3)
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_another_seed_builds_other_matrices(tiny: cfg.Config) -> None:
    pairs = zip(build(tiny.model, 3).parameters(), build(tiny.model, 4).parameters(), strict=True)
    assert not any(torch.equal(a, b) for a, b in pairs if a.ndim > 1)


def test_no_two_matrices_begin_with_the_same_numbers(tiny: cfg.Config) -> None:
    matrices = [p for p in build(tiny.model, 3).parameters() if p.ndim > 1]
    first = {round((p / p.std()).flatten()[0].item(), 6) for p in matrices}
    assert len(first) == len(matrices)


@pytest.mark.parametrize("changes", ONE_SWITCH, ids=name)
def test_models_that_differ_in_a_switch_share_the_weights_they_have_in_common(
    tiny: cfg.Config, changes: dict[str, object]
) -> None:
    one = {"embedding_std": 1.0}  # tied embeddings begin smaller
    base = dict(build(changed(tiny, one), 3).named_parameters())
    other = dict(build(changed(tiny, one | changes), 3).named_parameters())
    # Heads of another width have other gains; no matrix depends on the heads.
    common = base.keys() & other.keys()
    assert {
        "embedding.weight",
        "blocks.1.attention.qkv.weight",
        "blocks.1.ffn.down.weight",
    } <= common
    assert all(torch.equal(base[key], other[key]) for key in common)


WIDE = {"d_model": 248, "n_heads": 2, "d_ff": 509, "n_layers": 1}


@pytest.mark.parametrize(
    ("parameter", "std"),
    [
        ("blocks.0.attention.qkv.weight", math.sqrt(2 / (248 + 248))),  # three square matrices
        ("blocks.0.attention.out.weight", math.sqrt(2 / (248 + 248))),
        ("blocks.0.ffn.up.weight", math.sqrt(2 / (248 + 509))),
        ("blocks.0.ffn.gate.weight", math.sqrt(2 / (248 + 509))),
        ("blocks.0.ffn.down.weight", math.sqrt(2 / (248 + 509))),
        ("head.weight", math.sqrt(2 / (248 + 307))),
        ("embedding.weight", 1.0),
    ],
)
def test_matrices_are_normal_and_truncated_at_three_standard_deviations(
    tiny: cfg.Config, parameter: str, std: float
) -> None:
    weight = dict(build(changed(tiny, WIDE), 0).named_parameters())[parameter]
    # The truncated normal's own deviation is 0.98658 of the whole one's; 1% is five times the
    # spread of the estimate from the smallest of these matrices.
    assert weight.std().item() == pytest.approx(0.98658 * std, rel=0.01)
    assert 2.9 * std < weight.abs().max().item() <= 3 * std * (1 + 1e-6)


@pytest.mark.parametrize(
    ("parameter", "std"),
    [("blocks.0.attention.qkv.weight", 0.02), ("head.weight", 0.02), ("embedding.weight", 0.5)],
)
def test_stated_standard_deviations_are_taken(tiny: cfg.Config, parameter: str, std: float) -> None:
    c = changed(tiny, WIDE | {"init_std": 0.02, "embedding_std": 0.5})
    weight = dict(build(c, 0).named_parameters())[parameter]
    assert weight.std().item() == pytest.approx(0.98658 * std, rel=0.01)


def test_gains_start_at_one(tiny: cfg.Config) -> None:
    model = build(changed(tiny, {"qk_norm": True}), 0)
    assert all(torch.all(p == 1) for p in model.parameters() if p.ndim == 1)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("position", ["rope", "none", "learned"])
@pytest.mark.parametrize("norm", ["pre", "post", "none"])
def test_a_later_token_changes_no_earlier_logit_by_a_bit(
    tiny: cfg.Config, norm: str, position: str, precision: str
) -> None:
    c = changed(tiny, {"norm": norm, "position": position})
    model, before = build(c, 0), tokens(c)
    after = before.clone()
    after[:, 7] = (after[:, 7] + 1) % c.vocab_size
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        was, now = logits(model, before), logits(model, after)
    assert torch.equal(was[:, :7], now[:, :7])
    assert torch.all((was[:, 7:] != now[:, 7:]).any(-1))


def vectors(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


FUTURE = NoPosition(13).future_TT


def test_attention_has_its_closed_form() -> None:
    q, k, v = (vectors(2, 3, 13, 14, seed=seed).double() for seed in range(3))
    score = q @ k.mT / math.sqrt(14) + torch.full((13, 13), -math.inf).triu(1)
    expected = (score.exp() / score.exp().sum(-1, keepdim=True)) @ v
    torch.testing.assert_close(attend(q, k, v, FUTURE), expected, rtol=1e-12, atol=1e-12)


def test_attention_in_bf16_equals_the_fused_kernel_within_the_error_of_bf16() -> None:
    """Scores up to 4, weights and sums are rounded to 8 bits each; values reach 4."""
    q, k, v = (vectors(2, 3, 13, 14, seed=seed).bfloat16() for seed in range(3))
    exact = F.scaled_dot_product_attention(q.float(), k.float(), v.float(), is_causal=True)
    torch.testing.assert_close(attend(q, k, v, FUTURE).float(), exact, rtol=0, atol=4 * 4 * 2**-9)


@pytest.mark.parametrize("length", [1, 2, 3, 12])
def test_attention_in_bf16_to_a_part_of_the_window_equals_that_of_the_whole_window(
    length: int,
) -> None:
    q, k, v = (vectors(2, 3, 13, 14, seed=seed).bfloat16() for seed in range(3))
    part = attend(q[..., :length, :], k[..., :length, :], v[..., :length, :], FUTURE)
    whole = attend(q, k, v, FUTURE)[..., :length, :]
    torch.testing.assert_close(part.float(), whole.float(), rtol=0, atol=4 * 4 * 2**-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_takes_whole_weights_of_attention_and_scales_the_others(dtype: torch.dtype) -> None:
    q, k = (vectors(2, 3, 13, 14, seed=seed).to(dtype) for seed in range(2))
    values = torch.eye(13).expand(2, 3, 13, 13).to(dtype)  # so that what comes out are the weights
    all_BHTT = attend(q, k, values, FUTURE)
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        some_BHTT = attend(q, k, values, FUTURE, dropout=0.75)
    kept = some_BHTT != 0
    assert 0.2 < kept[all_BHTT != 0].float().mean() < 0.3
    torch.testing.assert_close(some_BHTT[kept], 4 * all_BHTT[kept], rtol=2**-7, atol=0)


@pytest.mark.parametrize("norm", ["pre", "post", "none"])
def test_dropout_of_nearly_all_leaves_nothing_but_zeros(tiny: cfg.Config, norm: str) -> None:
    """Embeddings and outputs of sub-layers are dropped, so the head sees zeros."""
    model = build(changed(tiny, {"norm": norm, "dropout": 1 - 2**-40}), 0).train()
    with torch.random.fork_rng([]), torch.no_grad():
        torch.manual_seed(0)
        logit_BTV = model(tokens(tiny.model))
    assert torch.equal(logit_BTV, torch.zeros_like(logit_BTV))


def turned_by(positions: int, vector_K: Tensor) -> Tensor:
    """A vector as it is turned at each position."""
    rope = Rope(1, 14, positions, 10_000.0)
    return rope.rotate(vector_K.repeat(positions, 1, 1)).squeeze(1)


def loss_and_gradients(
    loss_of: Callable[..., Tensor], kind: torch.dtype, upstream: float
) -> list[Tensor]:
    """The loss of made-up features, and `upstream` times its gradients, all in double precision.

    There are 3,529 positions; the chunks of a vocabulary of 307 are of 1,707."""
    x_ND, weight_VD = (
        vectors(*shape, seed=seed).to(kind).float().requires_grad_()
        for seed, shape in enumerate([(3529, 17), (307, 17)])
    )
    target_N = torch.randint(307, (3529,), generator=torch.Generator().manual_seed(5))
    loss = loss_of(x_ND, weight_VD, target_N)
    gradients = torch.autograd.grad(loss * upstream, (x_ND, weight_VD))
    return [tensor.detach().double() for tensor in (loss, *gradients)]


def exact_loss(x_ND: Tensor, weight_VD: Tensor, target_N: Tensor) -> Tensor:
    return F.cross_entropy(x_ND.double() @ weight_VD.double().T, target_N)


def test_cross_entropy_in_chunks_has_the_loss_and_gradients_of_the_whole() -> None:
    """To a few roundings of fp32 in products of 17 and sums of 3,529."""
    found = loss_and_gradients(cross_entropy, torch.float32, 3.0)
    for one, exact in zip(found, loss_and_gradients(exact_loss, torch.float32, 3.0), strict=True):
        assert (one - exact).norm() < 1e-6 * exact.norm()


def test_cross_entropy_in_bf16_is_within_the_error_of_bf16() -> None:
    """Logits and their gradients are rounded to 8 bits each."""
    in_bf16 = partial(cross_entropy, dtype=torch.bfloat16)
    found = loss_and_gradients(in_bf16, torch.bfloat16, 3.0)
    for one, exact in zip(found, loss_and_gradients(exact_loss, torch.bfloat16, 3.0), strict=True):
        assert (one - exact).norm() < 2**-6 * exact.norm()


def test_the_first_pair_turns_by_one_radian_a_position() -> None:
    turned = turned_by(13, torch.eye(14)[0])
    position = torch.arange(13, dtype=torch.float64)
    assert torch.equal(turned[:, 0], position.cos().float())
    assert torch.equal(turned[:, 1], position.sin().float())


@pytest.mark.parametrize("pair", range(7))
def test_adjacent_pairs_turn_at_their_own_rate(pair: int) -> None:
    rate = 10_000.0 ** (-2 * pair / 14)
    turned = turned_by(13, torch.eye(14)[2 * pair + 1])
    expected = torch.zeros(14, dtype=torch.float64)
    expected[2 * pair], expected[2 * pair + 1] = -math.sin(11 * rate), math.cos(11 * rate)
    torch.testing.assert_close(turned[11].double(), expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_compiled_rotation_equals_an_eager_one(dtype: torch.dtype) -> None:
    """Within two roundings of values up to 6: one is a product of complex numbers, the other is not."""
    rope, x_BTHK = Rope(3, 14, 13, 10_000.0), vectors(2, 13, 3, 14).to(dtype)
    compiled = torch.compile(rope.rotate, backend="eager", fullgraph=True)
    expected = rope.rotate(x_BTHK)
    assert expected.dtype == dtype
    torch.testing.assert_close(
        compiled(x_BTHK), expected, rtol=0, atol=2 * 6 * torch.finfo(dtype).eps
    )


@pytest.mark.parametrize("distance", [0, 1, 5])
def test_products_of_turned_vectors_depend_on_their_distance_only(distance: int) -> None:
    q_TK, k_TK = (turned_by(31, vectors(14, seed=seed)) for seed in (0, 1))
    product_T = (q_TK[distance:] * k_TK[: 31 - distance]).sum(-1)
    torch.testing.assert_close(product_T, product_T[:1].expand_as(product_T), rtol=0, atol=1e-5)


def test_products_of_turned_vectors_depend_on_the_sign_of_their_distance() -> None:
    q_TK, k_TK = (turned_by(31, vectors(14, seed=seed)) for seed in (0, 1))
    assert abs((q_TK[5] * k_TK[0]).sum() - (q_TK[0] * k_TK[5]).sum()) > 0.1


def last_of_a_shuffled_window(tiny: cfg.Config, position: str) -> tuple[Tensor, Tensor]:
    """The last logits of a one-layer model before and after its earlier tokens are shuffled."""
    c = changed(tiny, {"position": position, "n_layers": 1})
    model, token_BT = build(c, 0), tokens(c)
    order = [*torch.randperm(12, generator=torch.Generator().manual_seed(0)).tolist(), 12]
    return logits(model, token_BT)[:, -1], logits(model, token_BT[:, order])[:, -1]


def test_one_layer_without_positions_sees_earlier_tokens_as_a_set(tiny: cfg.Config) -> None:
    was, now = last_of_a_shuffled_window(tiny, "none")
    torch.testing.assert_close(was, now, rtol=0, atol=1e-5)


@pytest.mark.parametrize("position", ["rope", "learned"])
def test_one_layer_with_positions_sees_their_order(tiny: cfg.Config, position: str) -> None:
    was, now = last_of_a_shuffled_window(tiny, position)
    assert (was - now).abs().max() > 1e-2


def test_learned_positions_are_added_to_the_embeddings(tiny: cfg.Config) -> None:
    model = build(changed(tiny, {"position": "learned"}), 0)
    bare = build(changed(tiny, {"position": "none"}), 0)
    with torch.no_grad():
        dict(model.named_parameters())["position.weight"].zero_()
    token_BT = tokens(tiny.model)
    assert torch.equal(logits(model, token_BT), logits(bare, token_BT))


def test_a_window_shorter_than_the_context_gets_the_same_logits(tiny: cfg.Config) -> None:
    model, token_BT = build(tiny.model, 0), tokens(tiny.model)
    short = logits(model, token_BT[:, :5])
    torch.testing.assert_close(short, logits(model, token_BT)[:, :5], rtol=0, atol=1e-5)


def test_rmsnorm_has_its_closed_form() -> None:
    norm, x_BTD = RMSNorm(42, 0.5), vectors(3, 13, 42)
    with torch.no_grad():
        norm.gain.copy_(vectors(42, seed=1))
    expected = x_BTD / (x_BTD.square().mean(-1, keepdim=True) + 0.5).sqrt() * norm.gain
    torch.testing.assert_close(norm(x_BTD), expected, rtol=0, atol=1e-6)


def stream(tiny: cfg.Config, norm: str) -> Tensor:
    """What the head reads."""
    c = changed(tiny, {"norm": norm})
    model = build(c, 0)
    model.head = nn.Identity()  # type: ignore[assignment]
    return logits(model, tokens(c))


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_with_norms_the_head_reads_vectors_of_unit_size(tiny: cfg.Config, norm: str) -> None:
    size_BT = stream(tiny, norm).square().mean(-1).sqrt()
    torch.testing.assert_close(size_BT, torch.ones(3, 13), rtol=0, atol=1e-4)


def test_without_norms_the_head_reads_what_the_blocks_add_up_to(tiny: cfg.Config) -> None:
    assert torch.all(stream(tiny, "none").square().mean(-1).sqrt() > 1.1)


@pytest.mark.parametrize(("norm", "same"), [("pre", True), ("post", False), ("none", False)])
def test_pre_norm_blocks_read_normed_vectors_and_add_to_the_bare_stream(
    tiny: cfg.Config, norm: str, same: bool
) -> None:
    """What a pre-norm block adds does not depend on the scale of its input."""
    model = build(changed(tiny, {"norm": norm}), 0)
    block, position = block_of(model), model.position
    x_BTD = vectors(3, 13, 42)
    with torch.no_grad():
        # It reads the sum with what attention adds, whose direction the scale does change.
        block.ffn.down.weight.zero_()
        added, added_to_more = (
            block(x_BTD, position) - x_BTD,
            block(64 * x_BTD, position) - 64 * x_BTD,
        )
    assert torch.allclose(added, added_to_more, rtol=0, atol=1e-3) is same


def test_qk_norm_makes_attention_blind_to_the_size_of_queries_and_keys(tiny: cfg.Config) -> None:
    c = changed(tiny, {"qk_norm": True, "norm_eps": 1e-12})
    model, token_BT = build(c, 0), tokens(c)
    was = logits(model, token_BT)
    with torch.no_grad():
        block_of(model).attention.qkv.weight[: 2 * c.d_model] *= 8
    torch.testing.assert_close(logits(model, token_BT), was, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        *ONE_SWITCH,
        {"norm_eps": 1e-2},
        {"rope_theta": 100.0},
        {"init_std": 0.02},
        {"embedding_std": 0.5},
        {"d_ff": 41},
    ],
    ids=name,
)
def test_every_switch_changes_what_the_model_says(
    tiny: cfg.Config, changes: dict[str, object]
) -> None:
    token_BT = tokens(tiny.model)
    was, now = (logits(build(c, 0), token_BT) for c in (tiny.model, changed(tiny, changes)))
    assert (was - now).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("ffn", "function"),
    [
        ("silu", lambda up, gate: up * torch.sigmoid(up)),
        ("gelu", lambda up, gate: up * 0.5 * (1 + torch.erf(up / math.sqrt(2)))),
        ("swiglu", lambda up, gate: gate * torch.sigmoid(gate) * up),
    ],
)
def test_the_feed_forward_network_has_its_closed_form(
    tiny: cfg.Config, ffn: str, function: Callable[[Tensor, Tensor | None], Tensor]
) -> None:
    network: Any = block_of(build(changed(tiny, {"ffn": ffn}), 0)).ffn
    x_BTD = vectors(3, 13, 42)
    gate = network.gate(x_BTD) if ffn == "swiglu" else None
    expected = network.down(function(network.up(x_BTD), gate))
    torch.testing.assert_close(network(x_BTD), expected, rtol=0, atol=1e-6)


def test_a_tied_head_is_the_embedding(tiny: cfg.Config) -> None:
    model = build(changed(tiny, {"tie_embeddings": True}), 0)
    assert model.head.weight is model.embedding.weight


def loss_at_init(model: cfg.Model) -> float:
    """The loss of random tokens."""
    generator = torch.Generator().manual_seed(0)
    ids_BT = torch.randint(model.vocab_size, (32, model.context_length), generator=generator)
    logit_BTV = build(model, seed=0)(ids_BT[:, :-1])
    return F.cross_entropy(logit_BTV.flatten(0, 1), ids_BT[:, 1:].flatten()).item()


@pytest.mark.parametrize(
    "change",
    [
        {"tie_embeddings": True, "embedding_std": 1.0},
        {"tie_embeddings": True, "embedding_std": 1.0, "norm": "none"},
        {"norm": "none", "embedding_std": 10.0},
        {"init_std": 1.0},
        {"init_std": 1.0, "norm": "post"},
    ],
    ids=str,
)
def test_the_setting_that_is_named_lowers_a_high_loss_at_init(
    tiny: cfg.Config, change: dict[str, Any]
) -> None:
    model = tiny.model.model_copy(update=change)
    ((path, value),) = model.lower_init.items()
    mended = model.model_copy(update={path.removeprefix("model."): value})
    starts = [one.starts_high(loss_at_init(one)) for one in (model, mended)]
    assert starts == [True, False]
