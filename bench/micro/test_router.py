"""Finding a request's route.

    python -m pytest bench/micro/test_router.py

One round is 1000 requests, so a figure in us is ns per request.
"""

import pytest
from cext.proxy.pool import UpstreamGroup
from cext.proxy.router import Route, Router

from bench.micro import proxy_loops

TIMES = 1000
UP = UpstreamGroup("app", [("tcp", "127.0.0.1", 9000)])


def hosts(n):
    """n sites with three routes each, a wildcard for each, and one route for the rest."""
    routes = [Route(UP)]
    for k in range(n):
        name = f"site{k}.example.com"
        routes += [Route(UP, hosts=[name, f"*.{name}"], path=path) for path in ("/*", "/static/*", "/api/*.json")]
    return Router(routes)


@pytest.mark.parametrize(
    ("sites", "host", "path"),
    [
        (0, b"anything.example", b"/"),
        (10, b"site7.example.com:8443", b"/index.html"),
        (1000, b"site777.example.com", b"/static/js/app.7c1f.js"),
        (1000, b"a.b.site777.example.com", b"/api/v1/users/7.json"),
        (1000, b"unknown.example.org", b"/"),
    ],
)
def test_find(benchmark, sites, host, path):
    assert benchmark(proxy_loops.find_routes, hosts(sites), host, path, TIMES) is not None


def test_patterns_of_one_host(benchmark):
    """What costs is the number of routes looked at: the last of a hundred patterns fits."""
    router = Router([Route(UP, path=f"/part{k}/*") for k in range(100)] + [Route(UP)])
    assert benchmark(proxy_loops.find_routes, router, b"example.com", b"/none/of/them", TIMES) is not None
