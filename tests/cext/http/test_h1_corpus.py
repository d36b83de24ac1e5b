"""Every case of tests/vectors/{requests,responses} through reader and writer: whole, byte by byte, in random pieces."""

import random

import pytest

from tests.cext.http.reading import METHODS, proxied_requests, proxied_responses
from tests.vectors import cases

REQUESTS = cases.load("requests", "valid") + cases.load("requests", "invalid")
RESPONSES = cases.load("responses", "valid") + cases.load("responses", "invalid")


def cuts(data):
    """The same bytes in several ways: lists of pieces."""
    chance = random.Random(data)
    yield [data]
    yield [data[i:i + 1] for i in range(len(data))] if len(data) < 4000 else [data[:-1], data[-1:]]
    for _ in range(3):
        at = sorted(chance.randrange(len(data) + 1) for _ in range(chance.randrange(1, 12)))
        yield [data[a:b] for a, b in zip([0, *at], [*at, len(data)], strict=True)]


def test_the_corpus_is_there():
    """A directory that is empty would pass everything."""
    assert len(cases.load("requests", "valid")) >= 70
    assert len(cases.load("requests", "invalid")) >= 350
    assert len(cases.load("responses", "valid")) >= 25
    assert len(cases.load("responses", "invalid")) >= 70


@pytest.mark.parametrize("case", [c for c in REQUESTS if c.by != "proxy"], ids=str)
def test_requests(case):
    """One more request behind each: read where the connection goes on, and nowhere else."""
    served = (200,) * (not case.end)
    for pieces in cuts(case.client + cases.SMUGGLED):
        passage = proxied_requests(pieces)
        assert (tuple(passage.answers), passage.end) == (case.answers + served, case.end)
        assert passage.sent == case.upstream + cases.SMUGGLED * len(served)


@pytest.mark.parametrize("case", RESPONSES, ids=str)
def test_responses(case):
    for pieces in cuts(case.upstream):
        passage = proxied_responses(pieces, METHODS[case.method])
        assert (tuple(passage.answers), passage.end) == (case.answers, case.end)
        assert passage.sent == case.client


@pytest.mark.parametrize("case", [c for c in REQUESTS if c.answers == (200,) and not c.by], ids=str)
def test_truncated_requests_wait(case):
    """What is not whole is neither passed on nor refused; nor is it taken for whole."""
    for n in range(0, len(case.client), 1 + len(case.client) // 300):
        passage = proxied_requests([case.client[:n]])
        assert (passage.answers, passage.end, passage.sent) == ([], "", b""), n
