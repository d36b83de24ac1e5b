"""A real server and a client that breaks the rules at every point of a handshake and after it.

The RFC's alert comes, the connection is closed, the log tells the cause once, and a neighbour's connection goes on.
"""

import contextlib
import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from cext.tls.config import ClientConfig
from cext.tls.engine import Engine

from tests.cext.tls.peer import (
    ALERT,
    ALERTS,
    APPLICATION_DATA,
    CCS_RECORD,
    HANDSHAKE,
    RawClient,
    client_hello,
    message,
    record,
    records,
    vector,
)
from tests.cext.tls.peer12 import RawClient12
from tests.cext.tls.resuming import ResumingClient, altered
from tests.cext.tls.test_connection import update_write_keys
from tests.e2e.client import Client
from tests.e2e.server import Edge
from tests.e2e.test_malformed import Unharmed, exposed  # noqa: F401 - a fixture

NAME = "edge.test"
GET = b"GET /ok HTTP/1.1\r\nHost: edge.test\r\n\r\n"
EARLY_MAX = 2048
FINISHED_MESSAGE = 20


class Remote:
    """Stands where the raw clients expect a Connection: the server is another process, behind a socket."""

    established, failure, write_open = True, None, True

    def __init__(self, edge):
        self.sock = socket.create_connection(("127.0.0.1", edge.port), timeout=10)
        self.port = self.sock.getsockname()[1]

    def receive_bytes(self, data):
        with contextlib.suppress(OSError):  # it has had enough, as its alert tells
            self.sock.sendall(data)
        return []

    def take_output(self):
        """A flight of whole records: up to a pause, or to the end."""
        said = b""
        self.sock.settimeout(10)
        while True:
            try:
                data = self.sock.recv(65536)
            except TimeoutError:
                if said and whole(said):
                    return said
                continue
            except ConnectionResetError:
                return said
            if not data:
                return said
            said += data
            self.sock.settimeout(0.05)

    def rest(self):
        """All that comes until the server closes the connection."""
        self.sock.settimeout(10)
        said = b""
        try:
            while data := self.sock.recv(65536):
                said += data
        except ConnectionResetError:
            pass
        self.sock.close()
        return said


def whole(stream):
    while len(stream) >= 5:
        stream = stream[5 + int.from_bytes(stream[3:5], "big") :]
    return not stream


def reach(edge, client):
    client.server = Remote(edge)
    return client


def raw(edge, **options):
    return reach(edge, RawClient(name=NAME, **options))


def shaken(edge):
    """After the server's flight: it waits for our Finished."""
    return raw(edge).hello()


def connected(edge):
    client = shaken(edge)
    client.finish()
    return client


def begun12(edge):
    client = reach(edge, RawClient12())
    return client.hello(name=NAME)


def connected12(edge):
    client = begun12(edge)
    client.key_exchange()
    client.ccs()
    client.finish()
    client.take_flight()
    return client


def alert_of(client):
    """The alert that ends the server's words; what comes before it, tickets for instance, is passed over."""
    found = None
    for outer, one in records(client.server.rest()):
        plain = outer == ALERT and len(one) == 5 + 2
        kind, content = (outer, one[5:]) if plain else client.read.unprotect(one)
        if kind == ALERT:
            assert found is None, "one alert, and nothing after it"
            found = content
    assert found and found[0] == 2, "a fatal alert"
    return found[1]


def send(client, content, kind=HANDSHAKE):
    client.send(client.write.protect(content, kind))


def flood(client, content, kind, n):
    client.send(b"".join(client.write.protect(content, kind) for _ in range(n)))


def split(content, n):
    return b"".join(record(HANDSHAKE, content[i : i + n]) for i in range(0, len(content), n))


# What a client does, the alert for it, and what the log says of it.
# Of TLS 1.3: before the handshake is over, under its keys.
HANDSHAKING = {
    "another Finished": (lambda c: send(c, message(20, bytes(32))), "decrypt_error"),
    "a Finished too short": (lambda c: send(c, message(20, bytes(31))), "decrypt_error"),
    "a Finished too long": (lambda c: send(c, message(20, bytes(33))), "decrypt_error"),
    "an oversized message": (lambda c: send(c, b"\x14\xff\xff\xff" + bytes(100)), "illegal_parameter"),
    "a second ClientHello": (lambda c: send(c, client_hello(share=c.share)), "unexpected_message"),
    "a plaintext ClientHello": (
        lambda c: c.send(record(HANDSHAKE, client_hello(share=c.share))),
        "unexpected_message",
    ),
    "a Certificate nobody asked for": (lambda c: send(c, message(11, bytes(4))), "unexpected_message"),
    "a KeyUpdate before the Finished": (lambda c: send(c, message(24, b"\0")), "unexpected_message"),
    "data before the Finished": (lambda c: send(c, GET, APPLICATION_DATA), "unexpected_message"),
    "an unknown message": (lambda c: send(c, message(99, b"x")), "unexpected_message"),
    "an empty handshake record": (lambda c: send(c, b""), "unexpected_message"),
    "a record without content type": (lambda c: c.send(c.write.protect(b"", 0)), "unexpected_message"),
    "a message and data within it": (
        lambda c: (send(c, message(20, bytes(32))[:9]), send(c, GET, APPLICATION_DATA)),
        "unexpected_message",
    ),
    "change_cipher_spec over and over": (lambda c: c.send(CCS_RECORD * 64), "unexpected_message"),
    "a damaged record": (
        lambda c: c.send(c.write.protect(c.finished(), HANDSHAKE)[:-1] + b"?"),
        "bad_record_mac",
    ),
}
# After it.
AFTERWARDS = {
    "a second Finished": (lambda c: send(c, message(20, bytes(32))), "unexpected_message"),
    "a ClientHello": (lambda c: send(c, client_hello(share=c.share)), "unexpected_message"),
    "a NewSessionTicket": (lambda c: send(c, message(4, bytes(40))), "unexpected_message"),
    "a KeyUpdate of a third kind": (lambda c: send(c, message(24, b"\2")), "illegal_parameter"),
    "a KeyUpdate and more in its record": (lambda c: send(c, message(24, b"\0") + b"\x18"), "unexpected_message"),
    "a truncated KeyUpdate": (lambda c: send(c, message(24)), "decode_error"),
    "an oversized message": (lambda c: send(c, b"\x18\xff\xff\xff"), "decode_error"),
    "empty records": (lambda c: flood(c, b"", APPLICATION_DATA, 1000), "unexpected_message"),
    "warnings": (lambda c: flood(c, b"\1\x5a", ALERT, 100), "unexpected_message"),
    "plaintext": (lambda c: c.send(record(APPLICATION_DATA, GET)), "bad_record_mac"),
    "a record twice": (lambda c: c.send(c.seal(GET) * 2), "bad_record_mac"),
    "records in another order": (lambda c: (c.seal(GET), c.send(c.seal(GET))), "bad_record_mac"),
    "a record too long": (lambda c: c.send(b"\x17\3\3\x41\x01" + bytes(0x4101)), "record_overflow"),
    "a change_cipher_spec": (lambda c: c.send(CCS_RECORD), "unexpected_message"),
}
# Of TLS 1.2: after the server's first flight.
HANDSHAKING12 = {
    "no point": (lambda c: c.say(message(16, b"\0")), "decode_error"),
    "a point of another length": (lambda c: c.say(message(16, vector(1, bytes(31)))), "illegal_parameter"),
    "a second ClientHello": (lambda c: c.say(c.client_hello(name=NAME)), "unexpected_message"),
    "a Finished at once": (lambda c: c.say(message(20, bytes(12))), "unexpected_message"),
    "a key exchange too many": (lambda c: (c.key_exchange(), c.key_exchange()), "unexpected_message"),
    "an oversized message": (lambda c: c.send(record(HANDSHAKE, b"\x10\xff\xff\xff")), "illegal_parameter"),
    "change_cipher_spec at once": (lambda c: c.send(CCS_RECORD), "unexpected_message"),
    "another Finished": (
        lambda c: (c.key_exchange(), c.ccs(), c.say(message(20, bytes(12)))),
        "decrypt_error",
    ),
    "a Finished too short": (
        lambda c: (c.key_exchange(), c.ccs(), c.say(message(20, bytes(11)))),
        "decrypt_error",
    ),
    "data instead of Finished": (lambda c: (c.key_exchange(), c.ccs(), send(c, GET, 23)), "unexpected_message"),
}
AFTERWARDS12 = {
    "a renegotiation": (lambda c: c.say(c.client_hello(name=NAME)), "no_renegotiation"),
    "a second Finished": (lambda c: c.say(message(20, bytes(12))), "unexpected_message"),
    "empty records": (lambda c: flood(c, b"", APPLICATION_DATA, 1000), "unexpected_message"),
    "warnings": (lambda c: flood(c, b"\1\x5a", ALERT, 100), "unexpected_message"),
    "a record twice": (lambda c: c.send(c.write.protect(GET, 23) * 2), "bad_record_mac"),
    "a KeyUpdate": (lambda c: send(c, message(24, b"\0")), "unexpected_message"),
}
NUMBERS = {**ALERTS, "no_renegotiation": 100}


def cases():
    for reach_state, table in (
        (shaken, HANDSHAKING), (connected, AFTERWARDS), (begun12, HANDSHAKING12), (connected12, AFTERWARDS12),
    ):  # fmt: skip
        for what, (act, name) in table.items():
            yield pytest.param(reach_state, act, name, id=f"{reach_state.__name__}: {what}")


@pytest.fixture(scope="module")
def neighbour(exposed):  # noqa: F811
    """A connection that lives as long as the module's tests."""
    with Client(exposed) as client:
        yield client


def assert_refused(edge, client, name, since):
    """Our last word, the end, and one line in the log."""
    port = client.server.port
    assert alert_of(client) == NUMBERS[name]
    assert_logged_once(edge, port, name, since)


def assert_logged_once(edge, port, name, since):
    pattern = rf"127\.0\.0\.1:{port}\b.*: {name}"
    edge.wait_error(pattern, since)
    told = [said for _, said in edge.errors(since) if re.search(rf":{port}\b", said)]
    assert len(told) == 1, told
    assert re.search(pattern + r".*\S", told[0])


@pytest.mark.parametrize(("state", "act", "name"), list(cases()))
def test_a_fault(exposed, neighbour, state, act, name):  # noqa: F811
    since = exposed.mark()
    client = state(exposed)
    if state is shaken:  # an alert that comes now is under the application keys, as the server's Finished has gone out
        follow(client)
    act(client)
    assert_refused(exposed, client, name, since)
    assert neighbour.get("/ok").status == 200


def follow(client):
    """The server's keys after its Finished, while ours are still those of the handshake."""
    finished, write = client.finished(), client.write
    client.use_application_keys()
    client.write, client.finished = write, lambda: finished


def test_key_updates_without_end(exposed, neighbour):  # noqa: F811
    since = exposed.mark()
    client = connected(exposed)
    sealed = b""
    for _ in range(200):
        sealed += client.seal(message(24, b"\0"), HANDSHAKE)
        update_write_keys(client)
    client.send(sealed)
    assert_refused(exposed, client, "unexpected_message", since)
    assert neighbour.get("/ok").status == 200


def test_key_updates_that_ask_for_ours_are_bounded_and_answered_once(exposed, neighbour):  # noqa: F811
    client = connected(exposed)
    sealed = b""
    for _ in range(20):
        sealed += client.seal(message(24, b"\1"), HANDSHAKE)
        update_write_keys(client)
    client.send(sealed + client.seal(GET))
    said = [kind_of(client, one) for _, one in records(client.server.take_output())]
    assert said.count("KeyUpdate") == 1, said
    assert neighbour.get("/ok").status == 200


def kind_of(client, one):
    """The message in a record; after a KeyUpdate its keys are new ones, which this does not follow."""
    try:
        kind, content = client.read.unprotect(one)
    except ValueError:
        return "under new keys"
    return "KeyUpdate" if kind == HANDSHAKE and content[0] == 24 else kind


def test_nobody_was_harmed(exposed):  # noqa: F811
    """The faults again, all of them, with the server's memory and descriptors in view."""

    def play(case):
        state, act, _ = case.values
        client = state(exposed)
        act(client)
        client.server.rest()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(play, cases()))  # whatever the first of a kind needs
        with Unharmed(exposed):
            list(pool.map(play, [case for _ in range(4) for case in cases()]))


# --- tickets and early data


@pytest.fixture(scope="module")
def resuming(tmp_path_factory, pki, nginx):
    tls = {"early_data": {"max_bytes": f"{EARLY_MAX}B", "window": "10s"}}
    with Edge(tmp_path_factory.mktemp("resuming"), pki, {"nginx": [nginx.server]}, tls=tls) as edge:
        yield edge


def session_of(edge):
    engine = Engine(ClientConfig(server_name=NAME, alpn=[], cipher_suites=(0x1301,)))
    remote = Remote(edge)
    while engine.session is None:
        remote.receive_bytes(engine.take_output())
        engine.receive_bytes(remote.sock.recv(65536))
        assert engine.failure is None
    remote.sock.close()
    return engine.session


def resumer(edge, session):
    return reach(edge, ResumingClient(None, session, name=NAME))


@pytest.mark.parametrize("options", [{"alter_binder": 1}, {"binder": bytes(32)}, {"binder": bytes(48)}])
def test_a_wrong_binder(resuming, options):
    since = resuming.mark()
    client = resumer(resuming, session_of(resuming))
    client.send(record(HANDSHAKE, client.psk_hello(**options), 0x0301))
    assert_refused(resuming, client, "decrypt_error", since)


def test_a_binder_of_another_session(resuming):
    since = resuming.mark()
    client = resumer(resuming, altered(session_of(resuming), secret=bytes(32)))
    client.send(record(HANDSHAKE, client.psk_hello(), 0x0301))
    assert_refused(resuming, client, "decrypt_error", since)


@pytest.mark.parametrize("damage", ["foreign", "cut", "empty of sense"])
def test_a_ticket_that_is_no_ticket_of_ours_costs_a_full_handshake(resuming, damage):
    since = resuming.mark()
    session = session_of(resuming)
    ticket = {"foreign": bytes(len(session.ticket)), "cut": session.ticket[:-1], "empty of sense": b"?"}[damage]
    client = resumer(resuming, altered(session, ticket=ticket))
    client.hello()
    assert not client.resumed
    client.finish()
    client.send(client.seal(GET.replace(b"/ok", b"/1k")))
    assert b"HTTP/1.1 200" in b"".join(client.read.unprotect(one)[1] for _, one in records(answer(client)))
    client.server.sock.close()
    assert not [said for _, said in resuming.errors(since) if f":{client.server.port}" in said]


def answer(client):
    """What follows our Finished: tickets, if they were not part of the first flight, and the response."""
    said = client.server.take_output()
    return said if len(records(said)) > 2 or len(said) > 1000 else said + client.server.take_output()


def test_a_stale_ticket_costs_a_full_handshake(make_edge, nginx):
    edge = make_edge({"nginx": [nginx.server]}, tls={"tickets": {"lifetime": "1s"}})
    session = session_of(edge)
    client = resumer(edge, session)
    client.hello()
    assert client.resumed
    time.sleep(1.1)
    client = resumer(edge, session)
    client.hello()
    assert not client.resumed


def test_early_data_over_the_limit(resuming):
    since = resuming.mark()
    client = resumer(resuming, session_of(resuming))
    client.hello(early=True)
    assert client.early_accepted
    follow(client)
    client.send_early(bytes(EARLY_MAX))
    client.send_early(b"x")
    assert_refused(resuming, client, "unexpected_message", since)


def test_rejected_early_data_over_the_limit(resuming):
    """It is passed over, within the ticket's limit and the records' overhead."""
    since = resuming.mark()
    session = session_of(resuming)
    client = resumer(resuming, session)
    client.hello(early=True, age=3_600_000)  # outside the window
    assert client.resumed
    assert not client.early_accepted
    follow(client)
    client.send(b"".join(client.early.protect(bytes(4000), APPLICATION_DATA) for _ in range(10)))
    assert_refused(resuming, client, "unexpected_message", since)


def test_early_data_that_never_ends(resuming):
    since = resuming.mark()
    client = resumer(resuming, session_of(resuming))
    client.hello(early=True)
    follow(client)
    client.send_early(b"GET / HTTP/1.1\r\n")
    send(client, message(FINISHED_MESSAGE, bytes(32)))  # without EndOfEarlyData: under keys that are not due yet
    assert_refused(resuming, client, "bad_record_mac", since)
