"""What of a cluster is free for a sweep, and what is said of it."""

from sweeps.engine.sharing import TOLD_SECONDS, Share, Sharing, Use

HAS = {"CPU": 8.0, "GPU": 2.0}


def test_what_others_hold_of_a_node_is_not_left_and_what_the_sweep_holds_is() -> None:
    use = Use(free={"a": {"CPU": 3.0}}, held={"a": {"CPU": 1.0, "GPU": 1.0}})
    assert use.left("a", HAS) == {"CPU": 4.0, "GPU": 1.0}


def test_no_more_is_left_than_a_node_has() -> None:
    """What a trial has just taken may still count as free."""
    use = Use(free={"a": HAS}, held={"a": {"CPU": 1.0}})
    assert use.left("a", HAS) == HAS


def test_nothing_is_left_of_a_node_that_is_gone() -> None:
    assert Use({}, {}).left("a", HAS) == {"CPU": 0.0, "GPU": 0.0}


def test_one_trial_may_wait_for_what_others_hold() -> None:
    assert (Share(2, 5).to_ask_for, Share(5, 5).to_ask_for, Share(0, 0).to_ask_for) == (3, 5, 0)


def test_a_sweep_that_has_to_wait_plans_with_all_slots() -> None:
    assert (Share(0, 5).planned, Share(2, 5).planned) == (5, 2)


def test_a_plan_for_nodes_that_are_yet_to_be_started_says_what_it_assumes() -> None:
    awaited = Share(0, 2, is_awaited=True)
    assert awaited.planned == 2
    assert "The time assumes 2 trials at once (`--slots`)" in awaited.words


def test_a_change_that_lasts_is_said_once() -> None:
    sharing = Sharing(told=0)
    said = [sharing.look(Share(2, 5), now) for now in (0.0, TOLD_SECONDS, 2 * TOLD_SECONDS)]
    assert said == ["", "other jobs hold 3 of 5 slots of the cluster", ""]


def test_a_change_that_does_not_last_is_not_said() -> None:
    """Ray tells a little late what is free."""
    sharing = Sharing(told=0)
    seen = [(Share(4, 5), 0.0), (Share(5, 5), 1.0), (Share(4, 5), TOLD_SECONDS)]
    assert [sharing.look(share, now) for share, now in seen] == ["", "", ""]


def test_a_sweep_that_waits_says_so_and_that_it_goes_on() -> None:
    sharing = Sharing(told=0)
    states = [Share(0, 2), Share(0, 2), Share(2, 2), Share(2, 2)]
    said = [sharing.look(share, now * TOLD_SECONDS) for now, share in enumerate(states)]
    assert said == [
        "",
        "other jobs hold all that the cluster has (2 slots); waiting for one",
        "",
        "no other job holds any of the 2 slots of the cluster",
    ]
