"""Early data: read once, bounded, passed over where it is not taken, and never mistaken for what came later."""

import os

import pytest
from cext.tls.config import ClientConfig, ServerConfig
from cext.tls.engine import (
    ACCEPTED,
    DATA,
    DISCARDING,
    ESTABLISHED,
    FAILED,
    NO_EARLY_DATA,
    OFFERED,
    PROGRESS,
    READING,
    REJECTED,
    Engine,
)
from cext.tls.psk import REFUSAL_NAMES
from cext.tls.record import RecordKeys
from cext.tls.replay import ReplayRegister, SharedRegister
from cext.tls.session import TicketKeys, now, shift_clock
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cext.tls.peer import (
    AES_128,
    AES_256,
    APPLICATION_DATA,
    CCS_RECORD,
    CHACHA20,
    HANDSHAKE,
    P256,
    X25519,
    assert_refused,
    credential,
    message,
    pump,
    record,
)
from tests.cext.tls.resuming import (
    END_OF_EARLY_DATA,
    LIMIT,
    ResumingClient,
    again,
    altered,
    first_session,
    resuming_config,
)


@pytest.fixture
def config():
    return resuming_config(alpn=(), max_early_data=LIMIT)


@pytest.fixture
def session(config):
    return first_session(config)


def early(config, session, data=b"early", **client):
    """(client, server, what the server read) with the data written before anything is carried."""
    client.setdefault("server_name", "example.com")
    a, b = Engine(ClientConfig(early_data=True, **client), session), Engine(config)
    if data:
        assert a.early_data_state == OFFERED and a.write_open
        a.send(data)
    events = pump(a, b)
    return a, b, b"".join(payload for side, event, payload in events if side == "b" and event == DATA)


def taken(config, session, **client):
    a, b, read = early(config, session, **client)
    assert a.established and b.established, (a.failure, b.failure)
    assert a.early_data_state == b.early_data_state
    assert (read == b"early") == (b.early_data_state == ACCEPTED)
    a.send(b"late")
    assert (DATA, b"late") in [event[1:] for event in pump(a, b)]
    return b.early_data_state == ACCEPTED


# The way of accepted data.


@pytest.mark.parametrize("suite", [AES_128, AES_256, CHACHA20])
def test_accepted(suite):
    config = resuming_config(alpn=[b"h2", b"http/1.1"], max_early_data=LIMIT, cipher_suites=[suite])
    session = first_session(config, alpn=[b"http/1.1"])
    assert session.max_early_data == LIMIT
    assert taken(config, session, alpn=[b"http/1.1"])


def test_the_states_of_the_server(config, session):
    """Reading early data; waiting for the client's Finished; confirmed. What is read before that is marked."""
    client = ResumingClient(config, session)
    assert client.server.early_data_state == NO_EARLY_DATA
    client.hello(early=True)
    server = client.server
    assert client.early_accepted
    assert (server.early_data_state, server.handshake_confirmed, server.early_data_left) == (READING, False, LIMIT)
    assert client.send_early(b"GET /") == [(DATA, b"GET /")]
    assert client.send_early(b" HTTP") == [(DATA, b" HTTP")]
    assert (server.early_data_state, server.early_data_left) == (READING, LIMIT - 10)
    assert client.end_early_data() == [(PROGRESS, b"")]
    assert (server.early_data_state, server.handshake_confirmed) == (ACCEPTED, False)
    assert client.finish() == [(ESTABLISHED, b"")]
    assert (server.early_data_state, server.handshake_confirmed, server.resumed) == (ACCEPTED, True, True)
    assert client.send(client.seal(b"more")) == [(DATA, b"more")]


def test_the_server_may_answer_before_the_client_is_done(config, session):
    client = ResumingClient(config, session).hello(early=True)
    client.send_early(b"ping")
    server = client.server
    assert server.write_open and not server.established
    assert (server.version, server.alpn, server.server_name) == (0x0304, b"", b"example.com")
    server.send(b"half an RTT")
    half = server.take_output()
    client.end_early_data()
    client.finish()
    assert client.read.unprotect(half) == (APPLICATION_DATA, b"half an RTT")
    server.send(b"afterwards")
    assert client.open_output() == [(APPLICATION_DATA, b"afterwards")]


def test_a_server_does_not_write_early_otherwise(config, session):
    for options in ({}, {"alter_binder": 0, "early": False}):
        client = ResumingClient(config, session).hello(**options)
        assert not client.server.write_open
        with pytest.raises(ValueError):
            client.server.send(b"x")


def test_nothing_but_the_end(config, session):
    """Early data may be empty."""
    client = ResumingClient(config, session).hello(early=True)
    client.end_early_data()
    client.finish()
    assert client.server.established and client.server.early_data_state == ACCEPTED


def test_middlebox_compatibility_and_any_pieces(config, session):
    client = ResumingClient(config, session)
    hello = client.psk_hello(early=True, session_id=b"s" * 32)
    client.transcript.add(hello)
    client.send(record(HANDSHAKE, hello, 0x0301))
    secret = client.early_schedule.derive("c e traffic", client.transcript.digest())
    client.early = RecordKeys(client.hash, client.aead, secret, True)
    client.take_flight()
    stream = CCS_RECORD + client.early.protect(b"a" * 100, APPLICATION_DATA, 50) + client.early.protect(b"b", 23)
    events = [event for byte in stream for event in client.send(bytes([byte]))]
    assert [payload for event, payload in events if event == DATA] == [b"a" * 100, b"b"]
    client.end_early_data()
    client.finish()
    assert client.server.established


def test_the_fingerprint_tells_connections_apart_and_not_a_replay(config, session):
    seen = set()
    for _ in range(3):
        client = ResumingClient(again(config, replay=SharedRegister()), first_session(config))
        client.hello()
        assert client.server.fingerprint == b""
    for _ in range(3):
        client = ResumingClient(config, session).hello(early=True)
        client.end_early_data()
        client.finish()
        assert client.server.fingerprint not in seen
        seen.add(client.server.fingerprint)
    assert all(len(f) == 64 and int(f, 16) for f in seen)


# What decides whether it is accepted.


def test_not_by_default():
    config = resuming_config(alpn=())
    session = first_session(config)
    assert session.max_early_data == 0
    assert not taken(config, altered(session, max_early_data=LIMIT))


def test_not_once_it_is_switched_off(config, session):
    assert not taken(again(config, max_early_data=0, replay=None), session)


def test_only_once(config, session):
    """The same bytes again: resumed, for all the server knows, but its early data is passed over."""
    client = ResumingClient(config, session)
    hello = record(HANDSHAKE, client.psk_hello(early=True), 0x0301)
    states = []
    for _ in range(3):
        server = Engine(config)
        server.receive_bytes(hello)
        states.append((server.early_data_state, server.failure))
    assert states == [(READING, None), (DISCARDING, None), (DISCARDING, None)]


def test_once_for_all_that_share_the_register(config, session):
    client = ResumingClient(config, session)
    hello = record(HANDSHAKE, client.psk_hello(early=True), 0x0301)
    first, second = Engine(config), Engine(again(config))
    first.receive_bytes(hello)
    second.receive_bytes(hello)
    assert (first.early_data_state, second.early_data_state) == (READING, DISCARDING)


def test_a_ticket_of_another_register(config, session):
    """Of another host, or of a time before a restart: nobody here knows what has been taken."""
    other = again(config, replay=SharedRegister())
    assert not taken(other, session)
    assert taken(other, first_session(other))


@pytest.mark.parametrize(("late", "accepted"), [(0, True), (9_000, True), (11_000, False), (3_600_000, False)])
def test_the_window(config, session, late, accepted):
    """A ClientHello that was held back: the ticket is older than it says."""
    client = ResumingClient(config, session)
    hello = record(HANDSHAKE, client.psk_hello(early=True), 0x0301)
    shift_clock(late)
    client.send(hello)
    assert (client.server.early_data_state == READING) == accepted


@pytest.mark.parametrize(("age", "accepted"), [(9_000, True), (11_000, False), (2**31, False), (2**32 - 9_000, False)])
def test_an_age_that_is_too_high(config, session, age, accepted):
    client = ResumingClient(config, session).hello(early=True, age=age)
    assert client.early_accepted == accepted and client.resumed


def test_an_old_ticket_is_as_good_as_a_new_one(config, session):
    shift_clock(3_600_000 * 20)
    assert taken(config, session)


def why(server):
    return REFUSAL_NAMES[server.early_data_refusal]


def refusal_of(config, session, **client):
    a, b, read = early(config, session, **client)
    assert b.established and read == b"" and a.early_data_state == REJECTED
    return why(b)


def test_it_is_told_why(config, session):
    assert why(early(config, session)[1]) == "", "taken"
    assert refusal_of(again(config, max_early_data=0, replay=None), session) == "not configured"
    assert refusal_of(again(config, replay=SharedRegister()), session) == "other register"
    assert refusal_of(again(config, groups=[P256]), session, groups=(X25519, P256)) == "hello retry"
    assert refusal_of(again(config, cipher_suites=[CHACHA20]), session) == "other parameters"
    assert refusal_of(again(config, tickets=TicketKeys([(b"m" * 16, bytes(32))])), session) == "not resumed"
    full = SharedRegister(20_000, 16, config.replay.identity)
    while full.enter(os.urandom(32)) or full.enter(os.urandom(32)):
        pass
    assert refusal_of(again(config, replay=full), session) == "register full"
    client = ResumingClient(config, session)
    hello = record(HANDSHAKE, client.psk_hello(early=True), 0x0301)
    for reason in ("", "replayed"):
        server = Engine(config)
        server.receive_bytes(hello)
        assert why(server) == reason
    shift_clock(11_000)
    server = Engine(config)
    server.receive_bytes(hello)
    assert why(server) == "outside window"


# A register that takes another's place.


def successor(config, since):
    return again(config, replay=SharedRegister(20_000, 1024, config.replay.identity, since))


@pytest.mark.parametrize(("after", "accepted"), [(0, False), (9_000, False), (11_000, True)])
def test_tickets_of_before_a_start_wait_for_one_window(config, session, after, accepted):
    later = successor(config, now())
    shift_clock(after)
    if accepted:
        assert taken(later, session)
    else:
        assert refusal_of(later, session) == "just started"


@pytest.mark.parametrize("skew", [-9_500, -5_000, 0, 5_000, 9_500])
def test_what_was_taken_before_a_start_never_is_after_it(config, session, skew):
    """However the client's clock goes, and whenever the ClientHello is sent again."""
    shift_clock(20_000)
    hello = record(HANDSHAKE, ResumingClient(config, session).psk_hello(
        early=True, age=now() - session.received + skew), 0x0301)
    server = Engine(config)
    server.receive_bytes(hello)
    assert server.early_data_state == READING
    later = successor(config, now())
    for after in range(0, 25_000, 500):
        shift_clock(20_000 + after)
        server = Engine(again(later, replay=SharedRegister(20_000, 1024, config.replay.identity, later.replay.since)))
        server.receive_bytes(hello)
        assert why(server) in ("just started", "outside window")


def test_tickets_of_after_a_start_are_good_at_once(config):
    shift_clock(-5)
    later = successor(config, now())
    shift_clock(0)
    assert taken(later, first_session(later))


def test_a_clock_that_is_set_back(config, session):
    """It makes what was taken young again: nothing is taken until the clock has caught up, and a window more."""
    shift_clock(100_000)
    hello = record(HANDSHAKE, ResumingClient(config, session).psk_hello(early=True), 0x0301)
    Engine(config).receive_bytes(hello)
    shift_clock(99_500)
    assert taken(config, session), "a little is what clocks do"
    shift_clock(0)
    before = first_session(config)
    assert refusal_of(config, before) == "just started"
    shift_clock(105_000)
    assert refusal_of(config, before) == "just started"
    shift_clock(111_000)
    assert taken(config, before)


def test_not_under_another_name_protocol_suite_or_retry(config):
    alpn = again(config, alpn=[b"h2", b"http/1.1"])
    h2 = first_session(alpn, alpn=[b"h2"])
    assert taken(alpn, h2, alpn=[b"h2"])
    assert not taken(again(config, alpn=[b"http/1.1", b"h2"]), h2, alpn=[b"h2", b"http/1.1"])
    assert not taken(alpn, altered(h2, alpn=b""))
    session = first_session(config)
    assert not taken(again(config, cipher_suites=[CHACHA20]), session)
    assert not taken(config, altered(session, server_name=b"b.example.com"), server_name="b.example.com")
    assert not taken(again(config, groups=[P256]), session, groups=(X25519, P256))


def test_not_under_another_identity_than_the_first(config, session):
    ours = (session.ticket, session.age_add)
    client = ResumingClient(config, session).hello(early=True, identities=[(os.urandom(50), 1), ours])
    assert client.resumed and not client.early_accepted
    client.send_early(b"skipped")
    client.finish()
    assert client.server.established


@pytest.mark.parametrize("options", [
    {"max_early_data": -1}, {"early_window": 0}, {"max_early_data": 1, "replay": SharedRegister(100)},
    {"max_early_data": 1, "replay": ReplayRegister()},
])
def test_what_cannot_be_configured(options):
    with pytest.raises(ValueError):
        ServerConfig([credential()], **options)


# Rejected: passed over, within bounds.


def rejecting(config):
    return again(config, max_early_data=0, replay=None)


def test_rejected_data_is_passed_over(config, session):
    client = ResumingClient(rejecting(config), session).hello(early=True)
    assert client.resumed and not client.early_accepted
    for n in (1, 500, 4000):
        assert client.send_early(bytes(n)) == [(PROGRESS, b"")]
    assert client.server.early_data_state == DISCARDING
    client.finish()
    assert client.server.established and client.server.early_data_state == REJECTED


def test_rejected_data_has_a_limit(config, session):
    client = ResumingClient(rejecting(config), session).hello(early=True)
    for _ in range(4):
        client.send_early(bytes(4000))
    assert client.send_early(bytes(4000))[-1][0] == FAILED
    assert client.server.failure.name == "unexpected_message"


def test_no_second_stretch_is_passed_over(config, session):
    """Once a record has opened, another that does not is a fault."""
    client = ResumingClient(rejecting(config), session).hello(early=True)
    client.send_early(b"early")
    finished = client.finished()
    client.send(client.write.protect(finished[:10], HANDSHAKE))
    assert client.server.early_data_state == REJECTED
    events = client.send_early(b"late")
    assert events[-1][0] == FAILED and client.server.failure.name == "bad_record_mac"


def test_the_end_of_rejected_data_is_not_sent(config, session):
    """EndOfEarlyData under the handshake keys."""
    client = ResumingClient(rejecting(config), session).hello(early=True)
    events = client.send(client.write.protect(END_OF_EARLY_DATA, HANDSHAKE))
    assert events[-1][0] == FAILED and client.server.failure.name == "unexpected_message"


# Faults in accepted data.


@pytest.fixture
def reading(config, session):
    client = ResumingClient(config, session).hello(early=True)
    assert client.early_accepted
    return client


def refused(client, events, name):
    assert events[-1][0] == FAILED
    client.finished()
    client.use_application_keys()
    assert_refused(client, events, name)


def test_exactly_the_limit_and_one_byte_more(reading):
    assert reading.send_early(bytes(LIMIT - 1))[0][0] == DATA
    assert reading.send_early(b"x") == [(DATA, b"x")]
    refused(reading, reading.send_early(b"x"), "unexpected_message")


def test_padding_does_not_count(reading):
    assert reading.send(reading.early.protect(bytes(LIMIT), APPLICATION_DATA, 3000))[0][0] == DATA
    assert reading.server.early_data_left == 0


def test_one_record_over_the_limit(reading):
    refused(reading, reading.send_early(bytes(LIMIT + 1)), "unexpected_message")


def test_the_tickets_limit_holds_when_the_configuration_changes(config, session):
    client = ResumingClient(again(config, max_early_data=10), session).hello(early=True)
    assert client.send_early(bytes(LIMIT))[0][0] == DATA


@pytest.mark.parametrize("content", [
    message(20, bytes(32)), message(5, b"\0"), message(24, b"\0"), message(1, bytes(50)), b"\5",
])
def test_no_other_message_ends_it(reading, content):
    events = reading.send_early(content, HANDSHAKE)
    if content == b"\5":
        events = reading.send_early(b"x")   # application data within a message
    name = "decode_error" if content[0] == 5 and len(content) > 1 else "unexpected_message"
    refused(reading, events, name)


def test_the_end_is_the_last_of_its_record(reading):
    refused(reading, reading.send_early(END_OF_EARLY_DATA * 2, HANDSHAKE), "unexpected_message")


def test_nothing_follows_the_end(reading):
    reading.end_early_data()
    refused(reading, reading.send_early(b"x"), "bad_record_mac")


def test_application_data_between_the_end_and_finished(reading):
    reading.end_early_data()
    refused(reading, reading.send(reading.write.protect(b"x", APPLICATION_DATA)), "unexpected_message")


def test_finished_without_the_end(reading):
    refused(reading, reading.send(reading.write.protect(message(20, bytes(32)), HANDSHAKE)),
            "bad_record_mac")


def test_finished_must_cover_the_end(reading):
    """A Finished made as though there had been no EndOfEarlyData."""
    finished = reading.finished()
    reading.send_early(END_OF_EARLY_DATA, HANDSHAKE)
    events = reading.send(reading.write.protect(finished, HANDSHAKE))
    reading.use_application_keys()
    assert_refused(reading, events, "decrypt_error")


def test_a_forged_record_is_not_passed_over(reading):
    bad = bytearray(reading.early.protect(b"x", APPLICATION_DATA))
    bad[-1] ^= 1
    refused(reading, reading.send(bytes(bad)), "bad_record_mac")


def test_empty_records(reading):
    for _ in range(32):
        assert reading.send_early(b"") == [(PROGRESS, b"")]
    refused(reading, reading.send_early(b""), "unexpected_message")


@pytest.mark.parametrize("kind", [HANDSHAKE, APPLICATION_DATA])
def test_plaintext_is_not_early_data(reading, kind):
    events = reading.send(record(kind, b"x" * 40))
    assert events[-1][0] == FAILED


def test_a_client_that_closes_in_between(reading):
    events = reading.send_early(b"\1\0", 21)
    assert events[-1][0] == FAILED
    assert (reading.server.failure.name, reading.server.failure.sent) == ("close_notify", False)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([20, 21, 22, 23]), st.binary(max_size=60)), max_size=8))
def test_any_early_records(contents):
    config = resuming_config(alpn=(), max_early_data=LIMIT)
    client = ResumingClient(config, first_session(config)).hello(early=True)
    for kind, content in contents:
        client.send_early(content, kind)
    assert not client.server.established


# The client's side.


def test_a_client_offers_early_data_only_when_asked_to(config, session):
    a = Engine(ClientConfig(server_name="example.com"), session)
    assert a.early_data_state == NO_EARLY_DATA and not a.write_open
    a = Engine(ClientConfig(server_name="example.com", early_data=True), altered(session, max_early_data=0))
    assert a.early_data_state == NO_EARLY_DATA and not a.write_open


def test_a_client_keeps_to_the_limit(config, session):
    a = Engine(ClientConfig(server_name="example.com", early_data=True), session)
    a.send(bytes(LIMIT))
    assert a.early_data_left == 0
    with pytest.raises(ValueError):
        a.send(b"x")
    b = Engine(config)
    pump(a, b)
    assert a.early_data_state == ACCEPTED
    a.send(b"x")


def test_a_client_learns_of_a_rejection(config, session):
    a, b, read = early(rejecting(config), session)
    assert a.established and a.resumed and read == b""
    assert a.early_data_state == REJECTED
    a.send(b"early")                    # its owner's part: again
    assert (DATA, b"early") in [event[1:] for event in pump(a, b)]


def test_no_writing_between_rejection_and_the_end(config, session):
    a, b = Engine(ClientConfig(server_name="example.com", early_data=True, groups=(X25519, P256)), session), None
    b = Engine(again(config, groups=[P256]))
    a.send(b"early")
    b.receive_bytes(a.take_output())
    a.receive_bytes(b.take_output())    # HelloRetryRequest
    assert a.early_data_state == REJECTED and not a.write_open
    with pytest.raises(ValueError):
        a.send(b"x")
    pump(a, b)
    assert a.established and b.established and a.resumed


def test_more_early_data_until_the_servers_flight(config, session):
    a, b = Engine(ClientConfig(server_name="example.com", early_data=True), session), Engine(config)
    read = b""
    for part in (b"one", b"two", b"three"):
        a.send(part)
        read += b"".join(p for _, p in b.receive_bytes(a.take_output()))
    assert read == b"onetwothree"
    pump(a, b)
    assert a.established and b.established


def test_a_client_refuses_acceptance_under_another_protocol(config):
    """Its session was with http/1.1, for all it knows; the server took the data under h2."""
    server = again(config, alpn=[b"h2"])
    session = altered(first_session(server, alpn=[b"h2"]), alpn=b"http/1.1")
    a, b, _ = early(server, session, alpn=[b"h2", b"http/1.1"])
    assert (a.failure.name, a.failure.sent) == ("illegal_parameter", True)
    assert (b.failure.name, b.failure.sent) == ("illegal_parameter", False)


def test_no_way_back_to_tls12(config, session):
    """RFC 8446 appendix D.3; without early data the same client speaks TLS 1.2."""
    old = ServerConfig(config.credentials, alpn=(), max_version=0x0303)
    a = Engine(ClientConfig(server_name="example.com", session=session, early_data=True))
    pump(a, Engine(old))
    assert (a.failure.name, a.failure.sent) == ("protocol_version", True)
    a = Engine(ClientConfig(server_name="example.com", session=session))
    pump(a, Engine(old))
    assert (a.established, a.version) == (True, 0x0303)
