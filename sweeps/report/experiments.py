"""What an experiment log says of sweeps: a fold over their ledgers, plain JSON.

Of a study every settled arm is an experiment, of another sweep the sweep with its best values.
"""

import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeps import ledger, stats
from sweeps.findings.arms import arms_of, comparison
from sweeps.findings.outcomes import outcome
from sweeps.findings.results import (
    ENDINGS,
    METRICS,
    UNITS,
    Facts,
    Results,
    best_record,
    best_values,
    confirming,
    results_of,
    selection,
    status_of,
    tokens_per_s,
)
from sweeps.ledger import BASELINE, Trial
from sweeps.selection import at, best_group
from sweeps.text import count, named, show, tally
from tinylm import config as cfg

TAIL = 0.1  # of a training, in which it is asked whether the loss still falls
# Paths that change no loss, or only by the draw of a seed.
NO_CHANGE = {
    "run.seed", "run.repeat", "run.device", "run.threads", "run.checkpoint_every_tokens",
    "eval.every_tokens", "eval.batch_size",
}  # fmt: skip
# What two experiments must share, beside the corpus, for their losses to be compared.
SHARED = ("budget.", "eval.tokens", "model.context_length")


@dataclass(frozen=True)
class Experiment:
    """A config with its runs, and the runs that it is held against."""

    name: str
    why: str  # hypothesis or question
    base: dict[str, Any]  # config that the changes are from
    runs: list[Trial]  # of one config; where no values came to an end, all that was tried
    against: list[Trial]  # the baseline's; empty where there is none, or this is it
    is_baseline: bool
    whole: bool = True  # whether its configuration is told in full
    baseline: str = ""  # the sweep that it is held against, where that is another one
    place: Facts | None = None  # of an arm, in the comparison of its study
    has_twin: bool = False  # another arm has the same changes, and other values


def results_under(folder: Path) -> list[Results]:
    """What the ledgers of all sweeps in a folder say, by when these began; what is damaged, or of
    configs that there are no more, is left out, and the log says so."""
    found = []
    for files in ledger.sweeps(folder):
        try:
            results = results_of(files.name, ledger.read(files))
            for trial in results.trials:
                cfg.validate(trial.config, trial.label)
        except (ledger.LedgerError, ValueError):
            continue
        found.append(results)
    return sorted(found, key=lambda results: results.begun)


def experiments_under(folder: Path) -> list[Facts]:
    """The experiments of all sweeps in a folder."""
    return experiments(results_under(folder))


def experiments(all_results: Sequence[Results]) -> list[Facts]:
    """The experiments of sweeps, each with all that the log says of it; of a sweep none before any is
    settled.

    What runs one config alone is held against the first of these whose name begins with `baseline`.
    """
    single = [results for results in all_results if not results.is_study and not results.swept]
    first = next((results for results in single if results.name.startswith(BASELINE)), None)
    found = []
    for results in all_results:
        against = first if results in single and results is not first else None
        some = _of_arms(results) if results.is_study else _of_search(results, against)
        found += [_facts(results, one) for one in some if one.runs]
    return found


def _of_config(results: Results) -> list[Trial]:
    """The trials of the best values, ended or not; those of the whole sweep where none of them has
    finished and nothing is left to do."""
    best = best_group(results.trials, results.metric)
    if best:
        same = [trial for trial in results.trials if trial.values == best[0].values]
        return [trial for trial in same if not trial.config["run"]["repeat"]]
    return [] if results.having("unfinished") else results.trials


def _of_arms(results: Results) -> Iterator[Experiment]:
    arms = arms_of(results.sweep)
    compared = comparison(results)
    places = {place["arm"]: place for place in (compared or {"arms": []})["arms"]}
    changes = [arm.row["changes"] for arm in arms]
    base = list(arms[0].runs.values()) if arms and arms[0].name == BASELINE else []
    for arm in arms:
        is_base = arm.name == BASELINE
        yield Experiment(
            name=f"{results.name}/{arm.name}",
            why=results.question if is_base else arm.row["hypothesis"],
            base=_asked_base(results) if is_base or not base else base[0].config,
            runs=list(arm.runs.values()) or arm.grid,
            against=[] if is_base else base,
            is_baseline=is_base,
            whole=is_base,
            place=places.get(arm.name),
            has_twin=changes.count(arm.row["changes"]) > 1,
        )


def _asked_base(results: Results) -> dict[str, Any]:
    assert results.sweep.request is not None  # else there is no study
    base: dict[str, Any] = results.sweep.request["base"]
    return base


def _of_search(results: Results, baseline: Results | None) -> Iterator[Experiment]:
    """The best values of a sweep, against the base's own where these came to their end too, or
    against those of another one."""
    runs = _of_config(results)
    if baseline is not None:
        yield Experiment(
            results.name,
            results.question,
            _asked_base(baseline),
            runs,
            _of_config(baseline),
            is_baseline=False,
            whole=False,
            baseline=baseline.name,
        )
        return
    base = _asked_base(results)
    own = [trial for trial in results.trials if not _changes(base, trial.config)]
    is_base = results.name.startswith(BASELINE) if not results.swept else runs == own
    runs = _confirmed(results) or runs
    yield Experiment(results.name, results.question, base, runs, [] if is_base else own, is_base)


def _confirmed(results: Results) -> list[Trial]:
    """The runs of the best values on fresh seeds, once these have ended."""
    again = confirming(results)
    return again if all(status_of(trial) in ENDINGS for trial in again) else []


def _changes(there: dict[str, Any], here: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The paths of model, data and training that differ, with both values."""
    before, after = cfg.flatten(there), cfg.flatten(here)
    return {
        path: (before.get(path), value)
        for path, value in after.items()
        if value != before.get(path) and path not in NO_CHANGE
    }


# Facts ------------------------------------------------------------------------------------------


def _facts(results: Results, one: Experiment) -> Facts:
    finished = [trial for trial in one.runs if trial.status == "finished"]
    first = one.runs[0]
    alike = _are_alike(one.runs)
    rows = [trial.curve[-1] for trial in finished]
    best = min(
        (row for trial in finished if (row := best_record(trial)) is not None),
        key=lambda row: row["val_loss"],
        default=None,
    )
    speeds = [speed for trial in finished if (speed := tokens_per_s(trial))]
    why_not = "" if one.is_baseline else _no_comparison(results, one, finished)
    return {
        "name": one.name,
        "sweep": results.name,
        "date": _begun(results, one.runs),
        "why": one.why,
        "is_baseline": one.is_baseline,
        "baseline": one.baseline,
        "configuration": configuration(first) if one.whole and alike else [],
        "changes": {
            path: [_value(was), _value(now)]
            for path, (was, now) in _changes(one.base, first.config).items()
            if alike or (one.place is not None and path in one.place["changes"])
        },
        "runs": len(one.runs),
        "finished": len(finished),
        "train_loss": statistics.fmean(row["train_loss"] for row in rows) if rows else None,
        "val_loss": statistics.fmean(row["val_loss"] for row in rows) if rows else None,
        "best_val_loss": best and best["val_loss"],
        "best_step": best and best["step"],
        "hours": statistics.median(row["seconds"] for row in rows) / 3600 if rows else None,
        "tokens_per_s": statistics.median(speeds) if speeds else None,
        "comparison": (
            None
            if one.is_baseline or why_not
            else _comparison(
                results, finished, one.against, len(one.runs), chosen=_is_chosen(results, one.runs)
            )
        ),
        "no_comparison": why_not,
        "verdict": one.place["words"] if one.place and not one.is_baseline else "",
        "patterns": _patterns(one.runs),
        "observations": [*_observations(results, one, finished), *_cautions(one)],
        "next": list(_next(results, one)),
    }


def _are_alike(runs: Sequence[Trial]) -> bool:
    """Whether runs differ by their seeds alone."""
    return all(trial.values == runs[0].values for trial in runs)


def _cautions(one: Experiment) -> Iterator[str]:
    """What to be careful about when an arm is held against its baseline."""
    for caution in one.place["cautions"] if one.place is not None else []:
        yield f"To be careful about: {caution}."


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
    warmup = (
        f"a warm-up over {optim.warmup_fraction:.0%} of the time"
        if budget.seconds is not None
        else f"{round(config.steps * optim.warmup_fraction)}-step warm-up"
    )
    corpus = f"{config.data.corpus} {config.data.path}" if config.data.path else config.data.corpus
    lowest = optim.lr * optim.lr_final_fraction
    clip = "none" if optim.clip_norm == "none" else f"gradient clipping at {optim.clip_norm:g}"
    return [
        f"Model: {model.n_layers} layers, {model.d_model} hidden dim, {model.n_heads} heads, "
        f"{model.d_ff} FFN dim ({trial.params:,} parameters); norm {model.norm}, position "
        f"{model.position}, FFN {model.ffn}",
        f"Training: {end}, batch size {optim.batch_size}, context length {model.context_length}",
        f"Learning rate: {optim.lr:g} (peak), {lowest:g} (min), {warmup}, {decay}",
        f"Optimizer: AdamW (β1={optim.beta1:g}, β2={optim.beta2:g}, weight "
        f"decay={optim.weight_decay:g})",
        f"Regularization: {clip}",
        f"Dataset: {corpus} ({model.vocab_size:,} tokens in the vocabulary; documents, "
        f"split and vocabulary: {trial.corpus})",
    ]


def _patterns(runs: Sequence[Trial]) -> str:
    """What went wrong in the curves of the runs, by its class."""
    begun = [trial for trial in runs if trial.curve or trial.status in {"diverged", "failed"}]
    kinds = Counter(kind for trial in begun if (kind := outcome(trial)))
    found = ", ".join(f"{number} of {len(begun)} {kind}" for kind, number in kinds.items())
    return found or "no run spiked, diverged or was stuck"


def _is_chosen(results: Results, runs: Sequence[Trial]) -> bool:
    """Whether the losses of these runs are those that their values were chosen by."""
    found = None if results.is_study else selection(results)
    return found is not None and found["among"] > 1 and runs != _confirmed(results)


def _begun(results: Results, runs: Sequence[Trial]) -> str:
    """The day on which the first of the runs was first measured; else that of the sweep's beginning."""
    times = [trial.curve[0]["time"] for trial in runs if trial.curve]
    return str(min(times, default=results.begun))[:10]


def _no_comparison(results: Results, one: Experiment, finished: Sequence[Trial]) -> str:
    """Why an experiment can't be compared with its baseline; empty where it can."""
    if one.place is not None and one.place["void"]:
        return "none, since the change did not apply"
    if not one.against:
        return (
            f"there is no experiment whose name begins with {BASELINE}"
            if not results.is_study and not results.swept
            else "the baseline has not been run"
        )
    if not finished:
        return "none, since no run came to its end"
    mine, its = (cfg.flatten(trial.config) for trial in (finished[0], one.against[0]))
    other = [path for path in mine if path.startswith(SHARED) and mine[path] != its[path]]
    if finished[0].corpus != one.against[0].corpus:
        other.append("the corpus")
    if other:
        return f"none, since {' and '.join(other)} differ: the losses are not of the same text or budget"
    if not {trial.seed for trial in finished} & _ended(one.against):
        there = "the baseline" if results.is_study or not results.swept else "the base's own values"
        return f"none, since {there} did not come to an end on the same seeds"
    return ""


def _ended(trials: Sequence[Trial]) -> set[int]:
    """The seeds of those that came to their ends."""
    return {trial.seed for trial in trials if trial.status == "finished"}


def _comparison(
    results: Results,
    finished: Sequence[Trial],
    against: Sequence[Trial],
    runs: int,
    *,
    chosen: bool,
) -> Facts:
    """The difference from the baseline in per cent of its loss, paired by those of the seeds of so
    many runs that came to an end in both, with the 95% interval."""
    its = {t.seed: t.curve[-1] for t in against if t.status == "finished"}
    mine = {t.seed: t.curve[-1] for t in finished}
    seeds = [seed for seed in mine if seed in its]
    found = stats.effect([mine[seed][results.metric] - its[seed][results.metric] for seed in seeds])
    share = 100 / statistics.fmean(its[seed][results.metric] for seed in seeds)
    return {
        "metric": METRICS[results.metric],
        "seeds": len(seeds),
        "runs": runs,
        "chosen": chosen,
        "difference": found.mean,
        "unit": UNITS[results.metric],
        "percent": found.mean * share,
        "low": None if found.low is None else found.low * share,
        "high": None if found.high is None else found.high * share,
    }


# Observations -------------------------------------------------------------------------------------


def _observations(results: Results, one: Experiment, finished: Sequence[Trial]) -> Iterator[str]:
    """Sentences of fact on smoothness, overfitting, the gap, and what went wrong."""
    if not _are_alike(one.runs):
        ends = tally(outcome(trial) or status_of(trial) for trial in one.runs)
        yield f"None of {len(one.runs)} trials came to its end: {ends}."
        return
    for trial in one.runs:
        kind = outcome(trial)
        if kind:
            yield f"Seed {trial.seed}: {kind}" + (f" ({trial.reason})." if trial.reason else ".")
    going = len([trial for trial in one.runs if trial.status not in {"finished", "diverged"}])
    if going:
        yield f"{going} of {len(one.runs)} runs have not come to their ends."
    if not finished:
        return
    yield _count_of_seeds(finished)
    yield from _chosen(results)
    spikes = [spike for t in finished if (spike := t.curve[-1].get("spike")) is not None]
    if len(spikes) == len(finished):
        yield (
            f"The smoothed training loss never rose more than {max(spikes):.2f} nats above its lowest, "
            "the warm-up over."
        )
    yield from _slope(finished)
    yield from _gap(finished)
    yield from _throughput(results, finished)
    if not results.is_study:
        early = results.having("stopped")
        if early:
            yield (
                f"{len(early)} of {len(results.trials)} trials were stopped early; what their final losses "
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


def _chosen(results: Results) -> Iterator[str]:
    """That the losses of a search's best are those it was chosen by, or that they are not."""
    found = None if results.is_study else selection(results)
    if found is None or found["among"] < 2:
        return
    if found["confirmed"]:
        yield f"It was chosen as the best of {found['among']}; the losses are those of fresh seeds."
    elif found["optimism"] is not None and found["optimism"] < 5e-5:
        yield (
            f"It was chosen by these losses, as the best of {found['among']}; the choice is the same with "
            "one seed left out, whichever it is."
        )
    elif found["optimism"] is not None:
        yield (
            f"It was chosen by these losses, as the best of {found['among']}: new seeds may be expected "
            f"to end {found['optimism']:.4f} higher."
        )
    else:
        yield (
            f"It was chosen by this loss, as the best of {found['among']}, which flatters it; one seed "
            "does not tell by how much."
        )


def _slope(finished: Sequence[Trial]) -> Iterator[str]:
    """How the validation loss moved over the last tenth, or from the last record before that, as the
    mean over the seeds."""
    falls, spans = [], []
    for trial in finished:
        end = trial.curve[-1]
        before = [row for row in trial.curve if row["tokens"] <= (1 - TAIL) * end["tokens"]]
        if before:
            falls.append(end["val_loss"] - before[-1]["val_loss"])
            spans.append(1 - before[-1]["tokens"] / end["tokens"])
    if falls:
        mean = statistics.fmean(falls)
        how = "fell" if mean < 0 else "rose"
        yield (
            f"Over the last {max(spans):.0%} of training the validation loss {how} by {abs(mean):.4f} "
            "nats."
        )


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
        text += f": the gap {'widens' if widens else 'does not widen'}"
    yield f"{text}."


def _throughput(results: Results, finished: Sequence[Trial]) -> Iterator[str]:
    """The FLOPs a second of the trainings, and their share of what a matrix product reaches."""
    rates = [speed * trial.flops_per_token for trial in finished if (speed := tokens_per_s(trial))]
    if not rates:
        return
    rate = statistics.median(rates)
    machines = [session.get("machine") or {} for session in results.sweep.sessions]
    peaks = [peak for session in results.sweep.sessions if (peak := session.get("product_flops"))]
    peak = max(peaks) if peaks and all(one == machines[0] for one in machines) else None
    slots = max((int(session.get("slots") or 0) for session in results.sweep.sessions), default=0)
    beside = f", with up to {slots} trials at once" if slots > 1 else ""
    # More than all of it was measured while something else ran.
    share = (
        f"; a large matrix product alone reaches {count(peak)}, of which that is {rate / peak:.0%}"
        if peak is not None and peak >= rate
        else ""
    )
    yield f"A trial makes {count(rate)} FLOPs a second{beside}{share}."


def _above(gap: float) -> str:
    return f"{abs(gap):.4f} nats {'above' if gap >= 0 else 'below'}"


def _gap_at(trial: Trial, share: float) -> float | None:
    tokens = share * trial.curve[-1]["tokens"]
    rows = [row for row in trial.curve if row["tokens"] <= tokens]
    return rows[-1]["val_loss"] - rows[-1]["train_loss"] if rows else None


def _next(results: Results, one: Experiment) -> Iterator[str]:
    """What to try next, by the rules of docs/experiment_log.md."""
    if one.place is not None:
        yield from _next_of_arm(one)
        return
    going = results.having("unfinished")
    if going:
        yield f"Go on: {len(going)} of {len(results.trials)} trials have no result yet."
    for best in best_values(results):
        if best["edge"]:
            more = ", ".join(show(value) for value in best["next"])
            yield (
                f"{best['path']}: the best value, {show(best['best'])}, is on the {best['edge']} edge "
                f"of what was tried{f'; try {more}' if more else ''}."
            )
    yield from _cut_short(results, one.runs)
    if len(one.runs) == 1:
        yield f"More seeds: {named(one.runs[0].values) or 'the config'} has been run with one."


def _next_of_arm(one: Experiment) -> Iterator[str]:
    place = one.place
    assert place is not None  # of an arm
    for caution in place["cautions"]:
        if "re-tune grid" in caution:
            yield f"Re-tune: {caution}."
    if not place["retuned"] and not one.has_twin and not one.is_baseline:
        yield "Re-tune: it ran at the baseline's values, which need not be its best; see retune in the README."
    if place["further"] is not None:
        yield f"More seeds: {place['words'].partition(': ')[2]}."


def _cut_short(results: Results, best: Sequence[Trial]) -> Iterator[str]:
    """The stopped trials whose loss fell faster than that of the best, where they were stopped."""
    found = []
    for trial in results.having("stopped") if best else []:
        if len(trial.curve) < 2 or results.sweep.audit(trial.trial) is not None:
            continue
        before, last = trial.curve[-2:]
        there, then = (at(best[0], row["tokens"]) for row in (before, last))
        if there is None or then is None:
            continue
        fall, its = (
            before[results.metric] - last[results.metric],
            there[results.metric] - then[results.metric],
        )
        if fall > its:
            found.append(
                f"{trial.label} (at {last['tokens']:,} tokens {fall:.4f} against {its:.4f})"
            )
    if found:
        yield (
            "Train on (--audit 1) what was stopped while its loss fell faster than that of the best, "
            f"from the record before: {', '.join(found)}."
        )
