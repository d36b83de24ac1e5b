"""Taking an upstream's idle connection and giving it back.

    python -m pytest bench/micro/test_pool.py

One round is 1000 requests, so a figure in us is ns per request. Most of it is the question to the kernel whether the
connection is still open and silent.
"""

import socket

import pytest
from cext.net.loop import Loop
from cext.proxy.pool import UpstreamGroup

from bench.micro.proxy_loops import Pooled

TIMES = 1000


@pytest.mark.parametrize("connections", [1, 100])
def test_take_and_release(benchmark, connections):
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        group = UpstreamGroup("app", [("tcp", *listener.getsockname())])
        pooled = Pooled(Loop(), group)
        assert pooled.cycle(connections, 1) == connections
        assert benchmark(pooled.cycle, connections, TIMES // connections) == connections
        pooled.close()
    assert group.idle_connections() == 0
