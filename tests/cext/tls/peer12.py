"""TLS 1.2 peers of the engine's tests: Python's ssl in memory, and a client that says whatever a test wants."""

import functools
import hashlib
import ssl
import tempfile

from cext.tls.engine import Engine
from cext.tls.record import RecordKeys
from cryptography.hazmat.primitives import serialization

from cext.tls import prf12
from tests.cext.tls.peer import (
    ALERT,
    CCS,
    CCS_RECORD,
    CLIENT_HELLO,
    FINISHED,
    HANDSHAKE,
    X25519,
    Share,
    certified,
    extension,
    message,
    messages,
    record,
    records,
    server_config,
    u16s,
    vector,
)

TLS12, TLS13 = 0x0303, 0x0304
EMS, RENEGOTIATION, SESSION_TICKET = 23, 0xFF01, 35
SERVER_KEY_EXCHANGE, SERVER_HELLO_DONE, CLIENT_KEY_EXCHANGE, NEW_SESSION_TICKET, HELLO_REQUEST = 12, 14, 16, 4, 0
ECDSA_SUITES = {0xC02B: "ECDHE-ECDSA-AES128-GCM-SHA256", 0xC02C: "ECDHE-ECDSA-AES256-GCM-SHA384",
                0xCCA9: "ECDHE-ECDSA-CHACHA20-POLY1305"}
RSA_SUITES = {0xC02F: "ECDHE-RSA-AES128-GCM-SHA256", 0xC030: "ECDHE-RSA-AES256-GCM-SHA384",
              0xCCA8: "ECDHE-RSA-CHACHA20-POLY1305"}
SUITES12 = {**ECDSA_SUITES, **RSA_SUITES}
CURVES = {0x1D: "X25519", 0x17: "prime256v1", 0x18: "secp384r1"}
HASHES = {1: hashlib.sha256, 2: hashlib.sha384}


def hash_and_aead(suite):
    return {0xC02B: (1, 1), 0xC02F: (1, 1), 0xC02C: (2, 2), 0xC030: (2, 2)}.get(suite, (1, 3))


@functools.cache
def pem_file(kind):
    """A file with certificate and key, for Python's ssl."""
    certificate, key = certified(kind)
    with tempfile.NamedTemporaryFile(suffix=".pem", delete=False) as file:
        file.write(key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
        file.write(certificate.public_bytes(serialization.Encoding.PEM))
    return file.name


class Ssl:
    """Python's ssl at the other end: Ssl(connection, ...); its context may be given to another for resumption."""

    def __init__(self, connection, *, server_kind=None, suite=None, group=None, alpn=None, context=None, session=None):
        self.connection = connection
        self.context = context or self.make_context(server_kind, suite, group, alpn)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.object = self.context.wrap_bio(
            self.incoming, self.outgoing, server_side=server_kind is not None, session=session,
            server_hostname=None if server_kind else "example.com")

    @staticmethod
    def make_context(server_kind, suite, group, alpn):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server_kind else ssl.PROTOCOL_TLS_CLIENT)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        if server_kind:
            context.load_cert_chain(pem_file(server_kind))
        else:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if suite:
            context.set_ciphers(suite)
        if group:
            context.set_ecdh_curve(group)
        if alpn:
            context.set_alpn_protocols(alpn)
        return context

    def handshake(self):
        """To its end on both sides; SSLError when it fails here."""
        for _ in range(8):
            done = True
            try:
                self.object.do_handshake()
            except ssl.SSLWantReadError:
                done = False
            self.exchange()
            if done and self.connection.established:
                return self
        raise AssertionError(f"no end of the handshake: {self.connection.failure}")

    def exchange(self):
        """Carries bytes both ways; the connection's events."""
        events = self.connection.receive_bytes(self.outgoing.read())
        self.incoming.write(self.connection.take_output())
        return events

    def check_data(self):
        """Bytes in both directions, more than a record holds."""
        self.object.write(b"to the engine")
        assert self.exchange() == [(1, b"to the engine")]
        self.connection.send(b"from the engine" * 2000)
        self.exchange()
        got = b""
        while len(got) < 30_000:
            got += self.object.read(1 << 14)
        assert got == b"from the engine" * 2000


class RawClient12:
    """A client of TLS 1.2 on one Engine(ServerConfig), by hand: hello(), key_exchange(), ccs(), finish()."""

    def __init__(self, config=None, *, suite=0xC02B, group=X25519, ems=True, session_id=b"", ticket=None):
        self.server = Engine(config or server_config())
        self.suite, self.group, self.ems, self.session_id, self.ticket = suite, group, ems, session_id, ticket
        self.hash, self.aead = hash_and_aead(suite)
        self.share = Share(group)
        self.random = b"\x33" * 32
        self.transcript = b""
        self.flight = []
        self.ccs_seen = 0
        self.write = self.read = self.master = None

    def client_hello(self, *, version=TLS12, suites=None, groups=(0x1D, 0x17, 0x18), schemes=(0x0403, 0x0804, 0x0401),
                     extra=(), omit=(), compression=b"\0", name="example.com", supported_versions=None):
        known = {0: vector(2, b"\0" + vector(2, name.encode())), 10: vector(2, u16s(*groups)),
                 13: vector(2, u16s(*schemes)), 11: b"\1\0", RENEGOTIATION: b"\0"}
        if self.ems:
            known[EMS] = b""
        if self.ticket is not None:
            known[SESSION_TICKET] = self.ticket
        if supported_versions is not None:
            known[43] = vector(1, u16s(*supported_versions))
        extensions = b"".join(extension(k, v) for k, v in known.items() if k not in omit) + b"".join(extra)
        return message(CLIENT_HELLO, u16s(version) + self.random + vector(1, self.session_id)
                       + vector(2, u16s(*(suites or (self.suite,)))) + vector(1, compression) + vector(2, extensions))

    def send(self, data):
        return self.server.receive_bytes(data)

    def say(self, handshake_message):
        """A handshake message, into the transcript too."""
        self.transcript += handshake_message
        return self.send(self.write.protect(handshake_message, HANDSHAKE) if self.write
                         else record(HANDSHAKE, handshake_message))

    def hello(self, **changes):
        self.events = self.say(self.client_hello(**changes))
        self.take_flight()
        return self

    def take_flight(self):
        for kind, whole in records(self.server.take_output()):
            if kind == CCS:
                self.ccs_seen += 1
                self.read = RecordKeys(0, self.aead, self.keys[1], False)
            elif kind == HANDSHAKE:
                content = self.read.unprotect(whole)[1] if self.read else whole[5:]
                for name, one in messages(content):
                    if name == 2:
                        self.server_random = one[6:38]
                    self.flight.append((name, one))
                    self.transcript += one
            else:
                self.flight.append((kind, self.read.unprotect(whole)[1] if self.read else whole[5:]))
        return self.flight

    def server_hello(self):
        """(session_id, cipher suite, {extension: body}) of the ServerHello."""
        body = self.flight[0][1][4:]
        n = body[34]
        rest, found = body[35 + n + 5 :], {}
        while rest:
            size = int.from_bytes(rest[2:4], "big")
            found[int.from_bytes(rest[:2], "big")] = rest[4 : 4 + size]
            rest = rest[4 + size :]
        return body[35 : 35 + n], int.from_bytes(body[35 + n : 37 + n], "big"), found

    def key_exchange(self, point=None, kind=CLIENT_KEY_EXCHANGE):
        """ClientKeyExchange; the keys follow from it."""
        ske = next(m for name, m in self.flight if name == SERVER_KEY_EXCHANGE)
        events = self.say(message(kind, vector(1, self.share.public if point is None else point)))
        if not self.server.failure:
            self.make_keys(self.share.exchange(ske[8 : 8 + ske[7]]))
        return events

    def make_keys(self, premaster=None, master=None):
        digest = HASHES[self.hash](self.transcript).digest()
        if premaster is not None:
            master = (prf12.extended_master(self.hash, premaster, digest) if self.ems
                      else prf12.master(self.hash, premaster, self.random, self.server_random))
        self.master = master
        self.keys = prf12.keys(self.hash, self.aead, master, self.random, self.server_random)

    def ccs(self, raw=CCS_RECORD):
        events = self.send(raw)
        self.write = RecordKeys(0, self.aead, self.keys[0], True)
        return events

    def finished(self):
        digest = HASHES[self.hash](self.transcript).digest()
        return message(FINISHED, prf12.finished(self.hash, self.master, False, digest))

    def finish(self, finished=None):
        return self.say(finished or self.finished())

    def connect(self):
        self.hello()
        self.key_exchange()
        self.ccs()
        self.finish()
        assert self.server.established, self.server.failure
        self.take_flight()
        return self

    def alert(self):
        """The alert that ends the server's output, by its description."""
        kind, whole = records(self.server.take_output())[-1]
        assert kind == ALERT
        content = self.read.unprotect(whole)[1] if self.read else whole[5:]
        assert content[0] == (1 if content[1] == 0 else 2)
        return content[1]
