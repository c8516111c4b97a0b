"""Checkpoints: whole or not at all, verified to the byte, and never run."""

import hashlib
import json
import math
import os
import pickle
import resource
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tinylm import checkpoint
from tinylm import config as cfg
from tinylm.checkpoint import CheckpointError, UnreadableCheckpointError
from tinylm.data import Corpus
from tinylm.train import Record, State, start, train


@pytest.fixture(scope="module")
def begun(tiny: cfg.Config, corpus: Corpus) -> tuple[State, Record]:
    """The tiny run after its first record."""
    state = start(tiny)
    return state, next(train(state, corpus, tiny))


@pytest.fixture(scope="module")
def state(begun: tuple[State, Record]) -> State:
    """The state of that run."""
    return begun[0]


@pytest.fixture(scope="module")
def record(begun: tuple[State, Record]) -> Record:
    """The first record of that run."""
    return begun[1]


@pytest.fixture(scope="module")
def content(
    tiny: cfg.Config, corpus: Corpus, state: State, tmp_path_factory: pytest.TempPathFactory
) -> bytes:
    """The bytes of a good checkpoint."""
    file = tmp_path_factory.mktemp("checkpoint") / "checkpoint.pt"
    checkpoint.save(file, state, corpus, tiny)
    return file.read_bytes()


@pytest.fixture
def file(content: bytes, tmp_path: Path) -> Path:
    """A good checkpoint."""
    written = tmp_path / "checkpoint.pt"
    written.write_bytes(content)
    return written


def test_a_checkpoint_holds_the_state(
    file: Path, tiny: cfg.Config, corpus: Corpus, state: State
) -> None:
    loaded = checkpoint.load(file, corpus, tiny)
    torch.testing.assert_close(
        loaded.optimizer.state_dict(), state.optimizer.state_dict(), rtol=0, atol=0
    )
    torch.testing.assert_close(loaded.model.state_dict(), state.model.state_dict(), rtol=0, atol=0)
    assert (loaded.step, loaded.seconds, loaded.watch) == (state.step, state.seconds, state.watch)


def test_a_checkpoint_has_the_keys_of_its_format(file: Path) -> None:
    """Whoever changes them gives the format another number."""
    content = torch.load(file, weights_only=True)
    watched = {"loss_init", "peak_loss", "updates_above", "smooth_loss", "lowest_loss", "spike"}
    assert content.keys() == watched | {
        "format",
        "config",
        "step",
        "seconds",
        "model",
        "optimizer",
        "tokenizer",
        "provenance",
    }
    assert content["format"] == 2


def test_a_checkpoint_is_enough_to_use_its_model(
    file: Path, tiny: cfg.Config, corpus: Corpus, state: State
) -> None:
    trained = checkpoint.load_model(file)
    assert (trained.config, trained.step) == (tiny, 3)
    assert trained.tokenizer.to_str() == corpus.tokenizer().to_str()
    token_BT = torch.arange(13)[None]
    with torch.no_grad():
        assert torch.equal(trained.model(token_BT), state.model(token_BT))


def test_saving_replaces_and_leaves_nothing_beside(
    file: Path, tiny: cfg.Config, corpus: Corpus, state: State
) -> None:
    before = file.stat().st_ino
    checkpoint.save(file, state, corpus, tiny)
    assert file.stat().st_ino != before
    assert list(file.parent.iterdir()) == [file]


def test_a_save_that_fails_leaves_the_old_checkpoint_and_nothing_beside(
    file: Path, content: bytes, tiny: cfg.Config, corpus: Corpus, state: State
) -> None:
    unwritable = State(state.model, state.optimizer, state.watch, seconds=lambda: 0)  # type: ignore[arg-type]
    with pytest.raises((pickle.PicklingError, AttributeError)):
        checkpoint.save(file, unwritable, corpus, tiny)
    assert file.read_bytes() == content
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize(
    ("tokens", "last", "due"), [(195, False, False), (390, False, True), (715, True, True)]
)
def test_a_checkpoint_is_due_at_every_multiple_of_its_tokens_and_at_the_end(
    tiny: cfg.Config, record: Record, tokens: int, last: bool, due: bool
) -> None:
    config = cfg.overlay(tiny, {"run.checkpoint_every_tokens": 390})
    assert checkpoint.is_due(replace(record, tokens=tokens, last=last), config) is due


@pytest.mark.parametrize("left", [0.0, 0.3, 0.9, 0.9999])
@pytest.mark.fault("a truncated checkpoint", "refused by its checksum")
def test_a_truncated_checkpoint_is_refused(
    file: Path, content: bytes, tiny: cfg.Config, corpus: Corpus, left: float
) -> None:
    file.write_bytes(content[: int(left * len(content))])
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt: damaged"):
        checkpoint.load(file, corpus, tiny)


@pytest.mark.parametrize("at", [0.0, 0.1, 0.5, 0.9, 0.97, 0.99, 0.999, 1.0])
@pytest.mark.fault("a flipped bit of a checkpoint", "refused by its checksum")
def test_a_flipped_bit_is_found_wherever_it_is(
    file: Path, content: bytes, tiny: cfg.Config, corpus: Corpus, at: float
) -> None:
    damaged = bytearray(content)
    damaged[int(at * (len(content) - 1))] ^= 1
    file.write_bytes(damaged)
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt: damaged"):
        checkpoint.load(file, corpus, tiny)


@pytest.mark.parametrize("name", ["missing.pt", "."])
def test_what_is_no_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        checkpoint.load_model(tmp_path / name)


def test_a_checkpoint_of_another_config_is_refused(
    file: Path, tiny: cfg.Config, corpus: Corpus
) -> None:
    with pytest.raises(CheckpointError, match="checkpoint of a run with another config"):
        checkpoint.load(file, corpus, cfg.overlay(tiny, {"optim.lr": 0.1}))


def test_a_checkpoint_of_another_corpus_is_refused(
    file: Path, tiny: cfg.Config, corpus: Corpus
) -> None:
    other = Corpus(Path("other"), corpus.train, corpus.validation, corpus.bytes_of_token)
    with pytest.raises(CheckpointError, match=f"trained on corpus {corpus.digest}, got other"):
        checkpoint.load(file, other, tiny)


class Trap:
    """Unpickling makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.folder),)


def sealed(file: Path, value: object) -> Path:
    """A file with the digest of a checkpoint and whatever content."""
    torch.save(value, file)
    file.write_bytes(file.read_bytes() + hashlib.sha256(file.read_bytes()).digest())
    return file


@pytest.mark.fault("a checkpoint with code in it", "refused; nothing runs")
def test_loading_never_runs_what_a_file_holds(tmp_path: Path) -> None:
    file = sealed(tmp_path / "checkpoint.pt", {"format": 1, "config": Trap(tmp_path / "sprung")})
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        checkpoint.load_model(file)
    assert not (tmp_path / "sprung").exists()


def test_the_trap_works(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Trap(tmp_path / "sprung")))
    assert (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("value", "found"), [([1, 2], "None"), ({"model": {}}, "None"), ({"format": 1}, "1")]
)
def test_a_file_of_another_format_is_refused(tmp_path: Path, value: object, found: str) -> None:
    file = sealed(tmp_path / "checkpoint.pt", value)
    with pytest.raises(CheckpointError, match=f"checkpoint format {found}, this version reads 2"):
        checkpoint.load_model(file)


def weight(change: Callable[[torch.Tensor], object]) -> Callable[[dict[str, Any]], None]:
    """A change of the embedding's weights."""

    def apply(content: dict[str, Any]) -> None:
        content["model"]["embedding.weight"] = change(content["model"]["embedding.weight"])

    return apply


def setting(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    """A change of the config."""
    section, name = path.split(".")
    return lambda content: content["config"][section].update({name: value})


LIES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no config": (lambda c: c.pop("config"), "config is missing"),
    "a list for a config": (lambda c: c.update(config=[1]), "config is missing"),
    "a number for a section": (lambda c: c["config"].update(model=1), "config is missing"),
    "an unknown setting": (setting("model.wings", 2), "model.wings"),
    "a huge width": (setting("model.d_model", 42 * 10**10), "parameters"),
    "a huge depth": (setting("model.n_layers", 10_000), "parameters"),
    "a huge vocabulary": (setting("model.vocab_size", 65_536), "parameters"),
    "no model": (lambda c: c.pop("model"), "model is missing"),
    "a list for a model": (lambda c: c.update(model=[1]), "model is list"),
    "text for weights": (weight(lambda w: "x"), "not a tensor"),
    "whole numbers for weights": (weight(lambda w: w.long()), "not a tensor"),
    "not a number": (weight(lambda w: w * math.nan), "not a finite number"),
    "another shape": (weight(lambda w: w.T.contiguous()), "of another model"),
    "one number that claims to be many": (
        weight(lambda w: w[:1, :1].expand(10**6, 10**6)),
        "not contiguous",
    ),
    "a weight that holds no numbers": (weight(lambda w: w.to("meta")), "not contiguous"),
    "a weight that is sparse": (weight(lambda w: w.to_sparse()), "not contiguous"),
    "a peak loss that is none": (lambda c: c.update(peak_loss=math.nan), "not finite"),
    "a loss at init that is none": (lambda c: c.update(loss_init=math.inf), "not finite"),
    "seconds of the universe": (lambda c: c.update(seconds=1e300), "seconds is 1e.300"),
    "more seconds than a float holds": (lambda c: c.update(seconds=10**400), "seconds is"),
    "no tokenizer": (lambda c: c.pop("tokenizer"), "tokenizer is missing"),
    "a text for a step": (lambda c: c.update(step="3"), "step is str"),
    "a step beyond the end": (lambda c: c.update(step=10**9), "step 1000000000 of 11"),
    "no seconds": (lambda c: c.update(seconds=math.nan), "seconds is nan"),
    "no corpus": (lambda c: c["provenance"].clear(), "digest of its corpus"),
    "no peak loss": (lambda c: c.pop("peak_loss"), "peak_loss is missing"),
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.fault("checkpoints that are well formed and lie", "exit code 6, in a sentence")
def test_a_whole_file_that_is_no_checkpoint_is_refused_in_a_sentence(
    file: Path, tiny: cfg.Config, corpus: Corpus, lie: str
) -> None:
    change, told = LIES[lie]
    content = torch.load(file, weights_only=True)
    change(content)
    with pytest.raises(CheckpointError, match=f"^[^\n]*{told}[^\n]*$"):
        checkpoint.load_model(sealed(file, content))
    with pytest.raises(CheckpointError):
        checkpoint.load(file, corpus, tiny)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "can't be read"),
        ('{"model": {"type": "BPE", "vocab": {}, "merges": []}}', "does not match the model"),
    ],
)
def test_a_tokenizer_of_something_else_is_refused(file: Path, text: str, told: str) -> None:
    content = torch.load(file, weights_only=True)
    content["tokenizer"] = text
    with pytest.raises(CheckpointError, match=told):
        checkpoint.load_model(sealed(file, content))


OPTIMIZERS: dict[str, Callable[[dict[str, Any]], object]] = {
    "none": lambda o: o.clear(),
    "no groups": lambda o: o.update(param_groups=[]),
    "no state": lambda o: o["state"].clear(),
    "another shape": lambda o: o["state"][0].update(exp_avg=torch.zeros(2, 3)),
    "not a number": lambda o: o["state"][0]["exp_avg"].fill_(math.nan),
    "text": lambda o: o["state"][0].update(exp_avg="x"),
    "another decay": lambda o: o["param_groups"][0].update(weight_decay=0.7),
    "other betas": lambda o: o["param_groups"][0].update(betas=(0.9, 0.9999)),
    "betas that are text": lambda o: o["param_groups"][0].update(betas="ab"),
    "a rate that is text": lambda o: o["param_groups"][0].update(lr="x"),
    "a rate that is none": lambda o: o["param_groups"][0].update(lr=math.nan),
    "uphill": lambda o: o["param_groups"][0].update(maximize=True),
    "another rule": lambda o: o["param_groups"][0].update(amsgrad=True),
    "a step before the first": lambda o: o["state"][0].update(step=torch.tensor(-5.0)),
    "a step beyond all": lambda o: o["state"][0].update(step=torch.tensor(1e30)),
    "several steps": lambda o: o["state"][0].update(step=torch.zeros(7)),
    "a negative square": lambda o: o["state"][0]["exp_avg_sq"].fill_(-1.0),
    "whole numbers": lambda o: o["state"][0].update(exp_avg=o["state"][0]["exp_avg"].int()),
    "other digits": lambda o: o["state"][0].update(exp_avg=o["state"][0]["exp_avg"].double()),
    "a state of nothing": lambda o: o["state"].update({10**6: o["state"][0]}),
    "a moment more": lambda o: o["state"][0].update(max_exp_avg_sq=o["state"][0]["exp_avg_sq"]),
    "a moment less": lambda o: o["state"][0].pop("exp_avg_sq"),
    "a list for moments": lambda o: o["state"].update({0: [1, 2]}),
}


@pytest.mark.parametrize("lie", OPTIMIZERS)
def test_an_optimizer_of_another_run_is_refused(
    file: Path, tiny: cfg.Config, corpus: Corpus, lie: str
) -> None:
    content = torch.load(file, weights_only=True)
    OPTIMIZERS[lie](content["optimizer"])
    with pytest.raises(CheckpointError, match="optimizer state"):
        checkpoint.load(sealed(file, content), corpus, tiny)


@pytest.mark.fault("optimizer moments that claim to be huge", "refused before memory is taken")
def test_moments_that_claim_to_be_huge_take_no_memory(
    file: Path, tiny: cfg.Config, corpus: Corpus
) -> None:
    """In float64: to convert them to the type of the weights would allocate them."""
    content = torch.load(file, weights_only=True)
    content["optimizer"]["state"][0]["exp_avg"] = torch.zeros(1, dtype=torch.float64).expand(10**8)
    checkpoint.load(file, corpus, tiny)  # what this takes is no part of what is measured
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match="are not tensors of numbers"):
        checkpoint.load(sealed(file, content), corpus, tiny)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


def test_a_step_that_is_not_that_of_the_optimizer_is_refused(
    file: Path, tiny: cfg.Config, corpus: Corpus
) -> None:
    content = torch.load(file, weights_only=True)
    content["step"] = 2
    with pytest.raises(CheckpointError, match="it is not at step 2"):
        checkpoint.load(sealed(file, content), corpus, tiny)


def test_a_checkpoint_of_a_cuda_device_is_read_with_its_rate_and_steps(
    file: Path, tiny: cfg.Config, corpus: Corpus, state: State
) -> None:
    """There the rate is a tensor, and the optimizer may be of the kind that a graph holds."""
    content = torch.load(file, weights_only=True)
    for group in content["optimizer"]["param_groups"]:
        group.update(lr=torch.tensor(3e-3), capturable=True, fused=True)
    loaded = checkpoint.load(sealed(file, content), corpus, tiny)
    torch.testing.assert_close(
        loaded.optimizer.state_dict()["state"],
        state.optimizer.state_dict()["state"],
        rtol=0,
        atol=0,
    )


def test_an_optimizer_is_of_the_kind_of_this_version_whatever_a_checkpoint_says(
    file: Path, corpus: Corpus, tiny: cfg.Config
) -> None:
    """A CUDA graph can't hold an optimizer of the kind that an older version saved."""
    content = torch.load(file, weights_only=True)
    for group in content["optimizer"]["param_groups"]:
        group["capturable"] = True
    loaded = checkpoint.load(sealed(file, content), corpus, tiny)
    assert {group["capturable"] for group in loaded.optimizer.param_groups} == {False}


def test_a_context_that_does_not_fit_in_memory_is_refused(file: Path) -> None:
    """The table of its angles is in no file."""
    content = torch.load(file, weights_only=True)
    long = 13 * 10**12
    content["config"]["model"]["context_length"] = content["config"]["eval"]["tokens"] = long
    content["config"]["budget"]["tokens"] = 715 * 10**12
    content["config"]["eval"]["every_tokens"] = 195 * 10**12
    content["config"]["run"]["checkpoint_every_tokens"] = 195 * 10**12
    with pytest.raises(CheckpointError, match="context_length: 13,000,000,000,000 tokens"):
        checkpoint.load_model(sealed(file, content))


def test_packed_members_are_refused(file: Path) -> None:
    """They could unpack to any size."""
    packed = file.with_name("packed.zip")
    with zipfile.ZipFile(file) as before, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for member in before.namelist():
            new.writestr(member, before.read(member))
    file.write_bytes(packed.read_bytes() + hashlib.sha256(packed.read_bytes()).digest())
    with pytest.raises(CheckpointError, match="its members are compressed"):
        checkpoint.load_model(file)


def test_a_checkpoint_of_a_later_version_may_be_whole(tmp_path: Path) -> None:
    with pytest.raises(UnreadableCheckpointError, match="format 3"):
        checkpoint.load_model(sealed(tmp_path / "checkpoint.pt", {"format": 3}))


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may be larger than 1,000 bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("small_files")
def test_what_the_system_says_of_a_save_is_told(
    tiny: cfg.Config, corpus: Corpus, state: State, tmp_path: Path
) -> None:
    """As it does of a full disk; torch's own error has other words."""
    with pytest.raises(OSError, match="File too large"):
        checkpoint.save(tmp_path / "checkpoint.pt", state, corpus, tiny)


# Each child saves without end into a folder of its own; all but the last are killed a little later
# than the one before, at whatever point of a save they are, and the script prints how many were
# caught with a file half-written.
SAVE_AND_KILL = """
import os, signal, sys
from pathlib import Path
from tinylm import checkpoint, config, data, train
settings = config.load(sys.argv[1])
corpus, state, out = data.prepare(settings), train.start(settings), Path(sys.argv[2])
caught = 0
for number in range(int(sys.argv[3])):
    folder = out / str(number)
    folder.mkdir()
    saved, said = os.pipe()
    child = os.fork()
    if child == 0:
        while True:
            checkpoint.save(folder / "checkpoint.pt", state, corpus, settings)
            os.write(said, b".")
    read = 0
    while read <= number:
        read += len(os.read(saved, 1))
    while number % 2 and len(os.listdir(folder)) < 2:  # every other one in the middle of a save
        pass
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    caught += len(os.listdir(folder)) > 1
print(caught)
"""
KILLS = 6


@pytest.fixture(scope="module")
def killed(tiny: cfg.Config, corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of runs that were killed while they saved."""
    folder = tmp_path_factory.mktemp("killed")
    (folder / "tiny.json").write_text(json.dumps(tiny.model_dump()))
    ran = subprocess.run(
        [sys.executable, "-c", SAVE_AND_KILL, str(folder / "tiny.json"), str(folder), str(KILLS)],
        capture_output=True,
        text=True,
        check=True,
        timeout=900,
    )
    (folder / "caught").write_text(ran.stdout)
    return folder


@pytest.mark.parametrize("number", range(KILLS))
@pytest.mark.fault("SIGKILL while a checkpoint is saved", "the old file or the new one, whole")
def test_a_kill_at_any_moment_leaves_a_whole_checkpoint(
    killed: Path, tiny: cfg.Config, corpus: Corpus, number: int
) -> None:
    assert checkpoint.load(killed / str(number) / "checkpoint.pt", corpus, tiny).step == 0


def test_some_kills_came_in_the_middle_of_a_save(killed: Path) -> None:
    assert int((killed / "caught").read_text()) >= 1
