"""Numbers and values as people read them; a missing value is empty."""

import hashlib
import math
import shlex
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from sweeps.exits import masked, masked_words
from tinylm.counts import count as count  # for counts, beside all other numbers
from tinylm.counts import times as times

_LONGEST_VALUE = 200  # characters


def quantity(number: int, noun: str) -> str:
    """A number of things, the noun in the singular for one: 1 seed, 3 seeds."""
    return f"{number:,} {noun}" + "s" * (number != 1)


def whole(number: float | None) -> str:
    """A whole number with separators: 6,291,456."""
    return "" if number is None else f"{number:,.0f}"


def loss(value: float | None) -> str:
    """A loss in nats or bits, with the digits that seeds can resolve: 3.1416."""
    return "" if value is None else f"{value:.4f}"


def perplexity(value: float | None) -> str:
    """The perplexity of a loss in nats per token, its exponential: 24.53; its order if it is huge."""
    if value is None:
        return ""
    if value < math.log(1e6):
        return f"{math.exp(value):,.2f}"
    return f"about 1e{value / math.log(10):.0f}"


def signed(value: float | None) -> str:
    """A difference of losses with its sign: +0.0123."""
    return "" if value is None else f"{value:+.4f}"


def percent(value: float | None) -> str:
    """A share in percent with its sign: +1.23%; one that two decimals do not show, in two digits."""
    if value is None:
        return ""
    if abs(value) >= 0.005 or not value:
        return f"{value:+.2f}%"
    return f"{Decimal(f'{value:.1e}'):+f}%"


def probability(value: float | None) -> str:
    """A p-value: 0.031, or < 0.001."""
    return "" if value is None else f"{value:.3f}" if value >= 0.0005 else "< 0.001"


def duration(seconds: float) -> str:
    """Seconds as a person would say them: 0.4 s, 45 s, 12 min, 3.4 h."""
    if 0 < seconds < 1:
        return f"{seconds:.1g} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def hours(number: float | None) -> str:
    """A number of hours, without an exponent however small: 1.234, 0.0001969."""
    return "" if number is None else f"{Decimal(f'{number:.4g}'):f}"


UNITS_OF_CAPS = {
    "tokens": "tokens",
    "flops": "FLOPs",
    "hours": "hours",
    "gpu_hours": "GPU hours",
    "money": "in the currency of price_per_hour",
}


def cap_amount(cap: str, *amounts: float) -> str:
    """One amount of what a cap limits, or one of another, with the unit: 5.2 of 5 hours."""
    return f"{' of '.join(map(count, amounts))} {UNITS_OF_CAPS[cap]}"


def node_words(row: Mapping[str, Any]) -> str:
    """What happened to a node of a cluster: it joined, is left out, is drained, was released or lost."""
    if row["state"] == "joined":
        return f"joined: {quantity(row['slots'], 'trial')} at once"
    if row["state"] == "draining":
        return "is being drained: its trials save and leave"
    if row["state"] == "released":
        return "released: no trial needed it"
    return f"left out: {row['reason']}" if row["state"] == "refused" else "lost"


def portable(command: str) -> str:
    """A command that names its interpreter without a path, and no secrets."""
    first, *rest = masked_words(shlex.split(command)) or [""]
    named = first.rpartition("/")[2].startswith("python")
    return shlex.join(["python", *rest]) if named else masked(command)


def with_option(command: str, option: str, value: str) -> str:
    """A command with another value of one of its options."""
    parts = shlex.split(command)
    for number, part in enumerate(parts):
        if part == option and number + 1 < len(parts):
            parts[number + 1] = value
        elif part.startswith(f"{option}="):
            parts[number] = f"{option}={value}"
    return shlex.join(parts)


def show(value: Any) -> str:
    """A swept value in few characters: 0.002, 3e-05, true, pre.

    A number has four digits, or up to six if it has no more. Of a long text, its beginning, a digest
    that tells it from others, and its end.
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        exact = f"{value:.6g}"
        return exact if float(exact) == value else f"{value:.4g}"
    text = "" if value is None else str(value)
    half = _LONGEST_VALUE // 2
    if len(text) <= _LONGEST_VALUE:
        return text
    digest = hashlib.sha256(text.encode(errors="replace")).hexdigest()[:8]
    return f"{text[:half]}…[{digest}]…{text[-half:]}"


def tally(kinds: Iterable[str]) -> str:
    """The number of each kind: 2 blown up, 1 spiked."""
    return ", ".join(f"{number} {kind}" for kind, number in Counter(kinds).items())


def sentence(clause: str) -> str:
    """A clause as a sentence, with a capital and a period."""
    return f"{clause[:1].upper()}{clause[1:]}."


def one_line(text: str) -> str:
    """A text that people wrote as one line without control characters, which a terminal would obey."""
    plain = "".join(" " if unicodedata.category(sign) == "Cc" else sign for sign in text)
    return " ".join(plain.split())


def joined(words: Sequence[str]) -> str:
    """Words as people list them: `a, b and c`."""
    return " and ".join(part for part in (", ".join(words[:-1]), *words[-1:]) if part)


def between(numbers: Iterable[int]) -> str:
    """One number, or the range of several."""
    several = sorted(set(numbers))
    low, high = several[0], several[-1]
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def passes_words(trials: Sequence[tuple[float, int]]) -> str:
    """A clause on how often each trial reads its training text: a pair for each, the passes over the
    text and its tokens."""
    passes, tokens = zip(*trials, strict=True)
    text = f"the training text ({between(tokens)} tokens)"
    if max(passes) < 1:
        return f"each trial reads about {share(min(passes), max(passes))} of {text}"
    return f"each trial reads {text} about {times(min(passes), max(passes))}"


def share(low: float, high: float) -> str:
    """A share, or from which to which: 26%, 3.7% to 10%."""
    least, most = (f"{100 * n:.0f}%" if n > 0.0995 else f"{100 * n:.2g}%" for n in (low, high))
    return least if least == most else f"{least} to {most}"


def init_words(loss_init: float, uniform: float, setting: Mapping[str, Any]) -> str:
    """The end of a clause on a loss at init that is too high, and the setting that lowers it, if any."""
    lowers = "".join(f"; `{path}: {show(value)}` lowers it" for path, value in setting.items())
    return (
        f"loss at init, {loss_init:.2f}, is {loss_init - uniform:.2f} nats above ln V ({uniform:.2f}), the "
        f"loss of a uniform guess{lowers}"
    )


def inits_words(high: int, trials: int, words: str) -> str:
    """Sentences on how many trials start too high, with the `init_words` of the highest."""
    if trials == 1:
        return f"The {words}."
    return f"The loss at init is too high in {high} of {quantity(trials, 'trial')}. The highest {words}."


def short_name(path: str) -> str:
    """The last part of a dotted path."""
    return path.rpartition(".")[2]


def named(values: Mapping[str, Any]) -> str:
    """Swept values by the last parts of their paths: `lr=0.002 norm=pre`."""
    return " ".join(f"{short_name(path)}={show(value)}" for path, value in values.items())
