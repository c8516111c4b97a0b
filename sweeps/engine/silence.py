"""Which attempts are hung: those that have reported nothing for too long. Times are passed in."""

from dataclasses import dataclass, field

PATIENCE = (
    50  # times the longest interval between two reports of the same attempt, or that expected
)
LEAST_SECONDS = 600.0
START_SECONDS = 1800.0  # until the second report: imports, the corpus, torch.compile
SET_START_SECONDS = 120.0  # until the first report, at least, where the user has set a limit
# A longer gap between two looks is the driver's own: it was stopped, or its disk is slow. It counts as little,
# so that an attempt that hangs is still found where every gap is long.
_GAP_SECONDS = 5.0
_COUNTED_SECONDS = 1.0


@dataclass
class _Heard:
    """What is known of an attempt."""

    last: float  # when it reported last, or started
    expected: float = 0.0  # seconds between two reports; 0 if not known
    reports: int = 0
    longest: float = 0.0  # seconds between two reports


@dataclass
class Silence:
    """How long each attempt has been silent, counted while the driver looks."""

    limit: float | None = None  # seconds, as the user set them
    _watched: float = 0.0  # seconds in which the driver looked
    _looked: float | None = None
    _attempts: dict[str, _Heard] = field(default_factory=dict)

    def started(self, attempt: str, expected: float = 0.0) -> None:
        """An attempt begins, with the seconds that are expected between two of its reports, if known."""
        self._attempts[attempt] = _Heard(self._watched, expected)

    def prepares(self, attempt: str) -> None:
        """A worker prepares for an attempt, which has not begun."""
        self._attempts.setdefault(attempt, _Heard(self._watched))

    def reported(self, attempt: str) -> None:
        """An attempt has reported."""
        heard = self._attempts.setdefault(attempt, _Heard(self._watched))
        if heard.reports:
            heard.longest = max(heard.longest, self._watched - heard.last)
        heard.last = self._watched
        heard.reports += 1

    def ended(self, attempt: str) -> None:
        """An attempt is over."""
        self._attempts.pop(attempt, None)

    def look(self, now: float) -> dict[str, float]:
        """The attempts that have been silent for too long, and for how many seconds each."""
        if self._looked is not None:
            gap = now - self._looked
            self._watched += gap if gap <= _GAP_SECONDS else _COUNTED_SECONDS
        self._looked = now
        silent = {name: self._watched - heard.last for name, heard in self._attempts.items()}
        return {name: s for name, s in silent.items() if s > self._allowed(self._attempts[name])}

    def _allowed(self, heard: _Heard) -> float:
        """The seconds that an attempt may be silent."""
        if self.limit is not None:
            return self.limit if heard.reports else max(2 * self.limit, SET_START_SECONDS)
        if heard.reports < 2:
            return max(START_SECONDS, PATIENCE * heard.expected)
        return max(LEAST_SECONDS, PATIENCE * heard.longest)
