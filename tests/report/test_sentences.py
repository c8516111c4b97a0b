"""Every sentence of the log and of the summaries, in one file that a reviewer can read.

`tests/report/sentences.md` holds what a set of made-up sweeps says. After a sentence was changed on
purpose, `UPDATE_SENTENCES=1 python -m pytest -n 0 tests/report/test_sentences.py` writes it anew.
"""

import math
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conducting import NOPE, RETUNE, conduct, is_bare, loss, steer, study, worth
from ledgers import (
    BASE,
    BUDGET,
    EVERY,
    FIRST,
    Story,
    audited_sweep,
    bowl,
    damage,
    ended,
    lr_sweep,
    read_often,
    rewrite,
    shares_sweep,
    starts_high,
    story,
    studied,
    tell_tested,
)

from sweeps import ledger as led
from sweeps.findings.everything import Reader, SearchFindings, StudyFindings, findings
from sweeps.repair import repair
from sweeps.report import log
from sweeps.report.summary import markdown
from tinylm import config as cfg

GOLDEN = Path(__file__).with_name("sentences.md")
SEEDS = [0, 1, 2, 3]
MOMENT = "2026-01-01T00:00:00.000+00:00"
How = Callable[[dict[str, Any], float], float]


def seeded(config: dict[str, Any], share: float, gap: float, scatter: float = 0.0) -> float:
    """A loss with a gap of the arm, and scatter of the arm's own by seed."""
    seed = config["run"]["seed"]
    own = (scatter if seed % 2 else -scatter) * is_bare(config)
    return 3.0 + 0.01 * seed + gap * is_bare(config) + own + (1 - share)


def diverging(*seeds: int) -> How:
    return lambda c, s: (
        math.inf if is_bare(c) and c["run"]["seed"] in seeds else seeded(c, s, -0.25, 0.01)
    )


def misled(config: dict[str, Any], share: float) -> float:
    """On the tuning seed the arm likes 1e-3; on all others 4e-3 is better."""
    early = is_bare(config) and config["run"]["seed"] < 1000 and config["optim"]["lr"] < 4e-3
    return loss(config, share) + early


def widened(config: dict[str, Any], share: float) -> float:
    """Wider is worse by a nat."""
    is_wide = config["model"]["d_ff"] == 96
    return seeded(config, share, 0.25, 0.01) + is_wide * (1 + config["run"]["seed"] / 99)


def failing(config: dict[str, Any], share: float) -> float:
    if is_bare(config) and config["optim"]["lr"] == 1.6e-2:
        raise ArithmeticError("no")
    return loss(config, share)


def by_batch(config: dict[str, Any], share: float) -> float:
    doublings = max(0.0, math.log2(config["optim"]["batch_size"] / 8))
    return 3.0 + 0.2 * doublings + config["run"]["seed"] / 100 + (1 - share)


def untuned(config: dict[str, Any], share: float) -> float:
    """A rate of twice the base config's is better, the more so with fewer tokens."""
    off = abs(math.log2(config["optim"]["lr"] / 6e-3))
    return worth(1.25)(config, share) + off * (1.0 if config["budget"]["tokens"] <= 8192 else 0.1)


def searches(folder: Path) -> None:
    """Searches that end in different ways."""
    lr_sweep(folder / "rates")
    shares_sweep(folder / "budgets")
    audited_sweep(folder / "audited", {2.0: 2.75, 3.0: 3.5, 4.0: 3.6}, audited=2)
    ended(folder / "edge", "optim.lr", bowl([1e-3, 2e-3, 4e-3], 4e-3))
    read_often(folder / "overfitted", {1e-3: 3.55, BASE.optim.lr: 3.6, 4e-3: 4.1174})
    starts_high(folder / "high-init")
    ended(folder / "seeds", "optim.lr", {1e-3: (3.3, 3.0), 2e-3: (3.0, 3.1), 4e-3: (3.5, 3.6)})
    ended(folder / "norms", "model.norm", {"pre": (3.0, 3.01), "post": (3.02, 3.03)})
    with story(folder / "confirmed") as tell:
        tell.ask({"optim.lr": {"grid": [1e-3, 4e-3]}}, confirm=2)
        for lr in (1e-3, 4e-3):
            tell.whole(tell.plan({"optim.lr": lr}), lr)
        fresh = {str(s): tell.plan({"optim.lr": 1e-3}, s, role="confirm") for s in (2000, 2001)}
        tell.ledger.append("confirming", values={"optim.lr": 1e-3}, trials=fresh)
        for trial in fresh.values():
            tell.whole(trial, 1e-3, plus=0.3)
    with story(folder / "withdrawn") as tell:
        tell.ask({"optim.lr": {"grid": [1e-3]}}, confirm=1)
        best, gone = (tell.plan({"optim.lr": lr}) for lr in (1e-3, 2e-3))
        fresh = {str(s): tell.plan({"optim.lr": 1e-3}, s, role="confirm") for s in (2000, 2001)}
        for trial, lr in ((best, 1e-3), (gone, 2e-3), *((trial, 1e-3) for trial in fresh.values())):
            tell.whole(trial, lr)
        tell.ledger.append("confirming", values={"optim.lr": 1e-3}, trials={"2000": fresh["2000"]})
        for trial in (gone, fresh["2001"]):
            tell.ledger.append("withdrawn", trial=trial)
    with story(folder / "unfinished") as tell:
        tell.ask({"optim.lr": {"grid": [1e-3, 2e-3, 4e-3, 8e-3]}})
        machine = {"cpus": 2, "memory": 8e9, "processor": "CPU", "system": "Linux"}
        more = {"slots": 2, "product_flops": 316e9, "machine": machine, "versions": {"torch": "2"}}
        tell.ledger.append("session", command="python -m sweeps.run lr", notes=["a note"], **more)
        row = {
            "tokens": 393_216,
            "low": 1,
            "high": 2,
            "seconds": 30.0,
            "basis": "replay of 8 curves of earlier sweeps",
        }
        tell.ledger.append("forecast", **row)
        tell.whole(tell.plan({"optim.lr": 2e-3}), 2e-3)
        stopped = tell.plan({"optim.lr": 1e-3})
        tell.start(stopped)
        tell.measure(stopped, EVERY, 6.0)
        tell.measure(stopped, FIRST, 5.5, decayed_val_loss=5.25, branch_tokens=2048)
        tell.stop(stopped, FIRST, 5.25)
        failed = tell.plan({"optim.lr": 4e-3})
        tell.start(failed)
        tell.fail(failed, "CUDA out of memory")
        spiking = tell.plan({"optim.lr": 8e-3})
        tell.start(spiking)
        tell.measure(spiking, EVERY, 5.0, spike=3.0)


def held_out(folder: Path) -> None:
    """Sweeps that have read their test text, at the end and before it."""

    def harder(trial: led.Trial) -> float:
        """The test text is harder, the more so for what was chosen by the other one."""
        more = 0.01 * (trial.value("optim.lr") == 4e-3 or is_bare(trial.config))
        return float(trial.curve[-1]["val_loss"]) + 0.3 + more * (1 + trial.seed)

    losses = {BASE.optim.lr: (3.0, 3.1), 4e-3: (2.8, 3.0)}
    tell_tested(ended(folder / "tested", "optim.lr", losses), harder)
    alone = ended(folder / "tested-alone", "optim.lr", {1e-3: 2.9, 4e-3: 2.8})
    tell_tested(alone, harder)
    again = ended(folder / "tested-again", "optim.lr", losses)
    tell_tested(again, lambda trial: None if trial.seed else 3.0)
    with led.Ledger(again) as ledger:
        Story(ledger).plan({"optim.lr": 8e-3})
    conduct(folder / "tested-study", study(seeds=SEEDS), lambda c, s: seeded(c, s, -0.25, 0.01))
    tell_tested(led.Files(folder / "tested-study"), harder)


def risky(folder: Path) -> None:
    """Searches whose best rate is half the lowest unstable one: with two seeds, with one, and with fresh
    seeds of which one diverges."""
    for name, seeds in (("near-edge", [0, 1]), ("near-edge-once", [0]), ("near-edge-fresh", [0])):
        with story(folder / name) as tell:
            more: dict[str, Any] = {"confirm": 2} if name == "near-edge-fresh" else {}
            tell.ask({"optim.lr": {"grid": [2e-3, 4e-3]}}, seeds=seeds, **more)
            for seed in seeds:
                tell.whole(tell.plan({"optim.lr": 2e-3}, seed), 2e-3)
                unstable = tell.plan({"optim.lr": 4e-3}, seed)
                tell.start(unstable)
                tell.diverge(unstable, 5 * EVERY)
            if more:
                again = [tell.plan({"optim.lr": 2e-3}, s, role="confirm") for s in (2000, 2001)]
                fresh = dict(zip(("2000", "2001"), again, strict=True))
                tell.ledger.append("confirming", values={"optim.lr": 2e-3}, trials=fresh)
                tell.whole(again[0], 2e-3)
                tell.start(again[1])
                tell.diverge(again[1], 5 * EVERY)


def lengths(folder: Path) -> None:
    """Searches of a context length, with equal batches and with equal updates."""
    space = {"model.context_length": {"grid": [16, 32, 64]}, "optim.lr": {"grid": [1e-3, 4e-3]}}
    tree = {"question": "Which context?", "search": {"method": "grid"}, "space": space}
    tree |= {"schedule": {"policy": "none"}}

    def how(config: dict[str, Any], share: float) -> float:
        short = 1 / config["model"]["context_length"]
        return seeded(config, share, 0.0) + config["optim"]["lr"] + short

    conduct(folder / "lengths", tree, how)
    conduct(folder / "matched", {**tree, "match": "tokens_per_update"}, how)


def steered(folder: Path) -> None:
    """Sweeps of which somebody stopped trials, or had them trained to their end."""
    rates = [1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2]
    tree = {"question": "Which rate?", "space": {"optim.lr": {"grid": rates}}}
    tree |= {"search": {"method": "grid"}, "schedule": {"policy": "asha", "grace": "1/8"}}
    conduct(folder / "steered", tree, loss, records=1)
    steer(folder / "steered", "stop", lambda one: one.value("optim.lr") == 2e-3)
    steer(folder / "steered", "finish", lambda one: one.value("optim.lr") == 3.2e-2)
    conduct(folder / "steered", tree, loss)
    asked = study(seeds=SEEDS, retune=RETUNE)
    conduct(folder / "steered-study", asked, records=1)
    steer(folder / "steered-study", "finish", lambda one: one.value("optim.lr") == 1.6e-2)
    conduct(folder / "steered-study", asked, records=50)
    steer(folder / "steered-study", "stop", lambda one: one.role == "run" and one.seed > 1)
    conduct(folder / "steered-study", asked)
    conduct(folder / "steered-grid", asked, records=1)
    steer(folder / "steered-grid", "stop", lambda one: one.arm == "baseline")
    conduct(folder / "steered-grid", asked)
    asked = study(seeds=SEEDS, speedup={"seeds": 3}, repeats=3)
    conduct(folder / "steered-worth", asked, worth(1.25), records=1)
    steer(folder / "steered-worth", "stop", lambda one: one.value("run.repeat") == 2)
    conduct(folder / "steered-worth", asked, worth(1.25), records=82)
    steer(folder / "steered-worth", "stop", lambda one: one.value("optim.lr") == 6e-3)
    conduct(folder / "steered-worth", asked, worth(1.25))


def singles(folder: Path) -> None:
    """Experiments of one config."""
    with story(folder / "baseline_cpu") as tell:
        tell.ask({}, "The baseline.")
        tell.whole(tell.plan({}, label="baseline_cpu"), 2e-3)
    for name, changes in (("wide", {"model.d_ff": 512}), ("short", {"budget.tokens": BUDGET // 2})):
        with story(folder / name) as tell:
            tell.ask({}, f"Is {name} better?")
            command = f"python -m sweeps.experiment --name {name} --config cpu"
            tell.ledger.append("session", command=command, slots=1)
            config = cfg.overlay(BASE, changes).model_dump()
            tell.whole(tell.plan({}, config=config, trial=name, label=name), 2e-3, plus=0.1)
    with story(folder / "hot") as tell:
        tell.ask({"optim.lr": {"grid": [1.0, 2.0]}})
        for lr in (1.0, 2.0):
            trial = tell.plan({"optim.lr": lr})
            tell.start(trial)
            tell.diverge(trial, 5 * EVERY)


def failing_longer(config: dict[str, Any], share: float) -> float:
    """The highest rate of the baseline at twice the tokens fails."""
    if config["budget"]["tokens"] > 8192 and config["optim"]["lr"] == 6e-3:
        raise ArithmeticError
    return worth(1.25)(config, share)


def studies(folder: Path) -> None:
    """Studies with every kind of verdict and caution."""
    twins = {"nope": NOPE, "same": {**NOPE, "retune": False}}
    wide = {"hypothesis": "Wider is better.", "set": {"model.d_ff": 96}}
    short = {"hypothesis": "Shorter is worse.", "set": {"model.context_length": 16}}
    conduct(folder / "re-tuned", study(seeds=SEEDS, retune=RETUNE))
    conduct(folder / "missed", study(seeds=SEEDS, retune=RETUNE, arms=twins), misled)
    conduct(folder / "failed", study(seeds=SEEDS, retune=RETUNE), failing)
    conduct(folder / "tuning", study(seeds=SEEDS, retune=RETUNE, arms=twins), records=17)
    conduct(folder / "running", study(seeds=SEEDS), records=20)
    conduct(folder / "equal", study(seeds=SEEDS), lambda c, s: seeded(c, s, 0.001, 0.001))
    conduct(folder / "open", study(seeds=SEEDS), lambda c, s: seeded(c, s, 0.02, 0.03))
    conduct(folder / "tiny", study(seeds=SEEDS), lambda c, s: seeded(c, s, 0.0, 0.03))
    conduct(folder / "void", study(seeds=SEEDS), lambda c, s: seeded(c, s, 0.0))
    conduct(folder / "unstable", study(seeds=SEEDS), diverging(2))
    conduct(folder / "gone", study(seeds=SEEDS), diverging(*SEEDS))
    conduct(folder / "no-values", study(seeds=SEEDS, retune=RETUNE), lambda c, s: math.inf)
    conduct(folder / "windows", study(seeds=SEEDS, arms={"short": short, "wide": wide}))
    each = {"path": "optim.batch_size", "values": [4, 8, 16, 32], "hypothesis": "Noise matters."}
    tree = {key: value for key, value in study(seeds=SEEDS, each=each).items() if key != "arms"}
    conduct(folder / "batches", tree, by_batch)
    looks = study(seeds={"looks": [3, 5, 8]})
    conduct(folder / "sequential", looks, lambda c, s: seeded(c, s, 0.25, 0.01))
    conduct(folder / "sequential-open", looks, lambda c, s: seeded(c, s, 0.02, 0.05))
    conduct(folder / "sequential-begun", looks, lambda c, s: seeded(c, s, 0.02, 0.05), records=40)
    conduct(folder / "sequential-between", looks, lambda c, s: seeded(c, s, 0.02, 0.05), records=60)
    more = folder / "sequential-extended"
    conduct(more, study(seeds=[0, 1, 2]), lambda c, s: seeded(c, s, 0.03, 0.01))
    conduct(more, study(seeds=[*range(9)]), lambda c, s: seeded(c, s, 0.03, 0.01))
    more = folder / "sequential-added"
    conduct(more, study(seeds=SEEDS), lambda c, s: seeded(c, s, 0.25, 0.01))
    conduct(more, study(seeds=SEEDS, arms={"nope": NOPE, "wide": wide}), widened)
    more = folder / "sequential-late-bound"
    conduct(more, looks, lambda c, s: seeded(c, s, 0.02, 0.05))
    conduct(more, {**looks, "matters": 0.5}, lambda c, s: seeded(c, s, 0.02, 0.05))
    more = folder / "sequential-shortened"
    conduct(more, study(seeds=SEEDS), lambda c, s: seeded(c, s, 0.25, 0.01))
    conduct(more, study(seeds=SEEDS[:3]), lambda c, s: seeded(c, s, 0.25, 0.01))
    more = folder / "sequential-likely"
    conduct(more, looks, lambda c, s: seeded(c, s, 0.03, 0.01), records=50)
    more = folder / "sequential-dropped"
    conduct(more, study(seeds=SEEDS, arms={"nope": NOPE, "wide": wide}), widened)
    conduct(more, study(seeds=SEEDS), widened)
    more = folder / "sequential-repaired"
    conduct(more, looks, lambda c, s: seeded(c, s, 0.25, 0.01))
    damage(led.Files(more), "look")
    repair(led.Files(more))
    conduct(more, looks, lambda c, s: seeded(c, s, 0.25, 0.01))
    asked = study(seeds=SEEDS, speedup={"seeds": 3}, target={"val_loss": 3.6, "ends": "nothing"})
    conduct(folder / "worth", asked, worth(1.25))
    conduct(folder / "worth-less", asked, worth(0.3))
    conduct(folder / "worth-open", asked, worth(1.01, noise=0.02), records=90)
    conduct(folder / "worth-failed", asked, failing_longer)
    conduct(folder / "worth-untuned", asked, untuned)
    conduct(
        folder / "repeats",
        study(seeds=SEEDS, repeats=3),
        lambda c, s: seeded(c, s, 0.1, 0.01) + 0.1 * c["run"]["repeat"],
    )


def all_findings(folder: Path) -> list[SearchFindings | StudyFindings]:
    """What is found in each sweep, as if all had been written in one moment. They are no copies: their first
    rows differ."""
    for number, files in enumerate(led.sweeps(folder)):
        first, *others = [{**row, "time": MOMENT, "t": 0.0} for row in led.read(files)]
        began = MOMENT.replace(".000", f".{number:03}")
        rewrite(files, [{**first, "time": began}, *others])
    return [findings(studied(files)) for files in led.sweeps(folder)]


def sentences(text: str, names: list[str]) -> Iterator[str]:
    """The lines of a text without contents, tables, figures and empty lines, each once; lines that differ in
    numbers and names of sweeps alone are one."""
    seen = set()
    every = re.compile("|".join([r"[-+]?\d[\d.,]*[kMGT%]?", *map(re.escape, names)]))
    for line in text.splitlines():
        key = every.sub("#", line)
        if key not in seen and line and not line.startswith(("|", "![", "<!--", "---", "  - [")):
            seen.add(key)
            yield line


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What all these sweeps say, first in their summaries, then in the log."""
    folder = tmp_path_factory.mktemp("results")
    searches(folder)
    singles(folder)
    held_out(folder)
    risky(folder)
    lengths(folder)
    steered(folder)
    studies(folder)
    found = all_findings(folder)
    names = [one.results.name for one in found]
    summaries = "\n".join(markdown(one, []) for one in found)
    text = "\n".join(
        [
            "<!-- Every sentence of the summaries, then of the log. -->",
            *sentences(summaries, names),
            "",
            *sentences(log.write(folder, Reader()).read_text(), names),
        ]
    )
    return text.replace(str(folder), "results") + "\n"


def test_every_sentence_is_the_one_that_was_reviewed(said: str) -> None:
    if os.environ.get("UPDATE_SENTENCES"):
        GOLDEN.write_text(said)
    assert said == GOLDEN.read_text()
