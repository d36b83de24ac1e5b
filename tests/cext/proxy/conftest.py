"""What no test of the proxy may leave behind."""

import sys

import pytest


@pytest.fixture(autouse=True)
def nothing_unraisable(monkeypatch):
    """An exception that a noexcept function swallowed is a fault, whatever the test saw."""
    swallowed = []
    monkeypatch.setattr(sys, "unraisablehook", lambda info: swallowed.append((info.exc_value, info.object)))
    yield
    assert swallowed == []
