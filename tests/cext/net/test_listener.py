"""Accepting: what accept() may fail with never spins the loop, and what is queued is not lost."""

import gc
import os
import resource
import socket

from tests.cext.proxy.harness import Client, echo, get, serving, until


def test_a_listener_that_was_shut_does_not_spin():
    with serving(echo) as edge:
        with Client(edge) as client:
            assert client.ask(get()).status == 200
        edge.listener.shutdown(socket.SHUT_RDWR)
        until(lambda: edge.counters()["accept_pauses"] == 1)
        before = resource.getrusage(resource.RUSAGE_SELF)
        assert not edge.ended.wait(0.5)
        after = resource.getrusage(resource.RUSAGE_SELF)
        assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.25
        assert len([1 for _, text in edge.errors if "accept: Invalid argument" in text]) == 1


def test_a_queue_longer_than_one_turns_accepts():
    """More clients at once than one turn accepts; all of them are served."""
    with serving(echo) as edge:
        socks = [socket.create_connection(("127.0.0.1", edge.port)) for _ in range(100)]
        until(lambda: edge.counters()["connections_open"] == 100)
        for sock in socks:
            sock.close()
        edge.until_idle()
        assert edge.counters()["handshake_failures"] == 100


def test_draining_takes_what_is_queued():
    """A connection that the kernel had accepted before the drain began is served."""
    with serving(echo) as edge:
        socks = []

        def connect_and_drain():            # in the loop's thread: nothing is accepted meanwhile
            socks.extend(socket.create_connection(("127.0.0.1", edge.port)) for _ in range(100))
            edge.plane.drain(5000)
            return edge.plane.counters()["connections_open"]

        assert edge.call(connect_and_drain) == 100
        for sock in socks:
            sock.close()
        assert edge.ended.wait(2)


def test_the_descriptors_of_a_plane_are_given_back():
    def descriptors():
        gc.collect()
        return len(os.listdir("/proc/self/fd"))

    def serve():
        with serving(echo) as edge, Client(edge) as client:
            client.ask(get())

    serve()
    before = descriptors()
    for _ in range(10):
        serve()
    until(lambda: descriptors() <= before + 2)
