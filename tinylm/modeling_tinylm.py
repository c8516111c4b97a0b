"""The model as a class of Hugging Face's `transformers`.

`tinylm.export` writes this file into the folder of a model that is not a Llama, with the classes of
`tinylm.model` in place of their import. So it runs without `tinylm`, which never imports it.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from transformers import GenerationMixin, PreTrainedModel, initialization
from transformers.configuration_utils import PretrainedConfig
from transformers.modeling_outputs import CausalLMOutput

from tinylm.model import POSITION, NoPosition, Transformer


class TinyLMConfig(PretrainedConfig):  # type: ignore[misc] # which is untyped
    """The settings of a model, as `model` in a config of tinylm has them."""

    model_type = "tinylm"

    def __init__(self, tinylm: dict[str, Any] | None = None, **more: Any) -> None:
        self.tinylm = tinylm or {}
        super().__init__(**more)


def _settings(config: TinyLMConfig) -> Any:
    """The settings of a model with their names as attributes."""
    return SimpleNamespace(**config.tinylm)


class TinyLMForCausalLM(PreTrainedModel, GenerationMixin):  # type: ignore[misc] # both untyped
    """A language model. It has no cache: each new token reads the last `context_length` tokens again."""

    config_class = TinyLMConfig
    base_model_prefix = "model"
    _tied_weights_keys = {"model.head.weight": "model.embedding.weight"}  # noqa: RUF012 as its base has it

    def __init__(self, config: TinyLMConfig) -> None:
        super().__init__(config)
        self.model = Transformer(_settings(config))
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.model.embedding

    def set_input_embeddings(self, value: Any) -> None:
        self.model.embedding = value

    def get_output_embeddings(self) -> nn.Module:
        return self.model.head

    def set_output_embeddings(self, new_embeddings: Any) -> None:
        self.model.head = new_embeddings

    def _init_weights(self, module: nn.Module) -> None:
        """Set what no checkpoint has: the tables of positions."""
        super()._init_weights(module)
        if isinstance(module, NoPosition):
            c = _settings(self.config)
            for name, table in POSITION[c.position].of(c).named_buffers():
                initialization.copy_(getattr(module, name), table)

    def prepare_inputs_for_generation(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **more: Any
    ) -> dict[str, Any]:
        """The last tokens, as many as the model can read."""
        length = self.config.tinylm["context_length"]
        mask = None if attention_mask is None else attention_mask[:, -length:]
        return {"input_ids": input_ids[:, -length:], "attention_mask": mask}

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        **more: Any,
    ) -> CausalLMOutput:
        """The logits of each next token and, with labels, the mean loss of those that are not -100.

        `ValueError` for a text that is longer than the context, or padded on its left.
        """
        length = self.config.tinylm["context_length"]
        if input_ids.shape[1] > length:
            raise ValueError(f"{input_ids.shape[1]} tokens; the context has {length}")
        # A token reads no later one, so padding on the right changes nothing.
        if attention_mask is not None and not attention_mask[:, 0].all():
            raise ValueError(
                "padding on the left; pad on the right, or generate one text at a time"
            )
        logits = self.model(input_ids)
        loss = None
        if labels is not None:
            targets = labels[:, 1:].flatten()
            loss = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), targets, ignore_index=-100)
        return CausalLMOutput(loss=loss, logits=logits)
