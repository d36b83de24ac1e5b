"""Options of TCP, asked of the kernel for the very sockets that serve."""

import os
import socket

import pytest
from cext.proxy.listener_settings import ListenerSettings
from cext.proxy.pool import UpstreamGroup
from cext.proxy.router import Router

from tests.cext.proxy.harness import Client, echo, get, serving

PROBES = {"keepalive_idle": 77, "keepalive_interval": 7, "keepalive_count": 3}
OPTIONS = {
    "keepalive_idle": socket.TCP_KEEPIDLE,
    "keepalive_interval": socket.TCP_KEEPINTVL,
    "keepalive_count": socket.TCP_KEEPCNT,
    "user_timeout": socket.TCP_USER_TIMEOUT,
}


def connected(*, local, peer):
    """This process's socket between two ports (None: any), by a descriptor of its own."""
    for name in os.listdir("/proc/self/fd"):
        try:
            s = socket.socket(fileno=os.dup(int(name)))
        except OSError:
            continue
        try:
            if s.getsockname()[1] in (local, local or s.getsockname()[1]) and s.getpeername()[1] == peer:
                return s
        except (OSError, IndexError):
            pass
        s.close()
    raise AssertionError("no such socket")


def options(s):
    with s:
        assert s.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        found = {name: s.getsockopt(socket.IPPROTO_TCP, number) for name, number in OPTIONS.items()}
        return bool(s.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)), found


def test_accepted_sockets_inherit_them():
    with serving(echo, listener={"tcp": PROBES | {"user_timeout": 9000}}) as edge, Client(edge) as client:
        accepted = connected(local=edge.port, peer=client.sock.getsockname()[1])
        assert options(accepted) == (True, PROBES | {"user_timeout": 9000})


def test_sockets_to_servers_have_their_own():
    with serving(echo, listener={"tcp": PROBES}, pool={"tcp": {"user_timeout": 5000}}) as edge, Client(edge) as client:
        assert client.ask(get()).status == 200
        keepalive, found = options(connected(local=None, peer=edge.backends[0].address[2]))
        assert (keepalive, found["user_timeout"]) == (False, 5000)
        assert found["keepalive_idle"] != 77


def test_none_leaves_them_to_the_kernel():
    with socket.socket() as untouched, serving(echo) as edge, Client(edge) as client:
        accepted = connected(local=edge.port, peer=client.sock.getsockname()[1])
        untouched.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        assert options(accepted) == options(untouched.dup())


@pytest.mark.parametrize("make", [
    lambda: ListenerSettings(None, Router([]), tcp={"keep_alive": 1}),
    lambda: UpstreamGroup("a", [("tcp", "127.0.0.1", 1)], tcp={"idle": 1}),
    lambda: ListenerSettings(None, Router([]), timeouts={"body": 1}),
])
def test_a_name_that_is_none(make):
    with pytest.raises(ValueError, match="no such"):
        make()
