"""A checkpoint as a folder that Hugging Face's `transformers` loads.

A pre-norm model with rotary positions and SwiGLU is a Llama, which needs no code of ours. Its names, its
order of rotary pairs and its files are known here alone. Any other model is written with its code.

Shapes are part of names, as in `tinylm.model`.
"""

import ast
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from tinylm import config as cfg
from tinylm.checkpoint import TrainedModel
from tinylm.data import END_OF_TEXT
from tinylm.files import replacing, replacing_folder

# What a Llama is, and what it has instead of other values of the same switches.
_LLAMA: dict[str, tuple[Any, str]] = {
    "norm": ("pre", "RMSNorm before each sub-layer"),
    "position": ("rope", "rotary positions"),
    "ffn": ("swiglu", "SwiGLU"),
    "qk_norm": (False, "no norm on queries and keys"),
}


def why_not(config: cfg.Config) -> list[str]:
    """Why a model can't be written as a Llama, a reason for each setting; empty if it can."""
    reasons = []
    for name, (value, words) in _LLAMA.items():
        own = getattr(config.model, name)
        if own != value:
            reasons.append(f"model.{name}: {own!r} can't be exported; a Llama has {words}")
    return reasons


def write_hf(
    trained: TrainedModel, folder: Path, card: str = "", *, custom_code: bool = False
) -> None:
    """Write a model, its tokenizer and a model card into a new folder, in the layout of the Hugging Face
    Hub. The folder is there once it is complete.

    With `custom_code` the model has its own code beside it, which `trust_remote_code=True` runs. Raises
    `ConfigError` if it is not a Llama and has none, or if the folder exists already.
    """
    wrong = [] if custom_code else why_not(trained.config)
    if wrong:
        wrong.append("--custom-code exports such a model with its own code")
    if os.path.lexists(folder):
        wrong.append(f"{folder}: already exists; choose a new folder")
    if wrong:
        raise cfg.ConfigError(wrong)
    with replacing_folder(folder) as new:
        for name, content in _contents(trained, card, custom_code):
            with replacing(new / name) as stream:
                stream.write(content)


def loads_as(custom_code: bool) -> str:
    """What people should know of an export."""
    return (
        "transformers loads it with trust_remote_code=True, which runs modeling_tinylm.py"
        if custom_code
        else "transformers loads it as a Llama (AutoModelForCausalLM, AutoTokenizer)"
    )


def _contents(trained: TrainedModel, card: str, custom_code: bool) -> Iterator[tuple[str, bytes]]:
    """The files of a folder, one by one: the weights take much memory."""
    from safetensors.torch import save

    c, end = trained.config.model, trained.tokenizer.token_to_id(END_OF_TEXT)
    state = trained.model.state_dict()
    weights = _with_names(state, c) if custom_code else _weights(state, c)
    yield "model.safetensors", save(dict(weights), _METADATA)
    if custom_code:
        yield f"{_MODULE}.py", _code().encode()
    config = _custom_config(c) if custom_code else _config(c)
    # A document begins after the end of another, as in training.
    begins = {"bos_token_id": end, "eos_token_id": end, "pad_token_id": end}
    yield "config.json", _json(config | begins)
    yield "generation_config.json", _json(begins | ({"use_cache": False} if custom_code else {}))
    yield "tokenizer.json", trained.tokenizer.to_str(pretty=True).encode()
    yield "tokenizer_config.json", _json(_TOKENIZER | {"model_max_length": c.context_length})
    if card:
        yield "README.md", (_HUB + card).encode()


_HUB = """---
library_name: transformers
pipeline_tag: text-generation
tags: [tinylm-sweeps]
---

"""  # what the Hub reads of a model card
_METADATA = {"format": "pt"}  # without it, transformers refuses the weights
_TOKENIZER = {
    "tokenizer_class": "PreTrainedTokenizerFast",  # takes tokenizer.json as it is
    "bos_token": END_OF_TEXT,
    "eos_token": END_OF_TEXT,
    "pad_token": END_OF_TEXT,
    "clean_up_tokenization_spaces": False,
}


def _json(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, indent=1).encode() + b"\n"


def _config(c: cfg.Model) -> dict[str, Any]:
    """The content of config.json, without token ids."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "float32",
        "vocab_size": c.vocab_size,
        "max_position_embeddings": c.context_length,
        "num_hidden_layers": c.n_layers,
        "hidden_size": c.d_model,
        "num_attention_heads": c.n_heads,
        "num_key_value_heads": c.n_heads,
        "head_dim": c.d_model // c.n_heads,
        "intermediate_size": c.d_ff,
        "hidden_act": "silu",
        "rms_norm_eps": c.norm_eps,
        "rope_parameters": {"rope_type": "default", "rope_theta": c.rope_theta},
        "rope_theta": c.rope_theta,  # where transformers 4 looks for it
        "tie_word_embeddings": c.tie_embeddings,
        "attention_bias": False,
        "mlp_bias": False,
    }


def _halves(weight_DD: Tensor, n_heads: int) -> Tensor:
    """The rows of a matrix of queries or keys in the order of a Llama: it rotates value `i` of a head
    with value `i + K / 2`, where we rotate value `2 i` with `2 i + 1`."""
    weight_Hk2D = weight_DD.unflatten(0, (n_heads, -1, 2))
    return weight_Hk2D.transpose(1, 2).reshape(weight_DD.shape)


def _weights(own: Mapping[str, Tensor], c: cfg.Model) -> Iterator[tuple[str, Tensor]]:
    """The weights of a model by their names in a Llama; no two share memory."""
    yield "model.embed_tokens.weight", own["embedding.weight"].clone()
    for number in range(c.n_layers):
        block, layer = f"blocks.{number}", f"model.layers.{number}"
        q_DD, k_DD, v_DD = own[f"{block}.attention.qkv.weight"].chunk(3)
        yield f"{layer}.self_attn.q_proj.weight", _halves(q_DD, c.n_heads).clone()
        yield f"{layer}.self_attn.k_proj.weight", _halves(k_DD, c.n_heads).clone()
        yield f"{layer}.self_attn.v_proj.weight", v_DD.clone()
        for theirs, ours in _NAMES.items():
            yield f"{layer}.{theirs}.weight", own[f"{block}.{ours}"].clone()
    yield "model.norm.weight", own["final_norm.gain"].clone()
    if not c.tie_embeddings:
        yield "lm_head.weight", own["head.weight"].clone()


_NAMES = {  # of the weights of a layer that are the same in a Llama
    "self_attn.o_proj": "attention.out.weight",
    "input_layernorm": "attention_norm.gain",
    "post_attention_layernorm": "ffn_norm.gain",
    "mlp.gate_proj": "ffn.gate.weight",
    "mlp.up_proj": "ffn.up.weight",
    "mlp.down_proj": "ffn.down.weight",
}


# A model with its code

_MODULE = "modeling_tinylm"
_IMPORT = "from tinylm.model import POSITION, NoPosition, Transformer\n"
_ABOUT = """# Written by an export of tinylm, and the whole code of the model beside it.

from __future__ import annotations

import math
from typing import Self

import torch
"""


def _code() -> str:
    """The module of the model for `transformers`, which imports nothing of ours."""
    here = Path(__file__).parent
    wrapper = (here / f"{_MODULE}.py").read_text()
    _, future, body = wrapper.partition("from __future__ import annotations\n")
    before, wanted, after = body.partition(_IMPORT)
    assert future
    assert wanted
    return _ABOUT + before + _classes((here / "model.py").read_text()) + after


def _classes(source: str) -> str:
    """What the model is made of: its module from the first class to that of the whole model."""
    classes = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    (last,) = (node for node in classes if node.name == "Transformer")
    lines = source.splitlines(keepends=True)[classes[0].lineno - 1 : last.end_lineno]
    # Annotations are not evaluated; here the settings have another class.
    return "\n" + "".join(lines).replace("cfg.Model", "SimpleNamespace") + "\n"


def _custom_config(c: cfg.Model) -> dict[str, Any]:
    """The content of config.json for a model with its code, without token ids."""
    return {
        "architectures": ["TinyLMForCausalLM"],
        "auto_map": {
            "AutoConfig": f"{_MODULE}.TinyLMConfig",
            "AutoModelForCausalLM": f"{_MODULE}.TinyLMForCausalLM",
        },
        "model_type": "tinylm",
        "dtype": "float32",
        "tinylm": c.model_dump(),
        # Where other programs look for these:
        "vocab_size": c.vocab_size,
        "max_position_embeddings": c.context_length,
        "num_hidden_layers": c.n_layers,
        "hidden_size": c.d_model,
        "num_attention_heads": c.n_heads,
        "tie_word_embeddings": c.tie_embeddings,
        "use_cache": False,
    }


def _with_names(own: Mapping[str, Tensor], c: cfg.Model) -> Iterator[tuple[str, Tensor]]:
    """The weights of a model by their names in its own code; no two share memory."""
    for name, weight in own.items():
        if not (c.tie_embeddings and name == "head.weight"):
            yield f"model.{name}", weight.clone()
