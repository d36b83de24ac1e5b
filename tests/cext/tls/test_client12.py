"""The client's side of TLS 1.2: with Python's ssl, and against a server that answers whatever a test wants."""

import os
import ssl

import pytest
from cext.crypto.sign import PrivateKey
from cext.tls.alert import TlsAlert
from cext.tls.config import ClientConfig
from cext.tls.engine import DATA, ESTABLISHED, FAILED, Engine
from cext.tls.record import RecordKeys
from cext.tls.session import Session, TicketKeys, shift_clock
from cryptography.hazmat.primitives import serialization

from cext.tls import prf12
from tests.cext.tls.peer import (
    ALERT,
    ALERTS,
    CCS_RECORD,
    FINISHED,
    HANDSHAKE,
    KEY_KINDS,
    P256,
    P384,
    SERVER_HELLO,
    X25519,
    Share,
    certified,
    extension,
    message,
    messages,
    pump,
    record,
    records,
    server_config,
    u16s,
    vector,
)
from tests.cext.tls.peer12 import (
    CURVES,
    ECDSA_SUITES,
    EMS,
    HASHES,
    HELLO_REQUEST,
    NEW_SESSION_TICKET,
    RENEGOTIATION,
    RSA_SUITES,
    SERVER_HELLO_DONE,
    SERVER_KEY_EXCHANGE,
    SESSION_TICKET,
    SUITES12,
    TLS12,
    Ssl,
    hash_and_aead,
)

USUAL = extension(EMS) + extension(RENEGOTIATION, b"\0")
ALERTS = {number: name for name, number in {**ALERTS, "no_renegotiation": 100, "bad_certificate": 42}.items()}


def suites_of(kind):
    return RSA_SUITES if kind == "rsa" else ECDSA_SUITES


# --- with Python's ssl

@pytest.mark.parametrize(("kind", "suite"), [(kind, suite) for kind in KEY_KINDS for suite in suites_of(kind)])
@pytest.mark.parametrize("both", [True, False])
def test_every_suite_and_key(kind, suite, both):
    """Of a server that speaks nothing newer, offered with TLS 1.3 and without."""
    config = ClientConfig(server_name="example.com", alpn=(b"http/1.1",), max_version=0x0304 if both else TLS12)
    client = Engine(config)
    peer = Ssl(client, server_kind=kind, suite=SUITES12[suite], alpn=["http/1.1"]).handshake()
    assert (client.version, client.cipher_suite, client.alpn) == (TLS12, suite, b"http/1.1")
    assert peer.object.version() == "TLSv1.2"
    peer.check_data()


@pytest.mark.parametrize("group", CURVES)
def test_every_group(group):
    client = Engine(ClientConfig(groups=(group, *(g for g in CURVES if g != group))))
    # set_ecdh_curve knows no X25519, which OpenSSL takes anyway when it comes first.
    Ssl(client, server_kind="rsa", group=CURVES[group] if group != X25519 else None).handshake()
    assert client.group == group


def test_resumption_with_python_ssl():
    first = Engine(ClientConfig(server_name="example.com"))
    peer = Ssl(first, server_kind="ecdsa-p256").handshake()
    assert first.session.version == TLS12 and not first.resumed
    for session in (first.session, Session.from_bytes(first.session.to_bytes())):
        second = Engine(ClientConfig(server_name="example.com"), session)
        again = Ssl(second, server_kind="ecdsa-p256", context=peer.context).handshake()
        assert second.resumed and again.object.session_reused
        assert second.peer_certificates == first.peer_certificates
        again.check_data()


def test_a_distrusted_certificate():
    def verify(chain, name):
        raise TlsAlert(48, f"{len(chain)} from {name}")

    client = Engine(ClientConfig(server_name="example.com", verify=verify))
    with pytest.raises(ssl.SSLError, match="UNKNOWN_CA"):
        Ssl(client, server_kind="rsa").handshake()
    assert client.failure.name == "unknown_ca"


# --- against a server by hand

class RawServer12:
    """Answers one ClientHello; `alter` maps a message's name to what is made of it: bytes, a list of them, or b""."""

    def __init__(self, config=None, suite=0xC02B, kind="ecdsa-p256", group=X25519, **alter):
        self.client = Engine(config or ClientConfig(server_name="example.com"))
        self.suite, self.kind, self.group, self.alter = suite, kind, group, alter
        self.hash, self.aead = hash_and_aead(suite)
        self.transcript = b""
        self.random = b"\x44" * 32
        self.share = Share(group)
        self.read = self.write = None
        self.events = []
        hello = records(self.client.take_output())[0][1][5:]
        self.transcript += hello
        self.client_random = hello[6:38]
        self.session_id = hello[39 : 39 + hello[38]]

    def say(self, name, whole):
        for one in [whole] if name not in self.alter else self.changed(name, whole):
            self.transcript += one
            if not self.client.failure:
                self.events += self.client.receive_bytes(
                    self.write.protect(one, HANDSHAKE) if self.write else record(HANDSHAKE, one))
        return self

    def changed(self, name, whole):
        made = self.alter[name](whole)
        return made if isinstance(made, list) else [made] if made else []

    def hello(self, extensions=USUAL, session_id=b"", suite=None):
        body = u16s(TLS12) + self.random + vector(1, session_id) + u16s(suite or self.suite) + b"\0"
        self.ems = extension(EMS) in extensions
        return self.say("server_hello", message(SERVER_HELLO, body + vector(2, extensions)))

    def flight(self, algorithm=None):
        certificate, key = certified(self.kind)
        self.say("certificate", message(11, vector(3, vector(3, certificate.public_bytes(serialization.Encoding.DER)))))
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        algorithm = algorithm or {"rsa": 0x0401, "ed25519": 0x0807}.get(self.kind, 0x0403)
        params = b"\3" + u16s(self.group) + vector(1, self.share.public)
        signature = PrivateKey.from_pem(pem).sign12_bytes(algorithm, self.client_random + self.random + params)
        self.say("key_exchange", message(SERVER_KEY_EXCHANGE, params + u16s(algorithm) + vector(2, signature)))
        return self.say("done", message(SERVER_HELLO_DONE))

    def take(self):
        """The client's flight: its messages, in plaintext and under its keys."""
        taken = []
        for kind, whole in records(self.client.take_output()):
            if kind == 20:
                self.read = RecordKeys(0, self.aead, self.keys[0], False)
                continue
            content = self.read.unprotect(whole)[1] if self.read else whole[5:]
            for name, one in messages(content):
                if name == 16:
                    self.transcript += one
                    self.make_keys(self.share.exchange(one[5:]))
                elif name == FINISHED:
                    digest = HASHES[self.hash](self.transcript).digest()
                    assert one[4:] == prf12.finished(self.hash, self.master, False, digest)
                    self.transcript += one
                else:
                    self.transcript += one
                taken.append(name)
        return taken

    def make_keys(self, premaster=None, master=None):
        digest = HASHES[self.hash](self.transcript).digest()
        if premaster is not None:
            master = (prf12.extended_master(self.hash, premaster, digest) if self.ems
                      else prf12.master(self.hash, premaster, self.client_random, self.random))
        self.master = master
        self.keys = prf12.keys(self.hash, self.aead, master, self.client_random, self.random)

    def end(self):
        self.events += self.client.receive_bytes(CCS_RECORD)
        self.write = RecordKeys(0, self.aead, self.keys[1], True)
        digest = HASHES[self.hash](self.transcript).digest()
        return self.say("finished", message(FINISHED, prf12.finished(self.hash, self.master, True, digest)))

    def serve(self):
        self.hello()
        self.flight()
        if self.client.failure is None and 16 in self.take():
            self.end()
        return self

    def alert(self):
        kind, whole = records(self.client.take_output())[-1]
        assert kind == ALERT or self.read
        content = self.read.unprotect(whole)[1] if self.read else whole[5:]
        assert content[0] == 2
        return ALERTS[content[1]]


def test_the_script_itself():
    for suite, kind in ((0xC02B, "ecdsa-p256"), (0xC030, "rsa"), (0xCCA9, "ed25519")):
        server = RawServer12(suite=suite, kind=kind).serve()
        assert server.events[-1] == (ESTABLISHED, b""), server.client.failure
        assert server.client.receive_bytes(server.write.protect(b"data", 23)) == [(DATA, b"data")]


def test_without_extended_master_secret():
    server = RawServer12()
    server.hello(extension(RENEGOTIATION, b"\0"))
    server.flight()
    server.take()
    assert server.end().events[-1] == (ESTABLISHED, b"")
    assert server.client.session is None


@pytest.mark.parametrize("algorithm", [0x0401, 0x0501, 0x0601, 0x0804, 0x0805, 0x0806])
def test_algorithms_of_rsa(algorithm):
    server = RawServer12(suite=0xC02F, kind="rsa")
    server.hello()
    server.flight(algorithm)
    server.take()
    assert server.end().events[-1] == (ESTABLISHED, b"")
    assert server.client.signature_scheme == algorithm


def test_a_hash_of_another_curve():
    server = RawServer12(kind="ecdsa-p384")
    server.hello()
    server.flight(0x0403)
    server.take()
    assert server.end().events[-1] == (ESTABLISHED, b"")


def test_hello_requests_within_the_handshake_are_ignored():
    server = RawServer12()
    server.hello()
    for _ in range(4):
        server.client.receive_bytes(record(HANDSHAKE, message(HELLO_REQUEST)))
    server.flight()
    server.take()
    assert server.end().events[-1] == (ESTABLISHED, b"")
    fifth = RawServer12()
    fifth.hello()
    for _ in range(5):
        fifth.client.receive_bytes(record(HANDSHAKE, message(HELLO_REQUEST)))
    assert fifth.alert() == "unexpected_message"


def test_renegotiation_is_refused():
    server = RawServer12().serve()
    server.client.receive_bytes(server.write.protect(message(HELLO_REQUEST), HANDSHAKE))
    assert server.alert() == "no_renegotiation"


def test_warnings_before_the_server_hello():
    server = RawServer12()
    server.client.receive_bytes(record(ALERT, b"\1\x70"))                   # unrecognized_name
    assert server.serve().events[-1] == (ESTABLISHED, b"")


def test_a_certificate_is_asked_for():
    request = message(13, vector(1, b"\x40\1") + vector(2, u16s(0x0403)) + vector(2, b""))
    server = RawServer12(done=lambda done: [request, done])
    server.hello()
    server.flight()
    assert server.take() == [11, 16, FINISHED]
    assert server.end().events[-1] == (ESTABLISHED, b"")


def flipped(at):
    return lambda whole: whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] if at >= 0 else (
        whole[:at] + bytes([whole[at] ^ 1]) + (whole[at + 1 :] if at != -1 else b""))


def instead(kind, body=b""):
    return lambda _: message(kind, body)


FAULTS = [
    ("TLS 1.1", "server_hello", lambda m: m[:4] + b"\3\2" + m[6:], "protocol_version"),
    ("downgrade to 1.2", "server_hello", lambda m: m[:30] + b"DOWNGRD\1" + m[38:], "illegal_parameter"),
    ("downgrade to 1.1", "server_hello", lambda m: m[:30] + b"DOWNGRD\0" + m[38:], "illegal_parameter"),
    ("suite of 1.3", "server_hello", lambda m: m.replace(b"\xc0\x2b", b"\x13\1"), "illegal_parameter"),
    ("suite that was not offered", "server_hello", lambda m: m.replace(b"\xc0\x2b", b"\xc0\x09"), "illegal_parameter"),
    ("RSA suite", "server_hello", lambda m: m.replace(b"\xc0\x2b", b"\xc0\x2f"), "illegal_parameter"),
    ("cut short", "server_hello", lambda m: message(SERVER_HELLO, m[4:-1]), "decode_error"),
    ("twice", "server_hello", lambda m: [m, m], "unexpected_message"),
    ("left out", "certificate", lambda _: b"", "unexpected_message"),
    ("empty", "certificate", instead(11, vector(3, b"")), "decode_error"),
    ("no certificate", "certificate", instead(11, vector(3, vector(3, b"junk"))), "bad_certificate"),
    ("left out", "key_exchange", lambda _: b"", "unexpected_message"),
    ("bad signature", "key_exchange", flipped(-1), "decrypt_error"),
    ("another point", "key_exchange", flipped(20), "decrypt_error"),
    ("explicit curve", "key_exchange", lambda m: m[:4] + b"\1" + m[5:], "illegal_parameter"),
    ("group that was not offered", "key_exchange", lambda m: m[:5] + b"\0\x1e" + m[7:], "illegal_parameter"),
    ("algorithm that was not offered", "key_exchange", lambda m: m[:40] + b"\2\3" + m[42:], "illegal_parameter"),
    ("algorithm of another key", "key_exchange", lambda m: m[:40] + b"\4\1" + m[42:], "illegal_parameter"),
    ("trailing byte", "key_exchange", lambda m: message(SERVER_KEY_EXCHANGE, m[4:] + b"\0"), "decode_error"),
    ("not empty", "done", instead(SERVER_HELLO_DONE, b"\0"), "decode_error"),
    ("wrong", "finished", flipped(-1), "decrypt_error"),
    ("left out for another message", "finished", instead(SERVER_HELLO_DONE), "unexpected_message"),
]


@pytest.mark.parametrize(("what", "name", "change", "alert"), FAULTS, ids=[f"{f[1]}: {f[0]}" for f in FAULTS])
def test_fault_of_the_server(what, name, change, alert):
    server = RawServer12(**{name: change}).serve()
    assert server.client.failure is not None, what
    assert not server.client.established
    assert server.alert() == alert
    assert server.client.failure.reason


def test_server_hello_done_twice():
    server = RawServer12(done=lambda m: [m, m])
    server.hello()
    server.flight()
    assert server.client.failure.name == "unexpected_message"


@pytest.mark.parametrize(("extensions", "alert"), [
    (extension(SESSION_TICKET, b"x"), "decode_error"),
    (extension(16, vector(2, vector(1, b"h2"))), "unsupported_extension"),
    (extension(5), "unsupported_extension"),
    (extension(RENEGOTIATION, b"\1x"), "handshake_failure"),
    (extension(0x1234), "unsupported_extension"),
])
def test_refused_extensions(extensions, alert):
    server = RawServer12().hello(extensions)
    assert server.alert() == alert


def test_a_protocol_that_was_not_offered():
    server = RawServer12(ClientConfig(alpn=(b"http/1.1",))).hello(extension(16, vector(2, vector(1, b"h2"))))
    assert server.alert() == "illegal_parameter"


def test_a_leaf_on_a_curve_that_was_not_offered():
    server = RawServer12(ClientConfig(groups=(X25519, P256)), kind="ecdsa-p384")
    server.hello()
    server.flight()
    assert server.alert() == "illegal_parameter"


def test_a_bad_point_is_refused_before_anything_is_sent():
    server = RawServer12(group=P384)
    server.share.public = b"\4" + bytes(96)
    server.hello()
    server.flight()
    assert server.alert() == "illegal_parameter"


@pytest.mark.parametrize("when", ["before the ServerHello", "after it", "before our flight"])
def test_change_cipher_spec_at_the_wrong_time(when):
    server = RawServer12(ClientConfig(max_version=TLS12))
    if when != "before the ServerHello":
        server.hello()
        server.client.receive_bytes(CCS_RECORD)
        assert server.alert() == "unexpected_message"
        return
    server.client.receive_bytes(CCS_RECORD)     # which version it will be is not known: TLS 1.3 drops it
    server.hello()
    server.flight()
    server.take()
    assert server.end().events[-1] == (ESTABLISHED, b"")


def test_session_id_that_echoes_nothing():
    server = RawServer12()
    server.hello(session_id=server.session_id)
    assert server.alert() == "illegal_parameter"
    assert RawServer12().hello(session_id=b"\1" * 32).client.failure is None


def test_a_1_3_server_is_no_1_2_server():
    """max_version 1.2: neither supported_versions nor key_share are sent, nor may they be answered."""
    client = Engine(ClientConfig(max_version=TLS12))
    hello = client.take_output()
    assert extension(43, b"\2\3\4") not in hello and b"\x00\x33" not in hello[60:]
    server = RawServer12(ClientConfig(max_version=TLS12))
    server.hello(extension(43, b"\3\4"))
    assert server.client.failure is not None


# --- tickets

def given(lifetime=300):
    """(configuration of the server, a session of the client)."""
    config = server_config(max_version=TLS12, tickets=TicketKeys([(os.urandom(16), os.urandom(32))]),
                           ticket_lifetime=lifetime)
    client = Engine(ClientConfig(server_name="example.com"))
    pump(client, Engine(config))
    return config, client.session


def offers(config, session):
    """Whether the ClientHello carries the session's ticket."""
    return session.ticket in Engine(config, session).take_output()


def test_where_a_session_is_offered():
    _, session = given()
    assert offers(ClientConfig(server_name="example.com"), session)
    assert offers(ClientConfig(server_name="example.com", max_version=TLS12, middlebox_compatibility=False), session)
    assert not offers(ClientConfig(server_name="www.example.com"), session)
    assert not offers(ClientConfig(server_name="example.com", min_version=0x0304), session)
    assert not offers(ClientConfig(server_name="example.com", cipher_suites=(0x1301, 0xC02C)), session)
    assert not offers(ClientConfig(server_name="example.com", verify=lambda *_: None), session)
    shift_clock(301_000)
    assert not offers(ClientConfig(server_name="example.com"), session)


@pytest.mark.parametrize(("extensions", "suite", "alert"), [
    (extension(EMS), 0xC02C, "illegal_parameter"),
    (b"", 0xC02B, "handshake_failure"),
])
def test_a_session_resumed_wrongly(extensions, suite, alert):
    _, session = given()
    server = RawServer12(ClientConfig(server_name="example.com", session=session))
    server.hello(extensions, session_id=server.session_id, suite=suite)
    assert server.alert() == alert


def test_a_promised_ticket_must_come():
    server = RawServer12()
    server.hello(extension(EMS) + extension(SESSION_TICKET))
    server.flight()
    server.take()
    server.client.receive_bytes(CCS_RECORD)
    assert server.alert() == "unexpected_message"


@pytest.mark.parametrize(("body", "alert"), [
    (bytes(4) + vector(2, b"ticket"), None), (bytes(4) + vector(2, b""), None), (bytes(3), "decode_error"),
    (bytes(4) + vector(2, b"ticket") + b"\0", "decode_error"),
])
def test_new_session_ticket(body, alert):
    server = RawServer12()
    server.hello(extension(EMS) + extension(SESSION_TICKET))
    server.flight()
    server.take()
    server.say("ticket", message(NEW_SESSION_TICKET, body))
    if alert:
        assert server.alert() == alert
        return
    assert server.end().events[-1] == (ESTABLISHED, b"")
    session = server.client.session
    assert (session.ticket if session else b"") == body[6:]


def test_a_ticket_that_was_not_promised():
    server = RawServer12()
    server.hello()
    server.flight()
    server.take()
    server.say("ticket", message(NEW_SESSION_TICKET, bytes(4) + vector(2, b"ticket")))
    assert server.alert() == "unexpected_message"
    assert server.events[-1] == (FAILED, b"")


def test_a_client_without_tickets():
    """Nothing is offered or taken; what echoes the session id that there might have been is refused."""
    keys = TicketKeys([(os.urandom(16), os.urandom(32))])
    for max_version in (TLS12, 0x0304):
        first = Engine(ClientConfig(server_name="example.com", tickets=False, max_version=max_version))
        pump(first, Engine(server_config(tickets=keys)))
        assert first.established
        assert first.session is None
        known = Engine(ClientConfig(server_name="example.com", max_version=max_version))
        pump(known, Engine(server_config(tickets=keys)))
        server = Engine(server_config(tickets=keys))
        again = Engine(ClientConfig(server_name="example.com", tickets=False, max_version=max_version), known.session)
        pump(again, server)
        assert again.established
        assert not server.resumed
    server = RawServer12(ClientConfig(server_name="example.com", tickets=False, middlebox_compatibility=False))
    assert server.hello(USUAL + extension(SESSION_TICKET)).client.failure.name == "unsupported_extension"
