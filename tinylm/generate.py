"""Sampling text from a trained model."""

from collections.abc import Iterator

import torch
from torch import Tensor

from tinylm.checkpoint import TrainedModel
from tinylm.data import END_OF_TEXT


def nucleus(probability_V: Tensor, top_p: float) -> Tensor:
    """The smallest set of most probable tokens whose mass reaches `top_p`, normalized.

    Nucleus sampling, arXiv:1904.09751, eq. 2 and 3; the most probable token is always kept.
    """
    sorted_V, order_V = probability_V.sort(descending=True)
    mass_before_V = sorted_V.cumsum(0).roll(1)
    mass_before_V[0] = -1.0
    kept_V = sorted_V * (mass_before_V < top_p)
    return torch.zeros_like(probability_V).scatter(0, order_V, kept_V / kept_V.sum())


@torch.no_grad()
def generate(
    trained: TrainedModel, prompt: str, max_tokens: int, temperature: float, top_p: float, seed: int
) -> Iterator[int]:
    """Token ids that continue the prompt, until `<|endoftext|>` or `max_tokens`.

    Temperature 0 always takes the most probable token. The model sees the last `context_length` tokens;
    an empty prompt begins a new document.
    """
    end = trained.tokenizer.token_to_id(END_OF_TEXT)
    assert end is not None  # every vocabulary begins with it
    ids = trained.tokenizer.encode(prompt).ids or [end]
    generator = torch.Generator().manual_seed(seed)  # on the CPU: the same draws on every device
    device = next(trained.model.parameters(), torch.empty(0)).device
    for _ in range(max_tokens):
        window_BT = torch.tensor([ids[-trained.config.model.context_length :]], device=device)
        logit_V = trained.model(window_BT)[0, -1].float().cpu()
        if temperature == 0:
            token = int(logit_V.argmax())
        else:
            probability_V = nucleus((logit_V / temperature).softmax(0), top_p)
            token = int(torch.multinomial(probability_V, 1, generator=generator))
        if token == end:
            return
        ids.append(token)
        yield token
