"""Client certificates in TLS 1.3, both roles: asked for, shown, proven, trusted or not (RFC 8446, section 4.4)."""

import ssl

import pytest
from cext.tls.alert import TlsAlert
from cext.tls.config import ClientConfig
from cext.tls.engine import ESTABLISHED, FAILED, WAIT_SIGN, Engine
from cext.tls.key_schedule import verify_data
from cext.tls.session import TicketKeys
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding

from tests.cext.tls.peer import (
    ALERTS,
    HANDSHAKE,
    KEY_KINDS,
    RawClient,
    certified,
    credential,
    extension,
    message,
    pump,
    server_config,
    u16s,
    vector,
)
from tests.cext.tls.test_client13 import RawServer

CERTIFICATE, CERTIFICATE_REQUEST, CERTIFICATE_VERIFY = 11, 13, 15
EMPTY = message(CERTIFICATE, b"\0" + vector(3, b""))
ALERTS = {**ALERTS, "bad_certificate": 42, "unknown_ca": 48, "certificate_required": 116}


def certificate(*chain, context=b"", extensions=b""):
    entries = b"".join(vector(3, der) + vector(2, extensions) for der in chain)
    return message(CERTIFICATE, vector(1, context) + vector(3, entries))


def leaf(kind="ecdsa-p256"):
    return certified(kind, "client.example")[0].public_bytes(serialization.Encoding.DER)


def signature(kind, signed, scheme):
    key = certified(kind, "client.example")[1]
    digest = {0x0403: hashes.SHA256(), 0x0503: hashes.SHA384(), 0x0804: hashes.SHA256()}.get(scheme)
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(signed)
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(signed, ec.ECDSA(digest))
    return key.sign(signed, padding.PSS(padding.MGF1(digest), digest.digest_size), digest)


class CertifiedClient(RawClient):
    """A raw client that answers a CertificateRequest with whatever a test wants."""

    def begin(self):
        """The hellos; the transcript then stands at the server's Finished."""
        self.hello()
        assert CERTIFICATE_REQUEST in [kind for kind, _ in self.flight]
        self.server_finished = self.finished()
        return self

    def say(self, whole):
        self.transcript.add(whole)
        return self.send(self.write.protect(whole, HANDSHAKE))

    def certificate_verify(self, kind="ecdsa-p256", scheme=0x0403, context="client", damage=False):
        signed = b" " * 64 + f"TLS 1.3, {context} CertificateVerify".encode() + b"\0" + self.transcript.digest()
        made = signature(kind, signed, scheme)
        if damage:
            made = made[:-1] + bytes([made[-1] ^ 1])
        return message(CERTIFICATE_VERIFY, u16s(scheme) + vector(2, made))

    def own_finished(self):
        return message(20, verify_data(self.hash, self.client_secret, self.transcript.digest()))

    def end(self):
        return self.send(self.write.protect(self.own_finished(), HANDSHAKE))

    def assert_refused(self, events, name):
        assert events[-1][0] == FAILED, events
        failure = self.server.failure
        assert (failure.name, failure.sent) == (name, True), failure
        self.use_application_keys()
        assert self.alert() == ALERTS[name]
        assert self.server.peer_certificates == ()


def asked(mode="require", **options):
    return server_config(client_auth=mode, **options)


# --- our client and our server

@pytest.mark.parametrize("mode", ["request", "require"])
@pytest.mark.parametrize("kind", KEY_KINDS)
def test_every_kind_of_key(kind, mode):
    seen = []
    server = Engine(asked(mode, verify_client=seen.append))
    client = Engine(ClientConfig(server_name="example.com", credentials=[credential(kind, "client.example")]))
    events = pump(client, server)
    assert (server.failure, client.failure) == (None, None)
    assert ("b", ESTABLISHED, b"") in events
    assert server.peer_certificates == (leaf(kind),) == tuple(seen[0])
    assert server.client_signature_scheme in credential(kind).key.schemes
    assert client.peer_certificates == credential().chain
    client.send(b"ping")
    assert server.receive_bytes(client.take_output()) == [(1, b"ping")]


def test_not_asked_not_shown():
    server = Engine(server_config())
    client = Engine(ClientConfig(credentials=[credential("ecdsa-p256", "client.example")]))
    pump(client, server)
    assert server.established
    assert server.peer_certificates == ()


@pytest.mark.parametrize(("mode", "established"), [("request", True), ("require", False)])
def test_client_without_certificate(mode, established):
    asked_about = []
    server = Engine(asked(mode, verify_client=asked_about.append))
    client = Engine(ClientConfig())
    pump(client, server)
    assert server.established == established
    assert server.peer_certificates == ()
    assert asked_about == []
    if not established:
        assert server.failure.name == "certificate_required"
        assert (client.failure.name, client.failure.sent) == ("certificate_required", False)


@pytest.mark.parametrize(("schemes", "kinds"), [((0x0403,), [11, 20]), ((0x0403, 0x0804), [11, 15, 20])])
def test_client_shows_none_that_cannot_sign_as_asked(schemes, kinds):
    config = ClientConfig(server_name="example.com", alpn=(b"http/1.1",),
                          credentials=[credential("rsa", "client.example")])
    request = message(CERTIFICATE_REQUEST, b"\0" + vector(2, extension(13, vector(2, u16s(*schemes)))))
    server = RawServer(config, alter={"certificate_request": lambda _: request}).serve()
    assert server.client.established, server.client.failure
    flight, _ = server.client_flight()
    assert [kind for kind, _ in flight] == kinds
    assert (flight[0][1] == EMPTY) == (len(kinds) == 2)


@pytest.mark.parametrize(("raised", "alert"), [
    (TlsAlert(48, "another authority"), "unknown_ca"),
    (ValueError("no"), "bad_certificate"),
    (TlsAlert(4711, "no alert at all"), "bad_certificate"),
])
@pytest.mark.parametrize("mode", ["request", "require"])
def test_distrust(mode, raised, alert):
    def distrust(chain):
        raise raised

    server = Engine(asked(mode, verify_client=distrust))
    client = Engine(ClientConfig(credentials=[credential("ecdsa-p256", "client.example")]))
    pump(client, server)
    assert server.failure.name == client.failure.name == alert
    assert "the certificate is not trusted" in server.failure.reason
    assert server.peer_certificates == ()


def test_signer_elsewhere():
    class Signer:
        def sign(self, message, scheme):
            raise AssertionError("the owner asks, not the engine")

    remote = type(credential())([leaf()], Signer())
    server, client = Engine(asked()), Engine(ClientConfig(credentials=[remote]))
    server.receive_bytes(client.take_output())
    assert client.receive_bytes(server.take_output())[-1][0] == WAIT_SIGN
    server.receive_bytes(client.take_output())
    signed, scheme = client.to_sign
    assert client.give_signature(signature("ecdsa-p256", signed, scheme)) == ESTABLISHED
    pump(client, server)
    assert server.established
    assert server.peer_certificates == (leaf(),)


# --- the request

def request_of(config):
    client = RawClient(config).hello()
    whole = next(m for kind, m in client.flight if kind == CERTIFICATE_REQUEST)
    assert [kind for kind, _ in client.flight] == [2, 8, CERTIFICATE_REQUEST, CERTIFICATE, CERTIFICATE_VERIFY, 20]
    return whole[4:]


def test_request():
    schemes = (0x0403, 0x0807, 0x0503, 0x0804, 0x0805, 0x0806, 0x0809, 0x080A, 0x080B, 0x0401, 0x0501, 0x0601)
    names = [b"\x30\x02\x31\x00", b"\x30\x04\x31\x02\x30\x00"]
    algorithms = extension(13, vector(2, u16s(*schemes)))
    assert request_of(asked()) == b"\0" + vector(2, algorithms)
    authorities = extension(47, vector(2, b"".join(vector(2, name) for name in names)))
    assert request_of(asked(client_authorities=names)) == b"\0" + vector(2, algorithms + authorities)
    assert request_of(asked(client_authorities=[bytes(300)] * 100)) == b"\0" + vector(2, algorithms)


@pytest.mark.parametrize("options", [
    {"client_auth": "always"}, {"client_auth": "require", "verify_client": "ca.pem"}, {"verify_client": print},
    {"client_auth": "require", "client_authorities": [b""]},
])
def test_options_that_cannot_work(options):
    with pytest.raises(ValueError, match=r"client_au|verify_client"):
        server_config(**options)


def test_client_takes_credentials_only():
    with pytest.raises(ValueError, match="Credentials"):
        ClientConfig(credentials=[b"PEM"])


# --- faults of the client

def test_the_script_itself():
    client = CertifiedClient(asked()).begin()
    client.say(certificate(leaf()))
    client.say(client.certificate_verify())
    assert client.end() == [(ESTABLISHED, b"")]
    assert client.server.peer_certificates == (leaf(),)


def test_flight_in_one_record_and_byte_by_byte():
    for size in (1, 5, 100000):
        client = CertifiedClient(asked()).begin()
        whole = certificate(leaf(), leaf("rsa"))
        client.transcript.add(whole)
        verify = client.certificate_verify()
        client.transcript.add(verify)
        flight = whole + verify + client.own_finished()
        pieces = [flight[i : i + size] for i in range(0, len(flight), size)]
        stream = b"".join(client.write.protect(piece, HANDSHAKE) for piece in pieces)
        events = [e for i in range(0, len(stream), 997) for e in client.send(stream[i : i + 997])]
        assert events[-1] == (ESTABLISHED, b"")
        assert client.server.peer_certificates == (leaf(), leaf("rsa"))


@pytest.mark.parametrize(("whole", "alert"), [
    (certificate(b"not a certificate"), "bad_certificate"),
    (certificate(leaf(), context=b"x"), "illegal_parameter"),
    (certificate(leaf(), extensions=extension(5, b"\x01" + vector(3, b"staple"))), "unsupported_extension"),
    (certificate(leaf(), extensions=extension(0x7777)), "unsupported_extension"),
    (certificate(leaf(), b""), "decode_error"),
    (message(CERTIFICATE, b"\0" + vector(3, vector(3, b"x"))), "decode_error"),
    (message(CERTIFICATE, b""), "decode_error"),
    (EMPTY[:-1] + b"\1", "decode_error"),
    (message(CERTIFICATE, b"\0" + vector(3, b"") + b"\0"), "decode_error"),
    (message(CERTIFICATE, b"\0" + vector(3, bytes(1 << 16))), "illegal_parameter"),
    (message(CERTIFICATE_VERIFY, u16s(0x0403) + vector(2, b"sig")), "unexpected_message"),
    (message(20, bytes(32)), "unexpected_message"),
    (message(1, bytes(64)), "unexpected_message"),
    (EMPTY, "certificate_required"),
])
def test_fault_of_a_certificate(whole, alert):
    client = CertifiedClient(asked()).begin()
    events = []
    for i in range(0, len(whole), 16384):
        events += client.send(client.write.protect(whole[i : i + 16384], HANDSHAKE))
        if client.server.failure:
            break
    client.assert_refused(events, alert)


@pytest.mark.parametrize(("options", "alert"), [
    ({"damage": True}, "decrypt_error"),
    ({"context": "server"}, "decrypt_error"),
    ({"kind": "ecdsa-p384", "scheme": 0x0503}, "illegal_parameter"),       # of another key than the leaf's
    ({"kind": "rsa", "scheme": 0x0804}, "illegal_parameter"),
])
def test_fault_of_a_certificate_verify(options, alert):
    client = CertifiedClient(asked()).begin()
    client.say(certificate(leaf()))
    client.assert_refused(client.say(client.certificate_verify(**options)), alert)


@pytest.mark.parametrize(("whole", "alert"), [
    (message(CERTIFICATE_VERIFY, u16s(0x0203) + vector(2, b"sig")), "illegal_parameter"),      # ecdsa_sha1
    (message(CERTIFICATE_VERIFY, u16s(0x0401) + vector(2, b"sig")), "illegal_parameter"),      # PKCS#1
    (message(CERTIFICATE_VERIFY, u16s(0x0403) + vector(2, b"sig") + b"\0"), "decode_error"),
    (message(CERTIFICATE_VERIFY, u16s(0x0403)), "decode_error"),
    (message(CERTIFICATE_VERIFY, bytes(2000)), "illegal_parameter"),
    (certificate(leaf()), "unexpected_message"),
    (message(20, bytes(32)), "unexpected_message"),                                            # none at all
])
def test_malformed_certificate_verify(whole, alert):
    client = CertifiedClient(asked()).begin()
    client.say(certificate(leaf()))
    client.assert_refused(client.say(whole), alert)


def test_certificate_verify_of_another_transcript():
    client = CertifiedClient(asked()).begin()
    verify = client.certificate_verify()            # as if there were no Certificate
    client.say(certificate(leaf()))
    client.assert_refused(client.say(verify), "decrypt_error")


def test_finished_that_skips_the_certificate():
    client = CertifiedClient(asked("request")).begin()
    client.assert_refused(client.send(client.write.protect(client.server_finished, HANDSHAKE)), "unexpected_message")


def test_finished_that_does_not_cover_the_certificate():
    client = CertifiedClient(asked("request")).begin()
    client.say(EMPTY)
    client.assert_refused(client.send(client.write.protect(client.server_finished, HANDSHAKE)), "decrypt_error")


def test_certificate_not_asked_for():
    client = RawClient().hello()
    client.finished()
    events = client.send(client.write.protect(certificate(leaf()), HANDSHAKE))
    assert events[-1][0] == FAILED
    assert client.server.failure.name == "unexpected_message"


def test_no_data_before_the_proof():
    client = CertifiedClient(asked()).begin()
    client.say(certificate(leaf()))
    events = client.send(client.write.protect(b"GET / HTTP/1.1\r\n\r\n", 23))
    client.assert_refused(events, "unexpected_message")


# --- resumption

TICKETS = TicketKeys([(bytes(16), bytes(32))])


def again(first, config, **options):
    """A second connection of the client of `first`; (client, server)."""
    server = Engine(config)
    client = Engine(ClientConfig(server_name="example.com", session=first.session, **options))
    pump(client, server)
    return client, server


def known_client(mode="require", **options):
    """A client with a session that its certificate stands for."""
    server = Engine(asked(mode, tickets=TICKETS, **options))
    client = Engine(ClientConfig(server_name="example.com", credentials=[credential("ecdsa-p256", "client.example")]))
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
        client, server = again(client, config)          # and by the ticket of a resumed session, too
        assert server.established, server.failure
        assert server.resumed
        assert server.peer_certificates == (leaf(),)
    assert seen == [[leaf()]] * 3


def test_a_chain_that_is_trusted_no_more_ends_the_session():
    def distrust(chain):
        raise TlsAlert(44, "revoked")

    _, server = again(known_client(), asked(tickets=TICKETS, verify_client=distrust))
    assert not server.resumed
    assert server.failure.name == "certificate_required"        # the full handshake asked, and it shows none now
    _, server = again(known_client(), asked(tickets=TICKETS, verify_client=distrust),
                       credentials=[credential("ecdsa-p256", "client.example")])
    assert server.failure.name == "certificate_revoked"
    assert server.peer_certificates == ()


def test_a_session_without_certificate_is_no_way_around():
    server, client = Engine(server_config(tickets=TICKETS)), Engine(ClientConfig(server_name="example.com"))
    pump(client, server)
    assert client.session is not None
    _, server = again(client, asked("request", tickets=TICKETS))
    assert server.resumed
    _, server = again(client, asked("require", tickets=TICKETS))
    assert not server.resumed
    assert server.failure.name == "certificate_required"


def test_a_session_of_a_certificate_where_none_is_asked_for():
    _, server = again(known_client(), server_config(tickets=TICKETS))
    assert server.established
    assert not server.resumed
    assert server.peer_certificates == ()


def test_a_client_that_showed_none_is_none_when_resumed():
    server = Engine(asked("request", tickets=TICKETS))
    client = Engine(ClientConfig(server_name="example.com"))
    pump(client, server)
    _, server = again(client, asked("request", tickets=TICKETS))
    assert server.resumed
    assert server.peer_certificates == ()


# --- OpenSSL

@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """kind -> (certificate, key) files."""
    directory = tmp_path_factory.mktemp("client_auth")
    made = {}
    for kind in KEY_KINDS:
        certificate_, key = certified(kind, "client.example")
        paths = directory / f"{kind}.pem", directory / f"{kind}.key"
        paths[0].write_bytes(certificate_.public_bytes(serialization.Encoding.PEM))
        paths[1].write_bytes(key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
        made[kind] = paths
    return made


class Memory:
    """Python's ssl in memory, with a Connection's face."""

    def __init__(self, context, server_side):
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.ssl = context.wrap_bio(self.incoming, self.outgoing, server_side=server_side,
                                    server_hostname=None if server_side else "example.com")
        self.error = None
        self.done = False
        self.step()

    def step(self):
        try:
            self.ssl.do_handshake()
            self.done = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self.error = error

    def receive_bytes(self, data):
        self.incoming.write(data)
        if not self.done and self.error is None:
            self.step()
        return []

    def take_output(self):
        return self.outgoing.read()


@pytest.mark.parametrize("kind", KEY_KINDS)
def test_openssl_client(files, kind):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(*files[kind])
    server, client = Engine(asked()), Memory(context, False)
    pump(client, server)
    assert server.established, server.failure
    assert server.peer_certificates == (leaf(kind),)


@pytest.mark.parametrize("kind", KEY_KINDS)
def test_openssl_server(files, kind):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(*files["ecdsa-p256"])
    context.load_verify_locations(files[kind][0])
    context.verify_mode = ssl.CERT_REQUIRED
    server = Memory(context, True)
    client = Engine(ClientConfig(server_name="example.com", credentials=[credential(kind, "client.example")]))
    pump(client, server)
    assert server.done, server.error
    assert server.ssl.getpeercert(True) == leaf(kind)

