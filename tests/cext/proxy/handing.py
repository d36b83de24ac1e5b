"""Rules of handing over, receivers in Python, and an Edge that receives."""

import contextlib
import os
import socket
import threading

from cext.proxy.gate import GateSettings, HandoffRule
from cext.proxy.handoff_door import Senders
from cext.proxy.handover import HandoffTarget
from cext.proxy.listener_settings import ListenerSettings
from cext.proxy.router import Route, Router

from edge import handoff
from tests.cext.proxy.harness import SECONDS, by_limits
from tests.cext.tls.peer import server_config

EVERYTHING = {"names": [b"example.com"]}


def gate(path, *, serve=False, patience_ms=1000, targets=(), **conditions):
    """A gate with one rule: those of the conditions (or of example.com) go to the path."""
    target = HandoffTarget("legacy", str(path), serve, patience_ms)
    rule = HandoffRule(target, **(conditions or EVERYTHING))
    return {"gate": GateSettings(rules=[rule], targets=dict.fromkeys(targets, target))}


def receiver_settings(edge, *, uids=None, **settings):
    return ListenerSettings(
        server_config(alpn=(b"h2", b"http/1.1")),
        Router([Route(edge.group)]),
        senders=Senders({os.geteuid()} if uids is None else uids),
        **by_limits(settings, "handshake_ms", "record_idle_ms"),
    )


@contextlib.contextmanager
def receiving(edge, path, **settings):
    """The Edge receives connections at the path, too."""
    listener = handoff.listen(str(path), 0o600)
    listener.setblocking(False)
    made = receiver_settings(edge, **settings)
    edge.call(lambda: edge.plane.listen(listener.fileno(), made))
    try:
        yield listener
    finally:
        listener.close()
        os.unlink(path)


@contextlib.contextmanager
def receiver(path, serve):
    """serve(connection) for each connection that is handed over, in a thread of one receiver."""
    ended = threading.Event()

    def run():
        while not ended.is_set():
            try:
                connection = made.accept(0.05)
            except TimeoutError:
                continue
            with connection:
                connection.sock.settimeout(SECONDS)
                try:
                    serve(connection)
                except (OSError, EOFError):
                    pass
                except Exception as e:
                    failures.append(e)

    failures = []
    with handoff.Receiver(path) as made:
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield made
        finally:
            ended.set()
            thread.join(SECONDS)
    assert failures == []


def descriptors():
    return len(os.listdir("/proc/self/fd"))


def connected(edge):
    sock = socket.create_connection(("127.0.0.1", edge.port), timeout=SECONDS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock
