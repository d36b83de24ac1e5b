"""The server's side of TLS 1.2: what it agrees to with Python's ssl, and its alert for every fault (RFC 5246)."""

import os

import pytest
from cext.tls.config import ClientConfig
from cext.tls.engine import ESTABLISHED, FAILED, Engine
from cext.tls.session import TicketKeys, shift_clock
from hypothesis import given, settings
from hypothesis import strategies as st

from cext.tls import prf12
from tests.cext.tls.peer import (
    ALERTS,
    CCS_RECORD,
    FINISHED,
    HANDSHAKE,
    KEY_KINDS,
    P256,
    P384,
    X25519,
    extension,
    message,
    pump,
    record,
    server_config,
    vector,
)
from tests.cext.tls.peer12 import (
    CLIENT_KEY_EXCHANGE,
    CURVES,
    ECDSA_SUITES,
    EMS,
    HASHES,
    NEW_SESSION_TICKET,
    RENEGOTIATION,
    RSA_SUITES,
    SERVER_HELLO_DONE,
    SERVER_KEY_EXCHANGE,
    SESSION_TICKET,
    SUITES12,
    TLS12,
    RawClient12,
    Ssl,
)
from tests.cext.tls.resuming import first_session

ALERTS = {**ALERTS, "no_renegotiation": 100, "inappropriate_fallback": 86, "bad_record_mac": 20}
DOWNGRADE = b"DOWNGRD\1"


def suites_of(kind):
    return RSA_SUITES if kind == "rsa" else ECDSA_SUITES


def refused(client, events, name):
    assert events[-1] == (FAILED, b""), events
    failure = client.server.failure
    assert (failure.name, failure.sent) == (name, True), failure
    assert failure.reason
    assert client.alert() == ALERTS[name]
    assert not client.server.write_open
    return True


# --- with Python's ssl

@pytest.mark.parametrize(("kind", "suite"), [(kind, suite) for kind in KEY_KINDS for suite in suites_of(kind)])
@pytest.mark.parametrize("group", CURVES)
def test_every_suite_group_and_key(kind, suite, group):
    server = Engine(server_config(kind, groups=(group,)))
    # The curve of an ECDSA certificate must be offered as well, which set_ecdh_curve does not allow.
    peer = Ssl(server, suite=SUITES12[suite]).handshake()
    assert (server.version, server.cipher_suite, server.group) == (TLS12, suite, group)
    assert peer.object.version() == "TLSv1.2"
    assert peer.object.cipher()[0] == SUITES12[suite]
    peer.check_data()
    assert not server.handshaking


def test_alpn_and_names():
    server = Engine(server_config(alpn=(b"h2", b"http/1.1")))
    peer = Ssl(server, alpn=["http/1.1"]).handshake()
    assert (server.alpn, server.server_name) == (b"http/1.1", b"example.com")
    assert peer.object.selected_alpn_protocol() == "http/1.1"
    assert server.description == "TLSv1.2 TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 x25519 ecdsa_secp256r1_sha256"


def test_closes_both_ways():
    server = Engine(server_config())
    peer = Ssl(server).handshake()
    server.send_close_notify()
    peer.exchange()
    peer.object.unwrap()
    assert peer.exchange()[-1][0] == 4
    assert server.read_closed and server.failure is None


def test_parked_connections_go_on():
    server = Engine(server_config())
    peer = Ssl(server).handshake()
    peer.check_data()
    server.park_now()
    peer.check_data()


# --- what is negotiated

def test_the_flight_and_its_answers():
    client = RawClient12(session_id=b"\5" * 32).hello()
    assert [kind for kind, _ in client.flight] == [2, 11, SERVER_KEY_EXCHANGE, SERVER_HELLO_DONE]
    session_id, suite, extensions = client.server_hello()
    assert (session_id, suite) == (b"", 0xC02B)
    assert extensions == {RENEGOTIATION: b"\0", EMS: b"", 0: b"", 11: b"\1\0"}


@pytest.mark.parametrize("ems", [True, False])
@pytest.mark.parametrize("suite", [0xC02B, 0xC02C, 0xCCA9])
def test_with_and_without_extended_master_secret(ems, suite):
    client = RawClient12(suite=suite, ems=ems).connect()
    assert (EMS in client.server_hello()[2]) == ems
    digest = HASHES[client.hash](client.transcript[: -len(client.flight[-1][1])]).digest()
    assert client.flight[-1] == (FINISHED, message(FINISHED, prf12.finished(client.hash, client.master, True, digest)))
    assert client.ccs_seen == 1


def test_nothing_is_answered_that_was_not_said():
    client = RawClient12(ems=False)
    client.hello(omit=(0, 11, RENEGOTIATION))
    assert client.flight[0][1][-3:] == b"\xc0\x2b\0"         # no extensions at all


def test_renegotiation_info_by_suite():
    client = RawClient12()
    client.hello(suites=(0xC02B, 0x00FF), omit=(RENEGOTIATION,))
    assert client.server_hello()[2][RENEGOTIATION] == b"\0"


@pytest.mark.parametrize(("options", "marked"), [({}, True), ({"max_version": TLS12}, False)])
def test_downgrade_sentinel(options, marked):
    client = RawClient12(server_config(**options)).hello()
    assert (client.server_random[-8:] == DOWNGRADE) == marked


@pytest.mark.parametrize(("offered", "chosen"), [
    ((0xCCA8, 0xC02F, 0xCCA9, 0xC02B), 0xCCA9), ((0xC02C, 0xC02B), 0xC02B), ((0xC030, 0xC02C), 0xC02C),
])
def test_preference_of_suites(offered, chosen):
    client = RawClient12()
    client.hello(suites=offered)
    assert client.server_hello()[1] == chosen


def test_certificate_by_suite_and_curve():
    config = server_config("ecdsa-p384", "rsa")
    both = (0xC02B, 0xC02F)
    for groups, suite in (((X25519, P384), 0xC02B), ((X25519, P256), 0xC02F)):     # no P-384, no such certificate
        client = RawClient12(config)
        client.hello(suites=both, groups=groups, schemes=(0x0503, 0x0403, 0x0804))
        assert client.server_hello()[1] == suite


@pytest.mark.parametrize(("kind", "scheme"), [
    ("ecdsa-p256", 0x0403), ("ecdsa-p256", 0x0503), ("ecdsa-p256", 0x0603), ("ecdsa-p384", 0x0403), ("rsa", 0x0401),
    ("rsa", 0x0501), ("rsa", 0x0601), ("rsa", 0x0804), ("rsa", 0x0806), ("ed25519", 0x0807),
])
def test_signature_schemes(kind, scheme):
    """In TLS 1.2 an ECDSA scheme names its hash alone, and PKCS#1 signs."""
    suite = 0xC02F if kind == "rsa" else 0xC02B
    client = RawClient12(server_config(kind), suite=suite)
    client.hello(schemes=(scheme,))
    client.key_exchange()
    client.ccs()
    assert client.finish()[-1][0] == ESTABLISHED
    assert client.server.signature_scheme == scheme


# --- refusals

@pytest.mark.parametrize(("changes", "name"), [
    ({"version": 0x0302}, "protocol_version"),
    ({"version": 0x0300}, "protocol_version"),
    ({"supported_versions": (0x0302,)}, "protocol_version"),
    ({"suites": (0xC02F,)}, "handshake_failure"),                   # no RSA certificate
    ({"suites": (0xC009, 0x009C, 0x002F)}, "handshake_failure"),
    ({"suites": (0x1301,)}, "handshake_failure"),
    ({"groups": (0x0019, 0x0100)}, "handshake_failure"),
    ({"groups": (X25519,)}, "handshake_failure"),                   # the certificate's own curve is missing
    ({"omit": (10,)}, "handshake_failure"),
    ({"omit": (13,)}, "handshake_failure"),                         # SHA-1 would be the default
    ({"schemes": (0x0203, 0x0201)}, "handshake_failure"),
    ({"suites": (0xC02B, 0x5600)}, "inappropriate_fallback"),
    ({"suites": (0xC02B, 0x5600), "version": 0x0302}, "inappropriate_fallback"),
    ({"compression": b"\1"}, "illegal_parameter"),
    ({"omit": (11,), "extra": (extension(11, b"\1\1"),)}, "illegal_parameter"),
    ({"omit": (RENEGOTIATION,), "extra": (extension(RENEGOTIATION, b"\4aaaa"),)}, "handshake_failure"),
    ({"extra": (extension(16, vector(2, vector(1, b"imap"))),)}, "no_application_protocol"),
])
def test_refused_hello(changes, name):
    client = RawClient12()
    refused(client, client.send(record(HANDSHAKE, client.client_hello(**changes))), name)


def test_fallback_scsv_where_nothing_better_is():
    client = RawClient12(server_config(max_version=TLS12)).hello(suites=(0xC02B, 0x5600))
    assert client.server.failure is None


def test_supported_versions_may_offer_it():
    assert RawClient12().hello(supported_versions=(0x0303, 0x0302)).server_hello()[1] == 0xC02B
    assert RawClient12().hello(version=0x0304).server_hello()[1] == 0xC02B


@pytest.mark.parametrize("point", [bytes(32), bytes(31), bytes(33), b"\4" + bytes(64)])
def test_refused_point(point):
    client = RawClient12().hello()
    refused(client, client.key_exchange(point), "illegal_parameter")


@pytest.mark.parametrize(("group", "point"), [(P256, b"\4" + bytes(64)), (P256, b"\2" + bytes(32)), (P384, bytes(97))])
def test_refused_point_of_a_curve(group, point):
    client = RawClient12(server_config(groups=(group,)), group=group).hello()
    refused(client, client.key_exchange(point), "illegal_parameter")


@pytest.mark.parametrize(("body", "name"), [
    (b"", "decode_error"), (b"\0", "decode_error"), (b"\x21" + bytes(32), "decode_error"),
    (b"\x20" + bytes(33), "decode_error"),
])
def test_refused_client_key_exchange(body, name):
    client = RawClient12().hello()
    refused(client, client.say(message(CLIENT_KEY_EXCHANGE, body)), name)


@pytest.mark.parametrize("kind", [1, 2, 11, 15, 20, 24, 14])
def test_another_message_instead_of_the_client_key_exchange(kind):
    client = RawClient12().hello()
    refused(client, client.say(message(kind, bytes(33))), "unexpected_message")


def test_finished_without_change_cipher_spec():
    client = RawClient12().hello()
    client.key_exchange()
    refused(client, client.say(client.finished()), "unexpected_message")


@pytest.mark.parametrize("raw", [CCS_RECORD[:-1] + b"\2", record(20, b"\1\1"), record(20, b"")])
def test_change_cipher_spec_of_another_form(raw):
    client = RawClient12().hello()
    client.key_exchange()
    refused(client, client.send(raw), "unexpected_message")


def test_change_cipher_spec_at_the_wrong_time():
    client = RawClient12()
    refused(client, client.send(CCS_RECORD), "unexpected_message")
    client = RawClient12().hello()
    refused(client, client.send(CCS_RECORD), "unexpected_message")          # before ClientKeyExchange
    client = RawClient12().hello()
    client.key_exchange()
    client.ccs()
    assert client.send(CCS_RECORD)[-1] == (FAILED, b"")                     # twice: not under the new keys


def test_change_cipher_spec_within_a_message():
    client = RawClient12().hello()
    client.send(record(HANDSHAKE, message(CLIENT_KEY_EXCHANGE, bytes(33))[:2]))
    refused(client, client.send(CCS_RECORD), "unexpected_message")


def test_wrong_finished():
    for damage, name in ((lambda f: f[:-1] + bytes([f[-1] ^ 1]), "decrypt_error"), (lambda f: f[:3] + b"\0", None)):
        client = RawClient12().hello()
        client.key_exchange()
        client.ccs()
        events = client.send(client.write.protect(damage(client.finished()), HANDSHAKE))
        assert events[-1] == (FAILED, b"")
        assert client.server.failure.name in (name, "decrypt_error", "decode_error")
        assert not client.server.established


def test_application_data_before_finished():
    client = RawClient12().hello()
    client.key_exchange()
    client.ccs()
    refused(client, client.send(client.write.protect(b"GET", 23)), "unexpected_message")


@pytest.mark.parametrize("suite", [0xC02B, 0xCCA9])
def test_damaged_and_replayed_records(suite):
    client = RawClient12(suite=suite).connect()
    sealed = client.write.protect(b"data", 23)
    assert client.send(sealed) == [(1, b"data")]
    refused(client, client.send(sealed), "bad_record_mac")
    client = RawClient12(suite=suite).connect()
    sealed = bytearray(client.write.protect(b"data", 23))
    sealed[-1] ^= 1
    refused(client, client.send(bytes(sealed)), "bad_record_mac")
    client = RawClient12(suite=suite).connect()
    refused(client, client.send(b"\x17\3\3\0\x08" + bytes(8)), "bad_record_mac")    # no room for a tag


def test_record_limits():
    client = RawClient12().connect()
    assert client.send(client.write.protect(bytes(16384), 23)) == [(1, bytes(16384))]
    refused(client, client.send(b"\x17\3\3\x41\1" + bytes(16641)), "record_overflow")
    client = RawClient12().connect()
    refused(client, client.send(b"\x17\3\1\0\x20" + bytes(32)), "protocol_version")


def test_empty_records_have_their_limit():
    client = RawClient12().connect()
    for _ in range(32):
        client.send(client.write.protect(b"", 23))
    refused(client, client.send(client.write.protect(b"", 23)), "unexpected_message")


def test_renegotiation_is_refused():
    client = RawClient12().connect()
    hello = client.client_hello(omit=(RENEGOTIATION,), extra=(extension(RENEGOTIATION, b"\x0c" + bytes(12)),))
    refused(client, client.send(client.write.protect(hello, HANDSHAKE)), "no_renegotiation")


@pytest.mark.parametrize("kind", [0, 4, 16, 20, 24])
def test_messages_after_the_handshake(kind):
    client = RawClient12().connect()
    refused(client, client.send(client.write.protect(message(kind, b"\0"), HANDSHAKE)), "unexpected_message")


def test_warnings_are_passed_over_within_limits():
    client = RawClient12().connect()
    for _ in range(4):
        client.send(client.write.protect(b"\1\x64", 21))                    # no_renegotiation
    assert client.send(client.write.protect(b"data", 23)) == [(1, b"data")]
    refused(client, client.send(client.write.protect(b"\1\x64", 21)), "unexpected_message")


def test_a_fatal_alert_ends_it():
    client = RawClient12().connect()
    client.send(client.write.protect(b"\2\x28", 21))
    assert (client.server.failure.name, client.server.failure.sent) == ("handshake_failure", False)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 3), st.binary(min_size=1, max_size=40), st.integers(0, 255))
def test_any_bytes_at_any_time(stage, junk, kind):
    client = RawClient12()
    if stage:
        client.hello()
    if stage > 1:
        client.key_exchange()
    if stage > 2:
        client.ccs()
    events = client.send(record(HANDSHAKE, bytes([kind]) + vector(3, junk))) + client.send(junk * 3)
    assert not client.server.established
    assert all(event[0] in (2, FAILED) for event in events)


def test_byte_by_byte():
    client = RawClient12()
    hello = client.client_hello()
    client.transcript += hello
    for byte in record(HANDSHAKE, hello):
        client.send(bytes([byte]))
    client.take_flight()
    client.key_exchange()
    client.ccs()
    for byte in client.write.protect(client.finished(), HANDSHAKE):
        events = client.send(bytes([byte]))
    assert events == [(ESTABLISHED, b"")]


# --- tickets

def ticket_keys():
    return TicketKeys([(os.urandom(16), os.urandom(32))])


def with_ticket(config, suite=0xC02B, **options):
    """A client that was given a ticket: (ticket, master secret, lifetime)."""
    client = RawClient12(config, suite=suite, ticket=b"", **options).connect()
    body = next(m for kind, m in client.flight if kind == NEW_SESSION_TICKET)[4:]
    return body[6:], client.master, int.from_bytes(body[:4], "big")


@pytest.mark.parametrize("suite", list(ECDSA_SUITES))
def test_resumption_with_our_client(suite):
    config = server_config(tickets=ticket_keys(), ticket_lifetime=1000)
    session = None
    for resumed in (False, True, True):
        server = Engine(config)
        client = Engine(ClientConfig(server_name="example.com", max_version=TLS12, cipher_suites=(suite,)), session)
        pump(client, server)
        assert (client.failure, server.failure) == (None, None)
        assert (server.resumed, client.resumed) == (resumed, resumed)
        client.send(b"x")
        assert server.receive_bytes(client.take_output()) == [(1, b"x")]
        session = client.session
        assert session.lifetime == 1000 and session.chain == client.peer_certificates != ()


def test_resumption_with_python_ssl():
    config = server_config("rsa", tickets=ticket_keys())
    first = Ssl(Engine(config)).handshake()
    assert first.object.session.has_ticket
    second = Ssl(Engine(config), context=first.context, session=first.object.session).handshake()
    assert second.object.session_reused and second.connection.resumed
    second.check_data()


def test_a_ticket_is_given_only_where_it_is_asked_for():
    keys = ticket_keys()
    assert NEW_SESSION_TICKET not in [k for k, _ in RawClient12(server_config(tickets=keys)).connect().flight]
    none = RawClient12(server_config(tickets=keys), ticket=b"", ems=False).connect()
    assert NEW_SESSION_TICKET not in [k for k, _ in none.flight]            # RFC 7627, section 5.3
    assert SESSION_TICKET not in none.server_hello()[2]
    assert SESSION_TICKET not in RawClient12(server_config(), ticket=b"").connect().server_hello()[2]


def resumes(config, session, **options):
    server = Engine(config)
    client = Engine(ClientConfig(**{"server_name": "example.com", "max_version": TLS12, **options}), session)
    pump(client, server)
    assert client.failure is None, client.failure
    assert server.resumed == client.resumed
    return server.resumed


def test_what_a_ticket_is_bound_to():
    keys = ticket_keys()
    config = server_config(tickets=keys, ticket_lifetime=100)
    client = Engine(ClientConfig(server_name="example.com", max_version=TLS12))
    pump(client, Engine(config))
    session = client.session
    assert resumes(config, session)
    assert not resumes(server_config(tickets=ticket_keys()), session)               # another's keys
    assert not resumes(server_config(tickets=keys, cipher_suites=(0xC02C,)), session)
    assert not resumes(server_config(), session)
    assert not resumes(config, session, server_name="www.example.com")
    shift_clock(99_000)
    assert resumes(config, session)
    shift_clock(101_000)
    assert not resumes(config, session)


@pytest.mark.parametrize(("behind", "resumed"), [(30_000, True), (90_000, False)])
def test_a_clock_that_is_behind_the_ticket_givers(behind, resumed):
    """Hosts that share keys share no clock; as in TLS 1.3 a minute is allowed."""
    config = server_config(tickets=ticket_keys())
    shift_clock(behind)
    ticket, _, _ = with_ticket(config)
    shift_clock(0)
    client = RawClient12(config, ticket=ticket, session_id=b"\7" * 32)
    client.send(record(HANDSHAKE, client.client_hello()))
    assert (b"\7" * 32 in client.server.take_output()) == resumed


def test_require_sni_holds_for_resumption():
    """As in TLS 1.3: a ticket of a time when any name would do."""
    keys = ticket_keys()
    nameless, named, other = (first_session(server_config(tickets=keys), server_name=name, max_version=TLS12)
                              for name in (None, "example.com", "other.test"))
    strict = server_config(tickets=keys, require_sni=True)
    assert resumes(strict, named)
    for session, name, alert in ((nameless, None, "missing_extension"), (other, "other.test", "unrecognized_name")):
        server = Engine(strict)
        pump(Engine(ClientConfig(server_name=name, max_version=TLS12), session), server)
        assert (server.failure.name, server.resumed) == (alert, False)


def test_a_ticket_is_renewed_in_the_second_half_of_its_life():
    config = server_config(tickets=ticket_keys(), ticket_lifetime=100)
    client = Engine(ClientConfig(server_name="example.com", max_version=TLS12))
    pump(client, Engine(config))
    for shift, renewed in ((10_000, False), (60_000, True)):
        shift_clock(shift)
        again = Engine(ClientConfig(server_name="example.com", max_version=TLS12), client.session)
        pump(again, Engine(config))
        assert again.resumed
        assert (again.session.ticket != client.session.ticket) == renewed
        assert again.session.authenticated == client.session.authenticated


def test_a_session_with_extended_master_secret_is_never_resumed_without():
    config = server_config(tickets=ticket_keys())
    ticket, _, _ = with_ticket(config)
    client = RawClient12(config, ticket=ticket, ems=False, session_id=b"\7" * 32)
    refused(client, client.send(record(HANDSHAKE, client.client_hello())), "handshake_failure")


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_damaged_tickets_lead_to_full_handshakes(data):
    ticket, _, _ = with_ticket(CONFIG)
    at = data.draw(st.integers(0, len(ticket) - 1))
    damaged = ticket[:at] + bytes([ticket[at] ^ data.draw(st.integers(1, 255))]) + ticket[at + 1 :]
    client = RawClient12(CONFIG, ticket=damaged, session_id=b"\7" * 32).connect()
    assert not client.server.resumed


CONFIG = server_config(tickets=ticket_keys())
