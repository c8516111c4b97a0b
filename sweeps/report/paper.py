"""The tables and figures of a sweep for a paper, with captions, in `analysis/paper/`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sweeps.findings.arms import ArmFindings
from sweeps.findings.comparison import ArmsComparison
from sweeps.findings.everything import SearchFindings, StudyFindings
from sweeps.findings.results import METRICS, UNITS, Results
from sweeps.ledger import Files
from sweeps.report.markdown import escaped
from sweeps.report.speedup import range_words, times_words
from sweeps.report.study_summary import allows_for_looks, interval_kinds
from sweeps.report.written import Written
from sweeps.selection import groups, losses_at, when
from sweeps.stats import half_interval
from sweeps.text import between, loss, probability, quantity, signed


@dataclass(frozen=True)
class PaperTable:
    """A table of texts, and what its reader has to know."""

    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    caption: str

    def latex(self) -> str:
        """The table for LaTeX with the package booktabs."""
        lines = [" & ".join(map(_latex, row)) + r" \\" for row in (self.columns, *self.rows)]
        return "\n".join(
            [
                r"% \usepackage{booktabs}",
                r"\begin{table}",
                r"\centering",
                rf"\caption{{{_latex(self.caption)}}}",
                rf"\begin{{tabular}}{{l{'r' * (len(self.columns) - 1)}}}",
                r"\toprule",
                lines[0],
                r"\midrule",
                *lines[1:],
                r"\bottomrule",
                r"\end{tabular}",
                r"\end{table}",
                "",
            ]
        )

    def markdown(self) -> str:
        """The table in Markdown, with the caption below."""
        rule = "| --- |" + " ---: |" * (len(self.columns) - 1)
        lines = ["| " + " | ".join(map(escaped, row)) + " |" for row in (self.columns, *self.rows)]
        return "\n".join([lines[0], rule, *lines[1:], "", escaped(self.caption), ""])


_SPECIAL = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    }
)


def _latex(text: str) -> str:
    """A text on one line that LaTeX shows as it is."""
    return " ".join(text.split()).translate(_SPECIAL)


def write(files: Files, found: SearchFindings | StudyFindings) -> Path:
    """Write the tables and figures of a sweep for a paper; returns their folder."""
    from sweeps.report.plots import paper

    table, drawn = paper_table(found), paper.draw(found)
    contents = {
        "table.tex": table.latex().encode(),
        "table.md": table.markdown().encode(),
        "figures.tex": "\n".join(_figure(name, caption(found, name)) for name in drawn).encode(),
        **{f"{name}.pdf": content for name, content in drawn.items()},
    }
    earlier = (files.paper / "figures.tex").is_file()
    own = Written(files.written, earlier=earlier, folder=files.paper)
    for name, content in contents.items():
        own.write(files.paper / name, content)
    return files.paper


def _figure(name: str, words: str) -> str:
    """A figure for LaTeX, with its caption."""
    return "\n".join(
        [
            r"\begin{figure}",
            r"\centering",
            rf"\includegraphics[width=\columnwidth]{{{name}.pdf}}",
            rf"\caption{{{_latex(words)}}}",
            rf"\label{{fig:{name}}}",
            r"\end{figure}",
            "",
        ]
    )


_FIGURES = {  # the beginnings of their names, the longest first
    "edge_of_stability": "{loss} against the peak learning rate: means over seeds, at equal tokens along each "
    "line. Vertical lines are the best, the highest stable, the first unstable and the first diverging rate; "
    "the shaded range is the 95% interval for the minimum of a parabola.",
    "loss_vs_compute": "{loss} against the compute of each trial.",
    "loss_vs_value": "Final {loss} against the value of each arm, and against training time.",
    "loss_vs_": "{loss} against the swept value: means over seeds, at equal tokens along each line. Squares mark "
    "trials that were stopped there.",
    "loss_by_": "Learning curves: {loss}.",
    "retuning": "{loss} against the peak learning rate in the re-tune grid of each arm, on a seed of its own.",
    "arms": "Difference from the baseline in {loss}: mean over seeds, {interval}, and each seed. Lower is "
    "better.",
}
_BANDS = " Lines are means over seeds, bands reach from the lowest seed to the highest."


def caption(found: SearchFindings | StudyFindings, name: str) -> str:
    """The caption of a figure: what it shows, of how many trials and seeds, and where they are compared."""
    results = found.results
    says = next(words for start, words in _FIGURES.items() if name.startswith(start))
    says += _BANDS if results.is_study and name.startswith("loss_by_") else ""
    compared = found.comparison if isinstance(found, StudyFindings) else None
    interval = "" if compared is None else _kind_of_interval(results, compared)
    words = says.format(loss=_loss_of(results), interval=interval)
    shown = [t for t in results.trials if (t.role == "tuning") == (name == "retuning")]
    seeds = quantity(len({trial.seed for trial in shown}), "seed")
    finished = sum(trial.status == "finished" for trial in shown)
    ends = when(compared.point if compared is not None else results.final)
    counted = f"n = {len(shown)} trials on {seeds}, of which {finished} finished, compared {ends}."
    return f"{words[:1].upper()}{words[1:]} {counted}"


def paper_table(found: SearchFindings | StudyFindings) -> PaperTable:
    """The table of a sweep: its arms, or the values whose runs finished, the lowest mean first."""
    if not isinstance(found, StudyFindings):
        return _of_search(found.results)
    if found.comparison is None:
        return PaperTable(("arm",), [], f"{found.results.question} The baseline is not settled.")
    return _of_study(found.results, found.comparison)


def _of_study(results: Results, compared: ArmsComparison) -> PaperTable:
    kinds = interval_kinds(compared)
    rows = [
        (
            arm.name,
            str(arm.n),
            loss(arm.mean),
            signed(arm.effect and arm.effect.mean),
            _interval_of(arm, kinds),
            probability(arm.p_holm),
            *([_worth(arm, compared)] if compared.speedups is not None else []),
            arm.verdict.words,
        )
        for arm in compared.arms
    ]
    worth = " and its token speedup with that interval" * (compared.speedups is not None)
    caption = (
        f"{results.question} The {_loss_of(results)} {when(compared.point)}, the mean over n seeds; "
        f"the difference from the baseline, paired by seed, with its {_kind_of_interval(results, compared)}; "
        f"and its p-value, adjusted for all arms (Holm){';' * bool(worth)}{worth}. Lower is better."
    )
    more = ("speedup",) * bool(worth)
    columns = ("arm", "n", "loss", "difference", kinds, "p", *more, "verdict")
    return PaperTable(columns, rows, caption)


def _worth(arm: ArmFindings, compared: ArmsComparison) -> str:
    """The token speedup of an arm with its interval; empty if it is not known."""
    known = compared.scaling
    if arm.speedup is None or known is None:
        return ""
    tokens = arm.speedup.tokens
    return f"{times_words(tokens.times, known)} ({range_words(tokens, known)})"


def _kind_of_interval(results: Results, compared: ArmsComparison) -> str:
    """The kind of interval that the arms have, for a caption."""
    if allows_for_looks(results, compared):
        return f"{interval_kinds(compared)}, which allows for all looks"
    return "95% t interval"


def _interval_of(arm: ArmFindings, kinds: str) -> str:
    """The interval of an arm, with its kind where arms have several."""
    words = _interval(arm.effect and arm.effect.low, arm.effect and arm.effect.high)
    return f"{words} ({arm.interval_words})" if words and kinds != arm.interval_words else words


def _of_search(results: Results) -> PaperTable:
    rows, point = [], results.final
    finished = results.having("finished")
    for group in groups(finished):
        losses = losses_at(group, point, results.metric)
        mean = sum(losses) / len(losses)
        half = half_interval(losses) if len(losses) > 1 else None
        ends = (None, None) if half is None else (mean - half, mean + half)
        trained = between(trial.tokens for trial in group)
        rows.append(
            (mean, (results.called(group[0].values), str(len(losses)), trained, mean, *ends))
        )
    rows.sort(key=lambda row: row[0])
    texts = [
        (name, n, trained, loss(mean), _interval(low, high))
        for _, (name, n, trained, mean, low, high) in rows
    ]
    unfinished = len(results.trials) - len(finished)
    other = (
        f" Not shown: {quantity(unfinished, 'trial')} of {len(results.trials)} that did not finish."
        if unfinished
        else ""
    )
    caption = (
        f"{results.question} The {_loss_of(results)} {when(point)}, the mean over n seeds with its "
        f"95% t interval; one seed has none. The values with the lowest loss were chosen by it.{other}"
    )
    return PaperTable(("values", "n", "tokens", "loss", "95% interval"), texts, caption)


def _loss_of(results: Results) -> str:
    return f"{METRICS[results.metric]} ({UNITS[results.metric]})"


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{low:.4f} to {high:.4f}"
