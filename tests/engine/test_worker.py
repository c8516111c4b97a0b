"""What a worker reads of the test text."""

from pathlib import Path

import pytest

from sweeps.engine.worker import read_test_text
from tinylm import config as cfg
from tinylm import data, train
from tinylm.checkpoint import save


@pytest.fixture(scope="module")
def tested(tiny: cfg.Config) -> cfg.Config:
    """A run whose corpus has a test text."""
    return cfg.overlay(tiny, {"data.test_fraction": 0.2})


@pytest.fixture
def file(tested: cfg.Config, tmp_path: Path) -> Path:
    """A checkpoint of it."""
    path = tmp_path / "checkpoint.pt"
    save(path, train.start(tested), data.prepare(tested), tested)
    return path


def test_the_loss_is_that_on_the_windows_of_the_test_text(tested: cfg.Config, file: Path) -> None:
    corpus, model = data.prepare(tested), train.start(tested).model
    assert corpus.test is not None
    as_validation = data.Corpus(corpus.folder, corpus.train, corpus.test, corpus.bytes_of_token)
    read = read_test_text(file, corpus.digest)
    assert (read["loss"], read["bits_per_byte"]) == train.evaluate(model, as_validation, tested)
    assert read["tokens"] == tested.eval.tokens


def test_a_text_that_has_changed_is_not_read(file: Path) -> None:
    with pytest.raises(cfg.ConfigError, match="has changed: its digest was aaaa"):
        read_test_text(file, "a" * 16)
