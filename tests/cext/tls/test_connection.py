"""The connection: records in every cut, alerts, KeyUpdate, closing, and their limits (RFC 8446, sections 5 and 6)."""

import gc
import itertools
import sys

import pytest
from cext.crypto.aead import contexts
from cext.tls.config import ClientConfig
from cext.tls.engine import (
    CLOSE_NOTIFY,
    DATA,
    ESTABLISHED,
    FAILED,
    PROGRESS,
    Engine,
)
from cext.tls.key_schedule import updated
from cext.tls.names import describe
from cext.tls.record import RecordKeys
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cext.tls.peer import (
    ALERT,
    APPLICATION_DATA,
    CCS,
    CCS_RECORD,
    CHACHA20,
    HANDSHAKE,
    KEY_UPDATE,
    SUITES,
    RawClient,
    assert_refused,
    client_hello,
    message,
    pump,
    record,
    records,
    server_config,
)

UPDATE, UPDATE_AND_ASK = message(KEY_UPDATE, b"\0"), message(KEY_UPDATE, b"\1")


def connected():
    return RawClient().connect()


def update_write_keys(client):
    """What a client does after its KeyUpdate."""
    client.client_application = updated(client.hash, client.client_application)
    client.write = RecordKeys(client.hash, client.aead, client.client_application, True)


def update_read_keys(client):
    client.server_application = updated(client.hash, client.server_application)
    client.read = RecordKeys(client.hash, client.aead, client.server_application, False)


def refused(client, data, name):
    assert_refused(client, client.send(data), name)


# --- how the peer cuts its stream

def split(stream, cuts):
    edges = [0, *sorted(c for c in cuts if c < len(stream)), len(stream)]
    return [stream[a:b] for a, b in itertools.pairwise(edges)]


def test_byte_by_byte():
    client = RawClient()
    hello = client_hello(**client.hello_options)
    client.transcript.add(hello)
    for byte in record(HANDSHAKE, hello):
        client.send(bytes([byte]))
    client.take_flight()
    stream = client.write.protect(client.finished(), HANDSHAKE)
    client.use_application_keys()
    stream += client.seal(b"hello") + client.seal(b"world")
    for byte in stream:
        client.send(bytes([byte]))
    assert client.events == [(PROGRESS, b""), (ESTABLISHED, b""), (DATA, b"hello"), (DATA, b"world")]


def test_everything_at_once():
    client = RawClient().hello()
    stream = client.write.protect(client.finished(), HANDSHAKE)
    client.use_application_keys()
    stream += client.seal(b"hello") + client.seal(b"world") + client.seal(b"\1\0", ALERT)
    assert client.send(stream) == [(ESTABLISHED, b""), (DATA, b"hello"), (DATA, b"world"), (CLOSE_NOTIFY, b"")]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 200), max_size=8), st.lists(st.integers(1, 40), max_size=8), st.data())
def test_messages_split_over_records(hello_cuts, finished_cuts, data):
    client = RawClient()
    hello = client_hello(**client.hello_options)
    client.transcript.add(hello)
    stream = b"".join(record(HANDSHAKE, part) for part in split(hello, set(hello_cuts)))
    for part in split(stream, set(data.draw(st.lists(st.integers(1, 300), max_size=4)))):
        client.send(part)
    client.take_flight()
    finished = client.finished()
    for part in split(finished, set(finished_cuts)):
        client.send(client.write.protect(part, HANDSHAKE, padding=data.draw(st.integers(0, 3))))
    assert client.events[-1] == (ESTABLISHED, b"")


def test_the_finished_one_byte_per_record():
    client = RawClient().hello()
    for byte in client.finished():
        client.send(client.write.protect(bytes([byte]), HANDSHAKE))
    assert client.events[-1] == (ESTABLISHED, b"")


def test_both_our_ends_byte_by_byte():
    server, client = Engine(server_config()), Engine(ClientConfig())
    while not (server.established and client.established):
        for a, b in ((client, server), (server, client)):
            for byte in a.take_output():
                b.receive_bytes(bytes([byte]))
                assert b.failure is None
    assert not server.handshaking


# --- records

@pytest.mark.parametrize(("data", "name"), [
    (b"GET / HTTP/1.1\r\n\r\n", "unexpected_message"),
    (b"\x80\x2e\x01\x03\x01\x00", "unexpected_message"),
    (bytes.fromhex("1803030001") + b"\0", "unexpected_message"),            # heartbeat
    (bytes.fromhex("1602000001") + b"\0", "protocol_version"),
    (bytes.fromhex("1603034001"), "record_overflow"),
    (bytes.fromhex("17030300ff") + bytes(255), "unexpected_message"),
    (bytes.fromhex("1603030000"), "unexpected_message"),                    # an empty fragment
    (bytes.fromhex("1503030000"), "unexpected_message"),
    (bytes.fromhex("150303000102"), "decode_error"),
    (bytes.fromhex("150303000402000200"), "decode_error"),
    (bytes.fromhex("15030300020328"), "illegal_parameter"),                 # an alert level that is none
    (CCS_RECORD, "unexpected_message"),                                     # before the ClientHello
])
def test_refused_first_record(data, name):
    refused(RawClient(), data, name)


def test_any_minor_record_version_does():
    client = RawClient()
    hello = client_hello(**client.hello_options)
    client.transcript.add(hello)
    client.send(record(HANDSHAKE, hello, 0x03FF))
    client.take_flight()
    assert client.finish() == [(ESTABLISHED, b"")]


def test_reasons_are_for_the_log():
    client = RawClient()
    client.send(b"GET / HTTP/1.1\r\n")
    assert client.server.failure.reason == "a plaintext HTTP request"
    client = RawClient()
    client.send(b"SSH-2.0-x\r\n")
    assert "5353482d32" in client.server.failure.reason


def test_the_largest_records():
    client = connected()
    assert client.send(client.seal(b"x" * 16384)) == [(DATA, b"x" * 16384)]
    assert client.send(client.seal(b"x" * 16000, padding=384)) == [(DATA, b"x" * 16000)]
    assert client.send(client.seal(b"", padding=16384)) == [(PROGRESS, b"")]


def inner(client, plaintext):
    """A record of any TLSInnerPlaintext, by cryptography's own AES-GCM."""
    from cext.tls.key_schedule import keys_of
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    key, iv = keys_of(client.hash, client.aead, client.client_application)
    nonce = (int.from_bytes(iv, "big") ^ client.write.sequence).to_bytes(12, "big")
    header = b"\x17\x03\x03" + (len(plaintext) + 16).to_bytes(2, "big")
    return header + AESGCM(key).encrypt(nonce, plaintext, header)


@pytest.mark.parametrize(("plaintext", "name"), [
    (b"x" * 16385 + b"\x17", "record_overflow"),
    (b"x" * 16384 + b"\x17\0", "record_overflow"),
    (b"\x17" + bytes(16500), "record_overflow"),
    (b"", "unexpected_message"),
    (b"\0", "unexpected_message"),
    (bytes(100), "unexpected_message"),
    (b"x\x18", "unexpected_message"),
    (b"\x01" + b"\x14", "unexpected_message"),                              # a protected change_cipher_spec
    (b"\x16", "unexpected_message"),                                        # an empty handshake record
    (b"\x15", "unexpected_message"),
])
def test_refused_inner_plaintext(plaintext, name):
    client = connected()
    refused(client, inner(client, plaintext), name)


def test_a_ciphertext_too_long():
    client = connected()
    refused(client, bytes.fromhex("1703034101"), "record_overflow")         # by its header alone


def test_a_longest_ciphertext_is_no_overflow():
    client = connected()
    refused(client, bytes.fromhex("1703034100") + bytes(16640), "bad_record_mac")


@pytest.mark.parametrize("n", [0, 1, 15, 16, 17])
def test_short_ciphertexts(n):
    client = connected()
    refused(client, record(APPLICATION_DATA, bytes(n)), "bad_record_mac")


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_no_bit_of_a_record_may_differ(position):
    client = connected()
    sealed = bytearray(client.seal(b"content"))
    bit = 40 + position % (8 * (len(sealed) - 5))
    sealed[bit // 8] ^= 1 << bit % 8
    assert client.send(bytes(sealed))[-1] == (FAILED, b"")
    assert client.server.failure.name == "bad_record_mac"


def test_a_record_replayed_or_left_out():
    client = connected()
    one = client.seal(b"one")
    assert client.send(one) == [(DATA, b"one")]
    refused(client, one, "bad_record_mac")
    client = connected()
    client.seal(b"one")
    refused(client, client.seal(b"two"), "bad_record_mac")


def test_plaintext_after_the_handshake():
    for kind, fragment in ((HANDSHAKE, UPDATE), (ALERT, b"\1\0"), (CCS, b"\1")):
        refused(connected(), record(kind, fragment), "unexpected_message")


def test_application_data_before_the_finished():
    client = RawClient().hello()
    events = client.send(client.seal(b"early"))
    client.finished()
    client.use_application_keys()
    assert_refused(client, events, "unexpected_message")


def test_empty_records_are_bounded():
    client = connected()
    for _ in range(3):
        assert client.send(client.seal(b"") * 1) == [(PROGRESS, b"")]
    assert client.send(client.seal(b"x")) == [(DATA, b"x")]
    for _ in range(32):
        assert client.send(client.seal(b"")) == [(PROGRESS, b"")]
    refused(client, client.seal(b""), "unexpected_message")


# --- change_cipher_spec (section 5, appendix D.4)

def finish_after(client, *interludes):
    for data in interludes:
        assert client.send(data) == [(PROGRESS, b"")]
    return client.finish()


def test_change_cipher_spec_is_dropped():
    assert finish_after(RawClient(session_id=bytes(32)).hello(), CCS_RECORD) == [(ESTABLISHED, b"")]
    assert finish_after(RawClient().hello(), *[CCS_RECORD] * 4) == [(ESTABLISHED, b"")]


@pytest.mark.parametrize("data", [CCS_RECORD * 5, record(CCS, b"\2"), record(CCS, b"\1\1"), record(CCS, b"")])
def test_refused_change_cipher_spec(data):
    client = RawClient().hello()
    events = client.send(data)
    client.finished()
    client.use_application_keys()
    assert_refused(client, events, "unexpected_message")


# --- interleaving and key changes (section 5.1)

@pytest.mark.parametrize("between", [CCS_RECORD, record(ALERT, b"\1\x5a"), record(APPLICATION_DATA, bytes(30))])
def test_nothing_comes_within_a_split_hello(between):
    client = RawClient()
    hello = client_hello(**client.hello_options)
    client.send(record(HANDSHAKE, hello[:50]))
    refused(client, between, "unexpected_message")


@pytest.mark.parametrize("kind", [APPLICATION_DATA, ALERT])
def test_nothing_comes_within_a_split_key_update(kind):
    client = connected()
    assert client.send(client.seal(UPDATE[:2], HANDSHAKE)) == [(PROGRESS, b"")]
    refused(client, client.seal(b"\1\0", kind), "unexpected_message")


@pytest.mark.parametrize("tail", [b"\x14", b"\x14\0\0\x20" + bytes(32)])
def test_a_key_change_ends_its_record(tail):
    client = RawClient()
    refused(client, record(HANDSHAKE, client_hello(**client.hello_options) + tail), "unexpected_message")
    assert client.server.take_output() == b""


def test_bytes_after_the_finished():
    client = RawClient().hello()
    events = client.send(client.write.protect(client.finished() + UPDATE, HANDSHAKE))
    client.use_application_keys()
    assert_refused(client, events, "unexpected_message")
    assert not client.server.established


def test_bytes_after_a_key_update():
    client = connected()
    refused(client, client.seal(UPDATE + UPDATE, HANDSHAKE), "unexpected_message")


# --- KeyUpdate (section 4.6.3)

@pytest.mark.parametrize("suite", SUITES)
def test_the_peer_updates_its_keys(suite):
    client = RawClient(suite=suite).connect()
    for n in range(3):
        assert client.send(client.seal(UPDATE, HANDSHAKE)) == [(PROGRESS, b"")]
        update_write_keys(client)
        assert client.send(client.seal(b"%d" % n)) == [(DATA, b"%d" % n)]
    assert client.server.take_output() == b""


def test_a_split_key_update():
    client = connected()
    for part in (UPDATE[:1], UPDATE[1:4], UPDATE[4:]):
        client.send(client.seal(part, HANDSHAKE))
    update_write_keys(client)
    assert client.send(client.seal(b"x")) == [(DATA, b"x")]


def test_many_requests_have_one_answer_before_the_next_data():
    client = connected()
    for _ in range(5):
        client.send(client.seal(UPDATE_AND_ASK, HANDSHAKE))
        update_write_keys(client)
    assert client.server.take_output() == b""
    client.server.send(b"data")
    output = records(client.server.take_output())
    assert client.read.unprotect(output[0][1]) == (HANDSHAKE, UPDATE)
    update_read_keys(client)
    assert client.read.unprotect(output[1][1]) == (APPLICATION_DATA, b"data")
    assert len(output) == 2
    client.server.send(b"more")
    assert client.open_output() == [(APPLICATION_DATA, b"more")]


def test_our_own_request():
    client = connected()
    client.server.request_key_update(True)
    assert client.open_output() == [(HANDSHAKE, UPDATE_AND_ASK)]
    update_read_keys(client)
    client.server.send(b"x")
    assert client.open_output() == [(APPLICATION_DATA, b"x")]


def test_our_key_update_before_the_limit():
    client = connected()
    client.server.key_update_after = 3
    seen = []
    for n in range(9):
        client.server.send(b"%d" % n)
        for _, whole in records(client.server.take_output()):
            seen.append(client.read.unprotect(whole))
            if seen[-1][0] == HANDSHAKE:
                update_read_keys(client)
    data = [c for kind, c in seen if kind == APPLICATION_DATA]
    assert data == [b"%d" % n for n in range(9)]
    assert [kind for kind, _ in seen] == [23, 23, 23, 22, 23, 23, 23, 22, 23, 23, 23]


def test_the_mark_lies_below_the_aead_limit():
    assert connected().server.key_update_after <= 2**24.5
    assert RawClient(suite=CHACHA20).connect().server.key_update_after > 2**60


def test_key_updates_are_bounded_by_the_data_between():
    client = connected()
    for _ in range(32):
        assert client.send(client.seal(UPDATE, HANDSHAKE)) == [(PROGRESS, b"")]
        update_write_keys(client)
    refused(client, client.seal(UPDATE, HANDSHAKE), "unexpected_message")


def test_data_earns_key_updates_back():
    client = connected()
    for _ in range(100):
        assert client.send(client.seal(UPDATE, HANDSHAKE)) == [(PROGRESS, b"")]
        update_write_keys(client)
        client.send(client.seal(bytes(16384)))
    assert client.server.failure is None


@pytest.mark.parametrize(("sent", "name"), [
    (message(KEY_UPDATE, b"\2"), "illegal_parameter"),
    (message(KEY_UPDATE), "decode_error"),
    (message(KEY_UPDATE, b"\0\0"), "decode_error"),
    (message(1, bytes(100)), "unexpected_message"),
    (message(4, bytes(40)), "unexpected_message"),              # a NewSessionTicket from a client
    (message(20, bytes(32)), "unexpected_message"),
    (message(11), "unexpected_message"),
    (message(0), "unexpected_message"),
])
def test_refused_after_the_handshake(sent, name):
    client = connected()
    refused(client, client.seal(sent, HANDSHAKE), name)


# --- alerts and closing (section 6)

def test_close_notify_and_half_close():
    client = connected()
    client.server.send(b"before")
    assert client.send(client.seal(b"\1\0", ALERT)) == [(CLOSE_NOTIFY, b"")]
    assert client.server.read_closed
    assert client.server.write_open
    assert client.server.failure is None
    client.server.send(b"after")
    client.server.send_close_notify()
    assert client.open_output() == [(23, b"before"), (23, b"after"), (21, b"\1\0")]
    assert not client.server.write_open
    client.server.send_close_notify()
    assert client.server.take_output() == b""
    with pytest.raises(ValueError, match="application data"):
        client.server.send(b"too late")
    with pytest.raises(ValueError, match="KeyUpdate"):
        client.server.request_key_update()


def test_we_close_first_and_read_on():
    client = connected()
    client.server.send_close_notify()
    assert client.open_output() == [(21, b"\1\0")]
    assert client.send(client.seal(b"still")) == [(DATA, b"still")]
    client.send(client.seal(UPDATE_AND_ASK, HANDSHAKE))
    update_write_keys(client)
    assert client.send(client.seal(b"\1\0", ALERT)) == [(CLOSE_NOTIFY, b"")]
    assert client.server.take_output() == b""
    assert client.server.failure is None


def test_a_fault_after_our_close_notify_is_silent():
    client = connected()
    client.server.send_close_notify()
    client.server.take_output()
    assert client.send(record(APPLICATION_DATA, bytes(40))) == [(FAILED, b"")]
    assert client.server.failure.name == "bad_record_mac"
    assert client.server.take_output() == b""


def test_what_follows_a_close_notify_is_ignored():
    client = connected()
    client.send(client.seal(b"\1\0", ALERT))
    assert client.send(b"anything") == [(PROGRESS, b"")]
    assert client.server.failure is None


ERROR_ALERTS = [(40, "handshake_failure"), (20, "bad_record_mac"), (99, "unknown(99)")]


@pytest.mark.parametrize(("number", "name"), ERROR_ALERTS)
def test_an_error_alert_as_a_warning_is_refused(number, name):
    client = connected()
    assert client.send(client.seal(bytes([1, number]), ALERT)) == [(FAILED, b"")]
    failure = client.server.failure
    assert (failure.name, failure.reason, failure.sent) == ("decode_error", f"{name} as a warning", True)


@pytest.mark.parametrize(("number", "name"), ERROR_ALERTS)
def test_the_peers_alert_is_fatal(number, name):
    client = connected()
    assert client.send(client.seal(bytes([2, number]), ALERT)) == [(FAILED, b"")]
    failure = client.server.failure
    assert (failure.name, failure.sent) == (name, False)
    assert client.server.take_output() == b""
    assert not client.server.write_open


def test_a_server_may_warn_before_it_chooses_its_version():
    client = Engine(ClientConfig())
    warning = record(ALERT, b"\1\x70")
    assert client.receive_bytes(warning * 4) == [(PROGRESS, b"")] * 4
    assert client.receive_bytes(warning)[-1] == (FAILED, b"")
    assert (client.failure.name, client.failure.reason) == ("unexpected_message", "too many warnings")
    client = Engine(ClientConfig())
    assert client.receive_bytes(record(ALERT, b"\2\x70"))[-1] == (FAILED, b"")
    assert (client.failure.name, client.failure.sent) == ("unrecognized_name", False)


def test_a_plaintext_alert_instead_of_a_finished():
    client = RawClient().hello()
    assert client.send(record(ALERT, b"\2\x30")) == [(FAILED, b"")]
    assert (client.server.failure.name, client.server.failure.sent) == ("unknown_ca", False)


def test_an_alert_instead_of_a_hello():
    client = RawClient()
    assert client.send(record(ALERT, b"\2\x28")) == [(FAILED, b"")]
    assert client.server.failure.name == "handshake_failure"


def test_close_notify_within_the_handshake():
    client = RawClient().hello()
    assert client.send(client.seal(b"\1\0", ALERT)) == [(FAILED, b"")]
    assert (client.server.failure.name, client.server.failure.sent) == ("close_notify", False)


def test_user_canceled_is_passed_over_a_few_times():
    client = RawClient().hello()
    assert client.send(client.seal(b"\1\x5a", ALERT)) == [(PROGRESS, b"")]
    assert client.finish() == [(ESTABLISHED, b"")]
    for _ in range(3):
        assert client.send(client.seal(b"\1\x5a", ALERT)) == [(PROGRESS, b"")]
    refused(client, client.seal(b"\1\x5a", ALERT), "unexpected_message")


def test_our_close_notify_before_the_hello_is_the_last_word():
    client = RawClient()
    client.server.send_close_notify()
    assert client.server.take_output() == record(ALERT, b"\1\0")
    client.send(record(HANDSHAKE, client_hello(**client.hello_options)))
    assert client.server.take_output() == b""


# --- memory

def test_an_idle_connection_is_small():
    client = connected()
    server = client.server
    idle = contexts()
    server.send(b"x" * 20000)
    assert client.send(client.seal(b"x")) == [(DATA, b"x")]
    client.open_output()
    assert contexts() == idle + 2 + 2           # the client's two and the server's two
    server.park_now()
    assert contexts() == idle + 2
    assert sys.getsizeof(server) < 700
    # What it refers to is shared (or a number, or None): nothing else is held.
    assert not server.handshaking
    assert client.send(client.seal(b"awake")) == [(DATA, b"awake")]
    server.send(b"too")
    assert client.open_output() == [(APPLICATION_DATA, b"too")]


def test_contexts_return_to_the_pool():
    gc.collect()
    before = contexts()
    clients = [connected() for _ in range(5)]
    for client in clients[:2]:
        client.send(b"GET / HTTP/1.1")
    del clients, client
    gc.collect()
    assert contexts() == before


def test_large_data_both_ways():
    server, client = Engine(server_config()), Engine(ClientConfig())
    pump(client, server)
    data = bytes(range(256)) * 400
    for a, b in ((client, server), (server, client)):
        a.send(data)
        events = b.receive_bytes(a.take_output())
        assert [len(p) for _, p in events] == [16384] * 6 + [len(data) - 6 * 16384]
        assert b"".join(p for _, p in events) == data


# --- anything at all

@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_first(data):
    server = Engine(server_config())
    events = server.receive_bytes(data)
    assert all(event in (PROGRESS, FAILED) for event, _ in events)
    assert (server.failure is not None) == (FAILED in [event for event, _ in events])
    if server.failure is not None and server.failure.sent:
        assert server.failure.name != "internal_error"


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_mutation_of_a_hello(data):
    hello = bytearray(client_hello(share=RawClient().share, session_id=bytes(32), alpn=(b"http/1.1",)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(hello) - 1))
        hello[at] = data.draw(st.integers(0, 255))
    server = Engine(server_config())
    server.receive_bytes(record(HANDSHAKE, bytes(hello)))
    assert server.failure is None or server.failure.name != "internal_error"


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=100), st.sampled_from([ALERT, HANDSHAKE, APPLICATION_DATA, CCS, 0, 255]))
def test_any_protected_content(content, kind):
    client = connected()
    if kind == 0 and not content.rstrip(b"\0"):
        content = b""
    client.send(client.seal(content, kind))
    failure = client.server.failure
    assert failure is None or failure.name != "internal_error"


RECORD_KINDS = st.sampled_from([ALERT, HANDSHAKE, APPLICATION_DATA, CCS])
CONTENTS = st.one_of(
    st.sampled_from([b"", b"\1", b"\1\0", b"\1\x5a", b"\2\x28", UPDATE, UPDATE_AND_ASK, UPDATE[:3], UPDATE[3:],
                     UPDATE * 2]),
    st.binary(max_size=40))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["new", "hello", "connected"]), st.lists(
    st.tuples(RECORD_KINDS, CONTENTS, st.booleans()), max_size=12), st.integers(1, 50))
def test_any_sequence_of_records(stage, sequence, chunk):
    """Plaintext and protected records in any order and in any pieces: an event each or one alert, and little output."""
    client = RawClient()
    if stage != "new":
        client.hello()
    if stage == "connected":
        client.finish()
    server, failed = client.server, False
    for kind, content, protected in sequence:
        data = client.seal(content, kind) if protected and client.write else record(kind, content)
        for at in range(0, len(data), chunk):
            events = [event for event, _ in server.receive_bytes(data[at : at + chunk])]
            assert not (failed and set(events) - {FAILED})
            failed = failed or FAILED in events
        if protected and kind == HANDSHAKE and content in (UPDATE, UPDATE_AND_ASK) and stage == "connected":
            update_write_keys(client)
    assert failed == (server.failure is not None)
    assert not failed or server.failure.name != "internal_error"
    assert len(server.take_output()) < 100


def test_wrong_arguments():
    with pytest.raises(TypeError):
        Engine(None)
    with pytest.raises(TypeError):
        Engine("config")


def test_names():
    assert describe(0x0304, 0x1303, 0x0018, 0x0807) == "TLSv1.3 TLS_CHACHA20_POLY1305_SHA256 secp384r1 ed25519"
    assert describe(0, 0, 0, 0) == Engine(server_config()).description == "- - - -"
    assert describe(1, 1, 1, 1) == "unknown unknown unknown unknown"
