"""A register of early data that the program brings: any object with `enter`."""

import logging
import threading

import pytest
from cext.tls.replay import FRESH, SEEN, AwaitedRegister

from edge import tls
from tests.edge.test_tls_sessions import EARLY, Resumed, Wrapper, first_session
from tests.edge.tls_peers import Thread, server_config, sockets


class Record:
    """What servers share: a set, behind a lock."""

    identity = b"the record of all servers"

    def __init__(self):
        self.lock = threading.Lock()
        self.seen = []

    def enter(self, binder):
        with self.lock:
            self.seen.append(binder)
            return binder not in self.seen[:-1]


class AsyncRecord(Record):
    async def enter(self, binder):
        return super().enter(binder)


def taken_early(server, session, flight=None):
    """(whether `server` takes early data, the client's first flight): of a new connection, or of a replayed flight."""
    with sockets() as stack:
        it = Resumed(stack, server, session, early_data=EARLY)
        it.client._queue_output()
        flight = flight or b"".join(it.client._outgoing)
        it.client._sock.sendall(flight)
        it.server.settimeout(0.2)
        try:
            it.server.handshake()
        except TimeoutError:  # it was not taken: the client's Finished would have to come
            return False, flight
        assert it.server.read() == EARLY
        return it.server.connection_state().early_data_used, flight


@pytest.mark.parametrize("record", [Record, AsyncRecord])
def test_early_data_is_taken_once(record):
    record = record()
    server = server_config(accept_early_data=True, replay_register=record)
    session = first_session(server)
    taken, flight = taken_early(server, session)
    assert taken
    assert taken_early(server, session, flight) == (False, flight)
    assert len(record.seen) == 2
    assert record.seen[0] == record.seen[1]
    assert len(record.seen[0]) in (32, 48)
    assert taken_early(server, first_session(server))[0]


def test_servers_with_one_record_take_one_anothers_early_data_once():
    """As on two hosts: tickets by one wrapper, and a register whose record they share."""
    wrapper, record = Wrapper(), Record()
    one, other = (
        server_config(accept_early_data=True, session_ticket_wrapper=wrapper, replay_register=record) for _ in range(2)
    )
    session = first_session(one)
    taken, flight = taken_early(other, session)
    assert taken
    assert not taken_early(one, session, flight)[0]
    renamed = Record()
    renamed.identity = b"another record"
    third = server_config(accept_early_data=True, session_ticket_wrapper=wrapper, replay_register=renamed)
    assert not taken_early(third, first_session(one))[0], "nothing tells what was taken under the other's tickets"
    assert renamed.seen == []


@pytest.mark.parametrize("answer", [False, None, 1, "yes", OSError("it is away")])
def test_whatever_is_not_true_is_not_fresh(answer, caplog):
    class Away(Record):
        def enter(self, binder):
            if isinstance(answer, Exception):
                raise answer
            return answer

    server = server_config(accept_early_data=True, replay_register=Away())
    session = first_session(server)
    with sockets() as stack, caplog.at_level(logging.ERROR, "edge.tls"):
        it = Resumed(stack, server, session, early_data=EARLY)
        thread = Thread(it.server.handshake)
        it.client.handshake()
        thread.finish()
        assert it.server.connection_state().resumed
        assert not it.server.connection_state().early_data_used
    assert caplog.text.count("it is away") == isinstance(answer, Exception)


def test_the_engines_register_may_be_shared():
    register = tls.SharedRegister()
    wrapper = Wrapper()
    one, other = (
        server_config(accept_early_data=True, session_ticket_wrapper=wrapper, replay_register=register)
        for _ in range(2)
    )
    session = first_session(one)
    taken, flight = taken_early(other, session)
    assert taken
    assert not taken_early(one, session, flight)[0]


@pytest.mark.parametrize("answer", [FRESH, SEEN, None, OSError("it is away")])
def test_one_that_is_asked_and_waited_for(answer, caplog):
    """As a fleet's: its asker may answer from another thread, or not at all."""
    names = []

    def asker(questions):
        if isinstance(answer, Exception):
            raise answer
        names.extend(question.name for question in questions)
        if answer is not None:
            threading.Timer(0.01, lambda: [question.answer(answer) for question in questions]).start()

    local = tls.SharedRegister()
    register = AwaitedRegister(local, b"a fleet.", b"k" * 32, local.keeps, 5000 if answer is not None else 20)
    register.up, register.asker = True, asker
    server = server_config(accept_early_data=True, replay_register=register)
    session = first_session(server)
    with caplog.at_level(logging.ERROR, "edge.tls"):
        taken, flight = taken_early(server, session)
    assert taken == (answer == FRESH)
    assert caplog.text.count("it is away") == isinstance(answer, Exception)
    assert not taken_early(server, session, flight)[0]
    assert len(names) == (not isinstance(answer, Exception)), "what this host has seen is not asked for"
    register.asker = None
    assert not taken_early(server, first_session(server))[0]


@pytest.mark.parametrize("register", [object(), type("NoName", (), {"enter": print, "identity": b""})()])
def test_what_is_no_register_is_refused(register):
    with pytest.raises(ValueError, match="replay_register"):
        server_config(accept_early_data=True, replay_register=register)
    with pytest.raises(ValueError, match="accept_early_data"):
        server_config(replay_register=Record())
