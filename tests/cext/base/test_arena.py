"""Memory that sleeps: whatever it holds is there again, at its place, and its pages are not meanwhile."""

import gc
import mmap

from cext.base.arena import Sleeper
from hypothesis import given
from hypothesis import strategies as st

from cext.base import arena

BYTES = 7 * 4096


def resident():
    """Bytes of this process that are in memory."""
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * mmap.PAGESIZE


@given(st.lists(st.tuples(st.integers(1, 5000), st.binary(max_size=300)), max_size=12))
def test_what_is_taken_is_zero_then_whatever_is_written_and_survives_every_sleep(parts):
    sleeper = Sleeper()
    for n, data in parts:
        at = sleeper.take(n)
        if at is None:
            continue
        assert at % 16 == 0
        assert not any(sleeper.read()[at : at + n])
        sleeper.write(at, data[:n])
        before = sleeper.read()
        assert sleeper.sleep() is not None
        sleeper.wake()
        assert sleeper.read() == before
        assert not any(sleeper.read()[at + min(n, len(data)) : at + n])


def test_room_ends_and_all_of_it_can_be_had():
    sleeper = Sleeper()
    assert sleeper.take(BYTES + 1) is None
    assert sleeper.take(BYTES - 16) == 0
    assert sleeper.take(17) is None
    assert sleeper.take(16) == BYTES - 16
    assert sleeper.take(1) is None


def test_a_full_one_stays_awake():
    sleeper = Sleeper()
    sleeper.take(BYTES)
    sleeper.write(0, b"\x01" * BYTES)
    assert sleeper.sleep() is None
    assert sleeper.read() == b"\x01" * BYTES


def test_sleeping_twice_and_waking_twice_change_nothing():
    sleeper = Sleeper()
    sleeper.write(sleeper.take(100), b"x" * 100)
    assert sleeper.sleep() == sleeper.sleep()
    sleeper.wake()
    sleeper.wake()
    assert sleeper.read()[:100] == b"x" * 100


def test_pages_of_sleepers_are_given_back():
    sleepers = [Sleeper() for _ in range(500)]
    for sleeper in sleepers:
        sleeper.write(sleeper.take(BYTES), b"\0" * BYTES)
    awake = resident()
    for sleeper in sleepers:
        sleeper.sleep()
    assert awake - resident() > 0.9 * 500 * BYTES


def test_slots_come_back_and_are_given_out_again():
    gc.collect()
    used, _, asleep = arena.slots()
    sleepers = [Sleeper() for _ in range(200)]
    sleepers[0].sleep()
    sleepers[1].sleep()
    sleepers[1].wake()
    assert arena.slots()[0] == used + 200
    assert arena.slots()[2] == asleep + 1
    sleepers.clear()
    made = arena.slots()[1]
    assert arena.slots() == (used, made, asleep)
    sleepers += [Sleeper() for _ in range(200)]
    assert arena.slots()[1] == made
