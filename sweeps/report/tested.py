"""Sentences on the test text, which a sweep reads once, when it has ended."""

from collections.abc import Iterator, Sequence

from sweeps.findings.everything import SearchFindings, StudyFindings
from sweeps.findings.results import UNITS
from sweeps.findings.tested import ArmOnTestText, OnTestText
from sweeps.report.markdown import Column, table
from sweeps.stats import Effect
from sweeps.text import loss, quantity, signed

WENT_ON = "The sweep went on after the test text had been read, so later choices may depend on it."
# Other sweeps of the same corpus read the same text.
_READ_ONCE = ", which this sweep read once, at its end"


def tested_words(found: SearchFindings | StudyFindings) -> list[str]:
    """What the test text says of the choice of a search, or of the arms of a study; empty before it was
    read."""
    tested, unit = found.tested, UNITS[found.results.metric]
    if tested is None:
        return []
    if isinstance(found, SearchFindings):
        said = list(_of_search(found, tested, unit))
    else:
        said = _of_study(tested, unit)
    return [*said, *_caveats(tested)]


def _lead(tested: OnTestText) -> str:
    """The beginning of a sentence on the test text."""
    return f"On the test text{_READ_ONCE * tested.read_once},"


def _of_search(found: SearchFindings, tested: OnTestText, unit: str) -> Iterator[str]:
    if tested.chosen is None:
        return
    one, values = tested.chosen, found.to_test.chosen[0].values
    mean = f", the mean over {one.runs} seeds" if one.runs > 1 else ""
    yield (
        f"{_lead(tested)} {found.results.called(values)} has a loss of "
        f"{loss(one.test)} {unit} ({loss(one.validation)} on the validation text){mean}."
    )
    if tested.flattery is not None:
        yield flattery_words(tested.flattery, unit, "that of the base config")
    elif not found.to_test.is_base:
        why = (
            "it was evaluated on another text than the base config"
            if tested.other_text
            else "the base config was not trained to the end on the same seeds"
        )
        yield (
            "It was chosen by its validation loss, which is therefore a little too good; by how much is not known, "
            f"because {why}."
        )


def flattery_words(found: Effect, unit: str, others: str, level: int = 5) -> str:
    """By how much choosing flatters a validation loss, if it does."""
    higher = "higher" if found.mean > 0 else "lower"
    return (
        f"Its loss on the test text minus that on the validation text is {loss(abs(found.mean))} {unit} {higher} than "
        f"{others} ({interval_words(found, level)}): {_conclusion(found)}."
    )


def _conclusion(found: Effect) -> str:
    if found.low is None or found.high is None or found.low <= 0 <= found.high:
        return "the runs do not show that choosing on the validation text flatters it"
    if found.mean < 0:
        return "choosing on the validation text does not flatter it"
    return "choosing on the validation text flatters it by that much"


def interval_words(found: Effect, level: int = 5) -> str:
    """The interval of an effect over seeds at a level in percent, or why there is none."""
    if found.low is None or found.high is None:
        seeds = quantity(found.n, "seed")
        return "one seed has no interval" if found.n == 1 else f"{seeds}, no look at them yet"
    return f"{100 - level}% interval {found.low:+.4f} to {found.high:+.4f}, {found.n} seeds"


def _of_study(tested: OnTestText, unit: str) -> list[str]:
    arms = [
        f"{one.arm} {signed(one.test.mean)} ({signed(one.validation)} on the validation text)"
        for one in tested.arms
    ]
    if not arms:
        return []
    return [f"{_lead(tested)} the differences from the baseline in {unit} are: {', '.join(arms)}."]


def _caveats(tested: OnTestText) -> Iterator[str]:
    if tested.unread:
        yield f"The test loss of {quantity(tested.unread, 'run')} is missing."
    if tested.went_on:
        yield WENT_ON


def _columns(arms: Sequence[ArmOnTestText]) -> tuple[Column[ArmOnTestText], ...]:
    kinds = " or ".join(sorted({f"{100 - one.level}% interval" for one in arms}, reverse=True))
    return (
        Column("arm", lambda one: f"`{one.arm}`", is_text=True),
        Column("seeds", lambda one: str(one.test.n)),
        Column("on the validation text", lambda one: signed(one.validation)),
        Column("on the test text", lambda one: signed(one.test.mean)),
        Column(kinds, lambda one: _interval(one.test)),
        Column("flattery", lambda one: signed(one.flattery.mean)),
        Column(f"its {kinds}", lambda one: _interval(one.flattery)),
    )


def _interval(found: Effect) -> str:
    known = found.low is not None and found.high is not None
    return f"{found.low:+.4f} to {found.high:+.4f}" if known else ""


def tested_section(found: StudyFindings) -> list[str]:
    """The arms of a study on the test text, for the summary; empty before it was read."""
    tested = found.tested
    if tested is None or not tested.arms:
        return []
    looked = ", widened for the looks by the same factor as those of the verdicts" * (
        len(found.results.space.looks) > 1
    )
    return [
        "## The test text",
        "",
        f"Difference in {UNITS[found.results.metric]}: arm minus baseline, at the same seeds, on "
        f"{tested.tokens:,} tokens of the test text{_READ_ONCE * tested.read_once}. Flattery is by "
        "how much the validation text makes an arm look better than the test text does. Intervals are t "
        f"intervals over seeds{looked}.",
        "",
        *table(tested.arms, *_columns(tested.arms)),
    ]


def arm_test_words(found: StudyFindings, name: str) -> list[str]:
    """What the test text says of an arm; empty before it was read."""
    tested, unit = found.tested, UNITS[found.results.metric]
    of_arm = [one for one in tested.arms if one.arm == name] if tested is not None else []
    if tested is None or not of_arm:
        return []
    (one,) = of_arm
    return [
        f"{_lead(tested)} it differs from the baseline by "
        f"{signed(one.test.mean)} {unit} ({interval_words(one.test, one.level)}), on the validation text by "
        f"{signed(one.validation)}.",
        flattery_words(one.flattery, unit, "that of the baseline", one.level),
        *([WENT_ON] if tested.went_on else []),
    ]
