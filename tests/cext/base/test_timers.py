"""The timer wheel: nothing early, nothing late by more than a tick, nothing lost."""

from hypothesis import given, settings
from hypothesis import strategies as st

from cext.base import timers

TICK = 16


def wheel():
    return timers.TimerWheel()


def test_fires_once_after_its_deadline():
    w = wheel()
    r = timers.recorder(w, 7)
    r.arm(100)
    timers.advance(w, 99)
    assert r.fired == []
    timers.advance(w, 100 + TICK)
    assert r.fired == [7]
    timers.advance(w, 100_000)
    assert r.fired == [7]


def test_disarm():
    w = wheel()
    r = timers.recorder(w)
    r.arm(100)
    r.disarm()
    timers.advance(w, 1000)
    assert r.fired == []


def test_moved_later_and_earlier():
    w = wheel()
    r = timers.recorder(w)
    r.arm(100)
    r.arm(500)
    timers.advance(w, 400)
    assert r.fired == []
    r.arm(450)
    timers.advance(w, 450 + TICK)
    assert r.fired == [0]


def test_beyond_one_turn_of_the_wheel():
    w = wheel()
    r = timers.recorder(w)
    r.arm(75_000)
    for now in range(0, 75_000, 500):
        timers.advance(w, now)
    assert r.fired == []
    timers.advance(w, 75_000 + TICK)
    assert r.fired == [0]


def test_sleep_reaches_the_deadline_and_not_far_past_it():
    w = wheel()
    r = timers.recorder(w)
    assert timers.advance(w, 0) == -1
    r.arm(1000)
    now = 0
    while not r.fired:
        wait = timers.advance(w, now)
        if r.fired:
            break
        assert wait >= 0
        now += max(wait, 1)
    assert 1000 <= now <= 1000 + 2 * TICK


def test_a_clock_that_jumps_fires_everything():
    w = wheel()
    armed = [timers.recorder(w, k) for k in range(50)]
    for k, r in enumerate(armed):
        r.arm(1 + k * 777)
    timers.advance(w, 10_000_000)
    assert [r.fired for r in armed] == [[k] for k in range(50)]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 40_000), st.integers(1, 40_000), st.booleans()), max_size=20),
    st.integers(50, 3000),
)
def test_any_schedule(plans, step):
    """Arm, re-arm and disarm at will; step through time: each fires in the step that reaches its last deadline."""
    w = wheel()
    expected = {}
    armed = []
    for k, (first, second, keep) in enumerate(plans):
        r = timers.recorder(w, k)
        r.arm(first)
        r.arm(second)
        if keep:
            expected[k] = second
        else:
            r.disarm()
        armed.append(r)
    seen = {}
    now = 0
    while now < 40_000 + 2 * TICK:
        now += step
        timers.advance(w, now)
        for k, r in enumerate(armed):
            if r.fired and k not in seen:
                seen[k] = now
    assert set(seen) == set(expected)
    for k, at in seen.items():
        assert expected[k] <= at <= expected[k] + step + 2 * TICK
