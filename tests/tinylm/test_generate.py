"""Sampling: what is drawn from, and where it ends."""

import pytest
import torch
from torch import Tensor, nn

from tinylm import config as cfg
from tinylm.checkpoint import TrainedModel
from tinylm.data import END_OF_TEXT, Corpus
from tinylm.generate import generate, nucleus
from tinylm.model import build


@pytest.fixture(scope="module")
def trained(tiny: cfg.Config, corpus: Corpus) -> TrainedModel:
    """An untrained model; its guesses are as good as any here."""
    model = cfg.overlay(tiny, {"model.init_std": 0.3}).model
    return TrainedModel(build(model, 0), corpus.tokenizer(), tiny, 0)


class Script(nn.Module):
    """Says the given tokens one after the other, and keeps the windows that it was shown."""

    def __init__(self, says: list[int]) -> None:
        super().__init__()
        self.says = iter(says)
        self.shown: list[list[int]] = []

    def forward(self, token_BT: Tensor) -> Tensor:
        self.shown.append(token_BT[0].tolist())
        logit_BTV = torch.zeros(1, token_BT.shape[1], 307)
        logit_BTV[0, -1, next(self.says)] = 1e3
        return logit_BTV


@pytest.mark.parametrize(
    ("top_p", "expected"),
    [
        (0.0, [0.0, 1.0, 0.0, 0.0]),
        (0.25, [0.0, 1.0, 0.0, 0.0]),
        (0.5, [0.0, 1.0, 0.0, 0.0]),
        (0.51, [0.0, 2 / 3, 1 / 3, 0.0]),
        (0.75, [0.0, 2 / 3, 1 / 3, 0.0]),
        (0.76, [1 / 7, 4 / 7, 2 / 7, 0.0]),
        (0.875, [1 / 7, 4 / 7, 2 / 7, 0.0]),
        (1.0, [0.125, 0.5, 0.25, 0.125]),
    ],
)
def test_the_nucleus_is_the_smallest_set_whose_mass_reaches_p(
    top_p: float, expected: list[float]
) -> None:
    kept = nucleus(torch.tensor([0.125, 0.5, 0.25, 0.125]), top_p)
    torch.testing.assert_close(kept, torch.tensor(expected), rtol=1e-6, atol=0)


def test_temperature_0_takes_the_most_probable_token_each_time(trained: TrainedModel) -> None:
    ids = list(generate(trained, "ba de", 5, 0.0, 1.0, 0))
    asked = trained.tokenizer.encode("ba de").ids
    with torch.no_grad():
        logit_TV = trained.model(torch.tensor([asked + ids]))[0]
    assert ids == logit_TV.argmax(-1)[len(asked) - 1 : -1].tolist()


@pytest.mark.parametrize(("temperature", "same"), [(0.0, True), (1.0, False)])
def test_only_temperature_0_is_blind_to_the_seed(
    trained: TrainedModel, temperature: float, same: bool
) -> None:
    one, other = (list(generate(trained, "ba", 8, temperature, 1.0, seed)) for seed in (1, 2))
    assert (one == other) is same


def test_the_same_seed_draws_the_same_tokens(trained: TrainedModel) -> None:
    one, other = (list(generate(trained, "ba", 8, 1.0, 0.9, 3)) for _ in range(2))
    assert one == other


def test_the_callers_random_numbers_change_nothing(trained: TrainedModel) -> None:
    torch.manual_seed(1)
    one = list(generate(trained, "ba", 8, 1.0, 0.9, 3))
    torch.manual_seed(2)
    assert one == list(generate(trained, "ba", 8, 1.0, 0.9, 3))


def test_a_nucleus_of_nothing_takes_the_most_probable_token(trained: TrainedModel) -> None:
    greedy = list(generate(trained, "ba", 8, 0.0, 1.0, 3))
    assert greedy == list(generate(trained, "ba", 8, 1.0, 0.0, 3))


def scripted(trained: TrainedModel, says: list[int]) -> tuple[TrainedModel, Script]:
    script = Script(says)
    return TrainedModel(script, trained.tokenizer, trained.config, 0), script


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_it_stops_at_the_end_of_the_document_and_does_not_return_it(
    trained: TrainedModel, temperature: float
) -> None:
    end = trained.tokenizer.token_to_id(END_OF_TEXT)
    assert end is not None
    speaker, script = scripted(trained, [7, 8, end, 9])
    assert list(generate(speaker, "ba", 20, temperature, 1.0, 0)) == [7, 8]
    assert next(script.says) == 9


def test_it_stops_after_max_tokens(trained: TrainedModel) -> None:
    assert len(list(generate(scripted(trained, [7] * 20)[0], "ba", 5, 0.0, 1.0, 0))) == 5


def test_the_model_sees_the_last_tokens_that_its_context_holds(trained: TrainedModel) -> None:
    speaker, script = scripted(trained, [7, 8])
    prompt = "ba de fi go hu ka le mi no pu ra se ti ba de"
    asked = trained.tokenizer.encode(prompt).ids
    assert list(generate(speaker, prompt, 2, 0.0, 1.0, 0)) == [7, 8]
    assert script.shown == [asked[-13:], [*asked[-12:], 7]]


def test_a_prompt_longer_than_the_context_works(trained: TrainedModel) -> None:
    assert len(list(generate(trained, "ba de fi go hu " * 20, 3, 0.0, 1.0, 0))) == 3


def test_an_empty_prompt_begins_a_document(trained: TrainedModel) -> None:
    speaker, script = scripted(trained, [7])
    assert list(generate(speaker, "", 1, 0.0, 1.0, 0)) == [7]
    assert script.shown == [[trained.tokenizer.token_to_id(END_OF_TEXT)]]
