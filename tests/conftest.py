"""What tests of several modules share: a small corpus and config, and an analysed sweep."""

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from faults import table, told
from hypothesis import settings
from ledgers import analyzed, lr_sweep
from sweeping import RATES
from xdist.scheduler import LoadScopeScheduling

from sweeps import ledger
from sweeps.engine.limits import usable_cpus
from sweeps.ledger import Files
from sweeps.report.analysis import Analysis
from tinylm import config as cfg
from tinylm import data, train
from tinylm.checkpoint import save
from tinylm.data import END_OF_TEXT, Corpus, prepare

pytest.register_assert_rewrite("conformance")  # so that a law that fails shows its values

# A busy machine is no failure.
settings.register_profile("tests", deadline=None)
settings.load_profile("tests")

# Ledgers sync each row, which a disk takes most of a test's time for. Memory will do, where compiled code
# can be loaded from it.
MEMORY = Path("/dev/shm")
if (
    MEMORY.is_dir()
    and shutil.disk_usage(MEMORY).free > 4e9
    and not os.statvfs(MEMORY).f_flag & os.ST_NOEXEC
):
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))

SYLLABLES = ["ba", "de", "fi", "go", "hu", "ka", "le", "mi", "no", "pu", "ra", "se", "ti"]


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder that prepared corpora go to, never the user's own; the processes of the tests share it."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cache"
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TINYLM_CACHE", str(folder))
        yield folder


def words(count: int, seed: int) -> str:
    """Made-up words, the same for the same seed; some spell bytes beyond ASCII."""
    draw = random.Random(seed)
    spelt = ["".join(draw.choices(SYLLABLES, k=draw.randint(1, 3))) for _ in range(count)]
    return " ".join([*spelt, "café", "—", "🜁"])


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """The documents of the small corpus."""
    return [words(37, seed) + ".\nA second line, with  two spaces." for seed in range(61)]


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> Path:
    """The small corpus as two text files."""
    folder = tmp_path_factory.mktemp("texts")
    (folder / "a.txt").write_text(END_OF_TEXT.join(texts[:29]), encoding="utf-8")
    (folder / "b.txt").write_text(END_OF_TEXT.join(texts[29:]), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def tiny(text_folder: Path) -> cfg.Config:
    """A run of 11 updates in a fraction of a second; primes tell its axes apart."""
    return cfg.validate(
        {
            # 3 heads of width 14
            "model": {
                "vocab_size": 307,
                "context_length": 13,
                "n_layers": 2,
                "d_model": 42,
                "n_heads": 3,
                "d_ff": 37,
            },
            "data": {"corpus": "text", "path": str(text_folder), "validation_fraction": 0.2},
            "optim": {"batch_size": 5, "lr": 3e-3},
            "budget": {"tokens": 11 * 65},
            "eval": {"every_tokens": 3 * 65, "tokens": 7 * 13, "batch_size": 3},
            "run": {"checkpoint_every_tokens": 3 * 65},
        },
        "tiny",
    )


@pytest.fixture(scope="session")
def corpus(tiny: cfg.Config) -> Corpus:
    """The small corpus, tokenized."""
    return prepare(tiny)


@pytest.fixture(scope="session")
def saved(tiny: cfg.Config, corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real checkpoint, which stands for those of all runs."""
    file = tmp_path_factory.mktemp("saved") / "checkpoint.pt"
    save(file, train.start(tiny), corpus, tiny)
    return file


@pytest.fixture(scope="session")
def lr(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Eight rates under asha; see `lr_sweep`."""
    return lr_sweep(tmp_path_factory.mktemp("results") / "lr-cpu")


@pytest.fixture(scope="session")
def analysis(lr: Files) -> Analysis:
    """All that is written of the eight rates, where a path was once swept that no longer is."""
    ledger.write_whole(lr.analysis / "loss_vs_gone.svg", b"")
    ledger.write_whole(lr.findings, b'{"figures": ["loss_vs_gone", "../../x", 1]}')
    return analyzed(lr)


@pytest.fixture(scope="session")
def scale(tmp_path_factory: pytest.TempPathFactory, tiny: cfg.Config) -> Path:
    """The scale of these sweeps: 12 records of 10 updates in about a second."""
    step = tiny.tokens_per_step
    changes = {"budget.tokens": 120 * step, "eval.every_tokens": 10 * step}
    config = cfg.overlay(tiny, changes | {"run.checkpoint_every_tokens": 10 * step})
    path = tmp_path_factory.mktemp("scale") / "tiny.yaml"
    path.write_text(yaml.safe_dump(config.model_dump()))
    return path


@pytest.fixture(scope="session")
def trained(scale: Path) -> dict[str, list[tuple[int, float, float]]]:
    """The curves of the same trials, trained one after the other without a sweep."""
    found = {}
    for rate in RATES:
        config = cfg.overlay(cfg.load(str(scale)), {"optim.lr": rate})
        corpus = data.prepare(config)
        records = train.train(train.start(config), corpus, config)
        found[f"lr={rate:.4g}"] = [(r.step, r.train_loss, r.val_loss) for r in records]
    return found


HEAD = """
from sweeps.engine.tune import cluster, ray
from sweeps.plan.sections import Resources
with cluster("local", Resources(), None, 1):
    node = ray._private.worker.global_worker.node
    print(node.gcs_address, node.get_session_dir_path(), flush=True)
    input()
"""


class Head(NamedTuple):
    """A Ray that sweeps share."""

    address: str
    session: Path  # the folder of its logs


@pytest.fixture(scope="session")
def head() -> Iterator[Head]:
    """A Ray with room for one trial, and a GPU that it believes in, that sweeps share: to start one takes as
    long as half of them."""
    with subprocess.Popen(
        [sys.executable, "-c", HEAD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        address, session = process.stdout.readline().split()
        yield Head(address, Path(session))
        process.communicate("\n", timeout=900)


@pytest.fixture(scope="session")
def address(head: Head) -> str:
    """The address of the Ray that sweeps share."""
    return head.address


class _ByFile(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """Gives a process all tests of a file, which share fixtures; the shipped spaces share none."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return nodeid if file.endswith("test_spaces.py") else file


def pytest_xdist_auto_num_workers() -> int:
    """One process more than there are CPUs: real sweeps wait for about as long as they compute."""
    return int(os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS", usable_cpus() + 1))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """The scheduler that shares the tests out to the processes."""
    return _ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the real sweeps: they are few and long, and would leave a core idle at the end. Tests of
    faults carry what they inject and expect."""
    long = {
        *("test_caps.py", "test_faults.py", "test_resume.py", "test_run.py", "test_spaces.py"),
        "test_steer.py",
    }
    items.sort(key=lambda item: item.path.name not in long)
    for item in items:
        for mark in item.iter_markers("fault"):
            item.user_properties += zip(("fault", "expected"), mark.args, strict=True)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table of faults, if these tests were asked for."""
    if "fault" in terminalreporter.config.option.markexpr:
        reports = [one for kind in terminalreporter.stats.values() for one in kind]
        found = told(one for one in reports if isinstance(one, pytest.TestReport))
        if found:
            terminalreporter.write_line(table(found))
