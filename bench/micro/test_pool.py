"""Taking an upstream's idle connection and giving it back.

    python -m pytest bench/micro/test_pool.py

One round is 1000 requests, so a figure in us is ns per request. `looked at` is a request that must not be sent
twice: the kernel is asked whether its connection is still open.
"""

import socket

import pytest
from cext.net.loop import Loop
from cext.proxy.pool import UpstreamGroup

from bench.micro.proxy_loops import Pooled

TIMES = 1000


@pytest.mark.parametrize("connections", [1, 100])
@pytest.mark.parametrize("repeatable", [True, False], ids=["as it is", "looked at"])
def test_take_and_release(benchmark, connections, repeatable):
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        group = UpstreamGroup("app", [("tcp", *listener.getsockname())])
        pooled = Pooled(Loop(), group)
        assert pooled.cycle(connections, 1, repeatable) == connections
        assert benchmark(pooled.cycle, connections, TIMES // connections, repeatable) == connections
        pooled.close()
    assert group.idle_connections() == 0
