"""What people read of an error: secrets are masked, what a terminal would act on is escaped."""

import re
from collections.abc import Iterable

# What a value is called that nobody may read; also the end of a longer name.
_NAME = (
    r"(?<![^\W_])(?:token|secret|password|passwd|passphrase|pwd|(?:api|access|secret|private)[_-]?key|"
    r"signature|sig|credentials?)"
)
_SECRETS = (
    # A user and password in a URL; one that was taken for a path has one slash.
    (re.compile(r"(?<=\w\w:/)(/?)[^/\s'\"]+@"), r"\1***@"),
    # A value of JSON, of a setting or in the query of a URL, with quotes and without.
    (
        re.compile(
            rf"""({_NAME}(?:\\?["']?\s*:\s*|=))(\\?["'])(?:(?!\2)(?:\\.|.))*""", re.IGNORECASE
        ),
        r"\1\2***",
    ),
    (re.compile(rf"""({_NAME}(?:\\?["']\s*:\s*|=))[^\s&'"\\]+""", re.IGNORECASE), r"\1***"),
    # A word that is the value of a key of YAML; words after "the token: " are a sentence.
    (
        re.compile(
            rf"""((?:^|[-{{,(\[:;'"=]|--[\w-]{{1,80}}\s)[ \t]*[\w.-]{{0,80}}{_NAME}:[ \t]+)"""
            r"""(?!(?:empty|missing)\b)[^\s,;{}\[\]()]+?(?=['"](?!\w)|[ \t]*(?:[,;}\])#]|$))""",
            re.IGNORECASE | re.MULTILINE,
        ),
        r"\1***",
    ),
    # The value of an option, as the next word.
    (re.compile(rf"(--[\w-]{{0,80}}{_NAME}\s+)(?!-)\S+", re.IGNORECASE), r"\1***"),
    (
        re.compile(
            r"""(\bBearer\s+|\bAuthorization["']?\s*[:=]\s*["']?(?:(?:Basic|Bearer|Token)\s+)?)[^\s'"]+""",
            re.IGNORECASE,
        ),
        r"\1***",
    ),
    # Keys of known forms.
    (
        re.compile(
            r"\b(?:hf_|gh[oprsu]_|github_pat_|glpat-|sk-|xox[a-z]-|npm_|pypi-|wandb_v\d_)[\w-]{16,}|"
            r"\bA(?:KIA|SIA)[0-9A-Z]{16}\b|\bAIza[\w-]{30,}|\beyJ[\w-]+\.[\w-]+\.[\w-]+"
        ),
        "***",
    ),
)
_OPTION = re.compile(rf"--[\w-]*{_NAME}", re.IGNORECASE)


def masked(text: str) -> str:
    """A text without the passwords, tokens and keys in it."""
    for secret, shown in _SECRETS:
        text = secret.sub(shown, text)
    return text


def masked_words(words: Iterable[str]) -> list[str]:
    """The words of a command without the passwords, tokens and keys in them."""
    before = ("", *(words := list(words)))
    return [
        "***" if _OPTION.fullmatch(option) else masked(word)
        for option, word in zip(before, words, strict=False)
    ]


def message_of(error: BaseException) -> str:
    """What people read about an exception that ends a command: secrets are masked, what a terminal would
    act on is escaped, and what is long is cut."""
    if isinstance(error, KeyboardInterrupt):
        return str(error) or "interrupted"
    text = getattr(error, "shown", str(error))  # a ConfigError shows its first problems
    if isinstance(error, OSError):
        reason = error.strerror or str(error)
        text = f"{error.filename}: {reason}" if error.filename else reason
    lines = masked(text).splitlines()
    return "\n".join([*map(_line, lines[:_MOST_LINES]), *["…"][: len(lines) > _MOST_LINES]])


_LONGEST_LINE = 2000  # characters
_MOST_LINES = 200


def _line(text: str) -> str:
    """A line as people read it."""
    shown = "".join(one if one.isprintable() or one == "\t" else ascii(one)[1:-1] for one in text)
    return shown if len(shown) <= _LONGEST_LINE else f"{shown[:_LONGEST_LINE]}…"
