"""Routes: the most specific first."""

import gc
import random
import time
import weakref

import pytest
from cext.proxy.pool import UpstreamGroup
from cext.proxy.router import HookedRoute, Route, Router

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


@pytest.mark.parametrize(("count", "asked"), [(250, 3000), (2000, 150)])
def test_many_routes_of_a_host_are_found_as_few_are(count, asked):
    """What is looked up by an index is what looking at one route after the other would give."""
    draw = random.Random(7)
    segments = ("", "a", "b", "ab", "a*", "*", "*b", "b*a")
    patterns = ["/" + "/".join(draw.choices(segments, k=draw.randint(1, 3))) for _ in range(count)]
    methods = ((), (), ("GET",), ("POST", "PURGE"), ("BREW",))
    routes = [route(hosts=["h"], path=pattern, methods=draw.choice(methods)) for pattern in patterns]
    most_specific_first = sorted(routes, key=Route.specificity)
    alone = {id(one): Router([one]) for one in routes}
    router = Router(routes)
    found = 0
    for _ in range(asked):
        path = "/" + "/".join(draw.choices(("", "a", "b", "ab", "ba", "bba", "c"), k=draw.randint(1, 4)))
        method = draw.choice(("GET", "POST", "PURGE", "BREW", "HEAD"))
        fits = (one for one in most_specific_first if alone[id(one)].match(b"h", path.encode(), method))
        expected = next(fits, None)
        assert router.match(b"h", path.encode(), method) is expected, (path, method)
        found += expected is not None
    assert found > asked / 3


@pytest.mark.parametrize("hosts", [("h",), ("*.h",), ()])
def test_a_search_does_not_grow_with_the_routes(hosts):
    def seconds(count):
        router = Router([route(hosts=hosts, path=f"/{i:05}/*") for i in range(count)])
        begun = time.process_time()
        for i in range(0, count, count // 100):
            assert router.match(b"a.h" if hosts == ("*.h",) else b"h", b"/%05d/x" % i).path == f"/{i:05}/*"
        return time.process_time() - begun

    few, many = (min(seconds(count) for _ in range(3)) for count in (100, 20_000))
    assert many < 20 * few, "200 times the routes"


def test_the_garbage_collector_does_not_look_through_routes():
    """Which takes as long as there are many, while the loop waits."""
    routes = [route(hosts=("many.test",), path=f"/{i}/*") for i in range(500)]
    routes += [route(hosts=(f"h{i}.test", f"*.h{i}.test"), path=f"/{i}") for i in range(500)]
    gc.collect()
    before = len(gc.get_objects())
    router = Router(routes)
    gc.collect()
    assert len(gc.get_objects()) - before < 50
    assert router.match(b"many.test", b"/7/x").path == "/7/*"


def test_hooks_that_refer_to_their_route_are_collected():
    class Policy:
        """As one that keeps `request.route`."""

    one = HookedRoute(UP)
    policy = one.hooks = Policy()
    policy.route = one
    gone = weakref.ref(policy)
    one.hooks = None
    assert one.hooks is None
    one.hooks = policy
    del one, policy
    gc.collect()
    assert gone() is None
