"""The Transformer and its switches.

Shapes stand in names. B: sequences of a batch, T: positions of a window, V: vocabulary,
D: width (d_model), H: heads, K: width of a head (D = H * K), F: hidden width (d_ff).
"""

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from tinylm import config as cfg


class RMSNorm(nn.Module):
    """Scales vectors to unit root mean square, then by a learned gain (arXiv:1910.07467, eq. 4)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], self.gain.to(x.dtype), self.eps)


class Rope(nn.Module):
    """Turns adjacent pairs by angles that grow with the position (RoFormer, arXiv:2104.09864, eq. 15)."""

    cos_TK: Tensor
    sin_TK: Tensor

    def __init__(self, head_width: int, context_length: int, theta: float) -> None:
        super().__init__()
        # On the CPU also where a model is only counted: on the meta device this loads torch's
        # compiler, which takes seconds.
        exact: dict[str, Any] = {"dtype": torch.float64, "device": "cpu"}
        rate_k = theta ** (-torch.arange(0, head_width, 2, **exact) / head_width)
        angle_Tk = torch.outer(torch.arange(context_length, **exact), rate_k)
        angle_TK = angle_Tk.repeat_interleave(2, dim=1)
        # The sign that the swapped partner of each pair carries stands in the sine table.
        sign_K = torch.tensor([-1.0, 1.0], **exact).repeat(head_width // 2)
        self.register_buffer("cos_TK", angle_TK.cos().float(), persistent=False)
        self.register_buffer("sin_TK", (angle_TK.sin() * sign_K).float(), persistent=False)

    def forward(self, x_BHTK: Tensor) -> Tensor:
        T = x_BHTK.shape[-2]
        swapped_BHTK = x_BHTK.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
        turned_BHTK = x_BHTK * self.cos_TK[:T] + swapped_BHTK * self.sin_TK[:T]
        return turned_BHTK.to(x_BHTK.dtype)


def attend(q_BHTK: Tensor, k_BHTK: Tensor, v_BHTK: Tensor) -> Tensor:
    """Causal scaled dot-product attention, shape (B, H, T, K)."""
    if q_BHTK.device.type != "cpu" or q_BHTK.dtype != torch.bfloat16:
        return F.scaled_dot_product_attention(q_BHTK, k_BHTK, v_BHTK, is_causal=True)
    # The fused kernel's backward pass is several times slower in bf16 than in fp32 on a CPU.
    T, K = q_BHTK.shape[-2:]
    score_BHTT = (q_BHTK @ k_BHTK.transpose(-2, -1)) * (1.0 / math.sqrt(K))
    future_TT = torch.ones(T, T, dtype=torch.bool, device=q_BHTK.device).triu(1)
    weight_BHTT = score_BHTT.masked_fill(future_TT, float("-inf")).softmax(-1)
    return weight_BHTT.to(v_BHTK.dtype) @ v_BHTK


class Attention(nn.Module):
    """Multi-head causal self-attention without biases."""

    def __init__(self, c: cfg.Model, rope: Rope | None) -> None:
        super().__init__()
        self.n_heads = c.n_heads
        self.qkv = nn.Linear(c.d_model, 3 * c.d_model, bias=False)
        self.out = nn.Linear(c.d_model, c.d_model, bias=False)
        head_width = c.d_model // c.n_heads
        self.q_norm = RMSNorm(head_width, c.norm_eps) if c.qk_norm else nn.Identity()
        self.k_norm = RMSNorm(head_width, c.norm_eps) if c.qk_norm else nn.Identity()
        self.rotate = rope if rope is not None else nn.Identity()

    def forward(self, x_BTD: Tensor) -> Tensor:
        qkv_3BHTK = self.qkv(x_BTD).unflatten(-1, (3, self.n_heads, -1)).permute(2, 0, 3, 1, 4)
        q_BHTK, k_BHTK, v_BHTK = qkv_3BHTK.unbind(0)
        q_BHTK = self.rotate(self.q_norm(q_BHTK))
        k_BHTK = self.rotate(self.k_norm(k_BHTK))
        y_BHTK = attend(q_BHTK, k_BHTK, v_BHTK)
        return self.out(y_BHTK.transpose(1, 2).flatten(-2))


class FeedForward(nn.Module):
    """SwiGLU (arXiv:2002.05202, eq. 6) or a plain network with SiLU or GELU."""

    def __init__(self, c: cfg.Model) -> None:
        super().__init__()
        self.kind = c.ffn
        self.up = nn.Linear(c.d_model, c.d_ff, bias=False)
        if c.ffn == "swiglu":
            self.gate = nn.Linear(c.d_model, c.d_ff, bias=False)
        self.down = nn.Linear(c.d_ff, c.d_model, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        if self.kind == "swiglu":
            hidden_BTF = F.silu(self.gate(x_BTD)) * self.up(x_BTD)
        elif self.kind == "silu":
            hidden_BTF = F.silu(self.up(x_BTD))
        else:
            hidden_BTF = F.gelu(self.up(x_BTD))
        return self.down(hidden_BTF)


class Block(nn.Module):
    """Attention and feed-forward network, each with its residual connection and norm."""

    def __init__(self, c: cfg.Model, rope: Rope | None) -> None:
        super().__init__()
        self.attention = Attention(c, rope)
        self.ffn = FeedForward(c)
        self.norm = c.norm
        if c.norm != "none":
            self.attention_norm = RMSNorm(c.d_model, c.norm_eps)
            self.ffn_norm = RMSNorm(c.d_model, c.norm_eps)

    def forward(self, x_BTD: Tensor) -> Tensor:
        if self.norm == "pre":
            x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD))
            return x_BTD + self.ffn(self.ffn_norm(x_BTD))
        if self.norm == "post":
            x_BTD = self.attention_norm(x_BTD + self.attention(x_BTD))
            return self.ffn_norm(x_BTD + self.ffn(x_BTD))
        x_BTD = x_BTD + self.attention(x_BTD)
        return x_BTD + self.ffn(x_BTD)


def _embedding(rows: int, width: int) -> nn.Embedding:
    # Without the values that nn.Embedding draws: `build` draws its own, and drawing on the meta
    # device loads torch's compiler too.
    return nn.Embedding.from_pretrained(torch.empty(rows, width), freeze=False)


class Transformer(nn.Module):
    """A decoder-only language model; `forward` maps token ids (B, T) to logits (B, T, V)."""

    def __init__(self, c: cfg.Model) -> None:
        super().__init__()
        self.config = c
        self.embedding = _embedding(c.vocab_size, c.d_model)
        if c.position == "learned":
            self.position = _embedding(c.context_length, c.d_model)
        head_width = c.d_model // c.n_heads
        rope = Rope(head_width, c.context_length, c.rope_theta) if c.position == "rope" else None
        self.blocks = nn.ModuleList(Block(c, rope) for _ in range(c.n_layers))
        # Post-norm blocks end in a norm of their own.
        self.final_norm = RMSNorm(c.d_model, c.norm_eps) if c.norm == "pre" else nn.Identity()
        self.head = nn.Linear(c.d_model, c.vocab_size, bias=False)
        if c.tie_embeddings:
            self.head.weight = self.embedding.weight

    def forward(self, token_BT: Tensor) -> Tensor:
        x_BTD = self.embedding(token_BT)
        if self.config.position == "learned":
            x_BTD = x_BTD + self.position.weight[: token_BT.shape[1]]
        for block in self.blocks:
            x_BTD = block(x_BTD)
        return self.head(self.final_norm(x_BTD))


def build(c: cfg.Model, seed: int) -> Transformer:
    """A model on the CPU with weights that are a function of its config and the seed.

    Every parameter is drawn from a stream named by the seed and the parameter, so two models
    that differ in one switch share the initial values of all they have in common. Matrices are
    normal, truncated at three standard deviations; gains start at one.
    """
    model = Transformer(c)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                continue
            if name.startswith(("embedding.", "position.")):
                std = c.embedding_std
            elif c.init_std == "glorot":
                # The fused q, k, v matrix is three matrices of shape (D, D).
                fan_out = (
                    parameter.shape[0] // 3 if name.endswith("qkv.weight") else parameter.shape[0]
                )
                std = math.sqrt(2.0 / (parameter.shape[1] + fan_out))
            else:
                std = c.init_std
            stream = hashlib.sha256(f"{seed}:{name}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(stream[:7], "big"))
            nn.init.trunc_normal_(parameter, 0.0, std, -3 * std, 3 * std, generator=generator)
    return model


@dataclass(frozen=True)
class Size:
    """What a model costs; `flops_per_token` is forward and backward pass of one training token."""

    params: int
    params_without_embeddings: int
    params_without_input_embedding: int
    flops_per_token: int


def size(c: cfg.Model) -> Size:
    """The counts of a model, read off the model itself without allocating it.

    FLOPs are 6 for each weight of a matrix product plus 12 L T D for attention (PaLM,
    arXiv:2204.02311, appendix B; causality is not credited).
    """
    with torch.device("meta"):
        model = Transformer(c)
    total = sum(parameter.numel() for parameter in model.parameters())
    embedding = model.embedding.weight.numel()
    position = c.context_length * c.d_model if c.position == "learned" else 0
    head = 0 if c.tie_embeddings else embedding
    products = sum(
        module.weight.numel() for module in model.modules() if isinstance(module, nn.Linear)
    )
    return Size(
        params=total,
        params_without_embeddings=total - embedding - head - position,
        params_without_input_embedding=total - position - (0 if c.tie_embeddings else embedding),
        flops_per_token=6 * products + 12 * c.n_layers * c.context_length * c.d_model,
    )
