"""Resumption by tickets: what is resumed, what leads to a full handshake, and what is refused with which alert."""

import os
from typing import ClassVar

import pytest
from cext.tls.config import ClientConfig
from cext.tls.engine import Engine
from cext.tls.session import TicketKeys, WrappedTickets, now, shift_clock
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cext.tls.peer import (
    AES_128,
    AES_256,
    CHACHA20,
    HANDSHAKE,
    P256,
    X25519,
    RawClient,
    assert_refused,
    client_hello,
    credential,
    extension,
    pump,
    record,
    records,
    u16s,
    vector,
)
from tests.cext.tls.resuming import (
    PSK_DHE_KE,
    PSK_KE,
    ResumingClient,
    altered,
    first_session,
    resuming_config,
    secret_of,
)

DAY_MS = 86_400_000


@pytest.fixture(scope="module")
def config():
    return resuming_config(alpn=())


@pytest.fixture(scope="module")
def session(config):
    return first_session(config)


def connect(config, session, **client):
    """(client, server) after whatever came of it."""
    client.setdefault("server_name", "example.com")
    a, b = Engine(ClientConfig(**client), session), Engine(config)
    pump(a, b)
    return a, b


def resumes(config, session, **client):
    a, b = connect(config, session, **client)
    assert a.established and b.established, (a.failure, b.failure)
    assert a.resumed == b.resumed
    a.send(b"ping")
    b.send(b"pong")
    assert [p for _, _, p in pump(a, b) if p] == [b"ping", b"pong"]
    return a.resumed


@pytest.mark.parametrize("suite", [AES_128, AES_256, CHACHA20])
@pytest.mark.parametrize("groups", [(X25519,), (P256,)])
def test_resumes(suite, groups):
    config = resuming_config(cipher_suites=[suite])
    session = first_session(config, alpn=[b"http/1.1"])
    a, b = connect(config, session, alpn=[b"http/1.1"], groups=groups)
    assert a.resumed and b.resumed
    assert a.alpn == b.alpn == b"http/1.1"
    assert a.signature_scheme == b.signature_scheme == 0
    assert a.peer_certificates == session.chain == credential().chain
    assert a.group == b.group == groups[0]


def test_resumes_again_and_again(config, session):
    """Each session comes of the one before; also each of the two tickets is good, and more than once."""
    for _ in range(5):
        a, b = connect(config, session)
        assert a.resumed and b.resumed
        assert a.session.ticket != session.ticket
        session = a.session
        assert resumes(config, session)


def test_resumes_after_a_retry(config, session):
    for share in ((), (P256,)):
        a, b = connect(config, session, groups=(P256, X25519), key_share_groups=share)
        assert a.resumed and a.hello_retried == (share == ())
    other = resuming_config(tickets=config.tickets, alpn=(), groups=[X25519])
    a, b = connect(other, session, groups=(P256, X25519))
    assert a.resumed and b.resumed and a.hello_retried


def test_no_tickets_without_keys_or_count():
    assert first_session(resuming_config(tickets=None)) is None
    assert first_session(resuming_config(ticket_count=0)) is None


@pytest.mark.parametrize("count", range(5))
def test_as_many_tickets_as_configured_then_one(count):
    sealed = []
    wrapped = WrappedTickets(type("Counting", (), {
        "wrap": lambda _, info, content: sealed.append(info) or content, "unwrap": lambda _, hello, ticket: ticket})())
    counting = resuming_config(ticket_count=count, tickets=wrapped)
    session = first_session(counting)
    assert len(sealed) == count
    if count:
        assert resumes(counting, session)
        assert len(sealed) == count + 1


def test_tickets_have_nonces_of_their_own(config):
    """And leave in the flight of our Finished: the client knows them before it has sent its own."""
    a, b = Engine(ClientConfig(server_name="example.com")), Engine(config)
    b.receive_bytes(a.take_output())
    flight = b.take_output()
    a.receive_bytes(flight)
    assert a.session is not None and not b.established
    assert len(records(flight)) == 4    # ServerHello, CCS, the encrypted flight, the tickets


def test_a_client_without_modes_gets_no_ticket(config):
    """"If clients offer [no psk_key_exchange_modes] servers MUST NOT send NewSessionTicket" is what it comes to."""
    client = RawClient(config).connect()
    client.server.send(b"x")
    assert [kind for kind, _ in client.open_output()] == [23]


# What is no session of ours, or not to be resumed: a full handshake.


def test_other_keys(config, session):
    assert not resumes(resuming_config(alpn=()), session)


def test_damaged_tickets(config, session):
    n = len(session.ticket)
    for at in range(0, n, 7):
        bad = bytearray(session.ticket)
        bad[at] ^= 1 << at % 8
        assert not resumes(config, altered(session, ticket=bytes(bad)))
    for ticket in (session.ticket[:-1], session.ticket + b"x", b"x", bytes(n), session.ticket[:16], bytes(4000)):
        assert not resumes(config, altered(session, ticket=ticket))


def test_another_server_name(config, session):
    other = altered(session, server_name=b"a.example.com")
    assert not resumes(config, other, server_name="a.example.com")
    assert not resumes(config, altered(session, server_name=b""), server_name=None)


def test_another_hash(config, session):
    assert session.cipher_suite == AES_128
    assert not resumes(config, session, cipher_suites=[AES_256])
    # The same hash with another cipher will do.
    a, b = connect(config, session, cipher_suites=[CHACHA20])
    assert a.resumed and a.cipher_suite == b.cipher_suite == CHACHA20


@pytest.mark.parametrize("change", [{"version": 0x0303}, {"cipher_suite": 0xC02B}, {"cipher_suite": 0x1304}])
def test_a_ticket_of_no_session_of_this_version(config, session, change):
    state = config.tickets.open(session.ticket)
    assert resumes(config, altered(session, ticket=config.tickets.seal(state)))
    assert not resumes(config, altered(session, ticket=config.tickets.seal({**state, **change})))


def test_a_ticket_ends_with_its_lifetime(config):
    config = resuming_config(tickets=config.tickets, ticket_lifetime=3600)
    session = first_session(config)
    assert session.lifetime == 3600
    shift_clock(3_590_000)
    assert resumes(config, session)
    shift_clock(3_601_000)
    assert session.expired
    forged = altered(session, lifetime=604_800)      # the client thinks it lives on
    assert not forged.expired
    assert not resumes(config, forged)


def test_a_session_ends_seven_days_after_its_full_handshake():
    config = resuming_config(ticket_lifetime=604_800)
    session = first_session(config)
    for day in range(1, 7):
        shift_clock(day * DAY_MS)
        a, _ = connect(config, session)
        assert a.resumed
        session = a.session
        assert session.lifetime <= (7 - day) * 86_400
        assert session.authenticated < now() - (day * DAY_MS - 10_000)
    shift_clock(7 * DAY_MS + 1000)
    assert not resumes(config, altered(session, lifetime=604_800))


def test_a_clock_that_was_set_back(config, session):
    shift_clock(-30_000)
    assert resumes(config, altered(session, created=now()))
    shift_clock(-DAY_MS)
    assert not resumes(config, altered(session, created=now()))


def test_foreign_identities_first(config, session):
    """The first few are looked at: ours may be among them."""
    strangers = [(os.urandom(100), 7) for _ in range(6)]
    ours = (session.ticket, session.age_add)
    client = ResumingClient(config, session)
    client.hello(identities=[*strangers[:3], ours])
    assert client.resumed and u16s(41, 2, 3) in client.flight[0][1]
    client.finish()
    assert client.server.established
    client = ResumingClient(config, session).hello(identities=[*strangers[:4], ours])
    assert not client.resumed, "beyond those that are tried"
    client.finish()
    assert client.server.established


def test_modes(config, session):
    assert not ResumingClient(config, session).hello(modes=(PSK_KE,)).resumed
    assert not ResumingClient(config, session).hello(modes=(7,)).resumed
    assert ResumingClient(config, session).hello(modes=(PSK_KE, PSK_DHE_KE)).resumed


def test_psk_ke_where_it_is_allowed(config, session):
    plain = resuming_config(tickets=config.tickets, alpn=(), psk_ke=True)
    client = ResumingClient(plain, session).hello(modes=(PSK_KE,))
    assert client.resumed and client.shared is None
    client.finish()
    assert client.server.established and client.server.group == 0
    # It needs neither groups nor a share (section 9.2), nor signature algorithms.
    client = ResumingClient(plain, session).hello(modes=(PSK_KE,), omit=(10, 13, 51))
    assert client.resumed
    # With a choice there is a key exchange.
    assert ResumingClient(plain, session).hello(modes=(PSK_KE, PSK_DHE_KE)).shared is not None


def test_a_resumed_session_needs_no_signature_algorithms(config, session):
    client = ResumingClient(config, session).hello(omit=(13,))
    assert client.resumed
    client.finish()
    assert client.server.established


@pytest.mark.parametrize("omit", [(13,), (10, 51)])
def test_a_full_handshake_needs_what_a_psk_does_not(config, session, omit):
    client = ResumingClient(config, altered(session, ticket=b"foreign")).hello(omit=omit)
    assert_refused(client, client.events, "missing_extension")


def test_require_sni_holds_for_resumption(config, session):
    """A ticket of a time when any name would do."""
    nameless = first_session(config, server_name=None)
    strict = resuming_config(tickets=config.tickets, alpn=(), require_sni=True)
    assert resumes(strict, session)
    _, b = connect(strict, nameless, server_name=None)
    assert b.failure.name == "missing_extension"


def test_a_wrapper_takes_the_place_of_keys():
    class Wrapper:
        hellos: ClassVar[list] = []

        def wrap(self, info, content):
            assert info == {"version": 0x0304, "cipher_suite": AES_128, "server_name": b"example.com", "alpn": b""}
            return b"W" + content

        def unwrap(self, hello, ticket):
            self.hellos.append(hello)
            return ticket[1:] if ticket[:1] == b"W" else None

    config = resuming_config(tickets=WrappedTickets(Wrapper()), alpn=())
    session = first_session(config)
    assert session.ticket[:1] == b"W"
    assert resumes(config, session)
    assert Wrapper.hellos[0][0] == 1 and session.ticket in Wrapper.hellos[0]
    assert not resumes(config, altered(session, ticket=b"X"))
    assert not resumes(config, altered(session, ticket=b"Wrong"))


@pytest.mark.parametrize("skew", [-5000, 5000, 0])
def test_the_skew_of_the_ticket_age(config, session, skew):
    shift_clock(10_000)
    client = ResumingClient(config, session).hello(age=now() - session.received + skew)
    shift_clock(0)
    assert client.resumed
    client.finish()
    assert skew - 500 < client.server.ticket_age_skew <= skew


# What is refused.


@pytest.mark.parametrize("options", [
    {"alter_binder": 1}, {"alter_binder": 0x80}, {"binder": bytes(32)}, {"binder": bytes(33)}, {"binder": bytes(48)},
    {"binder": bytes(31)}, {"binder": b"\0"},
])
def test_a_wrong_binder(config, session, options):
    client = ResumingClient(config, session).hello(**options)
    assert_refused(client, client.events, "decrypt_error")


def test_a_binder_of_another_secret(config, session):
    client = ResumingClient(config, altered(session, secret=bytes(32))).hello()
    assert_refused(client, client.events, "decrypt_error")


def test_a_short_binder_of_a_psk_that_is_not_selected(config, session):
    """As of a client that offers a session of TLS 1.2: a full handshake."""
    client = ResumingClient(config, session).hello(identities=[(b"unknown", 0)], binder=bytes(12))
    assert not client.resumed
    assert client.server.failure is None


def test_a_binder_covers_the_whole_hello(config, session):
    """Any bit of the ClientHello in front of the binders: refused, or at least not resumed."""
    for at in range(6, 200, 5):
        client = ResumingClient(config, session)
        hello = bytearray(client.psk_hello())
        hello[at] ^= 1
        client.send(record(HANDSHAKE, bytes(hello), 0x0301))
        assert client.server.failure or extension(41, u16s(0)) not in client.server.take_output()


@pytest.mark.parametrize(("options", "alert"), [
    ({"modes": None}, "missing_extension"),
    ({"modes": ()}, "decode_error"),
    ({"binders": 2}, "illegal_parameter"),
    ({"binders": 0}, "decode_error"),
    ({"binder": b""}, "decode_error"),
    ({"identities": [(b"", 0)]}, "decode_error"),
    ({"after": [extension(0x7777)]}, "illegal_parameter"),
])
def test_malformed_offers(config, session, options, alert):
    client = ResumingClient(config, session).hello(**options)
    assert_refused(client, client.events, alert)


@pytest.mark.parametrize("body", [
    b"", b"\0", vector(2, b""), vector(2, vector(2, b"x") + bytes(4)), vector(2, vector(2, b"x") + bytes(3)) + b"\0\0",
    vector(2, vector(2, b"x") + bytes(4)) + vector(2, b""), vector(2, vector(2, b"x") + bytes(4)) + vector(2, b"\x21"),
    vector(2, vector(2, b"x") + bytes(4)) + vector(2, vector(1, bytes(32))) + b"\0",
])
def test_malformed_extensions(config, session, body):
    client = RawClient(config)
    hello = client_hello(**client.hello_options, extra=[extension(45, b"\1\1"), extension(41, body)])
    assert_refused(client, client.send(record(HANDSHAKE, hello)), "decode_error")


def test_a_wrong_finished(config, session):
    client = ResumingClient(config, session).hello()
    finished = client.finished()
    events = client.finish(finished[:-1] + bytes([finished[-1] ^ 1]))
    assert_refused(client, events, "decrypt_error")


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=400))
def test_any_ticket_leads_to_a_handshake(ticket):
    config = resuming_config(alpn=())
    session = first_session(config)
    assert not resumes(config, altered(session, ticket=ticket or b"x"))


# The client's side.


def test_a_client_offers_only_what_fits(config, session):
    def offers(session, **client):
        client.setdefault("server_name", "example.com")
        return session.ticket in Engine(ClientConfig(**client), session).take_output()

    assert offers(session)
    assert not offers(session, server_name="other.example.com")
    assert not offers(session, cipher_suites=[AES_256])
    assert not offers(altered(session, created=1))
    assert not offers(altered(session, version=0x0303))
    assert not offers(session, verify=lambda chain, name: None), "never verified"


def test_a_verified_session_may_be_offered(config):
    checked = []
    verify = {"verify": lambda chain, name: checked.append(name)}
    session = first_session(config, **verify)
    assert session.verified and checked == [b"example.com"]
    assert resumes(config, session, **verify)
    assert checked == [b"example.com"]


def test_the_configuration_may_hold_the_session(config, session):
    a, b = Engine(ClientConfig(server_name="example.com", session=session)), Engine(config)
    pump(a, b)
    assert a.resumed


def test_a_server_that_selects_what_was_not_offered(config, session):
    """Its ServerHello is altered on the way: selected_identity 1; and a PSK for a client that offered none."""
    a, b = Engine(ClientConfig(server_name="example.com"), session), Engine(config)
    b.receive_bytes(a.take_output())
    flight = bytearray(b.take_output())
    flight[flight.index(extension(41, u16s(0))) + 5] = 1
    a.receive_bytes(flight)
    assert a.failure.name == "illegal_parameter"

    a, b = Engine(ClientConfig(server_name="example.com")), Engine(config)
    b.receive_bytes(a.take_output())
    first = records(b.take_output())[0][1]
    hello = bytearray(first[5:])
    at = 4 + 2 + 32 + 1 + 32 + 2 + 1
    extensions = hello[at + 2 :] + extension(41, u16s(0))
    hello = hello[:1] + vector(3, hello[4:at] + vector(2, extensions))
    a.receive_bytes(record(HANDSHAKE, hello))
    assert a.failure.name == "unsupported_extension"


def test_a_suite_of_another_hash_than_the_psk(config, session):
    a, b = Engine(ClientConfig(server_name="example.com"), session), Engine(config)
    b.receive_bytes(a.take_output())
    flight = bytearray(b.take_output())
    at = flight.index(u16s(AES_128), 5 + 4 + 34 + 33)
    flight[at : at + 2] = u16s(AES_256)
    a.receive_bytes(flight)
    assert a.failure.name == "illegal_parameter"


def test_secrets_of_tickets_differ():
    config = resuming_config()
    one, other = first_session(config), first_session(config)
    assert secret_of(one) != secret_of(other)


def test_keys_that_rotate(config):
    keys = TicketKeys([(b"a" * 16, os.urandom(32))])
    config = resuming_config(tickets=keys)
    session = first_session(config)
    keys.replace([(b"b" * 16, os.urandom(32)), (b"a" * 16, os.urandom(32))])
    assert not resumes(config, session), "the name is known, the key is another"
