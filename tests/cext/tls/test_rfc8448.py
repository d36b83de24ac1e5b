"""The published traces of RFC 8448: transcript, key schedule and records reproduce every byte of them."""

import hashlib
import hmac

import pytest
from cext.tls.engine import PROGRESS, Engine
from cext.tls.key_schedule import Schedule, keys_of, verify_data
from cext.tls.record import RecordKeys
from cext.tls.transcript import TranscriptHash
from cryptography.hazmat.primitives.asymmetric import ec, x25519

from tests.cext.tls.peer import records, server_config
from tests.vectors.rfc8448 import HELLO_RETRY_REQUEST, MIDDLEBOX_COMPATIBILITY, RESUMED_0RTT, SIMPLE_1RTT, section

SHA256, AES_128_GCM = 1, 1
CLOSE_NOTIFY = (21, b"\x01\x00")


def x25519_shared(private, hello, offset):
    return x25519.X25519PrivateKey.from_private_bytes(private).exchange(
        x25519.X25519PublicKey.from_public_bytes(hello[offset : offset + 32]))


def share_at(record, group):
    """Where the key_exchange of a group's KeyShareEntry begins."""
    length = {0x001D: 32, 0x0017: 65}[group]
    return record.index(group.to_bytes(2, "big") + length.to_bytes(2, "big")) + 4


def server_messages(trace):
    return [trace[name] for name in ("encrypted_extensions", "certificate", "certificate_verify")]


def run_trace(trace, transcript, shared):
    """Follows a trace from its ServerHello (already in the transcript): every record opens and is sealed again."""
    schedule = Schedule(SHA256, shared)
    hello_hash = transcript.digest()
    client, server = schedule.derive("c hs traffic", hello_hash), schedule.derive("s hs traffic", hello_hash)
    for message in server_messages(trace):
        transcript.add(message)
    finished = verify_data(SHA256, server, transcript.digest())
    assert trace["server_finished"] == b"\x14\x00\x00\x20" + finished
    transcript.add(trace["server_finished"])
    flight = b"".join([*server_messages(trace), trace["server_finished"]])
    assert RecordKeys(SHA256, AES_128_GCM, server, True).protect(flight, 22) == trace["server_flight"]
    assert RecordKeys(SHA256, AES_128_GCM, server, False).unprotect(trace["server_flight"]) == (22, flight)

    client_finished = b"\x14\x00\x00\x20" + verify_data(SHA256, client, transcript.digest())
    assert RecordKeys(SHA256, AES_128_GCM, client, True).protect(client_finished, 22) == trace["client_finished"]
    schedule.master()
    digest = transcript.digest()
    return {
        "hello_hash": hello_hash, "c hs traffic": client, "s hs traffic": server,
        "c ap traffic": schedule.derive("c ap traffic", digest),
        "s ap traffic": schedule.derive("s ap traffic", digest),
    }


def test_simple_handshake():
    trace = section(SIMPLE_1RTT)
    shared = x25519_shared(trace["client_private"], trace["server_hello"], share_at(trace["server_hello"], 0x001D))
    assert shared == trace["shared"]
    assert shared == x25519_shared(
        trace["server_private"], trace["client_hello"], share_at(trace["client_hello"], 0x001D))
    transcript = TranscriptHash(SHA256)
    transcript.add(trace["client_hello"][5:])
    transcript.add(trace["server_hello"][5:])
    secrets = run_trace(trace, transcript, shared)
    assert secrets == {name: trace[name] for name in secrets}
    for sender in ("s hs", "c hs", "s ap", "c ap"):
        keys = keys_of(SHA256, AES_128_GCM, trace[f"{sender} traffic"])
        assert keys == (trace[f"{sender} key"], trace[f"{sender} iv"])


def test_application_records_of_the_simple_handshake():
    trace = section(SIMPLE_1RTT)
    server = RecordKeys(SHA256, AES_128_GCM, trace["s ap traffic"], True)
    opener = RecordKeys(SHA256, AES_128_GCM, trace["s ap traffic"], False)
    kind, ticket = opener.unprotect(trace["new_session_ticket"])
    assert (kind, ticket[0]) == (22, 4)
    assert server.protect(ticket, 22) == trace["new_session_ticket"]
    assert server.protect(trace["application_data"], 23) == trace["server_application_data"]
    assert server.protect(*reversed(CLOSE_NOTIFY)) == trace["server_close_notify"]

    client = RecordKeys(SHA256, AES_128_GCM, trace["c ap traffic"], False)
    assert client.unprotect(trace["client_application_data"]) == (23, trace["application_data"])
    assert client.unprotect(trace["client_close_notify"]) == CLOSE_NOTIFY
    assert client.sequence == 2


def test_hello_retry_request():
    trace = section(HELLO_RETRY_REQUEST)
    at = share_at(trace["server_hello"], 0x0017)
    public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), trace["server_hello"][at : at + 65])
    private = ec.derive_private_key(int.from_bytes(trace["client_private"], "big"), ec.SECP256R1())
    transcript = TranscriptHash(SHA256)
    transcript.add(trace["client_hello1"][5:])
    transcript.retry()
    for name in ("hello_retry_request", "client_hello2", "server_hello"):
        transcript.add(trace[name][5:])
    secrets = run_trace(trace, transcript, private.exchange(ec.ECDH(), public))
    assert secrets == {name: trace[name] for name in secrets}
    for sender, key in (("client", "c ap traffic"), ("server", "s ap traffic")):
        keys = RecordKeys(SHA256, AES_128_GCM, trace[key], False)
        assert keys.unprotect(trace[f"{sender}_close_notify"]) == CLOSE_NOTIFY


def test_middlebox_compatibility():
    trace = section(MIDDLEBOX_COMPATIBILITY)
    assert trace["server_change_cipher_spec"] == trace["client_change_cipher_spec"] == bytes.fromhex("140303000101")
    shared = x25519_shared(trace["client_private"], trace["server_hello"], share_at(trace["server_hello"], 0x001D))
    transcript = TranscriptHash(SHA256)
    transcript.add(trace["client_hello"][5:])
    transcript.add(trace["server_hello"][5:])
    secrets = run_trace(trace, transcript, shared)
    for sender, key in (("client", "c ap traffic"), ("server", "s ap traffic")):
        keys = RecordKeys(SHA256, AES_128_GCM, secrets[key], False)
        assert keys.unprotect(trace[f"{sender}_close_notify"]) == CLOSE_NOTIFY


@pytest.mark.parametrize("select_late", [True, False])
def test_the_hash_may_become_known_after_the_first_message(select_late):
    trace = section(HELLO_RETRY_REQUEST)
    transcript = TranscriptHash(0 if select_late else SHA256)
    transcript.add(trace["client_hello1"][5:])
    if select_late:
        transcript.select(SHA256)
    transcript.retry()
    for name in ("hello_retry_request", "client_hello2", "server_hello"):
        transcript.add(trace[name][5:])
    assert transcript.digest() == trace["hello_hash"]


# --- the hellos of the traces, given to our server: its own keys differ, its conduct must not

def answer(*stream, **options):
    server = Engine(server_config("rsa", **options))
    events = [event for part in stream for event, _ in server.receive_bytes(part)]
    assert server.failure is None
    return server, events, records(server.take_output())


def test_our_answer_to_the_simple_hello():
    server, _, flight = answer(section(SIMPLE_1RTT)["client_hello"])
    assert [kind for kind, _ in flight] == [22, 23]
    trace = section(SIMPLE_1RTT)["server_hello"]
    assert len(flight[0][1]) == len(trace)
    assert flight[0][1][:11] == trace[:11]                      # as far as the random
    assert flight[0][1][43:47] == trace[43:47] == b"\0\x13\x01\0"
    assert b"\x00\x33\x00\x24\x00\x1d\x00\x20" in flight[0][1][47:]
    assert server.handshaking


def test_our_retry_to_the_hello_of_section_5():
    trace = section(HELLO_RETRY_REQUEST)
    server, _, flight = answer(trace["client_hello1"], groups=(0x0017,))
    assert [kind for kind, _ in flight] == [22]
    retry = flight[0][1]
    assert retry[9:43] == trace["hello_retry_request"][9:43]        # version and the special random
    assert b"\x00\x33\x00\x02\x00\x17" in retry
    # The trace's second hello carries the trace's cookie, not ours.
    server.receive_bytes(trace["client_hello2"])
    assert server.failure.name == "illegal_parameter"


def test_our_answer_in_compatibility_mode():
    trace = section(MIDDLEBOX_COMPATIBILITY)
    _, _, flight = answer(trace["client_hello"], trace["client_change_cipher_spec"])
    assert [kind for kind, _ in flight] == [22, 20, 23]
    assert flight[1][1] == trace["server_change_cipher_spec"]
    session_id = trace["client_hello"][43:76]
    assert session_id[0] == 32
    assert flight[0][1][43:76] == session_id == trace["server_hello"][43:76]


def test_a_resumption_we_do_not_know_is_a_full_handshake():
    trace = section(RESUMED_0RTT)
    hello = trace["client_hello"][5:]
    # The transcription proves itself: the binder is the MAC of the hello up to it (RFC 8446, section 4.2.11.2).
    digest, binder = hashlib.sha256(hello[:-35]).digest(), hello[-32:]
    early = hmac.digest(bytes(32), trace["psk"], "sha256")
    empty = hashlib.sha256().digest()
    label = b"\x00\x20\x10tls13 res binder\x20" + empty + b"\x01"
    finished_key = hmac.digest(hmac.digest(early, label, "sha256"), b"\x00\x20\x0etls13 finished\x00\x01", "sha256")
    assert hmac.digest(finished_key, digest, "sha256") == binder

    _, events, flight = answer(trace["client_hello"], trace["client_early_data"])
    assert events == [PROGRESS, PROGRESS]
    assert [kind for kind, _ in flight] == [22, 23]
    assert len(flight[1][1]) > 700                  # a Certificate is in it
