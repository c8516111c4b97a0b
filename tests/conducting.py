"""Studies conducted on made-up losses, without training anything."""

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fakes import Engine, driver, request
from ledgers import rewrite, studied

from sweeps import ledger as led
from sweeps.findings.everything import findings
from sweeps.report.summary import markdown

NOPE: dict[str, Any] = {"hypothesis": "Worse.", "set": {"model.position": "none"}}
SEEDS = [0, 1, 2, 3]
RETUNE = {"optim.lr": {"grid": [1e-3, 4e-3, 1.6e-2]}}


def study(**more: Any) -> dict[str, Any]:
    """A study of one arm, on two seeds, without early stopping."""
    tree = {"question": "q?", "arms": {"nope": NOPE}, "seeds": [0, 1]}
    return {**tree, "schedule": {"policy": "none"}, **more}


def is_bare(config: dict[str, Any]) -> bool:
    """Whether a config is that of the arm."""
    return bool(config["model"]["position"] == "none")


def loss(config: dict[str, Any], share: float) -> float:
    """Best at a rate of 4e-3 with positions, at 1e-3 and 0.2 higher without; seeds differ a little."""
    bare = is_bare(config)
    best = 1e-3 if bare else 4e-3
    noise = (config["run"]["seed"] * 7 + 3 * bare) % 5 / 1000
    octaves = abs(math.log2(config["optim"]["lr"] / best))
    return 2.0 + octaves / 10 + 0.2 * bare + noise + (1 - share)


def conduct(
    folder: Path,
    tree: dict[str, Any],
    how: Callable[[dict[str, Any], float], float] = loss,
    records: float = math.inf,
    audit: float = 0.0,
) -> led.Sweep:
    """Run or resume a study for this many records; returns what its ledger then says."""
    with led.Ledger(led.Files(folder)) as ledger:
        conductor = driver(ledger, request(tree), audit)
        conductor.begin({})
        Engine(conductor, how).run(records)
    return led.fold(led.read(led.Files(folder)))


def steer(folder: Path, action: led.Action, choose: Callable[[led.Trial], bool]) -> None:
    """Stop or finish by hand, between two sessions, the trials that are chosen."""
    with led.Ledger(led.Files(folder)) as ledger:
        trials = led.fold(ledger.rows()).trials.values()
        for one in [trial for trial in trials if choose(trial)]:
            ledger.append("steered", action=action, trial=one.trial, tokens=one.tokens)


def facts_of(folder: Path) -> dict[str, Any]:
    """The content of summary.json, without the figures."""
    facts: dict[str, Any] = json.loads(json.dumps(findings(studied(led.Files(folder))).as_json()))
    return facts


def facts_of_study(folder: Path, how: Any = loss, **more: Any) -> dict[str, Any]:
    """The content of summary.json of a study of four seeds, conducted here."""
    conduct(folder, study(seeds=SEEDS, **more), how)
    return facts_of(folder)


def arm(facts: dict[str, Any], name: str = "nope") -> dict[str, Any]:
    """What summary.json says of an arm."""
    return next(result for result in facts["arms"]["arms"] if result["arm"] == name)


def summarized(folder: Path) -> str:
    """summary.md of a study."""
    return markdown(findings(studied(led.Files(folder))), [])


def noisy(config: dict[str, Any], share: float, gap: float, apart: float = 0.0) -> float:
    """A loss with a gap of the arm, a noise shared by both arms, and one of the arm's own."""
    seed = config["run"]["seed"]
    own = (0.01 if seed % 2 else -0.01) * apart * is_bare(config)
    return 3.0 + 0.01 * seed + (gap + own) * is_bare(config) + (1 - share)


def law(tokens: float) -> float:
    """A loss of the baseline by its tokens, as multiples of 8192."""
    return float(2.0 + 1.5 * tokens**-0.4)


def worth(times: float, noise: float = 1e-4) -> Callable[[dict[str, Any], float], float]:
    """Losses of an arm that has the loss of the baseline at this many times the tokens."""

    def how(config: dict[str, Any], share: float) -> float:
        tokens = config["budget"]["tokens"] / 8192 * (times if is_bare(config) else 1)
        draw = random.Random(f"{config['run']['seed']} {tokens}")
        return law(tokens) + draw.gauss(0, noise) + (1 - share)

    return how


OF_LOOKS = {"looks", "seeds", "metric", "matters", "variance", "arms"}  # fields of the request


def without_looks(folder: Path) -> None:
    """Rewrite the ledger of a study as a version wrote it that took no looks."""
    files = led.Files(folder)
    kept = [row for row in led.read(files) if row["kind"] != "look"]
    plain = [
        {k: v for k, v in row.items() if row["kind"] != "sweep" or k not in OF_LOOKS}
        for row in kept
    ]
    rewrite(files, [{**row, "seq": number} for number, row in enumerate(plain)])


def dead(config: dict[str, Any], share: float) -> float:
    """A switch that does nothing."""
    return 3.0 + config["run"]["seed"] / 100 + (1 - share)


def both_diverge(*seeds: int) -> Any:
    """The baseline diverges on these seeds."""

    def how(config: dict[str, Any], share: float) -> float:
        lost = not is_bare(config) and config["run"]["seed"] in seeds
        return math.inf if lost else noisy(config, share, 0.25, 1.0)

    return how


def doubtful(folder: Path, *arms: str, how: Any = loss) -> led.Files:
    """A study whose runs of these arms overfit: they fall to a training loss of 0.5 and end 3 nats higher.
    Those of `nope` start at a loss of 24.2."""
    conduct(folder, study(seeds=SEEDS, retune=RETUNE), how)
    files = led.Files(folder)
    rows = led.read(files)
    role = {row["trial"]: row["arm"] for row in rows if row.get("role") == "run"}
    last = {row["trial"]: row for row in rows if row["kind"] == "measured"}
    for row in rows:
        if row["kind"] == "measured" and role.get(row["trial"]) == "nope":
            row["loss_init"] = 24.2
    for trial, row in last.items():
        if role.get(trial) in arms:
            row["train_loss"], row["val_loss"] = 0.5, row["val_loss"] + 3.0
    rewrite(files, rows)
    return files
