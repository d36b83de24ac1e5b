"""The wall clock is set while a server serves, forward and back."""

import datetime
import email.utils
import os
import socket
import ssl
import time

import pytest

from tests.clock import Clock
from tests.e2e.client import Client
from tests.e2e.processes import SANITIZED, wait_until
from tests.faults.watching import SECONDS, Crowd, Watch, ends_whole, upstreams

pytestmark = pytest.mark.skipif(SANITIZED, reason="AddressSanitizer must be the first library in a process")
HOUR = 3600


@pytest.fixture
def clock(tmp_path):
    return Clock(tmp_path)


def date(edge) -> float:
    """The server's time, as a response tells it."""
    with Client(edge) as client:
        answer = client.request("TRACE", "/")  # which is answered here
        return email.utils.parsedate_to_datetime(answer.get("Date")).timestamp()


def resumed(edge, session: ssl.SSLSession) -> tuple[bool, ssl.SSLSession]:
    """Whether a session is resumed, and the newest one."""
    context = session_context(edge)
    with context.wrap_socket(_connected(edge), server_hostname="edge.test", session=session) as s:
        s.sendall(b"GET /1k HTTP/1.1\r\nHost: edge.test\r\nConnection: close\r\n\r\n")
        while s.recv(65536):
            pass
        return s.session_reused, s.session


def session_context(edge) -> ssl.SSLContext:
    if not hasattr(edge, "session_context"):
        edge.session_context = edge.tls_context()
    return edge.session_context


def _connected(edge) -> socket.socket:
    return socket.create_connection(("127.0.0.1", edge.port), SECONDS)


STEPS = [
    pytest.param((HOUR,), id="an hour forward"),
    pytest.param((-HOUR,), id="an hour back"),
    pytest.param((5, -5, 30 * HOUR, -30 * HOUR, 0), id="to and fro"),
]


@pytest.mark.parametrize("steps", STEPS)
def test_the_clock_is_set(make_edge, nginx, clock, steps):
    """Nothing that waits goes by the wall clock: no worker is taken for dead, no timeout comes sooner or later; Date
    and the logs follow it."""
    edge = make_edge(
        upstreams(nginx), server={"workers": 2, "worker_timeout": "5s", "drain_timeout": "2s"}, env=clock.env
    )
    pids = edge.workers()
    with Watch(edge) as watch:
        with Crowd(edge, 4) as crowd:
            for seconds in steps:
                clock.move(seconds)
                wanted = time.time() + seconds
                wait_until(lambda w=wanted: abs(date(edge) - w) < 30, SECONDS, "the new time in a Date")
                crowd.wait(100)
            time.sleep(6 if os.environ.get("EDGE_SLOW") else 1)  # longer than worker_timeout
            crowd.wait(50)
        told = [datetime.datetime.fromisoformat(r["time"]).timestamp() for r in edge.requests()]
        assert all(any(abs(at - time.time() - s) < 60 for s in (0, *steps)) for at in told)
        since = edge.mark()
        edge.reload()  # and all that goes with it
        wait_until(lambda: edge.in_error_log("generation 2", since), SECONDS, "a reload")
        watch.never("TIMEOUT", "was sent SIG", "killed")
    crowd.expect()
    assert crowd.longest < 5
    assert set(edge.workers()) == set(pids) or edge.in_error_log("generation 2 serves")
    ends_whole(edge)


def test_tickets_when_the_clock_is_set(make_edge, nginx, clock):
    """A ticket from the future is none, one that is too old neither; both cost a full handshake and nothing more."""
    edge = make_edge(upstreams(nginx), env=clock.env)
    _, session = resumed(edge, None)
    assert resumed(edge, session)[0]
    for seconds, allowed in ((HOUR, (True,)), (-HOUR, (True, False)), (30 * HOUR, (False,)), (0, (True, False))):
        clock.move(seconds)
        wait_until(lambda s=seconds: abs(date(edge) - time.time() - s) < 30, SECONDS, "the new time")
        was, _ = resumed(edge, session)
        assert was in allowed, seconds
    clock.move(0)
    wait_until(lambda: abs(date(edge) - time.time()) < 30, SECONDS, "our time")
    _, session = resumed(edge, None)
    assert resumed(edge, session)[0]
    ends_whole(edge)
