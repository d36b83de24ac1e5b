"""What the engine's tests share: credentials made on the spot, and a client that says whatever a test wants.

RawClient is written in plain Python on the engine's own record and key schedule faces (which RFC 8448 proves): every
message and every record may be altered, left out, split or joined before it is sent.
"""

import datetime
import functools

from cext.crypto.sign import PrivateKey
from cext.tls.config import ServerConfig
from cext.tls.credential import Credential
from cext.tls.engine import FAILED, Engine
from cext.tls.key_schedule import Schedule, verify_data
from cext.tls.record import RecordKeys
from cext.tls.transcript import TranscriptHash
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.x509.oid import NameOID

X25519, P256, P384 = 0x001D, 0x0017, 0x0018
AES_128, AES_256, CHACHA20 = 0x1301, 0x1302, 0x1303
SUITES = {AES_128: (1, 1), AES_256: (2, 2), CHACHA20: (1, 3)}     # suite: (hash, aead)
ALERT, HANDSHAKE, APPLICATION_DATA, CCS = 21, 22, 23, 20
CCS_RECORD = bytes.fromhex("140303000101")
CLIENT_HELLO, SERVER_HELLO, FINISHED, KEY_UPDATE = 1, 2, 20, 24
RETRY_RANDOM = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")  # RFC 8446, 4.1.3

# AlertDescription, by the names of RFC 8446 section 6
ALERTS = {
    "close_notify": 0, "unexpected_message": 10, "bad_record_mac": 20, "record_overflow": 22, "handshake_failure": 40,
    "illegal_parameter": 47, "decode_error": 50, "decrypt_error": 51, "protocol_version": 70, "internal_error": 80,
    "missing_extension": 109, "unsupported_extension": 110, "unrecognized_name": 112, "no_application_protocol": 120,
}

KEY_KINDS = {
    "ecdsa-p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ecdsa-p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
}


@functools.cache
def certified(kind="ecdsa-p256", name="example.com"):
    """(certificate, key) of the cryptography package: self-signed, for `name` and its subdomains."""
    key = KEY_KINDS[kind]()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name), x509.DNSName(f"*.{name}")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True))
    return builder.sign(key, None if kind == "ed25519" else hashes.SHA256()), key


@functools.cache
def credential(kind="ecdsa-p256", name="example.com"):
    certificate, key = certified(kind, name)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Credential(
        [certificate.public_bytes(serialization.Encoding.DER)], PrivateKey.from_pem(pem), [name, f"*.{name}"])


def server_config(*kinds, **options):
    return ServerConfig([credential(kind) for kind in kinds or ("ecdsa-p256",)], **options)


def pump(a, b):
    """Carries bytes between two Connections until neither has any; all events, (side, event, payload)."""
    events = []
    while True:
        to_b, to_a = a.take_output(), b.take_output()
        if not to_a and not to_b:
            return events
        events += [("b", *event) for event in b.receive_bytes(to_b)]
        events += [("a", *event) for event in a.receive_bytes(to_a)]


# --- wire formats

def vector(width, body):
    return len(body).to_bytes(width, "big") + body


def u16s(*values):
    return b"".join(v.to_bytes(2, "big") for v in values)


def extension(kind, body=b""):
    return u16s(kind) + vector(2, body)


def message(kind, body=b""):
    return bytes([kind]) + vector(3, body)


def record(kind, fragment, version=0x0303):
    return bytes([kind]) + u16s(version) + vector(2, fragment)


def records(stream):
    """The stream's records: (type, whole record)."""
    found = []
    while stream:
        n = 5 + int.from_bytes(stream[3:5], "big")
        found.append((stream[0], stream[:n]))
        stream = stream[n:]
    return found


def messages(stream):
    """The stream's handshake messages: (type, whole message)."""
    found = []
    while stream:
        n = 4 + int.from_bytes(stream[1:4], "big")
        found.append((stream[0], stream[:n]))
        stream = stream[n:]
    return found


class Share:
    """An ephemeral key of one group."""

    def __init__(self, group=X25519):
        self.group = group
        if group == X25519:
            self.key = x25519.X25519PrivateKey.generate()
            self.public = self.key.public_key().public_bytes_raw()
        else:
            self.curve = ec.SECP256R1() if group == P256 else ec.SECP384R1()
            self.key = ec.generate_private_key(self.curve)
            self.public = self.key.public_key().public_bytes(
                serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)

    def entry(self):
        return u16s(self.group) + vector(2, self.public)

    def exchange(self, public):
        if self.group == X25519:
            return self.key.exchange(x25519.X25519PublicKey.from_public_bytes(public))
        return self.key.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(self.curve, public))


def client_hello(*, share=None, entries=None, suites=(AES_128,), groups=(X25519, P256, P384), versions=(0x0304,),
                 schemes=(0x0403, 0x0503, 0x0804, 0x0807), session_id=b"", random=b"\x55" * 32, name="example.com",
                 alpn=(), extra=(), omit=(), compression=b"\0", legacy_version=0x0303):
    """A ClientHello message. `entries`: key share entries (default: that of `share`); `extra`: whole extensions at the
    end; `omit`: extension numbers left out."""
    entries = [share.entry()] if entries is None else entries
    known = {
        0: vector(2, b"\0" + vector(2, name.encode())), 10: vector(2, u16s(*groups)), 13: vector(2, u16s(*schemes)),
        43: vector(1, u16s(*versions)), 51: vector(2, b"".join(entries)),
    }
    if alpn:
        known[16] = vector(2, b"".join(vector(1, p) for p in alpn))
    extensions = b"".join(extension(k, v) for k, v in known.items() if k not in omit) + b"".join(extra)
    return message(CLIENT_HELLO, u16s(legacy_version) + random + vector(1, session_id) + vector(2, u16s(*suites))
                   + vector(1, compression) + vector(2, extensions))


class RawClient:
    """A client on one Engine(ServerConfig): hello(), then finish(), then seal() and open() as a test needs."""

    def __init__(self, config=None, suite=AES_128, group=X25519, **hello):
        self.server = Engine(config or server_config())
        self.suite = suite
        self.hash, self.aead = SUITES[suite]
        self.share = Share(group)
        self.hello_options = {"suites": (suite,), "share": self.share, **hello}
        self.transcript = TranscriptHash(self.hash)
        self.events = []
        self.flight = []                # of the server: (type, whole message)
        self.ccs = 0
        self.write = self.read = None

    def send(self, data):
        """Bytes to the server; its new events."""
        events = self.server.receive_bytes(data)
        self.events += events
        return events

    def hello(self, **changes):
        """The ClientHello and its answer: keys are in place when it was a ServerHello."""
        hello = client_hello(**{**self.hello_options, **changes})
        self.transcript.add(hello)
        self.send(record(HANDSHAKE, hello, 0x0301))
        self.take_flight()
        return self

    def take_flight(self):
        for kind, whole in records(self.server.take_output()):
            if kind == CCS:
                self.ccs += 1
            elif kind == HANDSHAKE:
                self.take_server_hello(whole[5:])
            elif kind == ALERT:
                self.flight.append((ALERT, whole[5:]))
            else:
                inner, content = self.read.unprotect(whole)
                assert inner == HANDSHAKE
                self.flight += messages(content)
        return self.flight

    def take_server_hello(self, hello):
        assert hello[0] == SERVER_HELLO
        self.flight.append((SERVER_HELLO, hello))
        if hello[6:38] == RETRY_RANDOM:
            self.transcript.retry()
            self.transcript.add(hello)
            return
        self.transcript.add(hello)
        at = hello.index(u16s(self.share.group, len(self.share.public))) + 4
        self.schedule = Schedule(self.hash, self.share.exchange(hello[at : at + len(self.share.public)]))
        digest = self.transcript.digest()
        self.client_secret = self.schedule.derive("c hs traffic", digest)
        self.server_secret = self.schedule.derive("s hs traffic", digest)
        self.write = RecordKeys(self.hash, self.aead, self.client_secret, True)
        self.read = RecordKeys(self.hash, self.aead, self.server_secret, False)

    def retry_extensions(self):
        """Of the HelloRetryRequest: {number: body}."""
        retry = next(m for kind, m in self.flight if m[6:38] == RETRY_RANDOM)
        at = 39 + retry[38] + 3
        rest, found = retry[at + 2 :], {}
        while rest:
            n = int.from_bytes(rest[2:4], "big")
            found[int.from_bytes(rest[:2], "big")] = rest[4 : 4 + n]
            rest = rest[4 + n :]
        return found

    def finished(self):
        """Our Finished, after the server's flight; the application keys follow from it."""
        for _, whole in self.flight[[kind for kind, _ in self.flight].index(8) :]:
            self.transcript.add(whole)
        digest = self.transcript.digest()
        self.schedule.master()
        self.client_application = self.schedule.derive("c ap traffic", digest)
        self.server_application = self.schedule.derive("s ap traffic", digest)
        return message(FINISHED, verify_data(self.hash, self.client_secret, digest))

    def finish(self, finished=None):
        """Sends our Finished and changes to the application keys; the server's new events."""
        events = self.send(self.write.protect(finished or self.finished(), HANDSHAKE))
        self.use_application_keys()
        return events

    def use_application_keys(self):
        self.write = RecordKeys(self.hash, self.aead, self.client_application, True)
        self.read = RecordKeys(self.hash, self.aead, self.server_application, False)

    def connect(self):
        self.hello()
        self.finish()
        assert self.server.established, self.server.failure
        return self

    def seal(self, content, kind=APPLICATION_DATA, padding=0):
        return self.write.protect(content, kind, padding)

    def open_output(self):
        """What the server has to say, opened: [(type, content), ...]."""
        return [self.read.unprotect(whole) for _, whole in records(self.server.take_output())]

    def alert(self):
        """The alert at the end of the server's output, by its description; under the keys of now, or in plaintext."""
        kind, whole = records(self.server.take_output())[-1]
        content = whole[5:] if kind == ALERT else self.read.unprotect(whole)[1]
        assert len(content) == 2
        assert content[0] == (1 if content[1] == 0 else 2)
        return content[1]


def assert_refused(client, events, name):
    """The last event is a failure, by our alert `name`, which is also what was sent."""
    assert events[-1][0] == FAILED, events
    failure = client.server.failure
    assert (failure.name, failure.sent) == (name, True), failure
    assert failure.reason
    assert client.alert() == ALERTS[name]
    assert not client.server.write_open
    assert client.server.receive_bytes(b"more") == [(FAILED, b"")]
    assert client.server.take_output() == b""
