"""When Python's garbage collector looks through what."""

import gc
import weakref

import pytest

from edge.garbage import young_alone


class Node:
    def __init__(self):
        self.itself = self


def collections():
    """Of each generation until now."""
    return [one["collections"] for one in gc.get_stats()]


def test_what_is_old_is_left_alone_meanwhile():
    usual = gc.get_threshold()
    kept = []
    gone = weakref.ref(Node())
    before = collections()
    with young_alone():
        kept += [[i] for i in range(100 * usual[0])]
        within = collections()
    assert within[0] > before[0] + 50
    assert within[1:] == before[1:]
    assert gone() is None, "what is garbage at once is found"
    assert gc.get_threshold() == usual
    kept += [[i] for i in range(100 * usual[0])]
    assert collections()[1] > within[1]


def test_afterwards_all_is_as_it_was_whatever_happens():
    usual = gc.get_threshold()
    with pytest.raises(ValueError, match="for a test"), young_alone():
        raise ValueError("for a test")
    assert gc.get_threshold() == usual
