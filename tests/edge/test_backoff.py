"""Waits before another try."""

import pytest

from edge.backoff import Backoff, spread


def test_twice_as_long_each_time_up_to_the_most():
    backoff = Backoff(0.5, 3, by=0)
    assert [backoff.failed() for _ in range(5)] == [0.5, 1, 2, 3, 3]
    assert backoff.failures == 5
    backoff.succeeded()
    assert backoff.failures == 0
    assert backoff.failed() == 0.5


def test_it_stays_within_bounds_for_ever():
    backoff = Backoff(0.05, 5.0, by=0.3)
    waits = [backoff.failed() for _ in range(5000)]
    assert all(wait <= 6.5 for wait in waits)
    assert min(waits[10:]) >= 3.5


@pytest.mark.parametrize("by", [0.1, 0.5, 1.0])
def test_waits_differ_by_no_more_than_they_may(by):
    waits = {spread(10, by) for _ in range(100)}
    assert len(waits) > 90
    assert all(10 * (1 - by) <= wait <= 10 * (1 + by) for wait in waits)
