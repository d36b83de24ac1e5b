"""The client: against our server, against OpenSSL, and against a server that says whatever a test wants."""

import ssl

import pytest
from cext.tls.alert import TlsAlert
from cext.tls.config import ClientConfig, ServerConfig
from cext.tls.engine import DATA, ESTABLISHED, FAILED, Engine
from cext.tls.key_schedule import Schedule, verify_data
from cext.tls.record import RecordKeys
from cext.tls.transcript import TranscriptHash
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from hypothesis import given, settings
from hypothesis import strategies as st

from cext.tls import inspect
from tests.cext.tls.peer import (
    AES_128,
    AES_256,
    ALERTS,
    CCS,
    CHACHA20,
    HANDSHAKE,
    P256,
    P384,
    RETRY_RANDOM,
    SUITES,
    X25519,
    Share,
    certified,
    credential,
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
from tests.cext.tls.resuming import altered, first_session, resuming_config

VERSION = extension(43, b"\3\4")


class RawServer:
    """A server on one Engine(ClientConfig), on the engine's own record and key schedule faces.

    `alter` maps a message's name to a function of the whole message; what it returns is sent and hashed in its place
    (b"": nothing). The messages that follow fit the altered one, so each test is of one fault alone. `damage` does the
    same behind our back, on the way: it is not hashed."""

    def __init__(self, config=None, *, suite=AES_128, group=X25519, kind="ecdsa-p256", alter=None, damage=None):
        self.client = Engine(config or ClientConfig(server_name="example.com", alpn=(b"http/1.1", b"h2")))
        self.suite, self.group, self.kind = suite, group, kind
        self.hash, self.aead = SUITES[suite]
        self.alter, self.damage = alter or {}, damage or {}
        self.transcript = TranscriptHash(self.hash)
        self.events = []
        self.after_retry = False
        self.read_hello()

    def read_hello(self):
        sent = records(self.client.take_output())
        if sent[0][0] == CCS:
            assert self.after_retry
            sent = sent[1:]
        ((kind, whole),) = sent
        assert kind == HANDSHAKE
        assert whole[1:3] == (b"\3\3" if self.after_retry else b"\3\1")
        self.hello_message = whole[5:]
        self.transcript.add(self.hello_message)
        self.hello = inspect.parse("client_hello", whole[9:])

    def send(self, data):
        self.events += self.client.receive_bytes(data)
        return self

    def altered(self, name, whole):
        whole = self.alter[name](whole) if name in self.alter else whole
        self.transcript.add(whole)
        return self.damage[name](whole) if name in self.damage else whole

    def retry(self, extensions=None, suite=None, session_id=None):
        """HelloRetryRequest, and the second ClientHello."""
        extensions = VERSION + extension(51, u16s(self.group)) if extensions is None else extensions
        self.transcript.retry()
        session_id = self.hello["legacy_session_id"] if session_id is None else session_id
        body = (
            b"\3\3" + RETRY_RANDOM + vector(1, session_id) + u16s(suite or self.suite) + b"\0" + vector(2, extensions)
        )
        self.send(record(HANDSHAKE, self.altered("hello_retry_request", message(2, body))))
        if not self.failed:
            self.after_retry = True
            self.read_hello()
        return self

    @property
    def failed(self):
        return self.events and self.events[-1][0] == FAILED

    def server_hello(self):
        self.share = Share(self.group)
        body = (
            b"\3\3" + bytes(32) + vector(1, self.hello["legacy_session_id"]) + u16s(self.suite) + b"\0"
            + vector(2, VERSION + extension(51, self.share.entry()))
        )  # fmt: skip
        self.send(record(HANDSHAKE, self.altered("server_hello", message(2, body))))
        if self.failed:
            return
        shared = self.share.exchange(dict(self.hello["key_shares"])[self.group])
        self.schedule = Schedule(self.hash, shared)
        digest = self.transcript.digest()
        self.client_secret = self.schedule.derive("c hs traffic", digest)
        self.server_secret = self.schedule.derive("s hs traffic", digest)
        self.write = RecordKeys(self.hash, self.aead, self.server_secret, True)
        self.read = RecordKeys(self.hash, self.aead, self.client_secret, False)

    def flight(self):
        """EncryptedExtensions to Finished."""
        certificate = credential(self.kind).certificate_body
        sent = self.altered("encrypted_extensions", message(8, vector(2, extension(16, vector(2, b"\x08http/1.1")))))
        sent += self.altered("certificate_request", b"")
        sent += self.altered("certificate", message(11, certificate))
        signed = inspect.certificate_verify_input(True, self.transcript.digest())
        sent += self.altered("certificate_verify", message(15, self.sign(signed)))
        proof = verify_data(self.hash, self.server_secret, self.transcript.digest())
        sent += self.altered("finished", message(20, proof))
        self.digest = self.transcript.digest()
        return sent

    def sign(self, signed):
        key = certified(self.kind, "example.com")[1]
        if isinstance(key, ec.EllipticCurvePrivateKey):
            return u16s(0x0403) + vector(2, key.sign(signed, ec.ECDSA(hashes.SHA256())))
        pss = padding.PSS(padding.MGF1(hashes.SHA256()), hashes.SHA256().digest_size)
        return u16s(0x0804) + vector(2, key.sign(signed, pss, hashes.SHA256()))

    def serve(self, size=16384):
        """The whole of our side; the flight over records of at most `size` bytes."""
        self.server_hello()
        if not self.failed:
            sent = self.flight()
            for at in range(0, len(sent), size):
                self.send(self.write.protect(sent[at : at + size], HANDSHAKE))
        return self

    def client_flight(self):
        """The client's answer: its messages, opened, and the number of its CCS records."""
        found = records(self.client.take_output())
        opened = [self.read.unprotect(whole) for kind, whole in found if kind != CCS]
        assert {kind for kind, _ in opened} == {HANDSHAKE}
        return messages(b"".join(content for _, content in opened)), len([1 for kind, _ in found if kind == CCS])

    def confirm(self):
        """Takes the client's Finished; from here on the application keys are in use."""
        flight, _ = self.client_flight()
        for _, whole in flight[:-1]:
            self.transcript.add(whole)
        proof = verify_data(self.hash, self.client_secret, self.transcript.digest())
        assert flight[-1] == (20, message(20, proof))
        self.schedule.master()
        self.write = RecordKeys(self.hash, self.aead, self.schedule.derive("s ap traffic", self.digest), True)
        self.read = RecordKeys(self.hash, self.aead, self.schedule.derive("c ap traffic", self.digest), False)
        return self

    def alert(self):
        """Name of the client's alert, by what it tells and by what it sent."""
        failure = self.client.failure
        assert self.failed and failure.sent and failure.reason, failure
        kind, whole = [r for r in records(self.client.take_output()) if r[0] != CCS][-1]
        content = whole[5:] if kind == 21 else self.read.unprotect(whole)[1]
        assert content == bytes((2, ALERTS.get(failure.name, failure.description)))
        assert not self.client.established and self.client.take_output() == b""
        return failure.name


# --- against our own server


@pytest.mark.parametrize("suite", [AES_128, AES_256, CHACHA20])
@pytest.mark.parametrize("group", [X25519, P256, P384])
@pytest.mark.parametrize("kind", ["ecdsa-p256", "ecdsa-p384", "rsa", "ed25519"])
@pytest.mark.parametrize("retry", [False, True])
def test_with_our_server(suite, group, kind, retry):
    config = ClientConfig(
        server_name="www.example.com",
        alpn=(b"http/1.1",),
        cipher_suites=(suite,),
        groups=(group,),
        key_share_groups=() if retry else None,
    )
    client, server = Engine(config), Engine(server_config(kind))
    pump(client, server)
    assert client.established and server.established, (client.failure, server.failure)
    for side in (client, server):
        assert (side.cipher_suite, side.group, side.version) == (suite, group, 0x0304)
        assert (side.alpn, side.server_name) == (b"http/1.1", b"www.example.com")
        assert side.hello_retried == retry
    assert client.signature_scheme == server.signature_scheme == credential(kind).key.schemes[0]
    client.send(b"request")
    server.send(b"response")
    assert [(side, data) for side, event, data in pump(client, server) if event == DATA] == [
        ("b", b"request"),
        ("a", b"response"),
    ]


def test_several_key_shares():
    config = ClientConfig(key_share_groups=(P256, X25519), groups=(X25519, P256, P384))
    for group in (X25519, P256):
        client, server = Engine(config), Engine(server_config(groups=(group,)))
        pump(client, server)
        assert (client.group, client.hello_retried) == (group, False)


def test_without_middlebox_compatibility():
    client = Engine(ClientConfig(middlebox_compatibility=False))
    server = Engine(server_config())
    hello = client.take_output()
    assert inspect.parse("client_hello", hello[9:])["legacy_session_id"] == b""
    server.receive_bytes(hello)
    flight = server.take_output()
    client.receive_bytes(flight)
    answer = client.take_output()
    assert CCS not in [kind for kind, _ in records(flight) + records(answer)]
    server.receive_bytes(answer)
    assert client.established and server.established


def test_nothing_in_common():
    for options, name in (
        ({"groups": (P384,)}, "handshake_failure"),
        ({"cipher_suites": (AES_256,)}, "handshake_failure"),
        ({"alpn": (b"h3",)}, "no_application_protocol"),
    ):
        client = Engine(ClientConfig(alpn=(b"http/1.1",), groups=(X25519,), cipher_suites=(AES_128,)))
        server = Engine(server_config(**options))
        pump(client, server)
        assert (server.failure.name, server.failure.sent) == (name, True)
        assert (client.failure.name, client.failure.sent) == (name, False)


# --- against OpenSSL


@pytest.fixture(scope="module")
def openssl(tmp_path_factory):
    """A server's SSLContext by kind of key."""
    folder = tmp_path_factory.mktemp("openssl")

    def context(kind):
        certificate, key = certified(kind, "example.com")
        chain = folder / f"{kind}.pem"
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        chain.write_bytes(
            certificate.public_bytes(Encoding.PEM)
            + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.load_cert_chain(chain)
        made.set_alpn_protocols(["http/1.1"])
        return made

    return context


class OpenSsl:
    """Python's ssl in memory, in the shape of a Connection."""

    def __init__(self, context):
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=True)
        self.established = False
        self.received = b""

    def receive_bytes(self, data):
        self.incoming.write(data)
        try:
            if not self.established:
                self.tls.do_handshake()
                self.established = True
            while True:
                self.received += self.tls.read(65536)
        except ssl.SSLWantReadError:
            pass
        return []

    def take_output(self):
        return self.outgoing.read()


@pytest.mark.parametrize("kind", ["ecdsa-p256", "ecdsa-p384", "rsa", "ed25519"])
@pytest.mark.parametrize(("suite", "group"), [(AES_128, X25519), (AES_256, P384), (CHACHA20, P256)])
def test_with_openssl(openssl, kind, suite, group):
    config = ClientConfig(server_name="example.com", alpn=(b"http/1.1",), cipher_suites=(suite,), groups=(group,))
    client, server = Engine(config), OpenSsl(openssl(kind))
    pump(client, server)  # to the end, with the two tickets that OpenSSL sends
    assert client.established and server.established, client.failure
    assert (
        server.tls.cipher()[0]
        == {
            AES_128: "TLS_AES_128_GCM_SHA256",
            AES_256: "TLS_AES_256_GCM_SHA384",
            CHACHA20: "TLS_CHACHA20_POLY1305_SHA256",
        }[suite]
    )
    assert client.alpn == b"http/1.1" == server.tls.selected_alpn_protocol().encode()
    client.send(b"x" * 50_000)
    client.request_key_update()
    client.send(b"after the update")
    server.tls.write(b"answer")
    assert ("a", DATA, b"answer") in pump(client, server)
    assert server.received.strip(b"x") == b"after the update" and len(server.received) == 50_000 + 16


def test_with_openssl_that_asks_again(openssl):
    context = openssl("ecdsa-p256")
    context.set_ecdh_curve("secp384r1")
    client, server = Engine(ClientConfig(groups=(X25519, P384))), OpenSsl(context)
    pump(client, server)
    assert client.established and server.established, client.failure
    assert (client.group, client.hello_retried) == (P384, True)


def test_with_openssl_that_asks_for_a_certificate(openssl):
    context = openssl("ecdsa-p256")
    context.verify_mode = ssl.CERT_OPTIONAL
    client, server = Engine(ClientConfig()), OpenSsl(context)
    pump(client, server)
    assert client.established and server.established, client.failure
    assert server.tls.getpeercert() is None


def test_with_openssl_of_tls12(openssl):
    context = openssl("ecdsa-p256")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    client, server = Engine(ClientConfig(min_version=0x0304)), OpenSsl(context)
    with pytest.raises(ssl.SSLError):
        pump(client, server)
    client.receive_bytes(server.take_output())
    assert (client.failure.name, client.failure.sent) == ("protocol_version", False)


# --- against a server that follows a script


def test_the_script_itself():
    server = RawServer().serve()
    assert server.events[-1][0] == ESTABLISHED, server.client.failure
    flight, ccs = server.client_flight()
    assert [kind for kind, _ in flight] == [20] and ccs == 1
    assert server.client.alpn == b"http/1.1"


def test_finished_and_application_keys():
    server = RawServer().serve().confirm()
    server.send(server.write.protect(b"hello", 23))
    assert server.events[-1] == (DATA, b"hello")
    server.client.send(b"and back")
    assert [server.read.unprotect(whole) for _, whole in records(server.client.take_output())] == [(23, b"and back")]


@pytest.mark.parametrize("size", [1, 2, 7, 100, 16384])
def test_flight_in_pieces(size):
    assert RawServer().serve(size).events[-1][0] == ESTABLISHED


def test_messages_one_by_one_and_with_retry():
    server = RawServer(group=P256).retry()
    assert server.hello["cookie"] is None and [g for g, _ in server.hello["key_shares"]] == [P256]
    server.serve()
    assert server.client.established and server.client.hello_retried
    assert server.client_flight()[1] == 0, "the CCS went before the second ClientHello, once"


def test_second_hello_differs_only_where_it_may():
    server = RawServer(group=P256)
    first = dict(server.hello)
    server.retry(VERSION + extension(51, u16s(P256)) + extension(44, vector(2, b"cookie")))
    second = server.hello
    assert second["cookie"] == b"cookie"
    assert {name for name in first if first[name] != second[name]} == {"cookie", "key_shares"}
    assert server.serve().client.established


def test_retry_with_a_cookie_alone_keeps_the_share():
    server = RawServer()
    shares = server.hello["key_shares"]
    server.retry(VERSION + extension(44, vector(2, b"c" * 5000)))
    assert server.hello["key_shares"] == shares and server.hello["cookie"] == b"c" * 5000
    assert server.serve().client.established


def test_certificate_request_is_answered_with_none():
    request = message(13, vector(1, b"") + vector(2, extension(13, vector(2, u16s(0x0403)))))
    server = RawServer(alter={"certificate_request": lambda _: request}).serve()
    assert server.events[-1][0] == ESTABLISHED, server.client.failure
    flight, _ = server.client_flight()
    assert flight[0] == (11, message(11, b"\0\0\0\0"))
    server.transcript.add(flight[0][1])
    proof = verify_data(server.hash, server.client_secret, server.transcript.digest())
    assert flight[1] == (20, message(20, proof))


def replace(old, new):
    def change(whole):
        assert old in whole
        whole = whole.replace(old, new, 1)
        return whole[:1] + vector(3, whole[4:])

    return change


def in_extensions(change):
    """Of a ServerHello: its extension list changed."""

    def changed(whole):
        at = 39 + whole[38] + 3
        body = whole[4:at] + vector(2, change(whole[at + 2 :]))
        return message(whole[0], body)

    return changed


def with_extension(encoded):
    return lambda whole: message(8, vector(2, whole[6:] + encoded))


def flipped(at):
    return lambda whole: whole[:at] + bytes((whole[at] ^ 1,)) + whole[at + 1 :]


def nothing(whole):
    return b""


def of_type(type):
    return lambda whole: bytes((type,)) + whole[1:]


FAULTS = [
    # ServerHello
    ("no supported_versions", "server_hello", in_extensions(lambda e: e.replace(VERSION, b"")), "illegal_parameter"),
    ("TLS 1.2 selected", "server_hello", in_extensions(lambda e: e.replace(b"\3\4", b"\3\3")), "illegal_parameter"),
    ("no key_share", "server_hello", in_extensions(lambda e: VERSION), "missing_extension"),
    ("ALPN in the clear", "server_hello", in_extensions(lambda e: e + extension(16)), "illegal_parameter"),
    ("unknown extension", "server_hello", in_extensions(lambda e: e + extension(0x1A1A)), "unsupported_extension"),
    ("PSK unasked", "server_hello", in_extensions(lambda e: e + extension(41, b"\0\0")), "unsupported_extension"),
    ("session id changed", "server_hello", flipped(40), "illegal_parameter"),
    ("session id left out", "server_hello", lambda w: message(2, w[4:38] + b"\0" + w[71:]), "illegal_parameter"),
    ("suite not offered", "server_hello", replace(b"\x13\1\0", b"\x13\4\0"), "illegal_parameter"),
    ("suite of TLS 1.2", "server_hello", replace(b"\x13\1\0", b"\xc0\x2b\0"), "illegal_parameter"),
    ("compression", "server_hello", replace(b"\x13\1\0", b"\x13\1\1"), "decode_error"),
    ("share of another group", "server_hello", replace(u16s(29, 32), u16s(23, 32)), "illegal_parameter"),
    ("share too short", "server_hello", in_extensions(lambda e: VERSION + extension(51, u16s(29, 31) + bytes(31))),
     "illegal_parameter"),
    ("share of small order", "server_hello", in_extensions(lambda e: VERSION + extension(51, u16s(29, 32) + bytes(32))),
     "illegal_parameter"),
    ("cut short", "server_hello", lambda w: message(2, w[4:-1]), "decode_error"),
    ("EncryptedExtensions in its place", "server_hello", of_type(8), "unexpected_message"),
    ("ClientHello in its place", "server_hello", of_type(1), "unexpected_message"),
    # EncryptedExtensions
    ("protocol not offered", "encrypted_extensions", replace(b"http/1.1", b"http/1.0"), "illegal_parameter"),
    ("extension not offered", "encrypted_extensions", with_extension(extension(42)), "unsupported_extension"),
    ("key_share encrypted", "encrypted_extensions", with_extension(extension(51)), "illegal_parameter"),
    ("extension twice", "encrypted_extensions", with_extension(extension(0) * 2), "decode_error"),
    ("trailing byte", "encrypted_extensions", lambda w: message(8, w[4:] + b"\0"), "decode_error"),
    ("left out", "encrypted_extensions", nothing, "unexpected_message"),
    ("as HelloRequest", "encrypted_extensions", of_type(0), "unexpected_message"),
    # CertificateRequest
    ("no algorithms", "certificate_request", lambda _: message(13, b"\0\0\0"), "missing_extension"),
    ("a context", "certificate_request", lambda _: message(13, b"\1c" + vector(2, extension(13, b"\0\2\4\3"))),
     "illegal_parameter"),
    ("twice", "certificate_request", lambda _: message(13, b"\0" + vector(2, extension(13, b"\0\2\4\3"))) * 2,
     "unexpected_message"),
    # Certificate
    ("none", "certificate", lambda _: message(11, b"\0\0\0\0"), "decode_error"),
    ("no certificate's bytes", "certificate", lambda _: message(11, b"\0" + vector(3, vector(3, b"x") + b"\0\0")),
     "bad_certificate"),
    ("a context", "certificate", lambda w: message(11, b"\1c" + w[5:]), "illegal_parameter"),
    ("left out", "certificate", nothing, "unexpected_message"),
    # CertificateVerify
    ("signature changed", "certificate_verify", flipped(-1), "decrypt_error"),
    ("no signature", "certificate_verify", lambda _: message(15, u16s(0x0403, 0)), "decrypt_error"),
    ("of another scheme", "certificate_verify", replace(u16s(0x0403), u16s(0x0804)), "illegal_parameter"),
    ("scheme for certificates only", "certificate_verify", replace(u16s(0x0403), u16s(0x0401)), "illegal_parameter"),
    ("SHA-1", "certificate_verify", replace(u16s(0x0403), u16s(0x0203)), "illegal_parameter"),
    ("left out", "certificate_verify", nothing, "unexpected_message"),
    # Finished
    ("changed", "finished", flipped(4), "decrypt_error"),
    ("changed at its end", "finished", flipped(-1), "decrypt_error"),
    ("too short", "finished", lambda w: message(20, w[4:-1]), "decrypt_error"),
    ("too long", "finished", lambda w: message(20, w[4:] + b"\0"), "decrypt_error"),
    ("empty", "finished", lambda w: message(20), "decrypt_error"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "name", "change", "alert"), FAULTS, ids=[f"{f[1]}: {f[0]}" for f in FAULTS])
def test_fault_of_the_server(what, name, change, alert):
    assert RawServer(alter={name: change}).serve().alert() == alert


@pytest.mark.parametrize("compatibility", [True, False])
@pytest.mark.parametrize("retry", [True, False])
def test_change_cipher_spec_precedes_an_alert_under_the_new_keys(compatibility, retry):
    config = ClientConfig(alpn=(b"http/1.1",), middlebox_compatibility=compatibility)
    server = RawServer(config, group=P256 if retry else X25519, alter={"finished": flipped(-1)})
    if retry:
        server.retry()              # here it went before the second ClientHello
    sent = records(server.serve().client.take_output())
    assert [kind for kind, _ in sent] == [CCS] * (compatibility and not retry) + [23]
    assert server.read.unprotect(sent[-1][1]) == (21, bytes((2, ALERTS["decrypt_error"])))


@pytest.mark.parametrize(
    ("what", "extensions", "alert"),
    [
        ("changes nothing", VERSION, "illegal_parameter"),
        ("asks for the share it has", VERSION + extension(51, u16s(X25519)), "illegal_parameter"),
        ("asks for a group not offered", VERSION + extension(51, u16s(0x11ED)), "illegal_parameter"),
        ("no version", extension(51, u16s(P256)), "missing_extension"),
        ("an extension not offered", VERSION + extension(51, u16s(P256)) + extension(42), "illegal_parameter"),
        ("an unknown extension", VERSION + extension(51, u16s(P256)) + extension(0x1A1A), "unsupported_extension"),
        ("empty cookie", VERSION + extension(44, b"\0\0"), "decode_error"),
    ],
)
def test_fault_of_a_retry(what, extensions, alert):
    assert RawServer().retry(extensions).alert() == alert


def test_retry_of_another_session():
    assert RawServer(group=P256).retry(session_id=b"x" * 32).alert() == "illegal_parameter"


def test_retry_with_a_suite_not_offered():
    assert RawServer(group=P256).retry(suite=0x1304).alert() == "illegal_parameter"


def test_second_retry():
    server = RawServer(group=P256).retry()
    server.group = P384
    assert server.retry().alert() == "unexpected_message"


def test_suite_changes_after_a_retry():
    server = RawServer(group=P256).retry()
    server.suite = CHACHA20
    assert server.serve().alert() == "illegal_parameter"


def test_group_changes_after_a_retry():
    server = RawServer(group=P256, alter={"server_hello": replace(u16s(P256, 65), u16s(P384, 65))}).retry()
    assert server.serve().alert() == "illegal_parameter"


def test_distrust():
    seen = []

    def distrust(chain, name):
        seen.append((chain, name))
        raise ValueError("who is that?")

    server = RawServer(ClientConfig(server_name="example.com", alpn=(b"http/1.1",), verify=distrust)).serve()
    assert "who is that?" in server.client.failure.reason
    assert server.alert() == "bad_certificate"
    assert seen == [([credential().chain[0]], b"example.com")]


def test_distrust_by_an_alert_of_its_own():
    def distrust(chain, name):
        raise TlsAlert(48, "not of our authority")

    server = RawServer(ClientConfig(alpn=(b"http/1.1",), verify=distrust)).serve()
    assert server.alert() == "unknown_ca"


def test_signature_by_another_key():
    """The certificate is one that another key could have proven."""
    server = RawServer()
    server.alter["certificate"] = lambda _: message(11, credential("ecdsa-p256", "other.example").certificate_body)
    assert server.serve().alert() == "decrypt_error"


def test_every_message_in_every_state():
    """No message out of its turn is taken, whatever it is."""
    names = ("server_hello", "encrypted_extensions", "certificate", "certificate_verify", "finished")
    types = {2: "server_hello", 8: "encrypted_extensions", 11: "certificate", 15: "certificate_verify", 20: "finished"}
    for name in names:
        for type in (0, 1, 2, 4, 5, 8, 11, 13, 15, 20, 24, 254, 255):
            if types.get(type) == name or (name, type) == ("certificate", 13):
                continue
            assert RawServer(alter={name: of_type(type)}).serve().alert() == "unexpected_message", (name, type)


def test_messages_larger_than_any_may_be():
    server = RawServer()
    server.send(record(HANDSHAKE, b"\2\xff\xff\xff"))
    assert server.alert() == "illegal_parameter"


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(["server_hello", "encrypted_extensions", "certificate", "certificate_verify", "finished"]),
    position=st.floats(0, 1, exclude_max=True),
    bit=st.integers(0, 7),
)
def test_any_flipped_bit_is_noticed(name, position, bit):
    """The message itself is refused, or the transcript that Finished covers is another."""

    def flip(whole):
        at = 4 + int((len(whole) - 4) * position)
        return whole[:at] + bytes((whole[at] ^ 1 << bit,)) + whole[at + 1 :]

    server = RawServer(damage={name: flip}).serve()
    assert not server.client.established
    assert server.client.failure is not None and server.client.failure.sent


def test_leaf_cache_follows_the_certificate():
    """One configuration, servers with different keys in turn."""
    config = ClientConfig()
    kinds = [(kind, "example.com") for kind in ("ecdsa-p256", "rsa", "ecdsa-p256", "ed25519", "rsa")]
    same_kind = [("ed25519", f"{letter}.example") for letter in "abcdef"]
    leaves = [credential(*one).chain[0] for one in same_kind]
    assert len({len(leaf) for leaf in leaves}) < len(set(leaves)), "two different ones are of one length"
    for one in kinds + sorted(same_kind, key=lambda one: len(credential(*one).chain[0])):
        client, server = Engine(config), Engine(ServerConfig([credential(*one)]))
        pump(client, server)
        assert client.established, client.failure


@pytest.mark.parametrize("version", [0x0303, 0x0304])
def test_a_ticket_that_no_client_hello_has_room_for(version):
    """A server that gives such a one must not end the connections after it."""
    session = first_session(resuming_config(), max_version=version)
    for size in (1 << 14, 65_500, 65_535):
        client = Engine(ClientConfig(server_name="example.com"), altered(session, ticket=b"t" * size))
        server = Engine(server_config())
        pump(client, server)
        assert (client.failure, server.failure) == (None, None)
        assert server.established
