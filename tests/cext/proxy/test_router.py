"""Routes: the most specific first."""

import pytest
from cext.proxy.pool import UpstreamGroup
from cext.proxy.router import Route, Router

UP = UpstreamGroup("b", [("tcp", "127.0.0.1", 9000)])


def route(**k):
    return Route(UP, **k)


def test_nothing_matches_an_empty_router():
    assert Router([]).match(b"a", b"/") is None


@pytest.mark.parametrize(
    ("host", "path", "method", "want"),
    [
        (b"example.com", b"/", "GET", "site"),
        (b"EXAMPLE.com:8443", b"/", "GET", "site"),
        (b"example.com.", b"/", "GET", "site"),
        (b"example.com", b"/upload/a/b", "POST", "upload"),
        (b"example.com", b"/upload/a/b", "GET", "site"),
        (b"example.com", b"/upload/exact", "POST", "exact"),
        (b"example.com", b"/upload", "POST", "site"),
        (b"a.example.com", b"/", "GET", "wild"),
        (b"a.b.example.com", b"/", "GET", "wild"),
        (b"deep.api.example.com", b"/", "GET", "longer wild"),
        (b"other.org", b"/x.png", "GET", "png"),
        (b"other.org", b"/x", "GET", "any"),
        (b"", b"/x", "GET", "any"),
        (b"[::1]:8443", b"/x", "GET", "v6"),
        (b"x" * 300, b"/x", "GET", "any"),
        (b"other.org", b"/x", "PURGE", "purge"),
        (b"other.org", b"/x", "BREW", "any"),
    ],
)
def test_specificity(host, path, method, want):
    named = {
        "any": route(),
        "site": route(hosts=["example.com"]),
        "upload": route(hosts=["example.com"], path="/upload/*", methods=["POST", "PUT"]),
        "exact": route(hosts=["example.com"], path="/upload/exact"),
        "wild": route(hosts=["*.example.com"]),
        "longer wild": route(hosts=["*.api.example.com"]),
        "png": route(path="/*.png"),
        "v6": route(hosts=["[::1]"]),
        "purge": route(methods=["PURGE"]),
    }
    for order in (list(named.values()), list(reversed(named.values()))):
        assert Router(order).match(host, path, method) is named[want]


def test_a_host_without_a_fitting_path_falls_to_the_next_level():
    wide = route(path="/a/*")
    narrow = route(hosts=["h"], path="/b/*")
    r = Router([narrow, wide])
    assert r.match(b"h", b"/a/1") is wide
    assert r.match(b"h", b"/b/1") is narrow
    assert r.match(b"h", b"/c") is None


@pytest.mark.parametrize(
    ("pattern", "path", "fits"),
    [
        ("/*", b"/", True),
        ("*", b"*", True),
        ("/a*b*c", b"/aXbYc", True),
        ("/a*b*c", b"/aXbY", False),
        ("/a*b*c", b"/abcbc", True),
        ("/a", b"/a/", False),
        ("/a/*", b"/a/", True),
        ("/**", b"/x", True),
        ("/*a", b"/" + b"a" * 2000 + b"b", False),
    ],
)
def test_patterns(pattern, path, fits):
    assert (Router([route(path=pattern)]).match(b"", path) is not None) == fits


def test_bad_pattern():
    with pytest.raises(ValueError, match="must begin"):
        route(path="x")


@pytest.mark.parametrize(
    "server", [("tcp", "localhost", 80), ("tcp", "127.0.0.1", 0), ("tcp", "127.0.0.1", 70000),
               ("unix", "/" + "x" * 200), ("udp", "x")]
)
def test_bad_servers(server):
    with pytest.raises(ValueError):
        UpstreamGroup("g", [server])


def test_group_needs_a_server():
    with pytest.raises(ValueError, match="needs a server"):
        UpstreamGroup("g", [])
