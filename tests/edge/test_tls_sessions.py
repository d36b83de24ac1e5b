"""Sessions that are resumed, and early data: taken, refused, and confirmed."""

import dataclasses
import os
import threading
import time

import pytest
import trustme
from cryptography import x509

from edge import tls
from edge.tls import tickets
from tests.edge.tls_peers import (
    Thread,
    client_config,
    connected,
    openssl_context,
    server_config,
    sockets,
)


def first_session(server, client=None, name="localhost"):
    """A session of a first connection, which the server has given after it."""
    with connected(server=server, client=client, server_name=name) as (a, b):
        b.write(b"hello")
        assert a.read() == b"hello"
        assert a.session is not None
        return a.session


class Resumed:
    """A client with a session over a socket pair, and its server; nothing has been read yet."""

    def __init__(self, stack, server, session, client=None, **options):
        a, b = stack
        self.client = tls.client(a, client or client_config(), server_name="localhost", session=session, **options)
        self.server = tls.server(b, server)


def resume(server, session, client=None):
    """The server's state after another connection with that session; both sides agree on whether it was resumed."""
    with sockets() as stack:
        it = Resumed(stack, server, session, client)
        thread = Thread(it.server.handshake)
        it.client.handshake()
        thread.finish()
        states = it.client.connection_state(), it.server.connection_state()
        it.server.write(b"x")
        assert it.client.read() == b"x"
    assert states[0].resumed == states[1].resumed
    return states[1]


# --- resumption


def test_a_session_is_resumed():
    server = server_config()
    session = first_session(server)
    assert (session.server_name, session.version) == (b"localhost", 0x0304)
    state = resume(server, session)
    assert state.resumed and state.handshake_confirmed
    assert not state.early_data_used and state.fingerprint == ""


def test_it_keeps_the_certificates():
    server = server_config()
    session = first_session(server)
    with sockets() as stack:
        it = Resumed(stack, server, session)
        thread = Thread(it.server.handshake)
        it.client.handshake()
        thread.finish()
        assert it.client.connection_state().resumed
        assert it.client.connection_state().peer_certificates == tuple(server.certificates[0].chain)


def test_it_crosses_processes_as_bytes():
    server = server_config()
    session = tls.Session.from_bytes(first_session(server).to_bytes())
    assert resume(server, session).resumed
    with pytest.raises(ValueError, match="no session"):
        tls.Session.from_bytes(b"")


def test_another_configuration_has_other_keys():
    session = first_session(server_config())
    assert not resume(server_config(), session).resumed


def test_tickets_can_be_left_out():
    server = server_config(session_tickets=False)
    with connected(server=server) as (client, conn):
        conn.write(b"x")
        assert client.read() == b"x"
        assert client.session is None


@pytest.mark.parametrize(
    "trust",
    [
        {"root_cas": lambda: (another_root(),)},
        {"verify": lambda: refuse},
    ],
)
def test_what_is_not_trusted_now_is_not_resumed(trust):
    """A session must not carry another configuration's trust into this one: it is a full handshake, and fails."""
    server = server_config()
    session = first_session(server)
    client = client_config(**{name: make() for name, make in trust.items()})
    with sockets() as stack:
        it = Resumed(stack, server, session, client)
        thread = Thread(it.server.handshake)
        with pytest.raises(tls.CertificateError):
            it.client.handshake()
        with pytest.raises(tls.AlertReceived):
            thread.finish()


def another_root():
    return x509.load_pem_x509_certificate(trustme.CA().cert_pem.bytes())


def refuse(chain, name):
    raise tls.Refuse("unknown_ca")


def test_a_session_of_an_unverified_server_is_not_resumed_by_who_verifies():
    server = server_config()
    session = first_session(server, tls.Config(verify=False))
    assert not resume(server, session).resumed
    assert resume(server, session, tls.Config(verify=False)).resumed


def test_another_name_is_not_resumed():
    server = server_config()
    session = first_session(server)
    with sockets() as (a, b):
        client = tls.client(a, client_config(), server_name="127.0.0.1", session=session)
        conn = tls.server(b, server)
        thread = Thread(conn.handshake)
        client.handshake()
        thread.finish()
        assert not conn.connection_state().resumed


def test_keys_are_replaced_and_kept_for_a_while(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(tickets.time, "monotonic", lambda: now[0])
    server = server_config()
    sessions = [first_session(server)]
    for _ in range(tickets.KEEP - 1):
        now[0] += tickets.ROTATE + 1
        sessions.append(first_session(server))
    assert len({session.ticket[:16] for session in sessions}) == tickets.KEEP, "each under a key of its own"
    assert all(resume(server, session).resumed for session in sessions)
    now[0] += tickets.ROTATE + 1
    assert [resume(server, session).resumed for session in sessions] == [False, True, True]
    now[0] += 10 * tickets.ROTATE
    assert not any(resume(server, session).resumed for session in sessions), "too old, though nobody made other keys"


def test_with_openssl_as_client():
    server = server_config()
    context = openssl_context("client")
    session = None
    for resumed in (False, True):
        with sockets() as (a, b):
            conn = tls.server(b, server)
            thread = Thread(lambda conn=conn: (conn.handshake(), conn.write(b"x"), conn.close_write()))
            with context.wrap_socket(a, server_hostname="localhost", session=session) as client:
                assert client.recv(10) == b"x"
                assert client.recv(10) == b""
                assert client.session_reused is resumed
                session = client.session
            thread.finish()
        assert conn.connection_state().resumed is resumed


# --- wrapped tickets


class Wrapper:
    """Tickets that mean nothing: the state stays here."""

    def __init__(self):
        self.kept = {}
        self.wrapped, self.unwrapped = [], []
        self.clones = 0

    def wrap(self, state, content):
        self.wrapped.append(state)
        ticket = os.urandom(20)
        self.kept[ticket] = content
        return ticket

    def unwrap(self, hello, ticket):
        self.unwrapped.append(hello)
        return self.kept.get(ticket)

    def clone(self):
        self.clones += 1
        return self


def test_a_wrapper_makes_the_tickets():
    wrapper = Wrapper()
    server = server_config(session_ticket_wrapper=wrapper, next_protos=["p"])
    client = client_config(next_protos=["p"])
    session = first_session(server, client)
    assert session.ticket in wrapper.kept
    state = wrapper.wrapped[0]
    assert isinstance(state, tls.ConnectionState)
    assert (state.version, state.cipher_suite[:4]) == ("TLSv1.3", "TLS_")
    assert (state.server_name, state.alpn) == ("localhost", "p")
    assert resume(server, session, client).resumed
    (hello,) = wrapper.unwrapped
    assert isinstance(hello, tls.ClientHelloInfo)
    assert hello.server_name == "localhost"
    wrapper.kept.clear()
    assert not resume(server, session, client).resumed


def test_a_clone_shares_what_its_wrapper_shares():
    wrapper = Wrapper()
    server = server_config(session_ticket_wrapper=wrapper)
    session = first_session(server)
    clone = server.clone(client_auth=tls.ClientAuth.NONE)
    assert wrapper.clones == 1
    assert clone.session_ticket_wrapper is wrapper
    assert resume(clone, session).resumed
    own = server_config()
    assert not resume(own.clone(), first_session(own)).resumed


def test_a_wrapper_that_fails_costs_the_ticket_alone(caplog):
    class Failing(Wrapper):
        def wrap(self, state, content):
            if fail:
                raise RuntimeError("no wrapping today")
            return super().wrap(state, content)

        def unwrap(self, hello, ticket):
            raise RuntimeError("no unwrapping at all")

    fail = False
    server = server_config(session_ticket_wrapper=Failing())
    session = first_session(server)
    assert not resume(server, session).resumed
    assert "unwrap failed" in caplog.text
    fail = True
    with connected(server=server) as (client, conn):
        conn.write(b"x")
        assert client.read() == b"x"
        assert client.session is None
    assert "wrap failed" in caplog.text


# --- early data

EARLY = b"GET / HTTP/1.1\r\n\r\n"


@pytest.fixture
def early():
    """(server configuration, session): early data is taken."""
    server = server_config(accept_early_data=True)
    return server, first_session(server)


def test_early_data_is_read_before_it_is_confirmed(early):
    server, session = early
    with sockets() as stack:
        it = Resumed(stack, server, session, early_data=EARLY)
        it.client._queue_output()
        it.client._flush(wait=True)  # the ClientHello and the early data; the client then says no more
        assert it.server.read() == EARLY
        state = it.server.connection_state()
        assert state.handshake_complete and state.resumed and state.early_data_used
        assert not state.handshake_confirmed
        assert len(state.fingerprint) == 64
        it.server.write(b"an early answer")
        confirm = Thread(it.server.confirm_handshake)
        time.sleep(0.05)
        assert confirm.is_alive(), "it waits for the client's Finished"
        assert it.client.read() == b"an early answer"
        confirm.finish()
        assert it.server.connection_state().handshake_confirmed
        assert it.client.connection_state().early_data_used
        it.client.write(b"later")
        assert it.server.read() == b"later"


def test_confirmation_keeps_what_comes_on_the_way(early):
    server, session = early
    with sockets() as stack:
        it = Resumed(stack, server, session, early_data=EARLY)
        thread = Thread(it.client.handshake)
        it.server.confirm_handshake()
        thread.finish()
        assert it.server.connection_state().handshake_confirmed
        assert it.server.pending() == len(EARLY)
        assert it.server.read() == EARLY


def test_confirmation_does_not_wait_for_a_readers_data(early):
    """A reader that is waiting for data, and has nothing to give, must not keep who waits for the Finished alone."""
    server, session = early
    with sockets() as stack:
        it = Resumed(stack, server, session, early_data=EARLY)
        it.client._queue_output()
        it.client._flush(wait=True)
        assert it.server.read() == EARLY
        reader = Thread(it.server.read)
        time.sleep(0.05)
        confirm = Thread(it.server.confirm_handshake)
        time.sleep(0.05)
        assert confirm.is_alive() and reader.is_alive()
        it.client.handshake()
        confirm.finish()
        assert reader.is_alive(), "it goes on waiting for data"
        it.client.write(b"data")
        assert reader.finish() == b"data"


def test_nothing_is_early_on_a_full_handshake():
    with connected(server=server_config(accept_early_data=True)) as (_, server):
        state = server.connection_state()
        assert state.handshake_confirmed and not state.early_data_used
        server.confirm_handshake()


def test_a_replay_is_not_taken_early(early):
    server, session = early
    with sockets() as stack:
        it = Resumed(stack, server, session, early_data=EARLY)
        it.client._queue_output()
        first_flight = b"".join(it.client._outgoing)
        it.client._flush(wait=True)
        assert it.server.read() == EARLY
    with sockets() as (a, b):
        a.sendall(first_flight)
        replayed = tls.server(b, server)
        thread = Thread(replayed.read)
        time.sleep(0.1)
        assert thread.is_alive(), "it waits for a Finished that cannot come"
        assert not replayed.connection_state().early_data_used
        a.close()
        with pytest.raises((tls.TlsError, OSError)):
            thread.finish()


@pytest.mark.parametrize("reason", ["not accepted", "too much", "another configuration"])
def test_refused_early_data_is_the_callers_to_send_again(early, reason):
    server, session = early
    early_data = EARLY
    if reason == "not accepted":
        wrapper = server._made["tickets"]
        server = dataclasses.replace(server, accept_early_data=False)
        server._made["tickets"].sealer.replace(wrapper._keys)
    elif reason == "too much":
        early_data = bytes(20_000)
    else:
        server = server_config(accept_early_data=True)
    with sockets() as stack:
        it = Resumed(stack, server, session, early_data=early_data)
        thread = Thread(it.server.handshake)
        it.client.handshake()
        thread.finish()
        assert not it.client.connection_state().early_data_used
        assert not it.server.connection_state().early_data_used
        assert it.server.connection_state().handshake_confirmed
        it.client.write(early_data)
        got = b""
        while len(got) < len(early_data):
            got += it.server.read()
        assert got == early_data


def test_all_that_is_allowed_is_taken(early):
    server, session = early
    with sockets() as stack:
        it = Resumed(stack, server, session, early_data=EARLY)
        it.client._connection.send(bytes(session.max_early_data - len(EARLY)))
        it.client._queue_output()
        it.client._flush(wait=True)
        got = b""
        while len(got) < session.max_early_data:
            got += it.server.read()
        with pytest.raises(ValueError):  # the client's own count forbids more
            it.client._connection.send(b"x")
    assert len(got) == session.max_early_data == 14336


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"max_early_data_size": 100}, "accept_early_data"),
        ({"accept_early_data": True, "max_early_data_size": 0}, "out of range"),
        ({"accept_early_data": True, "session_tickets": False}, "session_tickets"),
        ({"accept_early_data": True, "max_version": "1.2"}, "TLS 1.2"),
        ({"session_ticket_wrapper": object()}, "wrap"),
        ({"session_ticket_wrapper": Wrapper(), "session_tickets": False}, "session_tickets"),
    ],
)
def test_a_configuration_is_refused(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        tls.Config(**options)


def around_confirmation(stack, server, session):
    """A reader, two confirmers, a writer and the client, all at once; what the server has read."""
    it = Resumed(stack, server, session, early_data=EARLY)
    start = threading.Barrier(5)
    got = []

    def read():
        start.wait()
        while data := it.server.read():
            got.append(data)

    def confirm():
        start.wait()
        it.server.confirm_handshake()
        assert it.server.connection_state().handshake_confirmed

    threads = [
        Thread(read),
        Thread(confirm),
        Thread(confirm),
        Thread(lambda: (start.wait(), it.server.write(b"answer"))),
        Thread(lambda: (start.wait(), it.client.write(b"late"), it.client.close_write())),
    ]
    for thread in threads:
        thread.finish()
    assert it.client.read() == b"answer"
    return b"".join(got)


def test_many_threads_around_the_confirmation(early):
    server, _ = early
    end = time.monotonic() + 2
    rounds = 0
    while time.monotonic() < end:
        rounds += 1
        session = first_session(server)
        with sockets() as stack:
            assert around_confirmation(stack, server, session) == EARLY + b"late"
    assert rounds > 3
