"""Client certificates in TLS 1.2, both roles (RFC 5246, sections 7.4.4, 7.4.6 and 7.4.8)."""

import ssl

import pytest
from cext.tls.alert import TlsAlert
from cext.tls.config import ClientConfig
from cext.tls.engine import ESTABLISHED, FAILED, WAIT_SIGN, Engine
from cext.tls.session import TicketKeys
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding

from tests.cext.tls.peer import (
    FINISHED,
    HANDSHAKE,
    KEY_KINDS,
    certified,
    credential,
    message,
    pump,
    record,
    server_config,
    u16s,
    vector,
)
from tests.cext.tls.peer12 import CLIENT_KEY_EXCHANGE, SERVER_HELLO_DONE, SERVER_KEY_EXCHANGE, TLS12, RawClient12, Ssl
from tests.cext.tls.test_client12 import RawServer12
from tests.cext.tls.test_client_auth import ALERTS, leaf, signature

CERTIFICATE, CERTIFICATE_REQUEST, CERTIFICATE_VERIFY = 11, 13, 15
EMPTY = message(CERTIFICATE, vector(3, b""))
ALERTS = {**ALERTS, "no_renegotiation": 100, "bad_record_mac": 20, "handshake_failure": 40}
TICKETS = TicketKeys([(bytes(16), bytes(32))])
ALGORITHMS = (0x0403, 0x0807, 0x0503, 0x0804, 0x0805, 0x0806, 0x0809, 0x080A, 0x080B, 0x0401, 0x0501, 0x0601)


def asked(mode="require", **options):
    return server_config(client_auth=mode, **options)


def known(kind="ecdsa-p256", **options):
    return ClientConfig(server_name="example.com", credentials=[credential(kind, "client.example")], max_version=TLS12,
                        **options)


def certificate(*chain):
    return message(CERTIFICATE, vector(3, b"".join(vector(3, der) for der in chain)))


def request(types=b"\x40\1", algorithms=ALGORITHMS, names=b""):
    return message(CERTIFICATE_REQUEST, vector(1, types) + vector(2, u16s(*algorithms)) + vector(2, names))


class CertifiedClient(RawClient12):
    """A raw client that answers a CertificateRequest with whatever a test wants."""

    def begin(self):
        self.hello()
        assert [kind for kind, _ in self.flight] == [2, 11, SERVER_KEY_EXCHANGE, CERTIFICATE_REQUEST, SERVER_HELLO_DONE]
        return self

    def certificate_verify(self, kind="ecdsa-p256", scheme=0x0403, damage=False):
        made = signature(kind, self.transcript, scheme)
        if damage:
            made = made[:-1] + bytes([made[-1] ^ 1])
        return message(CERTIFICATE_VERIFY, u16s(scheme) + vector(2, made))

    def show(self, kind="ecdsa-p256"):
        self.begin()
        self.say(certificate(leaf(kind)))
        self.key_exchange()
        return self

    def refused(self, events, name):
        assert events[-1] == (FAILED, b""), events
        assert (self.server.failure.name, self.server.failure.sent) == (name, True), self.server.failure
        assert self.alert() == ALERTS[name]
        assert self.server.peer_certificates == ()


# --- our client and our server

@pytest.mark.parametrize("mode", ["request", "require"])
@pytest.mark.parametrize("kind", KEY_KINDS)
@pytest.mark.parametrize("suite", [0xC02B, 0xC02C, 0xCCA9])
def test_every_kind_of_key(kind, mode, suite):
    """The signature's hash is its own: it is not the cipher suite's."""
    seen = []
    server = Engine(asked(mode, verify_client=seen.append, cipher_suites=(suite,)))
    client = Engine(known(kind))
    events = pump(client, server)
    assert (server.failure, client.failure) == (None, None)
    assert ("b", ESTABLISHED, b"") in events
    assert server.version == TLS12
    assert server.peer_certificates == (leaf(kind),) == tuple(seen[0])
    assert server.client_signature_scheme in credential(kind).key.schemes12
    client.send(b"ping")
    assert server.receive_bytes(client.take_output()) == [(1, b"ping")]


def test_of_a_client_that_offers_both_versions():
    server = Engine(asked(max_version=TLS12))
    client = Engine(ClientConfig(server_name="example.com", credentials=[credential("rsa", "client.example")]))
    pump(client, server)
    assert server.established, server.failure
    assert server.peer_certificates == (leaf("rsa"),)


def test_not_asked_not_shown():
    server, client = Engine(server_config()), Engine(known())
    pump(client, server)
    assert server.established
    assert server.peer_certificates == ()


@pytest.mark.parametrize(("mode", "established"), [("request", True), ("require", False)])
def test_client_without_certificate(mode, established):
    asked_about = []
    server = Engine(asked(mode, verify_client=asked_about.append))
    client = Engine(ClientConfig(max_version=TLS12))
    pump(client, server)
    assert server.established == established
    assert server.peer_certificates == ()
    assert asked_about == []
    if not established:             # certificate_required is TLS 1.3's
        assert server.failure.name == client.failure.name == "handshake_failure"


@pytest.mark.parametrize(("raised", "alert"), [
    (TlsAlert(48, "another authority"), "unknown_ca"),
    (ValueError("no"), "bad_certificate"),
])
@pytest.mark.parametrize("mode", ["request", "require"])
def test_distrust(mode, raised, alert):
    def distrust(chain):
        raise raised

    server, client = Engine(asked(mode, verify_client=distrust)), Engine(known())
    pump(client, server)
    assert server.failure.name == client.failure.name == alert
    assert server.peer_certificates == ()


@pytest.mark.parametrize("kind", KEY_KINDS)
def test_signer_elsewhere(kind):
    class Signer:
        def sign(self, message, scheme):
            raise AssertionError("the owner asks, not the engine")

    remote = type(credential())([leaf(kind)], Signer())
    server = Engine(asked())
    client = Engine(ClientConfig(server_name="example.com", credentials=[remote], max_version=TLS12))
    server.receive_bytes(client.take_output())
    assert client.receive_bytes(server.take_output())[-1][0] == WAIT_SIGN
    server.receive_bytes(client.take_output())      # Certificate and ClientKeyExchange are on their way
    assert not server.established
    signed, scheme = client.to_sign
    assert client.give_signature(signature(kind, signed, scheme)) != FAILED
    pump(client, server)
    assert server.established, server.failure
    assert server.peer_certificates == (leaf(kind),)


def test_a_wrong_signature_from_elsewhere_is_not_sent():
    class Signer:
        def sign(self, message, scheme):
            raise AssertionError

    remote = type(credential())([leaf()], Signer())
    server = Engine(asked())
    client = Engine(ClientConfig(server_name="example.com", credentials=[remote], max_version=TLS12))
    server.receive_bytes(client.take_output())
    client.receive_bytes(server.take_output())
    assert client.give_signature(signature("ecdsa-p256", b"something else", 0x0403)) == FAILED
    assert client.failure.name == "internal_error"


# --- the request

def test_request():
    def request_of(config):
        return next(m for kind, m in RawClient12(config).hello().flight if kind == CERTIFICATE_REQUEST)

    names = [b"\x30\x02\x31\x00", b"\x30\x04\x31\x02\x30\x00"]
    assert request_of(asked()) == request()
    assert request_of(asked(client_authorities=names)) == request(names=b"".join(vector(2, name) for name in names))
    assert request_of(asked(client_authorities=[bytes(300)] * 100)) == request()


@pytest.mark.parametrize(("kind", "types", "algorithms", "shown"), [
    ("rsa", b"\x40", ALGORITHMS, False),
    ("rsa", b"\1", (0x0403,), False),
    ("rsa", b"\1\2", (0x0403, 0x0501), True),
    ("ecdsa-p256", b"\1", ALGORITHMS, False),
    ("ecdsa-p256", b"\x40", (0x0401, 0x0804), False),
    ("ed25519", b"\x40", (0x0807,), True),
])
def test_client_shows_what_fits_the_request(kind, types, algorithms, shown):
    server = RawServer12(known(kind), done=lambda done: [request(types, algorithms), done]).hello().flight()
    assert server.take() == ([11, CLIENT_KEY_EXCHANGE, CERTIFICATE_VERIFY, FINISHED] if shown
                             else [11, CLIENT_KEY_EXCHANGE, FINISHED])
    assert (EMPTY in server.transcript) != shown
    assert server.end().events[-1] == (ESTABLISHED, b"")


# --- faults of the client

def test_the_script_itself():
    client = CertifiedClient(asked()).show()
    client.say(client.certificate_verify())
    client.ccs()
    assert client.finish() == [(ESTABLISHED, b"")]
    assert client.server.peer_certificates == (leaf(),)


@pytest.mark.parametrize(("scheme", "digest"), [
    (0x0401, hashes.SHA256()), (0x0501, hashes.SHA384()), (0x0601, hashes.SHA512())])
def test_pkcs1_signatures(scheme, digest):
    client = CertifiedClient(asked()).show("rsa")
    made = certified("rsa", "client.example")[1].sign(client.transcript, padding.PKCS1v15(), digest)
    client.say(message(CERTIFICATE_VERIFY, u16s(scheme) + vector(2, made)))
    client.ccs()
    assert client.finish() == [(ESTABLISHED, b"")]


@pytest.mark.parametrize(("whole", "alert"), [
    (certificate(b"not a certificate"), "bad_certificate"),
    (certificate(leaf(), b""), "decode_error"),
    (message(CERTIFICATE, vector(3, vector(3, b"x")[:3])), "decode_error"),
    (message(CERTIFICATE, b""), "decode_error"),
    (message(CERTIFICATE, vector(3, b"") + b"\0"), "decode_error"),
    (message(CERTIFICATE, vector(3, bytes(1 << 16))), "illegal_parameter"),
    (message(CERTIFICATE_VERIFY, u16s(0x0403) + vector(2, b"sig")), "unexpected_message"),
    (message(CLIENT_KEY_EXCHANGE, vector(1, bytes(32))), "unexpected_message"),
    (EMPTY, "handshake_failure"),
])
def test_fault_of_a_certificate(whole, alert):
    client = CertifiedClient(asked()).begin()
    events = []
    for i in range(0, len(whole), 16384):
        events += client.send(record(HANDSHAKE, whole[i : i + 16384]))
        if client.server.failure:
            break
    client.refused(events, alert)


@pytest.mark.parametrize("n", range(0, 40, 3))
def test_truncated_certificate(n):
    body = certificate(leaf())[4:]
    client = CertifiedClient(asked()).begin()
    client.refused(client.send(record(HANDSHAKE, message(CERTIFICATE, body[:n]))), "decode_error")


@pytest.mark.parametrize(("options", "alert"), [
    ({"damage": True}, "decrypt_error"),
    ({"kind": "rsa", "scheme": 0x0804}, "illegal_parameter"),
    ({"kind": "ed25519", "scheme": 0x0807}, "illegal_parameter"),
    ({"kind": "ecdsa-p384", "scheme": 0x0503}, "decrypt_error"),       # in TLS 1.2 a hash alone: of another key
])
def test_fault_of_a_certificate_verify(options, alert):
    client = CertifiedClient(asked()).show()
    client.refused(client.say(client.certificate_verify(**options)), alert)


@pytest.mark.parametrize(("whole", "alert"), [
    (message(CERTIFICATE_VERIFY, u16s(0x0203) + vector(2, b"sig")), "illegal_parameter"),      # ecdsa_sha1
    (message(CERTIFICATE_VERIFY, u16s(0x0401) + vector(2, b"sig")), "illegal_parameter"),
    (message(CERTIFICATE_VERIFY, u16s(0x0403) + vector(2, b"sig") + b"\0"), "decode_error"),
    (message(CERTIFICATE_VERIFY, u16s(0x0403)), "decode_error"),
    (message(CERTIFICATE_VERIFY, bytes(2000)), "illegal_parameter"),
    (certificate(leaf()), "unexpected_message"),
    (message(FINISHED, bytes(12)), "unexpected_message"),
])
def test_malformed_certificate_verify(whole, alert):
    client = CertifiedClient(asked()).show()
    client.refused(client.say(whole), alert)


def test_certificate_verify_of_another_transcript():
    client = CertifiedClient(asked()).begin()
    client.say(certificate(leaf()))
    early = client.certificate_verify()             # as if there were no ClientKeyExchange
    client.key_exchange()
    client.refused(client.say(early), "decrypt_error")


def test_change_cipher_spec_instead_of_the_proof():
    client = CertifiedClient(asked("request")).show()
    client.refused(client.ccs(), "unexpected_message")


def test_certificate_verify_of_no_certificate():
    client = CertifiedClient(asked("request")).begin()
    client.say(EMPTY)
    client.key_exchange()
    client.refused(client.say(client.certificate_verify()), "unexpected_message")


def test_certificate_not_asked_for():
    client = RawClient12().hello()
    events = client.say(certificate(leaf()))
    assert events[-1][0] == FAILED
    assert client.server.failure.name == "unexpected_message"


# --- resumption

def again(first, config, **options):
    server, client = Engine(config), Engine(ClientConfig(
        server_name="example.com", session=first.session, max_version=TLS12, **options))
    pump(client, server)
    return client, server


def known_client(mode="require", **options):
    server, client = Engine(asked(mode, tickets=TICKETS, **options)), Engine(known())
    pump(client, server)
    assert server.established, server.failure
    assert client.session is not None
    return client


@pytest.mark.parametrize("mode", ["request", "require"])
def test_a_resumed_session_is_the_same_clients(mode):
    seen = []
    config = asked(mode, tickets=TICKETS, verify_client=seen.append)
    client = known_client(mode)
    for _ in range(3):
        client, server = again(client, config)
        assert server.established, server.failure
        assert server.resumed
        assert server.peer_certificates == (leaf(),)
    assert seen == [[leaf()]] * 3


def test_a_chain_that_is_trusted_no_more_ends_the_session():
    def distrust(chain):
        raise TlsAlert(44, "revoked")

    _, server = again(known_client(), asked(tickets=TICKETS, verify_client=distrust))
    assert not server.resumed
    assert server.failure.name == "handshake_failure"           # the full handshake asked, and it shows none now
    _, server = again(known_client(), asked(tickets=TICKETS, verify_client=distrust),
                      credentials=[credential("ecdsa-p256", "client.example")])
    assert server.failure.name == "certificate_revoked"


def test_a_session_without_certificate_is_no_way_around():
    server, client = Engine(server_config(tickets=TICKETS)), Engine(
        ClientConfig(server_name="example.com", max_version=TLS12))
    pump(client, server)
    assert client.session is not None
    assert again(client, asked("request", tickets=TICKETS))[1].resumed
    _, server = again(client, asked("require", tickets=TICKETS))
    assert not server.resumed
    assert server.failure.name == "handshake_failure"
    _, server = again(known_client(), server_config(tickets=TICKETS))
    assert server.established and not server.resumed


# --- with Python's ssl

@pytest.fixture
def file(tmp_path, kind):
    """A file with the client's certificate and key."""
    certificate_, key = certified(kind, "client.example")
    path = tmp_path / "client.pem"
    path.write_bytes(certificate_.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return path


@pytest.mark.parametrize("kind", KEY_KINDS)
def test_python_ssl_shows_its_certificate(kind, file):
    server = Engine(asked("require", max_version=TLS12))
    context = Ssl.make_context(None, None, None, None)
    context.load_cert_chain(file)
    Ssl(server, context=context).handshake().check_data()
    assert server.peer_certificates == (leaf(kind),)


@pytest.mark.parametrize("kind", KEY_KINDS)
def test_python_ssl_asks(kind, file):
    client = Engine(known(kind))
    context = Ssl.make_context("ecdsa-p256", None, None, None)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(file)
    peer = Ssl(client, server_kind="ecdsa-p256", context=context).handshake()
    peer.check_data()
    assert peer.object.getpeercert(binary_form=True) == leaf(kind)
