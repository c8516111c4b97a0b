"""Attempts that have been silent for too long, by a clock that the tests set."""

import pytest

from sweeps.engine.silence import (
    LEAST_SECONDS,
    PATIENCE,
    SET_START_SECONDS,
    START_SECONDS,
    Silence,
)

PACE = 31.0  # seconds between two reports


def after(silence: Silence, begin: float, seconds: float) -> dict[str, float]:
    """What is hung after so many seconds in which the driver looked once a second."""
    steps = round(seconds)
    return [silence.look(begin + step) for step in range(steps + 1)][-1]


def paced(limit: float | None = None) -> tuple[Silence, float]:
    """An attempt that has reported twice, at its pace, and the time."""
    silence = Silence(limit)
    silence.started("a")
    for turn in (0, 1):
        after(silence, turn * PACE, PACE)
        silence.reported("a")
    return silence, 2 * PACE


@pytest.mark.parametrize(("seconds", "hung"), [(PATIENCE * PACE, []), (PATIENCE * PACE + 1, ["a"])])
def test_an_attempt_is_hung_after_a_multiple_of_its_own_pace(
    seconds: float, hung: list[str]
) -> None:
    silence, now = paced()
    assert list(after(silence, now, seconds)) == hung


@pytest.mark.parametrize(("seconds", "hung"), [(PATIENCE * 100, []), (PATIENCE * 100 + 1, ["a"])])
def test_a_first_record_may_take_a_multiple_of_what_is_expected(
    seconds: float, hung: list[str]
) -> None:
    silence = Silence()
    silence.look(0)
    silence.started("a", expected=100)
    assert list(after(silence, 0, seconds)) == hung


def test_it_says_for_how_long_an_attempt_was_silent() -> None:
    silence, now = paced()
    assert after(silence, now, 2000) == {"a": 2000}


def test_a_fast_attempt_is_given_ten_minutes() -> None:
    silence = Silence()
    silence.look(0)
    silence.started("a")
    silence.reported("a")
    silence.reported("a")
    assert not after(silence, 0, LEAST_SECONDS)
    assert after(silence, LEAST_SECONDS, 1)


def test_the_limit_of_the_user_counts_from_the_first_report() -> None:
    silence, now = paced(limit=7)
    assert not after(silence, now, 7)
    assert after(silence, now + 7, 1)


@pytest.mark.parametrize(
    ("limit", "seconds"), [(None, START_SECONDS), (7, SET_START_SECONDS), (300, 600)]
)
def test_an_attempt_that_starts_has_longer(limit: float | None, seconds: float) -> None:
    """Imports, the corpus and torch.compile may take long."""
    silence = Silence(limit)
    silence.look(0)
    silence.started("a")
    assert not after(silence, 0, seconds)
    assert after(silence, seconds, 1)


@pytest.mark.parametrize(("seconds", "hung"), [(START_SECONDS, []), (START_SECONDS + 1, ["a"])])
def test_an_attempt_whose_worker_never_gets_ready_is_hung(seconds: float, hung: list[str]) -> None:
    """The driver says at each look that the worker prepares for it."""
    silence = Silence()
    for now in range(round(seconds) + 1):
        silence.prepares("a")
        silent = silence.look(now)
    assert list(silent) == hung


def test_an_attempt_that_has_ended_is_not_hung() -> None:
    silence, now = paced(limit=7)
    silence.ended("a")
    assert not after(silence, now, 100)


@pytest.mark.fault("a driver that was suspended", "no worker counts as hung for it")
def test_time_in_which_the_driver_did_not_look_is_not_counted() -> None:
    """The driver was stopped or the machine was suspended, and with it all that the attempts said."""
    silence, now = paced(limit=3)
    assert not silence.look(now + 100_000)


def test_an_attempt_that_hangs_is_found_by_a_driver_that_seldom_looks() -> None:
    silence, now = paced(limit=3)
    assert [silence.look(now + 10 * look) for look in range(1, 6)][-1]


def test_a_report_ends_a_silence() -> None:
    silence, now = paced(limit=7)
    after(silence, now, 6)
    silence.reported("a")
    assert not after(silence, now + 6, 6)
