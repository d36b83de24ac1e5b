"""What is safe in early data by a route's rules: the settings here, what they do in test_early_data."""

import pytest
from cext.proxy.early_rules import EarlyRules
from cext.proxy.pool import UpstreamGroup
from cext.proxy.router import Route, Router

UP = UpstreamGroup("b", [("tcp", "127.0.0.1", 9000)])


@pytest.mark.parametrize("method", ["TRACE", "CONNECT"])
def test_what_is_never_safe(method):
    with pytest.raises(ValueError, match="never safe"):
        EarlyRules("forward", methods=("GET", method))


def test_an_unknown_mode():
    with pytest.raises(KeyError):
        EarlyRules("perhaps")


def test_the_default_is_the_talks():
    rules = EarlyRules("forward")
    assert (rules.query, rules.content) == (False, False)


def test_sessions_are_opened_early_where_a_route_is_to_know():
    waiting = Route(UP, path="/a")
    assert waiting.early is None
    assert not Router([waiting]).sees_early
    assert Router([waiting, Route(UP, early_data=EarlyRules("reject"))]).sees_early
