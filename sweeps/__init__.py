"""Honest sweeps over small language models.

`sweeps.load("lr-cpu")` reads a sweep into tables of pandas, and `sweeps.sweep(space)` runs one. What they
need is imported when they are called.

The words of this project, as the code uses them:

    sweep       one question, its trials and its ledger: a folder under results/
    study       a sweep that compares named arms with a baseline
    arm         one change of the baseline; the baseline itself is an arm as well
    trial       one config, trained once; its id is the digest of the config
    value       what a search varies, in a search of several paths their values together: the trials that
                differ only by seed are repeats of one value
    attempt     one stretch of a trial on one worker, from its last checkpoint to its next stop
    rung        a share of a trial's own token budget at which a policy compares trials
    pool        the trials that a policy compares with one another
    policy      the rule of early stopping: a fold over the ledger's rows
    decision    what a policy does with a trial at a rung: continue, pause, promote or stop
    promotion   the decision that a paused trial continues to the next rung
    audit       a stopped trial that is trained to the end anyway, to see what stopping it cost
    outcome     the problem of a trial, by a stated rule: spiked, stuck, overfitted, ...
    look        the moment when verdicts are formed, after so many seeds; between looks there is none
    horizon     a number of tokens at which the baseline is trained, to say what an arm is worth in tokens
    verdict     the conclusion that the runs of an arm support about its difference from the baseline
    record      what the training loop yields at an evaluation
    row         one line of the ledger; a `measured` row holds a record
"""

import os
import signal
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sweeps.api import LoadedSweep

__all__ = ["load", "sweep"]

# Under `python -m sweeps.run` SIGINT ends the program in silence until it listens to it, as under the script
# `sweeps`. Python sets the first argument to -m while it looks for the module.
if (
    sys.argv[:1] == ["-m"]
    and sys.orig_argv[-len(sys.argv)].partition(".")[0] == "sweeps"
    and signal.getsignal(signal.SIGINT) is signal.default_int_handler
):
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def load(name: str | os.PathLike[str]) -> "LoadedSweep":
    """What the ledger of a sweep says now, by the sweep's name under results/ or its folder.

    Raises `sweeps.exits.UsageError` if there is none, and `sweeps.ledger.LedgerError` if it is damaged.
    """
    from sweeps import api

    return api.load(name)


def sweep(
    space: str | os.PathLike[str] | Mapping[str, Any],
    scale: str = "",
    *,
    name: str = "",
    changes: Mapping[str, Any] | None = None,
    out: str | os.PathLike[str] | None = None,
    seed: int = 0,
    audit: float = 0.0,
    slots: int | None = None,
) -> "LoadedSweep":
    """Run a sweep, or resume it, and read it: `sweeps run` in a process of its own.

    The space is the name of a shipped one, a YAML file, or a mapping with the same keys, which needs a
    `name`, unless `out` says the folder. `changes` are those of `--set`, by path; `scale`, `out`, `seed`, `audit` (a share) and `slots` are
    the options of that command.
    Its lines are printed as they come. Trials that failed, and a cap that was reached, are a warning.

    Raises what is wrong with the space before anything starts (`tinylm.config.ConfigError`), and the
    error that ended the sweep (see `sweeps.exits`).
    """
    from sweeps import api

    return api.sweep(
        space, scale, name=name, changes=changes, out=out, seed=seed, audit=audit, slots=slots
    )
