"""What a model costs, in closed form: parameters, and FLOPs per training token. Needs no torch.

It counts what `tinylm.model` builds; a test compares the two for every value of every switch.
"""

from dataclasses import dataclass

from tinylm import config as cfg

MATRICES = {"swiglu": 3, "silu": 2, "gelu": 2}  # of a feed-forward network; none has a bias
NORMS = {"pre": 2, "post": 2, "none": 0}  # in a block
FINAL_NORMS = {"pre": 1, "post": 0, "none": 0}  # after the last block


@dataclass(frozen=True)
class Size:
    """What a model costs; `flops_per_token` covers forward and backward pass of one training token."""

    params: int
    params_without_embeddings: int
    params_without_input_embedding: int
    flops_per_token: int


def size(c: cfg.Model) -> Size:
    """The counts of a model.

    FLOPs are 6 for each weight of a matrix product plus 12 L T D for attention (PaLM,
    arXiv:2204.02311, appendix B; causality is not credited).
    """
    position = {"rope": 0, "none": 0, "learned": c.context_length * c.d_model}[c.position]
    weights = 4 * c.d_model**2 + MATRICES[c.ffn] * c.d_model * c.d_ff  # of a block's products
    gains = NORMS[c.norm] * c.d_model + (2 * (c.d_model // c.n_heads) if c.qk_norm else 0)
    inside = c.n_layers * (weights + gains) + FINAL_NORMS[c.norm] * c.d_model
    table = c.vocab_size * c.d_model
    return Size(
        params=inside + position + table + (0 if c.tie_embeddings else table),
        params_without_embeddings=inside,
        params_without_input_embedding=inside + table,
        flops_per_token=6 * (c.n_layers * weights + table)
        + 12 * c.n_layers * c.context_length * c.d_model,
    )
