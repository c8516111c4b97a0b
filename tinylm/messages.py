"""What people read of an error: secrets are masked, what a terminal would act on is escaped."""

import re

# A user and password in a URL; a value under a secret's name, also in a URL's query; known forms of keys.
_SECRETS = (
    (re.compile(r"(?<=://)[^/\s@'\"]+@"), "***@"),
    (
        re.compile(
            r"((?:^|[\W_])(?:token|secret|password|passwd|pwd|api[_-]?key|access[_-]?key|signature|sig|"
            r"credential)=)[^\s&'\"]+",
            re.IGNORECASE,
        ),
        r"\1***",
    ),
    (re.compile(r"(\bBearer\s+)\S+", re.IGNORECASE), r"\1***"),
    (re.compile(r"\b(?:hf_|ghp_|github_pat_|glpat-)[\w-]{16,}|\bAKIA[0-9A-Z]{16}\b"), "***"),
)


def masked(text: str) -> str:
    """A text without the passwords, tokens and keys in it."""
    for secret, shown in _SECRETS:
        text = secret.sub(shown, text)
    return text


def message_of(error: BaseException) -> str:
    """What people read about an exception that ends a command: secrets are masked, what a terminal would
    act on is escaped, and long lines are cut."""
    if isinstance(error, KeyboardInterrupt):
        return str(error) or "interrupted"
    text = getattr(error, "shown", str(error))  # a ConfigError shows its first problems
    if isinstance(error, OSError):
        reason = error.strerror or str(error)
        text = f"{error.filename}: {reason}" if error.filename else reason
    return "\n".join(map(_line, masked(text).splitlines()))


_LONGEST_LINE = 2000  # characters


def _line(text: str) -> str:
    """A line as people read it."""
    shown = "".join(one if one.isprintable() or one == "\t" else ascii(one)[1:-1] for one in text)
    return shown if len(shown) <= _LONGEST_LINE else f"{shown[:_LONGEST_LINE]}…"
