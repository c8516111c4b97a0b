"""What an experiment log says of sweeps: a fold over their ledgers, plain JSON.

Of a study every settled arm is an experiment, of another sweep the sweep with its best values.
"""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeps import ledger
from sweeps import verdict as vd
from sweeps.comparison import arms_of, comparison
from sweeps.ledger import BASELINE, Trial
from sweeps.outcomes import outcome
from sweeps.study import (
    METRICS,
    UNITS,
    Facts,
    Study,
    at,
    best_group,
    best_record,
    best_values,
    study,
    tokens_per_s,
)
from sweeps.words import count, named, show
from tinylm import config as cfg

TAIL = 0.1  # of a training, in which it is asked whether the loss still falls
NO_CHANGE = ("run.", "eval.")  # paths that say nothing of the model or its training


@dataclass(frozen=True)
class Experiment:
    """A config with its runs, one a seed, and the runs that it is held against."""

    name: str
    why: str  # hypothesis or question
    base: dict[str, Any]  # config that the changes are from
    runs: list[Trial]
    against: list[Trial]  # the baseline's; empty where there is none, or this is it
    is_baseline: bool
    whole: bool = True  # whether its configuration is told in full
    baseline: str = ""  # the sweep that it is held against, where that is another one
    place: Facts | None = None  # of an arm, in the comparison of its study
    has_twin: bool = False  # another arm has the same changes, and other values


def studies_under(results: Path) -> list[Study]:
    """What the ledgers of all sweeps in a folder say, by when these began; what is damaged is left
    out, which the analysis of that sweep says."""
    found = []
    for files in ledger.sweeps(results):
        try:
            found.append(study(files.name, ledger.read(files)))
        except (ledger.LedgerError, ValueError):
            continue
    return sorted(found, key=lambda of: of.begun)


def experiments_under(results: Path) -> list[Facts]:
    """The experiments of all sweeps in a folder."""
    return experiments(studies_under(results))


def experiments(studies: Sequence[Study]) -> list[Facts]:
    """The experiments of sweeps, each with all that the log says of it; of a sweep none before any is
    settled.

    What runs one config alone is held against the first of these whose name begins with `baseline`.
    """
    single = [of for of in studies if not of.is_study and not of.swept]
    first = next((of for of in single if of.name.startswith(BASELINE)), None)
    found = []
    for of in studies:
        against = first if of in single and of is not first else None
        some = _of_arms(of) if of.is_study else _of_search(of, against)
        found += [_facts(of, one) for one in some if one.runs]
    return found


def _of_arms(of: Study) -> Iterator[Experiment]:
    arms = arms_of(of.sweep)
    compared = comparison(of)
    places = {place["arm"]: place for place in (compared or {"arms": []})["arms"]}
    changes = [arm.row["changes"] for arm in arms]
    base = list(arms[0].runs.values()) if arms and arms[0].name == BASELINE else []
    for arm in arms:
        is_base = arm.name == BASELINE
        yield Experiment(
            name=f"{of.name}/{arm.name}",
            why=of.question if is_base else arm.row["hypothesis"],
            base=_asked_base(of) if is_base or not base else base[0].config,
            runs=list(arm.runs.values()),
            against=[] if is_base else base,
            is_baseline=is_base,
            whole=is_base,
            place=places.get(arm.name),
            has_twin=changes.count(arm.row["changes"]) > 1,
        )


def _asked_base(of: Study) -> dict[str, Any]:
    assert of.sweep.asked is not None  # else there is no study
    base: dict[str, Any] = of.sweep.asked["base"]
    return base


def _of_search(of: Study, baseline: Study | None) -> Iterator[Experiment]:
    """The best values of a sweep, against the base's own where these came to their end too, or
    against those of another one."""
    best = best_group(of.trials, of.metric)
    if baseline is not None:
        its = best_group(baseline.trials, baseline.metric)
        yield Experiment(
            of.name,
            of.question,
            _asked_base(baseline),
            best,
            its,
            is_baseline=False,
            whole=False,
            baseline=baseline.name,
        )
        return
    base = _asked_base(of)
    own = [
        trial
        for trial in of.trials
        if trial.status == "finished" and not _changes(base, trial.config)
    ]
    is_base = bool(best) and not _changes(base, best[0].config)
    yield Experiment(of.name, of.question, base, best, [] if is_base else own, is_base)


def _changes(there: dict[str, Any], here: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The paths of model, data and training that differ, with both values."""
    before, after = cfg.flatten(there), cfg.flatten(here)
    return {
        path: (before.get(path), value)
        for path, value in after.items()
        if value != before.get(path) and not path.startswith(NO_CHANGE)
    }


# Facts ------------------------------------------------------------------------------------------


def _facts(of: Study, one: Experiment) -> Facts:
    finished = [trial for trial in one.runs if trial.status == "finished"]
    first = one.runs[0]
    rows = [trial.curve[-1] for trial in finished]
    best = min(
        (row for trial in finished if (row := best_record(trial)) is not None),
        key=lambda row: row["val_loss"],
        default=None,
    )
    speeds = [speed for trial in finished if (speed := tokens_per_s(trial))]
    return {
        "name": one.name,
        "sweep": of.name,
        "date": of.begun[:10],
        "why": one.why,
        "is_baseline": one.is_baseline,
        "baseline": one.baseline,
        "configuration": configuration(first) if one.whole else [],
        "changes": {
            path: [_value(was), _value(now)]
            for path, (was, now) in _changes(one.base, first.config).items()
        },
        "runs": len(one.runs),
        "finished": len(finished),
        "train_loss": statistics.fmean(row["train_loss"] for row in rows) if rows else None,
        "val_loss": statistics.fmean(row["val_loss"] for row in rows) if rows else None,
        "best_val_loss": best and best["val_loss"],
        "best_step": best and best["step"],
        "hours": statistics.median(row["seconds"] for row in rows) / 3600 if rows else None,
        "tokens_per_s": statistics.median(speeds) if speeds else None,
        "comparison": _comparison(of, finished, one.against),
        "verdict": one.place["words"] if one.place and one.against else "",
        "observations": list(_observations(of, one, finished)),
        "next": list(_next(of, one)),
    }


def _value(value: Any) -> str:
    return "nothing" if value is None else show(value)


def configuration(trial: Trial) -> list[str]:
    """A whole config in the template's words, a line each."""
    config = cfg.validate(trial.config, trial.label)
    model, optim, budget = config.model, config.optim, config.budget
    end = (
        f"{budget.seconds:g} seconds"
        if budget.seconds is not None
        else f"{config.steps:,} iterations"
    )
    decay = f"{optim.schedule} decay"
    if optim.schedule == "wsd":
        decay = f"warm-up-stable-decay with a decay over the last {optim.decay_fraction:.0%}"
    lowest = optim.lr * optim.lr_final_fraction
    clip = "none" if optim.clip_norm == "none" else f"gradient clipping at {optim.clip_norm:g}"
    return [
        f"Model: {model.n_layers} layers, {model.d_model} hidden dim, {model.n_heads} heads, "
        f"{model.d_ff} FFN dim ({trial.params:,} parameters); norm {model.norm}, position "
        f"{model.position}, FFN {model.ffn}",
        f"Training: {end}, batch size {optim.batch_size}, context length {model.context_length}",
        f"Learning rate: {optim.lr:g} (peak), {lowest:g} (min), "
        f"{round(config.steps * optim.warmup_fraction)}-step warm-up, {decay}",
        f"Optimizer: AdamW (β1={optim.beta1:g}, β2={optim.beta2:g}, weight "
        f"decay={optim.weight_decay:g})",
        f"Regularization: {clip}",
        f"Dataset: {config.data.corpus} ({model.vocab_size:,} tokens in the vocabulary; documents, "
        f"split and vocabulary: {trial.corpus})",
    ]


def _comparison(of: Study, finished: Sequence[Trial], against: Sequence[Trial]) -> Facts | None:
    """The difference from the baseline in per cent of its loss, paired by seed, with the 95%
    interval; None where they share no seed that came to its end."""
    # Losses on another corpus, or after other tokens, are no comparison.
    fair = [t for t in against if finished and t.corpus == finished[0].corpus]
    its = {t.seed: row for t in fair if (row := at(t, of.final)) is not None}
    mine = {t.seed: row for t in finished if (row := at(t, of.final)) is not None}
    seeds = [seed for seed in mine if seed in its]
    if not seeds:
        return None
    found = vd.effect([mine[seed][of.metric] - its[seed][of.metric] for seed in seeds])
    share = 100 / statistics.fmean(its[seed][of.metric] for seed in seeds)
    return {
        "metric": METRICS[of.metric],
        "seeds": len(seeds),
        "difference": found.mean,
        "unit": UNITS[of.metric],
        "percent": found.mean * share,
        "low": None if found.low is None else found.low * share,
        "high": None if found.high is None else found.high * share,
    }


# Observations -------------------------------------------------------------------------------------


def _observations(of: Study, one: Experiment, finished: Sequence[Trial]) -> Iterator[str]:
    """Sentences of fact on smoothness, overfitting, the gap, and what went wrong."""
    wrong = [(trial, kind) for trial in one.runs if (kind := outcome(trial))]
    for trial, kind in wrong:
        yield f"Seed {trial.seed}: {kind}" + (f" ({trial.reason})." if trial.reason else ".")
    going = len([trial for trial in one.runs if trial.status not in {"finished", "diverged"}])
    if going:
        yield f"{going} of {len(one.runs)} runs have not come to their ends."
    if not finished:
        return
    yield _count_of_seeds(finished)
    spikes = max(trial.curve[-1].get("spike", 0.0) for trial in finished)
    yield (
        "The smoothed training loss never rose more than "
        f"{max(spikes, 0.0):.2f} nats above its lowest, the warm-up over."
    )
    yield from _slope(finished)
    yield from _gap(finished)
    yield from _throughput(of, finished)
    if not of.is_study:
        early = of.having("stopped")
        if early:
            yield (
                f"{len(early)} of {len(of.trials)} trials were stopped early; what their final losses "
                "would have been is not known."
            )


def _count_of_seeds(finished: Sequence[Trial]) -> str:
    if len(finished) == 1:
        return f"One seed ({finished[0].seed}): differences below the seed noise are no conclusion."
    losses = [trial.curve[-1]["val_loss"] for trial in finished]
    return (
        f"{len(finished)} seeds, with final validation losses from {min(losses):.4f} to "
        f"{max(losses):.4f}."
    )


def _slope(finished: Sequence[Trial]) -> Iterator[str]:
    """How the validation loss moved over the last tenth, as the mean over the seeds."""
    falls = []
    for trial in finished:
        end = trial.curve[-1]
        before = [row for row in trial.curve if row["tokens"] <= (1 - TAIL) * end["tokens"]]
        if before:
            falls.append(end["val_loss"] - before[-1]["val_loss"])
    if falls:
        mean = statistics.fmean(falls)
        how = "fell" if mean < 0 else "rose"
        yield f"Over the last tenth of training the validation loss {how} by {abs(mean):.4f} nats."


def _gap(finished: Sequence[Trial]) -> Iterator[str]:
    """Validation less training loss at the end and halfway."""
    gaps = [(_gap_at(trial, 0.5), _gap_at(trial, 1.0)) for trial in finished]
    half = [gap for gap, _ in gaps if gap is not None]
    end = statistics.fmean(gap for _, gap in gaps if gap is not None)
    text = (
        f"At the end the validation loss is {_above(end)} the training loss (the mean over the updates "
        "since the last record)"
    )
    if half:
        mean = statistics.fmean(half)
        text += f", halfway {_above(mean)} it"
        widens = end > 0 and end - mean > 0
        text += ": the gap widens" if widens else ": no sign of overfitting"
    yield f"{text}."


def _throughput(of: Study, finished: Sequence[Trial]) -> Iterator[str]:
    """The FLOPs a second of the trainings, and their share of what a matrix product reaches."""
    rates = [speed * trial.flops_per_token for trial in finished if (speed := tokens_per_s(trial))]
    if not rates:
        return
    rate = statistics.median(rates)
    peak = of.sweep.session.get("product_flops")
    share = (
        f", {rate / peak:.0%} of what a large matrix product reaches on this machine ({count(peak)})"
        if peak
        else ""
    )
    yield f"A trial makes {count(rate)} FLOPs a second{share}."


def _above(gap: float) -> str:
    return f"{abs(gap):.4f} nats {'above' if gap >= 0 else 'below'}"


def _gap_at(trial: Trial, share: float) -> float | None:
    tokens = share * trial.curve[-1]["tokens"]
    rows = [row for row in trial.curve if row["tokens"] <= tokens]
    return rows[-1]["val_loss"] - rows[-1]["train_loss"] if rows else None


def _next(of: Study, one: Experiment) -> Iterator[str]:
    """What to try next, by the rules of docs/experiment_log.md."""
    if one.place is not None:
        yield from _next_of_arm(one.place, one.has_twin)
        return
    for best in best_values(of):
        if best["edge"]:
            more = ", ".join(show(value) for value in best["next"])
            yield (
                f"{best['path']}: the best value, {show(best['best'])}, is on the {best['edge']} edge "
                f"of what was tried{f'; try {more}' if more else ''}."
            )
    yield from _cut_short(of, one.runs)
    if len(one.runs) == 1:
        yield f"More seeds: {named(one.runs[0].values) or 'the config'} has been run with one."


def _next_of_arm(place: Facts, has_twin: bool) -> Iterator[str]:
    for caution in place["cautions"]:
        if "re-tune grid" in caution:
            yield f"Re-tune: {caution}."
    if not place["retuned"] and not has_twin:
        yield "Re-tune: it ran at the baseline's values, which need not be its best; see retune in the README."
    if place["words"].startswith("no conclusion yet"):
        yield f"More seeds: {place['words'].partition(': ')[2]}."


def _cut_short(of: Study, best: Sequence[Trial]) -> Iterator[str]:
    """The stopped trials whose loss fell faster than that of the best, where they were stopped."""
    found = []
    for trial in of.having("stopped") if best else []:
        if len(trial.curve) < 2 or of.sweep.audit(trial.trial) is not None:
            continue
        before, last = trial.curve[-2:]
        there, then = (at(best[0], row["tokens"]) for row in (before, last))
        if there is None or then is None:
            continue
        fall, its = before[of.metric] - last[of.metric], there[of.metric] - then[of.metric]
        if fall > its:
            found.append(
                f"{trial.label} (at {last['tokens']:,} tokens {fall:.4f} against {its:.4f})"
            )
    if found:
        yield (
            "Train on (--audit 1) what was stopped while its loss fell faster than that of the best, "
            f"from the record before: {', '.join(found)}."
        )
