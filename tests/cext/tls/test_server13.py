"""The server's handshake: whom it agrees with, on what, and the alert for every fault (RFC 8446, section 4)."""

import pytest
from cext.tls.config import ClientConfig
from cext.tls.engine import ESTABLISHED, FAILED, PROGRESS, Engine
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cext.tls.peer import (
    AES_128,
    AES_256,
    ALERT,
    APPLICATION_DATA,
    CCS_RECORD,
    CHACHA20,
    CLIENT_HELLO,
    FINISHED,
    HANDSHAKE,
    KEY_KINDS,
    P256,
    P384,
    RETRY_RANDOM,
    SERVER_HELLO,
    SUITES,
    X25519,
    RawClient,
    Share,
    assert_refused,
    client_hello,
    extension,
    message,
    pump,
    record,
    records,
    server_config,
    u16s,
    vector,
)

PSK_MODES = extension(45, b"\x01\x01")


def offered_psk(early_data=True):
    """The extensions of a client with a ticket from elsewhere."""
    identities = vector(2, vector(2, b"ticket" * 10) + b"\0\0\0\0")
    binders = vector(2, vector(1, bytes(32)))
    return [PSK_MODES, *([extension(42)] if early_data else []), extension(41, identities + binders)]


@pytest.mark.parametrize("kind", KEY_KINDS)
@pytest.mark.parametrize("group", [X25519, P256, P384])
@pytest.mark.parametrize("suite", SUITES)
def test_every_suite_group_and_key(suite, group, kind):
    server = Engine(server_config(kind))
    client = Engine(ClientConfig(server_name="example.com", cipher_suites=(suite,), groups=(group,)))
    events = pump(client, server)
    assert (server.failure, client.failure) == (None, None)
    assert ("a", ESTABLISHED, b"") in events
    assert ("b", ESTABLISHED, b"") in events
    for end in (server, client):
        assert (end.version, end.cipher_suite, end.group, end.hello_retried) == (0x0304, suite, group, False)
        assert end.write_open
        assert not end.handshaking
    assert server.signature_scheme == client.signature_scheme != 0
    client.send(b"ping")
    assert server.receive_bytes(client.take_output()) == [(1, b"ping")]
    server.send(b"pong")
    assert client.receive_bytes(server.take_output()) == [(1, b"pong")]


def test_what_was_negotiated():
    server = Engine(server_config(alpn=(b"h2", b"http/1.1")))
    client = Engine(ClientConfig(server_name="www.example.com", alpn=(b"http/1.1", b"x"), groups=(X25519,)))
    pump(client, server)
    assert (server.alpn, server.server_name) == (b"http/1.1", b"www.example.com")
    assert client.alpn == b"http/1.1"
    assert server.description == "TLSv1.3 TLS_AES_128_GCM_SHA256 x25519 ecdsa_secp256r1_sha256"


def test_names_are_shared_between_connections():
    servers = []
    for _ in range(2):
        servers.append(Engine(server_config()))
        pump(Engine(ClientConfig(server_name="example.com")), servers[-1])
    assert servers[0].server_name is servers[1].server_name


@pytest.mark.parametrize("session_id", [b"", b"\x01" * 32])
def test_the_flight_is_coalesced_and_middleboxes_are_served(session_id):
    client = RawClient(session_id=session_id)
    client.send(record(HANDSHAKE, client_hello(**client.hello_options)))
    kinds = [kind for kind, _ in records(client.server.take_output())]
    assert kinds == [HANDSHAKE, *([20] if session_id else []), APPLICATION_DATA]


def test_a_whole_handshake_by_hand():
    client = RawClient(session_id=b"\x07" * 32).hello()
    assert [kind for kind, _ in client.flight] == [SERVER_HELLO, 8, 11, 15, 20]
    hello = client.flight[0][1]
    assert hello[4:6] == b"\x03\x03"
    assert hello[38:71] == b"\x20" + b"\x07" * 32
    assert client.ccs == 1
    assert not client.server.established
    assert client.finish() == [(ESTABLISHED, b"")]
    assert client.server.established
    assert client.server.take_output() == b""


def test_server_random_differs():
    hellos = [RawClient().hello().flight[0][1][6:38] for _ in range(2)]
    assert hellos[0] != hellos[1]


# --- refusals of a ClientHello

@pytest.mark.parametrize(("changes", "name"), [
    ({"versions": (0x0303, 0x0302)}, "protocol_version"),
    ({"omit": (43,)}, "protocol_version"),
    ({"suites": (0xC02F, 0x009C)}, "handshake_failure"),
    ({"groups": (0x0019, 0x0100), "entries": []}, "handshake_failure"),
    ({"schemes": (0x0401, 0x0201)}, "handshake_failure"),
    ({"omit": (13,)}, "missing_extension"),
    ({"omit": (10,)}, "missing_extension"),
    ({"omit": (51,)}, "missing_extension"),
    ({"alpn": (b"imap",)}, "no_application_protocol"),
    ({"compression": b"\x01\0"}, "illegal_parameter"),
    ({"groups": (P256,)}, "illegal_parameter"),                     # a share of a group that is not offered
    ({"entries": [u16s(X25519) + vector(2, bytes(32))]}, "illegal_parameter"),      # an all-zero secret
    ({"entries": [u16s(X25519) + vector(2, bytes(31))]}, "illegal_parameter"),
    ({"entries": [u16s(P256) + vector(2, b"\x04" + bytes(64))]}, "illegal_parameter"),      # off the curve
    ({"entries": [u16s(P256) + vector(2, b"\x02" + bytes(32))]}, "illegal_parameter"),      # compressed
    ({"session_id": bytes(33)}, "decode_error"),
    ({"extra": [extension(41, b"\0")], "omit": (45,)}, "missing_extension"),
])
def test_refused_hello(changes, name):
    if name == "missing_extension" and 41 in {int.from_bytes(e[:2], "big") for e in changes.get("extra", ())}:
        changes = {"extra": offered_psk()[2:]}
    client = RawClient(server_config(min_version=0x0304))
    events = client.send(record(HANDSHAKE, client_hello(**{**client.hello_options, **changes})))
    assert_refused(client, events, name)


def test_a_failed_flight_leaves_nothing_but_the_alert():
    client = RawClient()
    client.send(record(HANDSHAKE, client_hello(**{**client.hello_options, "alpn": (b"imap",)})))
    assert client.server.take_output() == record(ALERT, b"\x02\x78")


def test_facts_are_known_of_a_failed_handshake():
    client = RawClient(alpn=(b"imap",))
    client.hello()
    assert client.server.server_name == b"example.com"
    assert client.server.cipher_suite == AES_128
    assert not client.server.handshaking


@pytest.mark.parametrize("changes", [
    {"suites": (0x0A0A, 0xC02B, AES_128)}, {"groups": (0x1A1A, X25519), "versions": (0x2A2A, 0x0304, 0x0303)},
    {"extra": [extension(0x3A3A), extension(0xFE0D, b"\0" * 20), extension(0x4A4A, b"\0")]},
    {"schemes": (0x4A4A, 0x0403)}, {"legacy_version": 0x0303}, {"session_id": b"\x09" * 7},
])
def test_grease_and_unknown_values_are_ignored(changes):
    client = RawClient()
    if "groups" in changes:
        changes["entries"] = [u16s(0x1A1A) + vector(2, b"\0"), client.share.entry()]
    client.hello(**changes)
    client.finish()
    assert client.server.established


def test_chacha20_for_a_client_that_prefers_it():
    for suites, chosen in (((CHACHA20, AES_128, AES_256), CHACHA20), ((AES_256, CHACHA20, AES_128), AES_128)):
        client = RawClient(suite=chosen)
        client.hello(suites=suites)
        client.finish()
        assert client.server.cipher_suite == chosen


# --- Finished, and messages out of order

@pytest.mark.parametrize(("finished", "name"), [
    (message(FINISHED, bytes(32)), "decrypt_error"),
    (message(FINISHED, bytes(31)), "decrypt_error"),
    (message(FINISHED, bytes(33)), "decrypt_error"),
    (message(FINISHED, bytes(200)), "illegal_parameter"),
    (message(FINISHED), "decrypt_error"),
    (message(11, bytes(4)), "unexpected_message"),
    (message(24, b"\0"), "unexpected_message"),
    (message(5), "unexpected_message"),
    (message(0), "unexpected_message"),
])
def test_refused_finished(finished, name):
    client = RawClient().hello()
    events = client.send(client.write.protect(finished, HANDSHAKE))
    client.finished()
    client.read = type(client.read)(client.hash, client.aead, client.server_application, False)
    assert_refused(client, events, name)
    assert not client.server.established


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 255))
def test_no_bit_of_the_finished_may_differ(bit):
    client = RawClient().hello()
    finished = bytearray(client.finished())
    finished[4 + bit // 8] ^= 1 << bit % 8
    assert client.finish(bytes(finished)) == [(FAILED, b"")]
    assert client.server.failure.name == "decrypt_error"


@pytest.mark.parametrize("first", [message(FINISHED, bytes(32)), message(SERVER_HELLO, bytes(40)), message(24, b"\0"),
                                   message(0), message(255)])
def test_only_a_client_hello_comes_first(first):
    client = RawClient()
    assert_refused(client, client.send(record(HANDSHAKE, first)), "unexpected_message")


def test_a_client_hello_too_large_is_refused_by_its_header():
    client = RawClient()
    events = client.send(record(HANDSHAKE, bytes([CLIENT_HELLO]) + (1 << 20).to_bytes(3, "big")))
    assert_refused(client, events, "illegal_parameter")


def test_a_second_client_hello_is_no_renegotiation():
    client = RawClient().hello()
    events = client.send(client.write.protect(client_hello(**client.hello_options), HANDSHAKE))
    client.finished()
    client.use_application_keys()
    assert_refused(client, events, "unexpected_message")


# --- HelloRetryRequest (sections 4.1.4, 4.2.2)

def retried(**options):
    """A client that was asked for a P-256 share."""
    client = RawClient(server_config(groups=(P256,)), entries=[Share(X25519).entry()], **options)
    client.hello()
    assert client.server.failure is None
    client.share = Share(P256)
    return client


def second(client, **changes):
    extra = changes.pop("extra", [])
    cookie = changes.pop("cookie", client.retry_extensions()[44])
    options = {"entries": [client.share.entry()], "extra": [extension(44, cookie), *extra], **changes}
    return client.hello(**options)


@pytest.mark.parametrize("session_id", [b"", b"\x05" * 32])
def test_hello_retry_request(session_id):
    client = retried(session_id=session_id)
    assert client.retry_extensions()[51] == u16s(P256)
    assert client.retry_extensions()[43] == u16s(0x0304)
    assert client.flight[0][1][38:39 + len(session_id)] == vector(1, session_id)
    second(client)
    assert client.server.failure is None
    assert client.ccs == (1 if session_id else 0)
    assert client.finish() == [(ESTABLISHED, b"")]
    assert client.server.hello_retried
    assert client.server.group == P256


@pytest.mark.parametrize("suite", SUITES)
def test_hello_retry_request_between_our_ends(suite):
    server = Engine(server_config(groups=(P384, X25519)))
    client = Engine(ClientConfig(cipher_suites=(suite,), groups=(X25519, P384), key_share_groups=()))
    pump(client, server)
    assert server.established
    assert client.established
    assert server.hello_retried
    assert server.group == client.group == P384


def test_change_cipher_spec_between_the_hellos():
    client = retried(session_id=b"\x05" * 32)
    assert client.send(CCS_RECORD) == [(PROGRESS, b"")]
    second(client)
    assert client.finish() == [(ESTABLISHED, b"")]


def test_padding_may_change_between_the_hellos():
    client = retried(extra=[extension(21, bytes(10))])
    second(client, extra=[extension(21, bytes(100))])
    assert client.finish() == [(ESTABLISHED, b"")]


@pytest.mark.parametrize(("changes", "name"), [
    ({"cookie": b""}, "decode_error"),
    ({"cookie": vector(2, bytes(68))}, "illegal_parameter"),
    ({"random": b"\x66" * 32}, "illegal_parameter"),
    ({"session_id": b"\x01"}, "illegal_parameter"),
    ({"suites": (AES_128, AES_256)}, "illegal_parameter"),
    ({"suites": (AES_256,)}, "illegal_parameter"),
    ({"name": "www.example.com"}, "illegal_parameter"),
    ({"alpn": (b"http/1.1",)}, "illegal_parameter"),
    ({"groups": (P256, X25519, P384)}, "illegal_parameter"),
    ({"entries": [Share(X25519).entry()]}, "illegal_parameter"),
    ({"entries": []}, "illegal_parameter"),
    ({"entries": [Share(P256).entry(), Share(X25519).entry()]}, "illegal_parameter"),
    ({"versions": (0x0304, 0x0303)}, "illegal_parameter"),
    ({"versions": (0x0303,)}, "illegal_parameter"),
    ({"extra": [extension(0x9999)]}, "illegal_parameter"),
    ({"extra": [PSK_MODES]}, "illegal_parameter"),
])
def test_refused_second_hello(changes, name):
    client = retried()
    changes = dict(changes)
    extra = changes.pop("extra", [])
    cookie = changes.pop("cookie", client.retry_extensions()[44])
    options = {**client.hello_options, "entries": [client.share.entry()],
               "extra": [extension(44, cookie), *extra], **changes}
    assert_refused(client, client.send(record(HANDSHAKE, client_hello(**options))), name)


def test_a_second_hello_without_cookie():
    client = retried()
    hello = client_hello(**{**client.hello_options, "entries": [client.share.entry()]})
    assert_refused(client, client.send(record(HANDSHAKE, hello)), "missing_extension")


def test_a_cookie_of_another_connection():
    """Same configuration, same lists, but another ClientHello1 (its share differs): the cookie does not fit."""
    other, client = retried(), retried()
    cookie = other.retry_extensions()[44]
    hello = client_hello(
        **{**client.hello_options, "entries": [client.share.entry()], "extra": [extension(44, cookie)]})
    assert_refused(client, client.send(record(HANDSHAKE, hello)), "illegal_parameter")


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 68 * 8 - 1))
def test_no_bit_of_the_cookie_may_differ(bit):
    client = retried()
    cookie = bytearray(client.retry_extensions()[44])
    cookie[2 + bit // 8] ^= 1 << bit % 8
    hello = client_hello(
        **{**client.hello_options, "entries": [client.share.entry()], "extra": [extension(44, bytes(cookie))]})
    client.send(record(HANDSHAKE, hello))
    assert client.server.failure.name == "illegal_parameter"


def test_the_retry_random_is_never_a_server_random():
    assert RawClient().hello().flight[0][1][6:38] != RETRY_RANDOM


# --- early data that we do not take (section 4.2.10)

def test_a_ticket_from_elsewhere_is_ignored():
    client = RawClient(extra=offered_psk(early_data=False)).connect()
    assert [kind for kind, _ in client.flight] == [SERVER_HELLO, 8, 11, 15, 20]


def test_early_data_is_skipped():
    client = RawClient(extra=offered_psk(), session_id=b"\x01" * 32).hello()
    early = record(APPLICATION_DATA, bytes(1000)) * 3
    assert client.send(CCS_RECORD + early) == [(PROGRESS, b"")] * 4
    assert client.finish() == [(ESTABLISHED, b"")]
    client.send(client.seal(b"hello"))
    assert client.events[-1] == (1, b"hello")


def test_early_data_in_one_piece_with_the_hello():
    client = RawClient(extra=offered_psk())
    hello = client_hello(**client.hello_options)
    client.transcript.add(hello)
    client.send(record(HANDSHAKE, hello, 0x0301) + record(APPLICATION_DATA, bytes(500)))
    client.take_flight()
    assert client.finish() == [(ESTABLISHED, b"")]


def test_early_data_ends_with_the_first_record_that_opens():
    client = RawClient(extra=offered_psk()).hello()
    finished = client.finished()
    client.send(client.write.protect(finished[:5], HANDSHAKE))
    events = client.send(record(APPLICATION_DATA, bytes(100)))
    client.use_application_keys()
    assert_refused(client, events, "bad_record_mac")


def test_too_much_early_data():
    client = RawClient(extra=offered_psk()).hello()
    events = client.send(record(APPLICATION_DATA, bytes(8000)) * 3)
    client.finished()
    client.use_application_keys()
    assert_refused(client, events, "unexpected_message")


@pytest.mark.parametrize(("sizes", "fits"), [([8192, 8192], True), ([8192, 8192, 1], False), ([16384, 0], False)])
def test_early_data_is_counted_by_the_length_of_its_records(sizes, fits):
    client = RawClient(extra=offered_psk()).hello()
    events = client.send(b"".join(record(APPLICATION_DATA, bytes(n)) for n in sizes))
    assert (events[-1][0] == PROGRESS) is fits
    if fits:
        assert client.finish() == [(ESTABLISHED, b"")]


def test_without_the_offer_nothing_is_skipped():
    client = RawClient(extra=offered_psk(early_data=False)).hello()
    events = client.send(record(APPLICATION_DATA, bytes(100)))
    client.finished()
    client.use_application_keys()
    assert_refused(client, events, "bad_record_mac")


def test_early_data_through_a_hello_retry_request():
    client = RawClient(server_config(groups=(P256,)), entries=[Share(X25519).entry()], extra=offered_psk())
    client.hello()
    assert client.send(record(APPLICATION_DATA, bytes(3000)) * 2) == [(PROGRESS, b"")] * 2
    client.share = Share(P256)
    cookie = extension(44, client.retry_extensions()[44])
    psk = offered_psk(early_data=False)
    client.hello(entries=[client.share.entry()], extra=[psk[0], cookie, psk[1]])
    assert client.finish() == [(ESTABLISHED, b"")]


def test_early_data_again_after_a_hello_retry_request():
    client = RawClient(server_config(groups=(P256,)), entries=[Share(X25519).entry()], extra=offered_psk())
    client.hello()
    client.share = Share(P256)
    psk = offered_psk()
    hello = client_hello(**{**client.hello_options, "entries": [client.share.entry()], "extra": [
        psk[0], psk[1], extension(44, client.retry_extensions()[44]), psk[2]]})
    assert_refused(client, client.send(record(HANDSHAKE, hello)), "illegal_parameter")


def test_nothing_follows_the_first_hello_in_its_record():
    client = RawClient(server_config(groups=(P256,)), entries=[Share(X25519).entry()])
    hello = client_hello(**client.hello_options)
    assert_refused(client, client.send(record(HANDSHAKE, hello + hello[:10])), "unexpected_message")


def test_too_much_early_data_after_a_hello_retry_request():
    client = RawClient(server_config(groups=(P256,)), entries=[Share(X25519).entry()], extra=offered_psk())
    client.hello()
    events = client.send(record(APPLICATION_DATA, bytes(8000)) * 3)
    assert_refused(client, events, "unexpected_message")


def test_a_session_id_of_any_length_is_echoed():
    for n in (1, 31, 32):
        client = RawClient(session_id=bytes(range(n))).hello()
        assert client.flight[0][1][38:39 + n] == vector(1, bytes(range(n)))
