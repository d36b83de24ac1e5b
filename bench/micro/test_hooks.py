"""What asking a director costs.

    python -m pytest bench/micro/test_hooks.py

One round is 1000 requests, so a figure in us is ns per request.
"""

import pytest
from cext.net.loop import Loop
from cext.proxy.hooks import Hooks
from cext.proxy.listener_settings import ListenerSettings
from cext.proxy.pool import UpstreamGroup
from cext.proxy.router import Route, Router

from bench.micro import hooks_loops
from edge import policy, timeouts

TIMES = 1000
REQUEST = b"GET /index.html?a=b HTTP/1.1\r\nHost: example.com\r\nAccept: */*\r\nUser-Agent: a browser\r\n\r\n"


def hooks(director):
    return Hooks(
        director,
        None,
        names=timeouts.NAMES,
        read_limit=policy.read_limit,
        show_limit=policy.show_limit,
        failed=policy.Reports(print).failed,
    )


def looks(request):
    if request.path == "/upload" and "x-api-key" not in request.headers:
        request.abort()


def sets(request):
    request.timeouts.total = 5


async def awaits_nothing(request):
    pass


WAYS = {
    "no hooks": None,
    "no director among them": hooks(None),
    "one that does nothing": hooks(lambda request: None),
    "one that reads path and a header": hooks(looks),
    "one that sets a timeout": hooks(sets),
    "an async one that awaits nothing": hooks(awaits_nothing),
}


@pytest.mark.parametrize("way", WAYS)
def test_director(benchmark, way):
    route = Route(UpstreamGroup("app", [("tcp", "127.0.0.1", 9000)]))
    asked = hooks_loops.Directed(Loop(), ListenerSettings(None, Router([route])), route, REQUEST, WAYS[way])
    assert benchmark(asked.ask, TIMES) == TIMES
