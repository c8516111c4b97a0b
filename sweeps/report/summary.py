"""The facts of a sweep in words: Markdown, and a table for the terminal."""

import html
import re
import textwrap
from collections.abc import Callable, Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sweeps import text as words
from sweeps.findings.outcomes import RULES
from sweeps.findings.results import ENDINGS, METRICS, UNITS, Facts
from sweeps.selection import when

ONE_SEED = "One seed: differences below the seed noise are no conclusion."


def escaped(text: str) -> str:
    """Text that Markdown shows as it is, in one line and in a table's cell."""
    flat = html.escape(" ".join(text.split()), quote=False)
    return re.sub(r"([\\`*\[\]|~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))", r"\\\1", flat)


def paragraph(text: str) -> str:
    """The same as a paragraph of its own, which no sign at its beginning makes a heading, a rule or a
    list."""
    shown = re.sub(r"^(\d+)(?=[.)])", r"\1\\", escaped(text))
    return re.sub(r"^([-+#=])", r"\\\1", shown)


_STATUS = {status: status for status in (*ENDINGS, "unfinished")} | {"stopped": "stopped early"}

# What the tables of the summary may show: header -> cell. Text leans left, numbers right.
_TEXT: dict[str, Callable[[Facts], str]] = {
    "trial": lambda p: escaped(p["label"]),
    "status": lambda p: _STATUS[p["status"]],
    "values": lambda p: escaped(words.named(p["values"])) or "nothing varied",
    "reason": lambda p: escaped(p["reason"]),
    "id": lambda p: f"`{p['trial']}`",
    "arm": lambda p: f"`{p['arm']}`",
    "changes": lambda p: escaped(words.named(p["changes"])),
    "runs at": lambda p: escaped(words.named(p["chosen"] or {})),
    "verdict": lambda p: escaped(p["words"]),
    "tuned": lambda p: escaped(words.named(p["tuned"])),
    "what happened": lambda p: escaped(p["outcome"] or _STATUS[p["status"]]),
}
_COLUMNS: dict[str, Callable[[Facts], str]] = _TEXT | {
    "rank": lambda p: words.whole(p["rank"]),
    "validation loss": lambda p: words.loss(p["val_loss"]),
    "validation bits per byte": lambda p: words.loss(p["bits_per_byte"]),
    "training loss": lambda p: words.loss(p["train_loss"]),
    "behind": lambda p: words.loss(p["behind"]),
    "leader there": lambda p: words.loss(p["leader"]),
    "after a decay branch": lambda p: words.loss(p["decayed"]),
    "leader's": lambda p: words.loss(p["leader_decayed"]),
    "best (step)": lambda p: f"{words.loss(p['val_loss_best'])} ({words.whole(p['step_best'])})",
    "tokens/s": lambda p: words.whole(p["tokens_per_s"]),
    "tokens": lambda p: words.whole(p["tokens"]),
    "stopped at": lambda p: words.whole(p["rung"]),
    "reached step": lambda p: words.whole(p["reached_step"]),
    "reached tokens": lambda p: words.whole(p["reached_tokens"]),
    "last validation loss (step)": lambda p: (
        "" if p["step"] is None else f"{words.loss(p['val_loss'])} ({words.whole(p['step'])})"
    ),
    "parameters": lambda p: words.whole(p["params"]),
    "FLOPs/token": lambda p: words.whole(p["flops_per_token"]),
    "n": lambda p: f"{p['n']} of {p['planned']}",
    "mean": lambda p: words.loss(p["mean"]),
    "std": lambda p: words.loss(p["std"]),
    "min": lambda p: words.loss(p["min"]),
    "max": lambda p: words.loss(p["max"]),
    "finished": lambda p: words.whole(p["finished"]),
    "seeds": lambda p: f"{p['n']} of {p['planned']}",
    "difference": lambda p: words.signed(p["difference"]),
    "in bits per byte": lambda p: words.signed(p["difference_bits_per_byte"]),
    "time": lambda p: "" if p["seconds"] is None else words.duration(p["seconds"]),
    "more": lambda p: f"{p['more_params']:+.1%}" if p["more_params"] else "",
    "95% interval": lambda p: "" if p["low"] is None else f"{p['low']:+.4f} to {p['high']:+.4f}",
    "p (Holm)": lambda p: words.probability(p["p_holm"]),
    "their mean at the end": lambda p: words.loss(p["finished_mean"]),
}


def _table(places: Sequence[Facts], *headers: str, sizes: bool = True) -> list[str]:
    """A Markdown table of some of the columns; the models' sizes are added where these differ."""
    if sizes and len({place["params"] for place in places if "params" in place}) > 1:
        headers = (*headers, "parameters", "FLOPs/token")
    lines = [
        "| " + " | ".join(headers) + " |",
        "|" + "|".join(" --- " if name in _TEXT else " ---: " for name in headers) + "|",
    ]
    lines += [
        "| " + " | ".join(_COLUMNS[name](place) for name in headers) + " |" for place in places
    ]
    return [*lines, ""]


def _between(numbers: Iterable[int]) -> str:
    """One number, or the range of several."""
    found = sorted(set(numbers))
    return f"{found[0]:,}" if len(found) == 1 else f"{found[0]:,} to {found[-1]:,}"


def _models(places: Sequence[Facts]) -> str:
    """Parameters and FLOPs per token in words."""
    params = _between(place["params"] for place in places)
    flops = _between(place["flops_per_token"] for place in places)
    return f"{params} parameters, {flops} FLOPs per token"


def _title(found: Facts) -> list[str]:
    count = found["trials"]
    ended = count["planned"] - count["unfinished"]
    parts = [f"{count[status]} {_STATUS[status]}" for status in ENDINGS if count[status]]
    state = f"all {ended}"
    if count["unfinished"]:
        state = f"**unfinished:** {ended} of {count['planned']}"
    lines = [
        f"# {escaped(found['question'])}",
        "",
        f"`{found['sweep']}` at scale `{found['scale']}`, "
        f"{found['from'][:16].replace('T', ' ')} to {found['to'][:16].replace('T', ' ')} UTC; "
        f"{state} trials have a result"
        f"{': ' + ', '.join(parts) if parts else ''}.",
        "",
    ]
    return lines + [line for note in found["notes"] for line in (escaped(f"{note}."), "")]


def _head(found: Facts) -> list[str]:
    lines = _title(found)
    places = found["ranking"]["trials"]
    if places and found["ranking"]["tokens"] is not None:
        best = places[0]
        lead = "Lowest of the finished" if len(places) > 1 else "The only one that finished"
        first = " and ".join(f"**{escaped(p['label'])}**" for p in places if p["rank"] == 1)
        lines += [
            f"{lead}: {first}, {METRICS[found['metric']]} "
            f"**{best[found['metric']]:.4f}** {UNITS[found['metric']]} "
            f"{when(found['ranking']['tokens'])}.",
            "",
        ]
    one_seed = max((group["planned"] for group in found["spread"]["groups"]), default=0) == 1
    return [*lines, ONE_SEED, ""] if one_seed else lines


def _ranking_words(found: Facts) -> list[str]:
    places, tokens = found["ranking"]["trials"], found["ranking"]["tokens"]
    title = ["## Finished trials", ""]
    if not places:
        return [*title, "No trial has finished.", ""]
    losses = ("validation loss", "validation bits per byte", "training loss")
    if tokens is None:
        unranked = "They share no token count, so they are not ranked."
        return [*title, unranked, "", *_table(places, "trial", "tokens", *losses, "id")]
    return [
        *title,
        f"By {METRICS[found['metric']]}, all {when(tokens)} "
        f"(step {_between(place['step'] for place in places)}); {_models(places)}.",
        "",
        *_table(places, "rank", "trial", *losses, "behind", "best (step)", "tokens/s", "id"),
    ]


def _stopped_words(found: Facts) -> list[str]:
    places = found["stopped"]
    if not places:
        return []
    metric = METRICS[found["metric"]]
    shown: tuple[str, ...] = (metric, "leader there")
    why = ""
    if any(place["decayed"] is not None for place in places):
        shown = (*shown, "after a decay branch", "leader's")
        why = " They were held against each other by the losses after a decay branch."
    return [
        "## Stopped early",
        "",
        "Not ranked. Each stands beside the leader of the ranking at the tokens where it stopped, "
        f"by {metric}; {_models(places)}.{why}",
        "",
        *_table(places, "trial", "tokens", *shown, "reason", "id"),
    ]


def _audit_words(found: Facts) -> list[str]:
    audit = found["audit"]
    if audit is None:
        return []
    among = "the best" if audit["top"] == 1 else f"among the best {audit['top']}"
    metric = METRICS[found["metric"]]
    interval = f" (95% interval {audit['low']:.0%} to {audit['high']:.0%})"
    if audit["audited"] == audit["stopped"]:
        interval = ""  # nothing was left to sample
    regret = (
        f"The best of them ends {words.loss(audit['regret'])} below the best of the ranking."
        if audit["regret"]
        else "None ends below the best of the ranking."
    )
    return [
        "## Audit of the stopping",
        "",
        f"{audit['audited']} of the {audit['stopped']} stopped trials, drawn at random, were "
        f"trained to their ends; they are not ranked. {audit['false_kills']} would have been "
        f"{among}: a false-kill rate of {audit['rate']:.0%}"
        f"{interval}. {regret}",
        "",
        f"{when(audit['tokens']).capitalize()}; without a loss are those that diverged:",
        "",
        *_table(audit["trials"], "trial", "stopped at", metric, "id"),
    ]


def _ended_words(found: Facts) -> list[str]:
    lines = []
    titles = {"diverged": "Diverged", "failed": "Failed", "unfinished": "Unfinished"}
    for status, title in titles.items():
        places = found[status]
        if places:
            reached = ("reached step", "reached tokens", "last validation loss (step)")
            lines += [f"## {title}", "", f"Not ranked; {_models(places)}.", ""]
            lines += _table(places, "trial", *reached, "reason", "id")
    return lines


def _comparison_words(found: Facts) -> list[str]:
    places, tokens = found["comparison"]["trials"], found["comparison"]["tokens"]
    title = ["## All trials at the latest common token count", ""]
    if tokens is None:
        return [*title, "No token count has been reached by all of the trials.", ""]
    absent = ", ".join(escaped(label) for label in found["comparison"]["missing"])
    text = (
        f"{when(tokens).capitalize()} (step {_between(place['step'] for place in places)}), which all "
        "measured trials have reached, those that diverged or failed aside."
    )
    if tokens != found["ranking"]["tokens"]:
        text += " Early losses need not order as final ones do."
    if absent:
        text += f" Without a record there: {absent}."
    if len(places) == len(found["ranking"]["trials"]) and tokens == found["ranking"]["tokens"]:
        return [*title, text, "That is the ranking above.", ""]
    metric = METRICS[found["metric"]]
    return [*title, text, "", *_table(places, "rank", "trial", "status", metric, "behind")]


def _best_words(found: Facts) -> list[str]:
    if not found["best"]:
        return []
    tokens = found["ranking"]["tokens"]
    lines = [
        "## Best values",
        "",
        f"Of the finished trials, by their mean over seeds {when(tokens)}:",
        "",
    ]
    for best in found["best"]:
        beside = ", ".join(
            f"{words.show(near['value'])} ({'/'.join(_STATUS[s] for s in near['statuses'])})"
            for near in best["beside"]
        )
        early = any(
            "stopped" in near["statuses"] and not near["audited"] for near in best["beside"]
        )
        line = (
            f"- `{best['path']}`: **{words.show(best['best'])}** of {best['tried']} values from "
            f"{words.show(best['lowest'])} to {words.show(best['highest'])}"
        )
        line += f"; beside it {beside}." if beside else "."
        line += " What would have become of a neighbour that was stopped is not known." * early
        if best["edge"]:
            more = ", ".join(words.show(value) for value in best["next"])
            line += (
                f" **On the {best['edge']} edge of what was tried: this need not be the optimum.**"
                f"{f' Try next: {more}.' if more else ''}"
            )
        lines.append(line)
    return [*lines, ""]


def _spread_words(found: Facts) -> list[str]:
    table, tokens = found["spread"]["groups"], found["spread"]["tokens"]
    if tokens is None or max((group["planned"] for group in table), default=0) <= 1:
        return []
    return [
        "## Over seeds",
        "",
        f"{METRICS[found['metric']].capitalize()} {when(tokens)} (std is the sample standard "
        "deviation), and the mean of those that finished "
        f"{when(found['ranking']['tokens'])}.",
        "",
        *_table(
            table, "values", "n", "mean", "std", "min", "max", "finished", "their mean at the end"
        ),
    ]


def _compute_words(found: Facts) -> list[str]:
    spent = found["compute"]
    again, audit = spent["tokens_repeated"], spent["tokens_audit"]
    branches = spent["tokens_branches"]
    share = f"{spent['tokens'] / spent['tokens_full']:.0%}" if spent["tokens_full"] else "none"
    lines = [
        "## Compute",
        "",
        f"{spent['tokens']:,} tokens trained{f', {again:,} of them again' if again else ''}"
        f"{f', {branches:,} of them in decay branches' if branches else ''}"
        f"{f', {audit:,} of them to audit' if audit else ''}: "
        f"{share} of the {spent['tokens_full']:,} of all trials trained to their ends. "
        f"{words.count(spent['flops'])} of {words.count(spent['flops_full'])} FLOPs; "
        f"{words.duration(spent['seconds'])} of training, summed over trials, evaluation excluded.",
        "",
    ]
    forecast = spent["forecast"]
    if forecast is None:
        return lines
    used = spent["tokens"] - audit
    low, high = forecast["low"], forecast["high"]
    spread = f", {low:,} to {high:,}" if low < high else ""
    time = (
        f" Of the clock, {words.duration(forecast['seconds'])} without evaluation and start-up; "
        f"{words.duration(spent['wall_clock'])} passed in all{', the audit included' if audit else ''}."
        if forecast["seconds"]
        else f" {words.duration(spent['wall_clock'])} passed by the clock."
    )
    return [
        *lines,
        f"The forecast (replay of {forecast['basis']}) was {forecast['tokens']:,} tokens{spread}; "
        f"{used:,} were used, "
        f"{used / forecast['tokens'] - 1:+.0%}.{time}",
        "",
    ]


# Learning rates, noise, selection -----------------------------------------------------------------


def stability_words(found: Facts | None) -> list[str]:
    """What is known of the learning rate, in sentences; a list item each."""
    if found is None:
        return []
    lines = []
    if found["first_unstable"] is None:
        lines.append(
            f"Training was stable up to {words.show(found['highest_stable'])}, the highest rate that "
            "was measured: its edge of stability lies higher."
        )
    else:
        lines.append(
            f"Edge of stability: {words.show(found['highest_stable'])} is the highest stable rate, "
            f"{words.show(found['first_unstable'])} the first unstable "
            f"({' and '.join(found['unstable_how'])}); the best rate is {found['edge_ratio']:.3g} of "
            "the former."
        )
    if found["first_diverging"] is not None:
        lines[-1] += (
            f" The first to diverge is {words.show(found['first_diverging'])}; the best is "
            f"{found['diverging_ratio']:.3g} of it."
        )
    if found["unmeasured"]:
        lines[-1] += f" {found['unmeasured']} rates have not been measured."
    if found["stopped_unseen"]:
        lines[-1] += f" {found['stopped_unseen']} were stopped early: stable as far as they went."
    if found["highest_whole"] is not None and found["highest_whole"] < found["highest_stable"]:
        lines[-1] += (
            f" The highest that was stable to its end is {words.show(found['highest_whole'])}."
        )
    fit = found["fit"]
    if fit is None:
        finished, rates = found["rates_finished"], found["rates"]
        lines.append(
            f"{finished} of {rates} rates came to their ends, which no parabola is to be fitted to; "
            "`--audit 1` trains the others to theirs."
            if finished < rates
            else "The lowest loss is not bracketed, so no parabola is fitted."
        )
    else:
        interval = (
            f"95% interval {fit['low']:.2g} to {fit['high']:.2g}"
            if fit["low"] is not None
            else "with too few points, or too flat, for an interval"
        )
        lines.append(
            f"A parabola in the logarithm of the rate, through {fit['points']} final losses within "
            f"a factor of 4 of the best, has its minimum at {fit['rate']:.3g} ({interval})."
        )
    if found["sensitivity"] is not None:
        lines.append(
            f"Sensitivity to the rate: {words.loss(found['sensitivity'])} nats over "
            f"{found['sensitivity_decades']:.1f} decades, {when(found['sensitivity_tokens'])} "
            "(mean of the loss, no higher than at init, less the lowest)."
        )
    return [*(f"- {line}" for line in lines), ""]


def _rate_words(found: Facts) -> list[str]:
    lines = stability_words(found["stability"])
    return ["## The learning rate", "", *lines] if lines else []


def _selection_words(found: Facts) -> list[str]:
    chosen = found["selection"]
    if chosen is None or chosen["among"] < 2:
        return []
    metric, unit = METRICS[found["metric"]], UNITS[found["metric"]]
    seeds = "one seed" if chosen["seeds"] == 1 else f"{chosen['seeds']} seeds"
    text = (
        f"The best of {chosen['among']} by {seeds} has a mean {metric} of "
        f"{words.loss(chosen['mean'])} {unit}; being chosen by that loss flatters it"
    )
    if chosen["optimism"] is None:
        why = "one seed" if chosen["seeds"] == 1 else "the others having fewer seeds"
        text += f", by how much is not known from {why}."
    else:
        text += f", by {chosen['optimism']:.4f} as seeds that were left out of the choice tell."
    confirmed = chosen["confirmed"]
    if confirmed:
        mean = sum(confirmed) / len(confirmed)
        text += (
            f" Run again on {len(confirmed)} fresh seeds it comes to {mean:.4f} "
            f"({words.loss(min(confirmed))} to {words.loss(max(confirmed))}): quote this one."
        )
    else:
        text += " `confirm: 3` runs it again on fresh seeds."
    return ["## The best is a selection", "", text, ""]


def _noise_words(found: Facts) -> list[str]:
    noise = found["noise"]
    if noise is None:
        return []
    lines = ["## Noise", ""]
    if noise["sd"] is not None:
        groups = ", ".join(map(str, noise["groups"]))
        lines += [
            f"Over seeds the {METRICS[found['metric']]} {when(noise['tokens'])} has "
            f"a standard deviation of **{noise['sd']:.4f}** (95% interval {noise['low']:.4f} to "
            f"{noise['high']:.4f}; {noise['freedom']} degrees of freedom, seeds a group: {groups}).",
            "",
        ]
    if noise["repeats_apart"] is not None:
        apart = noise["repeats_apart"]
        said = (
            "are equal bit for bit"
            if apart == 0
            else f"differ by up to {apart:.2g} in any of their recorded losses"
        )
        runs = ", ".join(map(str, noise["repeats"]))
        lines += [f"Runs of one config with one seed ({runs} of them) {said}.", ""]
    return lines


# Studies -------------------------------------------------------------------------------------------


def _verdict_words(found: Facts) -> list[str]:
    compared = found["arms"]
    if compared is None:
        return ["## Arms", "", "The baseline is not settled.", "", *_unsettled_words(found)]
    metric = METRICS[found["metric"]]
    at = when(compared["tokens"])
    noise = compared["noise"]
    lines = [
        "## Arms against the baseline",
        "",
        f"Difference of the {metric} ({compared['unit']}) {at}, arm less baseline, paired over "
        f"seeds: negative is better. The intervals are 95% t intervals, each for its arm alone; the "
        "verdicts go by the p-values adjusted for all arms (Holm). "
        + (
            f"The noise, one standard deviation of a run over {compared['noise_of']}, is "
            f"{noise['sd']:.4f} (95% interval {noise['low']:.4f} to {noise['high']:.4f}), "
            f"{_NOISE_OF[compared['noise_of']]}. Further seeds that would settle a question do so with a "
            "probability of 80%, if the difference is as large as it seems."
            if noise
            else "The noise is not known yet."
        ),
        "",
    ]
    shown = ["arm", "changes", "runs at", "seeds", "mean", "difference", "95% interval"]
    lines += _table(compared["arms"], *shown, "p (Holm)", "verdict", sizes=False)
    shown = ["arm", "in bits per byte", "time", "tokens/s", "parameters", "more", "FLOPs/token"]
    lines += _table(compared["arms"], *shown, sizes=False)
    critical = compared["critical_batch"]
    if critical is not None:
        beyond = (
            f"at {critical['beyond']} it is"
            if critical["beyond"] is not None
            else "which is the largest that was tried"
        )
        lines += [
            f"Critical batch size: up to {critical['largest']} the loss is not above that at "
            f"{critical['best']}, the lowest, by more than two standard deviations of the noise; "
            f"{beyond}."
            + (
                f" {critical['best']} is the smallest that was tried."
                if critical["smallest"]
                else ""
            )
            + ("" if critical["retuned"] else " The rates were not re-tuned for each size."),
            "",
        ]
    cautions = [
        f"- `{place['arm']}`: {escaped('; '.join(place['cautions']))}."
        for place in compared["arms"]
        if place["cautions"]
    ]
    if cautions:
        lines += ["To be careful about:", "", *cautions, ""]
    lines += ["What was expected:", ""]
    lines += [
        f"- `{place['arm']}`: {escaped(place['hypothesis'])}"
        for place in compared["arms"]
        if place["hypothesis"]
    ]
    return [*lines, "", *_unsettled_words(found)]


_NOISE_OF = {
    "seeds": "pooled over the baseline and the arms that scatter no more",
    "repeats": "that of the baseline's first seed, run several times",
}


def _unsettled_words(found: Facts) -> list[str]:
    if not found["unsettled"]:
        return []
    arms = [
        f"- `{place['arm']}`: "
        + (
            f"{place['ended']} of the {place['tried']} trials of its re-tune grid have ended"
            if place["tried"]
            else "it runs at what the baseline's re-tune grid chooses"
        )
        for place in found["unsettled"]
    ]
    return ["Not settled yet, so without runs:", "", *arms, ""]


def _tuning_words(found: Facts) -> list[str]:
    if not found["tuning"]:
        return []
    lines = [
        "## Re-tuning",
        "",
        "Each arm was tuned on a seed of its own, and stopped early, if at all, by the losses of its "
        "own grid; these losses choose, and are compared with no other arm's.",
        "",
    ]
    for pool in found["tuning"]:
        lines += [f"### `{pool['arm']}`", ""]
        lines += _table(
            pool["trials"], "tuned", "tokens", METRICS[found["metric"]], "what happened"
        )
        lines += stability_words(pool["stability"])
    return lines


def _rule_words(found: Facts) -> list[str]:
    """The rules of what went wrong in any trial."""
    if not found["outcomes"]:
        return []
    lines = [f"- {kind}: {RULES[kind]}." for kind in found["outcomes"]]
    return ["## What went wrong, by these rules", "", *lines, ""]


def markdown(found: Facts) -> str:
    """summary.md: a fold over what summary.json holds."""
    if "arms" in found:
        sections = [_title, _verdict_words, _tuning_words, _noise_words, _ended_words]
    else:
        sections = [_head, _ranking_words, _best_words, _rate_words, _selection_words]
        sections += [_stopped_words, _audit_words, _ended_words, _comparison_words]
        sections += [_spread_words, _noise_words]
    sections += [_rule_words, _compute_words]
    lines = [line for section in sections for line in section(found)]
    figures = [f"![{name.replace('_', ' ')}]({name}.svg)\n" for name in found["figures"]]
    return "\n".join([*lines, "## Figures", "", *figures])


def print_result(found: Facts, console: Console) -> None:
    """Print what came of a sweep in a table that fits 80 columns."""
    (_print_arms if "arms" in found else _print_ranking)(found, console)


def _print_arms(found: Facts, console: Console) -> None:
    """Print the verdict on each arm."""
    console.print(Text(found["question"]), style="bold")
    table = Table(box=None, pad_edge=False)
    table.add_column("arm", overflow="fold", max_width=24)
    for name in ("seeds", "loss", "difference"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", min_width=20)
    for place in (found["arms"] or {"arms": []})["arms"]:
        loss, difference = words.loss(place["mean"]), words.signed(place["difference"])
        cells = (place["arm"], str(place["n"]), loss, difference, place["words"])
        table.add_row(*map(Text, cells))
    console.print(table)


def _print_ranking(found: Facts, console: Console) -> None:
    """Print the trials, the finished ones by rank and first."""
    places = [*found["ranking"]["trials"], *(p for status in _REST for p in found[status])]
    console.print(Text(found["question"]), style="bold")
    table = Table(box=None, pad_edge=False)
    table.add_column("rank", justify="right")
    table.add_column("trial", overflow="fold")
    for name in ("val loss", "bits/byte", "at tokens"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("outcome", no_wrap=True)
    for place in places[:_PRINTED]:
        table.add_row(*map(Text, _printed(place)))
    console.print(table)
    if len(places) > _PRINTED:
        console.print(f"and {len(places) - _PRINTED} more", highlight=False)


_REST = ("stopped", "unfinished", "diverged", "failed")
_PRINTED = 24


def _ending(place: Facts) -> str:
    """How a trial ended, in few words; its whole reason stands in the summary."""
    match place["status"]:
        case "diverged":
            return f"diverged at step {place['reached_step']}"
        case "unfinished":
            return textwrap.shorten(place["reason"], 24, placeholder="…")
        case status:
            return _STATUS[status]


def _printed(place: Facts) -> tuple[str, ...]:
    return (
        words.whole(place.get("rank")),
        place["label"],
        words.loss(place["val_loss"]),
        words.loss(place["bits_per_byte"]),
        words.whole(place["tokens"]),
        _ending(place),
    )
