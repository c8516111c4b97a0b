"""The Transformer and its switches.

Each value of a switch (`model.position`, `model.ffn`, `model.norm`) is one class, which builds its
part of the model; `POSITION`, `FFN` and `BLOCK` map values to classes. `tinylm.size` counts parameters.

Shapes are part of names. B: sequences of a batch, T: positions of a window, V: vocabulary,
D: width (d_model), H: heads, K: width of a head (D = H * K), k: pairs of it (K / 2), F: hidden width
(d_ff), N: positions of a batch (B * T).
"""

import hashlib
import math
from typing import Any, Self

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


class NoPosition(nn.Module):
    """No position information besides the causal mask."""

    future_TT: Tensor  # added to scores: minus infinity where a key is ahead of its query, else 0

    def __init__(self, context_length: int) -> None:
        super().__init__()
        future_TT = torch.full((context_length, context_length), -math.inf).triu(1)
        self.register_buffer("future_TT", future_TT, persistent=False)

    @classmethod
    def of(cls, c: cfg.Model) -> Self:
        """The module of a config."""
        return cls(c.context_length)

    def embed(self, x_BTD: Tensor) -> Tensor:
        """The embeddings of a window, with their positions."""
        return x_BTD

    def rotate(self, x_BTHK: Tensor) -> Tensor:
        """Queries or keys, with their positions."""
        return x_BTHK


class LearnedPosition(NoPosition):
    """Adds a learned vector for each position to the embeddings."""

    def __init__(self, context_length: int, d_model: int) -> None:
        super().__init__(context_length)
        self.weight = nn.Parameter(torch.empty(context_length, d_model))

    @classmethod
    def of(cls, c: cfg.Model) -> Self:
        return cls(c.context_length, c.d_model)

    def embed(self, x_BTD: Tensor) -> Tensor:
        return x_BTD + self.weight[: x_BTD.shape[1]]


class Rope(NoPosition):
    """Rotates adjacent pairs by angles that grow with the position (RoFormer, arXiv:2104.09864, eq. 15)."""

    turn_THk2: Tensor  # cosine and sine for each pair of each head
    sine_THk2: Tensor  # by which the other value of the pair is multiplied: -sine and sine

    def __init__(self, n_heads: int, head_width: int, context_length: int, theta: float) -> None:
        super().__init__(context_length)
        rate_k = theta ** (-torch.arange(0, head_width, 2, dtype=torch.float64) / head_width)
        angle_Tk = torch.outer(torch.arange(context_length, dtype=torch.float64), rate_k)
        turn_Tk2 = torch.stack((angle_Tk.cos(), angle_Tk.sin()), -1).float()
        # Heads have equal angles; a table without their axis would be read in short pieces, slowly.
        turn_THk2 = turn_Tk2.unsqueeze(1).repeat(1, n_heads, 1, 1)
        self.register_buffer("turn_THk2", turn_THk2, persistent=False)
        sine_THk = turn_THk2[..., 1]
        self.register_buffer("sine_THk2", torch.stack((-sine_THk, sine_THk), -1), persistent=False)

    @classmethod
    def of(cls, c: cfg.Model) -> Self:
        return cls(c.n_heads, c.d_model // c.n_heads, c.context_length, c.rope_theta)

    def rotate(self, x_BTHK: Tensor) -> Tensor:
        length, on_cpu = x_BTHK.shape[-3], x_BTHK.device.type == "cpu"
        turn_THk2 = self.turn_THk2[:length]
        pair_BTHk2 = x_BTHK.float().unflatten(-1, (-1, 2))
        if not on_cpu:
            # Its gradient reads each value twice; that of a stack selects among several.
            other_BTHk2 = pair_BTHk2.flip(-1) * self.sine_THk2[:length]
            rotated_BTHk2 = pair_BTHk2 * turn_THk2[..., :1] + other_BTHk2
        elif not torch.compiler.is_compiling():
            # One product of complex numbers; compilers fuse real ones, and cannot compile complex ones.
            product_BTHk = torch.view_as_complex(pair_BTHk2) * torch.view_as_complex(turn_THk2)
            rotated_BTHk2 = torch.view_as_real(product_BTHk)
        else:
            (a, b), (cos, sin) = pair_BTHk2.unbind(-1), turn_THk2.unbind(-1)
            rotated_BTHk2 = torch.stack((a * cos - b * sin, b * cos + a * sin), -1)
        return rotated_BTHk2.flatten(-2).to(x_BTHK.dtype)


POSITION: dict[str, type[NoPosition]] = {
    "rope": Rope,
    "none": NoPosition,
    "learned": LearnedPosition,
}


def attend(
    q_BHTK: Tensor, k_BHTK: Tensor, v_BHTK: Tensor, future_TT: Tensor, dropout: float = 0.0
) -> Tensor:
    """Causal scaled dot-product attention, shape (B, H, T, K), with dropout of its weights."""
    if q_BHTK.device.type != "cpu" or q_BHTK.dtype != torch.bfloat16:
        return F.scaled_dot_product_attention(
            q_BHTK, k_BHTK, v_BHTK, dropout_p=dropout, is_causal=True
        )
    # The fused kernel's backward pass is several times slower in bf16 than in fp32 on a CPU. Of the
    # scores of the first half of the queries, those that lie in the second half are not computed. t and
    # s: queries of a half, and the keys up to its end.
    T, K = q_BHTK.shape[-2:]
    q_BHTK = q_BHTK * (1.0 / math.sqrt(K))
    halves = []
    for first, end in ((0, T // 2), (T // 2, T)):
        score_BHts = q_BHTK[..., first:end, :] @ k_BHTK[..., :end, :].transpose(-2, -1)
        weight_BHts = (score_BHts + future_TT[first:end, :end]).softmax(-1)
        weight_BHts = F.dropout(weight_BHts, dropout).to(v_BHTK.dtype)
        halves.append(weight_BHts @ v_BHTK[..., :end, :])
    return torch.cat(halves, -2)


class Attention(nn.Module):
    """Multi-head causal self-attention without biases; `qk_norm` adds norms of queries and keys."""

    def __init__(self, c: cfg.Model) -> None:
        super().__init__()
        self.n_heads = c.n_heads
        self.dropout = c.dropout
        self.qkv = nn.Linear(c.d_model, 3 * c.d_model, bias=False)
        self.out = nn.Linear(c.d_model, c.d_model, bias=False)
        head_width = c.d_model // c.n_heads
        self.q_norm = RMSNorm(head_width, c.norm_eps) if c.qk_norm else nn.Identity()
        self.k_norm = RMSNorm(head_width, c.norm_eps) if c.qk_norm else nn.Identity()

    def forward(self, x_BTD: Tensor, position: NoPosition) -> Tensor:
        q_BTHK, k_BTHK, v_BTHK = self.qkv(x_BTD).unflatten(-1, (3, self.n_heads, -1)).unbind(2)
        q_BTHK = position.rotate(self.q_norm(q_BTHK))
        k_BTHK = position.rotate(self.k_norm(k_BTHK))
        dropout = self.dropout if self.training else 0.0
        q_BHTK, k_BHTK, v_BHTK = (x.transpose(1, 2) for x in (q_BTHK, k_BTHK, v_BTHK))
        y_BHTK = attend(q_BHTK, k_BHTK, v_BHTK, position.future_TT, dropout)
        return self.out(y_BHTK.transpose(1, 2).flatten(-2))


class FeedForward(nn.Module):
    """A feed-forward network; each kind has its own `forward`."""

    gated = False  # whether a third matrix gates the hidden values

    def __init__(self, c: cfg.Model) -> None:
        super().__init__()
        self.up = nn.Linear(c.d_model, c.d_ff, bias=False)
        if self.gated:
            self.gate = nn.Linear(c.d_model, c.d_ff, bias=False)
        self.down = nn.Linear(c.d_ff, c.d_model, bias=False)


class SwiGLU(FeedForward):
    """SwiGLU (arXiv:2002.05202, eq. 6)."""

    gated = True

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x_BTD)) * self.up(x_BTD))


class SiLU(FeedForward):
    """Two matrices with SiLU between them."""

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.down(F.silu(self.up(x_BTD)))


class GELU(FeedForward):
    """Two matrices with GELU between them."""

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x_BTD)))


FFN: dict[str, type[FeedForward]] = {"swiglu": SwiGLU, "silu": SiLU, "gelu": GELU}


class Block(nn.Module):
    """Attention and feed-forward network, each with a residual connection, without norms."""

    ends_in_norm = False  # whether a norm follows the last block

    def __init__(self, c: cfg.Model) -> None:
        super().__init__()
        self.attention = Attention(c)
        self.ffn = FFN[c.ffn](c)
        self.drop = nn.Dropout(c.dropout)

    def forward(self, x_BTD: Tensor, position: NoPosition) -> Tensor:
        x_BTD = x_BTD + self.drop(self.attention(x_BTD, position))
        return x_BTD + self.drop(self.ffn(x_BTD))


class NormBlock(Block):
    """A block with two norms; each kind places them in its own `forward`."""

    def __init__(self, c: cfg.Model) -> None:
        super().__init__(c)
        self.attention_norm = RMSNorm(c.d_model, c.norm_eps)
        self.ffn_norm = RMSNorm(c.d_model, c.norm_eps)


class PreNormBlock(NormBlock):
    """Norms before attention and feed-forward network; the last block is followed by one more."""

    ends_in_norm = True

    def forward(self, x_BTD: Tensor, position: NoPosition) -> Tensor:
        x_BTD = x_BTD + self.drop(self.attention(self.attention_norm(x_BTD), position))
        return x_BTD + self.drop(self.ffn(self.ffn_norm(x_BTD)))


class PostNormBlock(NormBlock):
    """Norms after attention and feed-forward network, on the residual stream itself."""

    def forward(self, x_BTD: Tensor, position: NoPosition) -> Tensor:
        x_BTD = self.attention_norm(x_BTD + self.drop(self.attention(x_BTD, position)))
        return self.ffn_norm(x_BTD + self.drop(self.ffn(x_BTD)))


BLOCK: dict[str, type[Block]] = {"pre": PreNormBlock, "post": PostNormBlock, "none": Block}


class Transformer(nn.Module):
    """A decoder-only language model; `forward` maps token ids (B, T) to logits (B, T, V).

    Dropout is active in training mode alone (`nn.Module.train`).
    """

    def __init__(self, c: cfg.Model) -> None:
        super().__init__()
        # nn.Embedding would draw values that `build` draws again.
        table_VD = torch.empty(c.vocab_size, c.d_model)
        self.embedding = nn.Embedding.from_pretrained(table_VD, freeze=False)
        self.position = POSITION[c.position].of(c)
        self.drop = nn.Dropout(c.dropout)
        block = BLOCK[c.norm]
        self.blocks = nn.ModuleList(block(c) for _ in range(c.n_layers))
        self.final_norm = RMSNorm(c.d_model, c.norm_eps) if block.ends_in_norm else nn.Identity()
        self.head = nn.Linear(c.d_model, c.vocab_size, bias=False)
        if c.tie_embeddings:
            self.head.weight = self.embedding.weight

    def features(self, token_BT: Tensor) -> Tensor:
        """What the head reads, (B, T, D)."""
        x_BTD = self.drop(self.position.embed(self.embedding(token_BT)))
        for block in self.blocks:
            x_BTD = block(x_BTD, self.position)
        return self.final_norm(x_BTD)

    def forward(self, token_BT: Tensor) -> Tensor:
        return self.head(self.features(token_BT))


# Logits that exist at once in `cross_entropy`: a CPU keeps them in its caches, and a GPU is kept busy.
_LOGITS_ON_CPU, _LOGITS_ON_GPU = 2**20, 2**28
_MOST_CHUNKS = 8  # of one compiled graph
_LEAST_ROWS = 256  # of logits at once; the weights are read, and their gradient added to, as often


class _CrossEntropy(torch.autograd.Function):
    """Computes the gradients with the loss, chunk by chunk, and keeps no logits."""

    @staticmethod
    def forward(
        ctx: Any, x_ND: Tensor, weight_VD: Tensor, target_N: Tensor, dtype: torch.dtype
    ) -> Tensor:
        budget = _LOGITS_ON_CPU if x_ND.device.type == "cpu" else _LOGITS_ON_GPU
        rows = max(_LEAST_ROWS, budget // len(weight_VD))
        if torch.compiler.is_compiling():  # which writes every chunk out
            rows = max(rows, -(-len(x_ND) // _MOST_CHUNKS))
        if x_ND.device.type != "cpu":  # where sums have always been taken in this order
            rows = -(-len(x_ND) // -(-len(x_ND) // rows))  # as many chunks, of about equal size
        w_VD = weight_VD.to(dtype)
        loss, dx_ND = x_ND.new_zeros(()), torch.empty_like(x_ND)
        dweight_VD = torch.zeros_like(weight_VD)
        for first in range(0, len(x_ND), rows):
            x_nD = x_ND[first : first + rows]
            target_n1 = target_N[first : first + rows, None]
            logit_nV = F.linear(x_nD.to(dtype), w_VD)
            highest_n1 = logit_nV.amax(-1, keepdim=True).float()
            logit_n1 = logit_nV.gather(1, target_n1).float() - highest_n1
            # The probabilities times their sum: by it is divided where there are fewer numbers.
            chance_nV = (logit_nV.float() - highest_n1).exp()
            sum_n1 = chance_nV.sum(-1, keepdim=True)
            loss += (sum_n1.log() - logit_n1).sum()
            dtarget_n1 = (logit_n1.exp() - sum_n1).to(dtype)
            dlogit_nV = chance_nV.to(dtype).scatter_(1, target_n1, dtarget_n1)
            scale_n1 = 1.0 / (sum_n1 * len(x_ND))
            dx_ND[first : first + rows] = (dlogit_nV @ w_VD).float() * scale_n1
            dweight_VD += dlogit_nV.T @ (x_nD.float() * scale_n1).to(dtype)
        ctx.save_for_backward(dx_ND, dweight_VD)
        return loss / len(x_ND)

    @staticmethod
    def backward(ctx: Any, *dloss: Tensor) -> tuple[Tensor, Tensor, None, None]:
        dx_ND, dweight_VD = ctx.saved_tensors
        return dx_ND * dloss[0], dweight_VD * dloss[0], None, None


def cross_entropy(
    x_ND: Tensor, weight_VD: Tensor, target_N: Tensor, dtype: torch.dtype = torch.float32
) -> Tensor:
    """The mean cross-entropy in nats of targets under the logits `x @ weight.T`, whose products are in
    `dtype`."""
    return _CrossEntropy.apply(x_ND, weight_VD, target_N, dtype)


def stream(seed: int, name: str) -> int:
    """The seed of a random stream of a run: another one for each name."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:7], "big")


def build(c: cfg.Model, seed: int) -> Transformer:
    """A model on the CPU, in evaluation mode, whose initial weights are a function of its config and
    the seed.

    Every parameter has its own random stream, named by the seed and the parameter. So two models that
    differ in one switch have equal initial values in all parameters they share. Matrices are normal,
    truncated at three standard deviations; gains start at one.
    """
    model = Transformer(c)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                continue
            if name.startswith(("embedding.", "position.")):
                std = c.initial_embedding_std
            elif c.init_std == "glorot":
                # The fused q, k, v matrix is three matrices of shape (D, D).
                fan_out = (
                    parameter.shape[0] // 3 if name.endswith("qkv.weight") else parameter.shape[0]
                )
                std = math.sqrt(2.0 / (parameter.shape[1] + fan_out))
            else:
                std = c.init_std
            generator = torch.Generator().manual_seed(stream(seed, name))
            nn.init.trunc_normal_(parameter, 0.0, std, -3 * std, 3 * std, generator=generator)
    return model.eval()
