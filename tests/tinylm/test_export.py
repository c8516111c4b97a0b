"""An exported model under Hugging Face's `transformers`: the same logits, tokens and text."""

import ast
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, dynamic_module_utils
from typer.testing import CliRunner

from tinylm import config as cfg
from tinylm import train
from tinylm.__main__ import app
from tinylm.checkpoint import TrainedModel, load_model, save
from tinylm.data import END_OF_TEXT, Corpus, prepare
from tinylm.export import why_not, write_hf
from tinylm.generate import generate
from tinylm.model import build

SHAPES: dict[str, dict[str, Any]] = {
    "as it is": {},
    "tied": {"model.tie_embeddings": True},
    "one head": {"model.n_heads": 1},
    "narrow heads": {"model.n_heads": 21},
    "slow rotation": {"model.rope_theta": 500.0},
    "other eps": {"model.norm_eps": 0.1},
    "long context": {"model.context_length": 91},
    "tokens that no text has": {"model.vocab_size": 1009},
    "other init": {"model.init_std": 0.02, "model.embedding_std": 0.02},
}


def trained(tiny: cfg.Config, corpus: Corpus, changes: dict[str, Any]) -> TrainedModel:
    """A model with large random weights, so that its logits depend on all it does."""
    model = cfg.Model.model_validate(
        tiny.model.model_dump()
        | {"init_std": 0.3}
        | {path.partition(".")[2]: value for path, value in changes.items()}
    )
    config = tiny.model_copy(update={"model": model})
    return TrainedModel(build(model, 0), corpus.tokenizer(), config, 0)


ANY: dict[str, dict[str, Any]] = {
    **SHAPES,
    "post-norm": {"model.norm": "post"},
    "no norm": {"model.norm": "none"},
    "learned positions": {"model.position": "learned"},
    "no positions": {"model.position": "none"},
    "SiLU": {"model.ffn": "silu"},
    "GELU": {"model.ffn": "gelu"},
    "norm of queries and keys": {"model.qk_norm": True},
    "dropout": {"model.dropout": 0.3},
    "another model altogether": {
        "model.norm": "post",
        "model.position": "learned",
        "model.ffn": "gelu",
        "model.qk_norm": True,
        "model.tie_embeddings": True,
    },
}


@pytest.fixture(autouse=True)
def modules(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Code that transformers copies goes to a folder of the tests."""
    folder = str(tmp_path_factory.mktemp("modules"))
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", folder)
    monkeypatch.setattr(sys, "path", [*sys.path])


def with_code(folder: Path) -> Any:
    """The model of a folder, with the code in it."""
    return AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)


@torch.no_grad()
def apart(theirs: Any, ours: torch.nn.Module, token_BT: torch.Tensor) -> float:
    """The largest difference between two models' logits, as a share of the largest logit."""
    logit_BTV = ours(token_BT)
    return float((theirs(token_BT).logits - logit_BTV).abs().max() / logit_BTV.abs().max())


@pytest.fixture(scope="module")
def one(tiny: cfg.Config, corpus: Corpus) -> TrainedModel:
    return trained(tiny, corpus, {})


@pytest.fixture(scope="module")
def folder(one: TrainedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported model."""
    folder = tmp_path_factory.mktemp("export") / "model"
    write_hf(one, folder)
    return folder


@pytest.fixture(scope="module")
def llama(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder)


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("changes", SHAPES.values(), ids=SHAPES)
def test_the_logits_are_the_same(
    tiny: cfg.Config, corpus: Corpus, tmp_path: Path, changes: dict[str, Any]
) -> None:
    ours = trained(tiny, corpus, changes)
    write_hf(ours, tmp_path / "model")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    c = ours.config.model
    token_BT = torch.randint(c.vocab_size, (3, c.context_length), generator=torch.Generator())
    assert apart(theirs, ours.model, token_BT) < 1e-5


def test_the_logits_of_another_rotation_differ(
    tiny: cfg.Config, corpus: Corpus, llama: Any
) -> None:
    """What the test above would find."""
    other = trained(tiny, corpus, {"model.rope_theta": 500.0})
    assert apart(llama, other.model, torch.arange(13)[None]) > 1e-2


ODD = {
    "nothing": "",
    "spaces": "  two  spaces, and one at the end ",
    "lines": "one\r\n\n\ttwo",
    "accents": "café, cafe\u0301, naïve — ﬁ Ⅷ",
    "other scripts": "中文　한국어 עברית",
    "emoji": "🜁👩‍👩‍👧",
    "control characters": "\x00\x07\x7f\u200b\ufeff",
    "contractions": "don't WE'LL they've 1234567",
    "ends of documents": f"{END_OF_TEXT}ba de{END_OF_TEXT} {END_OF_TEXT}",
    "almost an end": "<|endoftext| > <|ENDOFTEXT|>",
}


@pytest.mark.parametrize("text", ODD.values(), ids=ODD)
def test_a_text_has_the_same_tokens(one: TrainedModel, tokenizer: Any, text: str) -> None:
    assert tokenizer(text)["input_ids"] == one.tokenizer.encode(text).ids


@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize("text", ODD.values(), ids=ODD)
def test_tokens_are_the_same_text(one: TrainedModel, tokenizer: Any, text: str, skip: bool) -> None:
    ids = one.tokenizer.encode(text).ids
    theirs = tokenizer.decode(ids, skip_special_tokens=skip)
    assert theirs == one.tokenizer.decode(ids, skip_special_tokens=skip)


def test_half_a_character_is_decoded_alike(one: TrainedModel, tokenizer: Any) -> None:
    ids = one.tokenizer.encode("🜁").ids[:-1]
    assert tokenizer.decode(ids) == one.tokenizer.decode(ids)


def test_ids_without_a_text_are_exported_too(
    tiny: cfg.Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "train.bin").write_bytes(b"".join(n.to_bytes(2, "little") for n in range(300)) * 9)
    given = cfg.overlay(tiny, {"data.path": str(tmp_path)})
    tokenizer = prepare(given).tokenizer()
    write_hf(TrainedModel(build(given.model, 0), tokenizer, given, 0), tmp_path / "model")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert theirs("7 11 299")["input_ids"] == tokenizer.encode("7 11 299").ids == [7, 11, 299]


@pytest.mark.parametrize("prompt", ["", "ba", "ba de fi"])
def test_the_most_probable_text_is_the_same(
    one: TrainedModel, llama: Any, tokenizer: Any, prompt: str
) -> None:
    ours = list(generate(one, prompt, 5, 0.0, 1.0, 0))
    asked = tokenizer(prompt, return_tensors="pt").input_ids.long()
    # Without a prompt, it begins with the end of a document, as ours does.
    given = {"inputs": asked, "attention_mask": torch.ones_like(asked)} if prompt else {}
    ids = llama.generate(**given, max_new_tokens=5, do_sample=False)[0].tolist()
    assert ids[max(1, asked.shape[1]) :] == ours


def test_it_ends_where_a_document_does(one: TrainedModel, llama: Any, tokenizer: Any) -> None:
    end = one.tokenizer.token_to_id(END_OF_TEXT)
    assert llama.generation_config.eos_token_id == tokenizer.eos_token_id == end


def test_the_tokenizer_knows_the_context_length(tokenizer: Any) -> None:
    assert tokenizer.model_max_length == 13


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model.norm": "post"}, "model.norm: 'post' can't be exported; a Llama has RMSNorm before"),
        ({"model.norm": "none"}, "model.norm: 'none' can't"),
        ({"model.position": "learned"}, "model.position: 'learned' can't be exported; a Llama has rotary"),
        ({"model.position": "none"}, "model.position: 'none' can't"),
        ({"model.ffn": "gelu"}, "model.ffn: 'gelu' can't be exported; a Llama has SwiGLU"),
        ({"model.ffn": "silu"}, "model.ffn: 'silu' can't"),
        ({"model.qk_norm": True}, "model.qk_norm: True can't be exported; a Llama has no norm"),
    ],
)  # fmt: skip
def test_what_is_no_llama_is_refused_with_the_reason(
    tiny: cfg.Config, corpus: Corpus, tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(cfg.ConfigError, match=reason):
        write_hf(trained(tiny, corpus, changes), tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_all_reasons_are_named_together(tiny: cfg.Config) -> None:
    other = cfg.overlay(tiny, {"model.norm": "post", "model.ffn": "gelu"})
    assert len(why_not(other)) == 2


def test_dropout_is_no_reason(tiny: cfg.Config) -> None:
    assert why_not(cfg.overlay(tiny, {"model.dropout": 0.1})) == []


# With custom code


@pytest.mark.parametrize("changes", ANY.values(), ids=ANY)
def test_with_its_code_every_model_has_the_same_logits(
    tiny: cfg.Config, corpus: Corpus, tmp_path: Path, changes: dict[str, Any]
) -> None:
    ours = trained(tiny, corpus, changes)
    write_hf(ours, tmp_path / "model", custom_code=True)
    c = ours.config.model
    token_BT = torch.randint(c.vocab_size, (3, c.context_length), generator=torch.Generator())
    theirs = with_code(tmp_path / "model")
    assert apart(theirs, ours.model, token_BT) == 0.0
    own, exported = (sum(p.numel() for p in one.parameters()) for one in (ours.model, theirs))
    assert own == exported  # tied embeddings are still tied


def test_every_value_of_every_switch_is_among_them() -> None:
    """A value that is added later has to be added above."""
    tried = {(path, value) for changes in ANY.values() for path, value in changes.items()}
    wanted = {
        (path, value)
        for path in cfg.PATHS
        if path.startswith("model.")
        for value in cfg.choices(path)
        if value
        not in {
            cfg.load("cpu").model_dump()["model"][path.removeprefix("model.")],
            "glorot",
            "standard",
        }
    }
    assert wanted <= tried


@pytest.fixture(scope="module")
def odd(tiny: cfg.Config, corpus: Corpus) -> TrainedModel:
    """A model that is no Llama."""
    return trained(tiny, corpus, ANY["another model altogether"])


@pytest.fixture(scope="module")
def odd_folder(odd: TrainedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "model"
    write_hf(odd, folder, custom_code=True)
    return folder


def test_the_code_imports_nothing_of_ours(odd_folder: Path) -> None:
    tree = ast.parse((odd_folder / "modeling_tinylm.py").read_text())
    names = [
        *(
            name.name
            for node in ast.walk(tree)
            if isinstance(node, ast.Import)
            for name in node.names
        ),
        *(str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)),
    ]
    known = {"__future__", "math", "types", "typing", "torch", "transformers"}
    assert {name.partition(".")[0] for name in names} == known


def test_the_code_is_run_only_if_that_is_asked_for(odd_folder: Path) -> None:
    with pytest.raises(ValueError, match="trust_remote_code"):
        AutoModelForCausalLM.from_pretrained(odd_folder, trust_remote_code=False)


@pytest.mark.parametrize("prompt", ["", "ba", "ba de fi"])
@pytest.mark.parametrize("tokens", [5, 30])
def test_with_its_code_it_continues_a_text_alike_beyond_the_context_too(
    odd: TrainedModel, odd_folder: Path, tokenizer: Any, prompt: str, tokens: int
) -> None:
    ours = list(generate(odd, prompt, tokens, 0.0, 1.0, 0))
    asked = tokenizer(prompt, return_tensors="pt").input_ids.long()
    given = {"inputs": asked, "attention_mask": torch.ones_like(asked)} if prompt else {}
    found = with_code(odd_folder).generate(**given, max_new_tokens=tokens, do_sample=False)
    ids = found[0].tolist()[max(1, asked.shape[1]) :]
    assert [token for token in ids if token != odd.tokenizer.token_to_id(END_OF_TEXT)] == ours


def test_its_loss_is_that_of_our_training(odd: TrainedModel, odd_folder: Path) -> None:
    window_BT = torch.arange(26).view(2, 13)
    labels_BT = window_BT.clone()
    labels_BT[1, 7:] = -100  # padding
    logit_NV = odd.model(window_BT)[:, :-1].flatten(0, 1)
    ours = torch.nn.functional.cross_entropy(logit_NV, labels_BT[:, 1:].flatten())
    assert torch.equal(with_code(odd_folder)(window_BT, labels=labels_BT).loss, ours)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"input_ids": torch.zeros(1, 14, dtype=torch.long)}, "14 tokens; the context has 13"),
        (
            {
                "input_ids": torch.zeros(1, 2, dtype=torch.long),
                "attention_mask": torch.tensor([[0, 1]]),
            },
            "padding on the left",
        ),
    ],
    ids=["too long", "padded on the left"],
)
def test_what_the_model_can_not_read_is_refused(
    odd_folder: Path, given: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        with_code(odd_folder)(**given)


def test_saved_again_it_is_the_same_model(
    odd: TrainedModel, odd_folder: Path, tmp_path: Path
) -> None:
    with_code(odd_folder).save_pretrained(tmp_path / "again")
    assert apart(with_code(tmp_path / "again"), odd.model, torch.arange(13)[None]) == 0.0


def test_the_refusal_names_the_option(tiny: cfg.Config, corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(
        cfg.ConfigError, match=r"\n--custom-code exports such a model with its own code$"
    ):
        write_hf(trained(tiny, corpus, {"model.norm": "post"}), tmp_path / "model")


# The command


@pytest.fixture(scope="module")
def checkpoint(tiny: cfg.Config, corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("run") / "checkpoint.pt"
    state = train.start(tiny)
    list(train.train(state, corpus, tiny))
    save(file, state, corpus, tiny)
    return file


def call(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_command_writes_what_transformers_needs(checkpoint: Path, tmp_path: Path) -> None:
    done = call("export", checkpoint, "--to", "hf", tmp_path / "new" / "model")
    assert (done.exit_code, done.stderr) == (0, "")
    assert {path.name for path in (tmp_path / "new" / "model").iterdir()} == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_the_command_writes_the_code_of_any_model(checkpoint: Path, tmp_path: Path) -> None:
    done = call("export", checkpoint, "--custom-code", tmp_path / "model")
    assert (done.exit_code, done.stderr) == (0, "")
    assert "trust_remote_code=True" in done.stdout
    theirs = with_code(tmp_path / "model")
    assert apart(theirs, load_model(checkpoint).model, torch.arange(13)[None]) == 0.0


def test_a_trained_model_says_what_it_said(checkpoint: Path, tmp_path: Path) -> None:
    assert call("export", checkpoint.parent, tmp_path / "model").exit_code == 0
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert apart(theirs, load_model(checkpoint).model, torch.arange(13)[None]) < 1e-5


@pytest.mark.parametrize("content", ["folder", "file"])
def test_nothing_that_is_there_is_overwritten(
    checkpoint: Path, tmp_path: Path, content: str
) -> None:
    there = tmp_path / "there"
    there.mkdir() if content == "folder" else there.write_text("mine")
    done = call("export", checkpoint, "--to", "hf", there)
    assert (done.exit_code, done.stderr) == (2, f"{there}: already exists; choose a new folder\n")
    assert there.is_dir() or there.read_text() == "mine"


def test_a_folder_that_can_not_be_made_exits_7(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert call("export", checkpoint, tmp_path / "file" / "model").exit_code == 7


def test_another_format_exits_2(checkpoint: Path, tmp_path: Path) -> None:
    assert call("export", checkpoint, "--to", "gguf", tmp_path / "model").exit_code == 2


@pytest.mark.parametrize("command", [("generate",), ("export", "--to", "hf", "new")])
def test_a_folder_without_a_checkpoint_names_the_nearest(
    checkpoint: Path, command: tuple[str, ...]
) -> None:
    name, *more = command
    done = call(name, checkpoint.parents[1], *more)
    assert done.exit_code == 2
    assert "checkpoint.pt: no such checkpoint; did you mean" in done.stderr


def test_a_name_alone_is_looked_for_in_the_folders_here(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    best = Path("runs", "two", "best")
    (tmp_path / best).mkdir(parents=True)
    (tmp_path / best / "checkpoint.pt").symlink_to(checkpoint)
    monkeypatch.chdir(tmp_path)
    done = call("generate", "two")
    assert (done.exit_code, done.stderr) == (2, f"two: no such checkpoint; did you mean {best}?\n")


def test_generate_takes_the_folder_of_a_checkpoint(checkpoint: Path) -> None:
    one, other = (call("generate", path, "--seed", 3) for path in (checkpoint, checkpoint.parent))
    assert (one.exit_code, one.stdout) == (other.exit_code, other.stdout) == (0, other.stdout)


def test_the_config_names_no_path_of_this_machine(folder: Path) -> None:
    assert "_name_or_path" not in json.loads((folder / "config.json").read_text())
