"""A client and a server that follow a script (see tests.fuzz.script), each on the other side of one Connection.

They are written on the engine's own record and key schedule faces, in TLS 1.3 and 1.2. Their keys are fixed, so the
randomness of a run is the engine's alone.
"""

import functools
import time
from pathlib import Path

from cext.crypto.kx import KeyExchange
from cext.crypto.sign import PrivateKey
from cext.tls.compression import compressed_certificate
from cext.tls.credential import Credential, certificate_body
from cext.tls.engine import DATA, FAILED
from cext.tls.key_schedule import Schedule, updated, verify_data
from cext.tls.prf12 import extended_master, finished, keys, master
from cext.tls.record import RecordKeys
from cext.tls.transcript import TranscriptHash
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, x25519

from cext.crypto import mlkem
from cext.tls import inspect
from edge.certificates.compression import Zlib
from tests.cext.tls.peer import message, record, records, u16s, vector

ALERT, HANDSHAKE, APPLICATION_DATA, CCS = 21, 22, 23, 20
X25519, P256, X25519MLKEM768 = 0x001D, 0x0017, 0x11EC
TLS13_VERSION = (43, b"\3\4")
RETRY_RANDOM = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
# suite: (hash, aead)
SUITES = {
    0x1301: (1, 1), 0x1302: (2, 2), 0x1303: (1, 3),
    0xC02B: (1, 1), 0xC02F: (1, 1), 0xC02C: (2, 2), 0xC030: (2, 2), 0xCCA9: (1, 3), 0xCCA8: (1, 3),
}  # fmt: skip
RECORDS_MAX = 64
IDENTITIES = Path(__file__).parent / "identities"
RESPONSE = b"an OCSPResponse"
TIMESTAMPS = vector(2, vector(2, b"first") + vector(2, b"second"))
ASKS_STATUS, ASKS_TIMESTAMPS = (5, b"\1" + bytes(4)), (18, b"")
DAY = 24 * 3600


class Stored:
    """A compression that compresses nothing, so that what is changed is changed behind it."""

    number = 0x4001

    def compress(self, data):
        return data

    def decompress(self, data, length):
        return data


STORED, ZLIB = Stored(), Zlib()
COMPRESSIONS = (STORED, ZLIB)


@functools.cache
def private_key(kind):
    if kind == "delegated":
        return PrivateKey.from_pem(delegated_key().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))  # fmt: skip
    return PrivateKey.from_pem((IDENTITIES / f"{kind}.key").read_bytes())


@functools.cache
def certificate(kind):
    return x509.load_pem_x509_certificate((IDENTITIES / f"{kind}.pem").read_bytes())


@functools.cache
def credential(kind, signer=None, **options):
    """Of our certificate, with all that can stand beside it."""
    der = certificate(kind).public_bytes(serialization.Encoding.DER)
    return Credential(
        [der], signer or private_key("delegated" if "delegated_credential" in options else kind),
        ["example.com", "*.example.com"], ocsp_response=RESPONSE, signed_certificate_timestamps=TIMESTAMPS,
        certificate_compression=COMPRESSIONS, **options,
    )  # fmt: skip


def delegated_key():
    return ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


@functools.cache
def delegation():
    """A DelegatedCredential (RFC 9345, section 4) of the ECDSA certificate for delegated_key(), good for some days."""
    began = int(certificate("ecdsa").not_valid_before_utc.timestamp())
    valid = int(time.time()) // DAY * DAY + 5 * DAY - began
    public = delegated_key().public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)  # fmt: skip
    body = valid.to_bytes(4, "big") + u16s(0x0807) + vector(3, public) + u16s(0x0403)
    key = serialization.load_pem_private_key((IDENTITIES / "ecdsa.key").read_bytes(), None)
    der = certificate("ecdsa").public_bytes(serialization.Encoding.DER)
    signed = b" " * 64 + b"TLS, server delegated credentials\0" + der + body
    return body + vector(2, key.sign(signed, ec.ECDSA(hashes.SHA256(), deterministic_signing=True)))


class Share:
    """A key pair that is always the same."""

    def __init__(self, group):
        self.group = group
        if group == X25519:
            self.key = x25519.X25519PrivateKey.from_private_bytes(bytes(range(32)))
            self.public = self.key.public_key().public_bytes_raw()
        else:
            self.key = ec.derive_private_key(0x1234567, ec.SECP256R1())
            self.public = self.key.public_key().public_bytes(
                serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
            )

    def exchange(self, public):
        """The shared secret; None for what is no share of the group."""
        try:
            if self.group == X25519:
                return self.key.exchange(x25519.X25519PublicKey.from_public_bytes(public))
            return self.key.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), public))
        except ValueError:
            return None


class HybridShare:
    """A key pair of X25519MLKEM768, whose server's share answers the client's: the same in all of a process."""

    @functools.cached_property
    def key(self):
        return KeyExchange()

    @functools.cached_property
    def public(self):
        return self.key.start(X25519MLKEM768)

    def exchange(self, public):
        """Of a client, with the server's answer; None for what is no answer."""
        try:
            return self.public and self.key.finish(public)
        except ValueError:
            return None

    def answer(self, public):
        """Of a server: (its share, the secret)."""
        try:
            return KeyExchange().answer(X25519MLKEM768, public)
        except ValueError:
            raise LostError from None


SHARES = {group: Share(group) for group in (X25519, P256)}
if mlkem.available():
    SHARES[X25519MLKEM768] = HybridShare()


def group_of(settings):
    """Bits 2 and 12: P-256, or the hybrid where it is to be had."""
    if not settings >> 2 & 1:
        return X25519
    return X25519MLKEM768 if settings >> 12 & 1 and not settings >> 4 & 1 and X25519MLKEM768 in SHARES else P256


def extensions(*entries):
    return vector(2, b"".join(u16s(type) + vector(2, body) for type, body in entries))


@functools.cache
def issuers():
    """certificate_authorities (RFC 8446, section 4.2.4) of our certificates."""
    return vector(2, vector(2, certificate("ecdsa").issuer.public_bytes()))


def extension_map(encoded):
    """{type: body} of an encoded list with its length."""
    found, at = {}, 2
    while at + 4 <= len(encoded):
        end = at + 4 + int.from_bytes(encoded[at + 2 : at + 4], "big")
        found[int.from_bytes(encoded[at : at + 2], "big")] = encoded[at + 4 : end]
        at = end
    return found


class Transcript:
    """A TranscriptHash beside the bytes themselves, which TLS 1.2's CertificateVerify signs."""

    def __init__(self):
        self.hash, self.raw = TranscriptHash(0), b""

    def __getattr__(self, name):
        return getattr(self.hash, name)

    def add(self, message):
        self.hash.add(message)
        self.raw += message


class LostError(Exception):
    """The script led to where our side cannot follow: the run is over, and the engine must not call it a handshake."""


class Peer:
    client = True

    def __init__(self, engine, script):
        self.engine = engine
        self.script = script
        self.settings = script.settings
        self.events = []
        self.seen = b""  # handshake bytes of the engine that are no whole message yet
        self.write = self.read = None
        self.tls12 = False
        self.reading12 = False  # the engine's change_cipher_spec has come
        self.early_unread = False  # there is early data of a client, which we do not accept, or not yet
        self.early_records = []
        self.sent_bytes = 0

    def wants(self, bit):
        return bool(self.settings >> bit & 1)

    # --- to the engine

    def deliver(self, data):
        self.sent_bytes += len(data)
        self.events += self.engine.receive_bytes(data)

    @property
    def failed(self):
        return bool(self.events) and self.events[-1][0] == FAILED

    def content(self, type, content, slot=None):
        """One record of it, under the keys of now."""
        content = content[:16384]
        sealed = record(type, content) if self.write is None else self.write.protect(content, type)
        for o in self.script.of(slot, "flip"):
            at = o.position % len(sealed)
            sealed = sealed[:at] + bytes((sealed[at] ^ (o.payload[0] if o.payload else 1),)) + sealed[at + 1 :]
        self.deliver(sealed)

    def say(self, slot, whole):
        """A handshake message by way of the script."""
        self.aside(slot, "before", "act", "plain")
        sent = self.script.messages(slot, whole)
        for one in sent:
            self.transcript.add(one)
        self.send_handshake(slot, b"".join(sent))
        self.aside(slot, "behind")
        return sent[-1] if sent else whole

    def say_certificate(self, slot, body, compressed):
        self.say(slot, (compressed and compressed_certificate(self.compression, body)) or message(11, body))

    def send_handshake(self, slot, stream):
        sizes = [o.position % 16384 + 1 for o in self.script.of(slot, "split")]
        size = max(min(sizes, default=16384), len(stream) // RECORDS_MAX + 1)
        for at in range(0, len(stream), size):
            self.content(HANDSHAKE, stream[at : at + size], slot)

    def aside(self, slot, *kinds):
        for o in self.script.of(slot, *kinds):
            if o.kind == "plain":
                self.deliver(o.payload)
            elif o.kind == "act":
                self.act(o)
            elif o.payload:
                self.content(o.payload[0], o.payload[1:])

    def act(self, o):  # noqa: PLR0912  (one line for each turn)
        """Something that no message of the handshake is: data, KeyUpdates, closing; of ours or of the engine."""
        turn = o.position % 12
        if turn == 0:
            self.content(APPLICATION_DATA, o.payload)
        elif turn in (1, 2):
            self.content(HANDSHAKE, message(24, bytes((turn - 1,))))
            self.update_write_keys()
        elif turn == 3 and self.engine.write_open:
            self.engine.send(o.payload * 3)
        elif turn == 4 and self.engine.write_open and self.engine.established and not self.tls12:
            self.engine.request_key_update(bool(o.position & 16))
        elif turn == 5:
            self.engine.send_close_notify()
        elif turn == 6:
            self.engine.park_now()
        elif turn == 7:
            self.content(ALERT, b"\1\0")
        elif turn == 8:
            self.content(ALERT, o.payload[:4])
        elif turn == 9 and not self.tls12:
            self.engine.key_update_after = o.position >> 4
        elif turn == 10:
            for _ in range(o.position >> 4 & 63):
                self.content(APPLICATION_DATA, b"")
        elif turn == 11:
            for _ in range(o.position >> 4 & 63):
                self.content(HANDSHAKE, message(24, b"\0"))
                self.update_write_keys()
        self.listen()

    def update_write_keys(self):
        if not self.tls12 and self.write is not None and hasattr(self, "own_secret"):
            self.own_secret = updated(self.hash, self.own_secret)
            self.write = RecordKeys(self.hash, self.aead, self.own_secret, True)

    # --- from the engine

    def listen(self):
        """Takes all that the engine has to say."""
        for type, whole in records(self.engine.take_output()):
            if type == CCS and whole[5:] == b"\1":
                if self.tls12 and not hasattr(self, "engine_key12"):
                    self.resume12()
                self.reading12 = self.tls12
                if self.tls12:
                    self.read = self.read12()
                continue
            self.heard(*self.opened(type, whole), whole)

    def opened(self, type, whole):
        """(type, content) of a record; of early data that we do not take (0, b"")."""
        if self.read is None or not (type == APPLICATION_DATA or self.reading12):
            return type, whole[5:]
        try:
            return self.read.unprotect(whole)
        except ValueError:
            if self.early_unread:
                return 0, b""
            raise LostError from None

    def heard(self, type, content, whole):
        if type == HANDSHAKE:
            self.seen += content
            self.hear()
        elif type == APPLICATION_DATA and self.read is None:
            if not self.early_unread:
                raise LostError
            self.early_records.append(whole)

    def hear(self):
        while len(self.seen) >= 4:
            length = 4 + int.from_bytes(self.seen[1:4], "big")
            if len(self.seen) < length:
                return
            whole, self.seen = self.seen[:length], self.seen[length:]
            if whole[0] == 24:
                self.read_secret = updated(self.hash, self.read_secret)
                self.read = RecordKeys(self.hash, self.aead, self.read_secret, False)
            else:
                self.take(whole)

    def read_with(self, secret):
        self.read_secret = secret
        self.read = RecordKeys(self.hash, self.aead, secret, False)

    def write_with(self, secret):
        self.own_secret = secret
        self.write = RecordKeys(self.hash, self.aead, secret, True)

    # --- both versions, both roles

    def use_suite(self, suite):
        if suite not in SUITES:
            raise LostError
        self.hash, self.aead = SUITES[suite]

    def make_keys12(self, shared, with_hash):
        if shared is None:
            raise LostError
        if with_hash:
            self.master = extended_master(self.hash, shared, self.transcript.digest())
        else:
            self.master = master(self.hash, shared, self.client_random, self.server_random)
        self.expand_keys12()

    def expand_keys12(self):
        client, server = keys(self.hash, self.aead, self.master, self.client_random, self.server_random)
        self.own_key12, self.engine_key12 = (client, server) if self.client else (server, client)

    def resume12(self):
        """The engine changes its keys without a key exchange: an abbreviated handshake, if there can be one."""
        raise LostError

    def read12(self):
        if not hasattr(self, "engine_key12"):
            raise LostError
        return RecordKeys(0, self.aead, self.engine_key12, False)

    def finish12(self, slot):
        self.deliver(record(CCS, b"\1"))
        self.write = RecordKeys(0, self.aead, self.own_key12, True)
        proof = finished(self.hash, self.master, not self.client, self.transcript.digest())
        self.say(slot, message(20, proof))

    def run(self):
        """The whole life of the connection, or as far as it comes."""
        try:
            self.handshake()
            self.listen()
        except LostError:
            assert not self.engine.established, "a handshake whose keys its peer does not have"
            return
        if not self.engine.established or self.engine.failure:
            return
        self.agree()
        self.later()

    def agree(self):
        """An established engine and a peer that said what it meant have the same keys, both ways."""
        if self.engine.read_closed or not self.engine.write_open:
            return
        self.content(APPLICATION_DATA, b"ping")
        assert self.failed or self.events[-1] == (DATA, b"ping"), self.events
        if self.engine.write_open:
            self.engine.send(b"pong")
            opened = []
            for _, whole in records(self.engine.take_output()):
                type, content = self.read.unprotect(whole)
                opened.append((type, content))
                if type == HANDSHAKE:
                    self.seen += content
                    self.hear()
            assert opened[-1] == (APPLICATION_DATA, b"pong"), opened

    def later(self):
        try:
            self.tickets()
            self.aside("after", "before", "behind", "act", "plain")
            self.listen()
        except LostError:
            pass  # a script's own KeyUpdates may lose it its keys

    def tickets(self):
        """What only a server has to say."""


class ScriptedClient(Peer):
    """settings: 0-1 suite, 2 P-256 (with 12 the hybrid), 3 no share at first, 4 TLS 1.2, 5 PSK, or a ticket in 1.2,
    6 early data, 9 asks for a ticket in 1.2, 11 psk_ke, and without 5 asks for what stands beside a certificate and for
    its compression, and compresses its own, 12 session id, 13 no extended master secret; the rest is the server's (see
    tests.fuzz.targets)."""

    def __init__(self, engine, script, resumption):
        super().__init__(engine, script)
        self.tls12_only = self.wants(4)
        self.resumption = resumption if self.wants(5) and not self.tls12_only else None
        self.session12 = resumption if self.wants(5) and self.tls12_only else None
        self.resumed12 = False
        self.group = group_of(self.settings)
        self.shares = [] if self.wants(3) else [self.group]
        self.cookie = None
        self.retried = self.answered = self.certificate_wanted = self.early_accepted = False
        self.transcript = Transcript()
        suites = list(SUITES)[:3]
        self.suites = [suites[self.settings & 3]] if self.settings & 3 < 3 else suites
        if self.resumption:
            self.suites = [0x1301]
        if self.tls12_only:
            self.suites = list(SUITES)[3:][self.settings & 3 :]
        self.compression = ZLIB if self.settings & 3 == 3 else STORED
        self.asks = self.wants(11) and not self.wants(5)

    def handshake(self):
        self.say_hello("client_hello")
        if self.resumption and self.wants(6) and not self.failed:
            self.say_early()
        self.listen()
        if self.retried:
            self.write = None
            self.say_hello("second_hello")
            self.listen()
        if self.failed or not self.answered:
            return
        if self.tls12:
            self.finish_tls12()
        else:
            self.finish_tls13()

    def say_hello(self, slot):
        entries = b"".join(u16s(g) + vector(2, SHARES[g].public) for g in self.shares)
        known = [(0, vector(2, b"\0" + vector(2, b"example.com"))), (10, vector(2, u16s(*SHARES)))]
        known += [(13, vector(2, u16s(0x0403, 0x0804, 0x0401))), (16, vector(2, vector(1, b"http/1.1")))]
        if self.tls12_only:
            known += [(0xFF01, b"\0"), (11, b"\1\0")] + ([] if self.wants(13) else [(23, b"")])
            if self.session12 or self.wants(9):
                known.append((35, self.session12.ticket if self.session12 else b""))
        else:
            known += [TLS13_VERSION_LIST, (51, vector(2, entries)), (45, b"\1\0" if self.wants(11) else b"\1\1")]
        if self.asks:
            known += [ASKS_STATUS, ASKS_TIMESTAMPS, (27, vector(1, u16s(self.compression.number)))]
        if self.cookie is not None:
            known.append((44, self.cookie))
        if self.resumption:
            if self.wants(6) and slot == "client_hello":
                known.append((42, b""))
            identity = vector(2, self.resumption.ticket) + self.resumption.obfuscated_age().to_bytes(4, "big")
            known.append((41, vector(2, identity) + vector(2, vector(1, bytes(32)))))
        session_id = bytes(range(32)) if self.wants(12) else b""
        body = b"\3\3" + b"\x55" * 32 + vector(1, session_id) + vector(2, u16s(*self.suites)) + b"\1\0"
        self.hello = self.say(slot, message(1, body + extensions(*known)))

    def say(self, slot, whole):
        if not slot.endswith("hello") or not self.resumption:
            return super().say(slot, whole)
        return self.say_with_binder(slot, whole)

    def say_with_binder(self, slot, whole):
        """As say; the binder is made over the ClientHello as the script leaves it, if it still ends with one."""
        self.aside(slot, "before", "act", "plain")
        sent = self.script.messages(slot, whole)
        for i, one in enumerate(sent):
            if one.endswith(b"\0\x21\x20" + bytes(32)):
                before = self.transcript if self.retried else TranscriptHash(1)
                binder = self.binder(before, one[:-35])
                sent[i] = one[:-32] + binder
            self.transcript.add(sent[i])
        self.send_handshake(slot, b"".join(sent))
        self.aside(slot, "behind")
        return sent[-1] if sent else whole

    def binder(self, before, truncated):
        if before is self.transcript:
            copy = TranscriptHash(1)
            for one in self.before_second:
                copy.add(one)
            before = copy
        before.add(truncated)
        return Schedule(1, psk=self.resumption.psk).binder(before.digest())

    def say_early(self):
        self.hash, self.aead = 1, 1
        digest = TranscriptHash(1)
        digest.add(self.hello)
        secret = Schedule(1, psk=self.resumption.psk).derive("c e traffic", digest.digest())
        self.write_with(secret)
        self.content(APPLICATION_DATA, b"early", "early_data")
        self.aside("early_data", "before", "behind", "act", "plain")

    def take(self, whole):
        type, body = whole[0], whole[4:]
        if type == 2:
            self.take_server_hello(whole, body)
            return
        if not self.answered:
            raise LostError
        if type == 4 and not self.tls12:
            return
        if type == 8:
            self.early_accepted = 42 in extension_map(body)
        if type == 13:
            self.certificate_wanted = True
        if type == 12:
            self.point = body[4 : 4 + body[3]]
            self.group = int.from_bytes(body[1:3], "big")
        self.transcript.add(whole)
        if type == 20 and not self.tls12:
            self.digest = self.transcript.digest()
            self.schedule.master()
            self.read_with(self.schedule.derive("s ap traffic", self.digest))

    def take_server_hello(self, whole, body):
        at = 35 + body[34]
        found = extension_map(body[at + 3 :])
        suite = int.from_bytes(body[at : at + 2], "big")
        self.use_suite(suite)
        self.transcript.select(self.hash)
        if body[2:34] == RETRY_RANDOM:
            self.take_retry(whole, found)
            return
        self.transcript.add(whole)
        self.answered = True
        self.client_random, self.server_random = self.hello[6:38], body[2:34]
        self.tls12 = 43 not in found
        if self.tls12:
            self.with_hash = 23 in found
            return
        shared = None
        if 51 in found:
            self.group = int.from_bytes(found[51][:2], "big")
            shared = SHARES[self.group].exchange(found[51][4:]) if self.group in SHARES else None
            if shared is None:
                raise LostError
        if 41 in found:
            if not self.resumption:
                raise LostError
            self.schedule = Schedule(self.hash, psk=self.resumption.psk)
            self.schedule.handshake(shared)
        else:
            self.schedule = Schedule(self.hash, shared)
        digest = self.transcript.digest()
        self.client_secret = self.schedule.derive("c hs traffic", digest)
        self.read_with(self.schedule.derive("s hs traffic", digest))

    def take_retry(self, whole, found):
        self.retried = True
        hashed = TranscriptHash(self.hash)
        hashed.add(self.hello)
        self.before_second = [message(254, hashed.digest()), whole]
        self.transcript.retry()
        self.transcript.add(whole)
        self.cookie = found.get(44)
        if 51 in found:
            self.shares = [g for g in [int.from_bytes(found[51], "big")] if g in SHARES]

    def finish_tls13(self):
        if not hasattr(self, "digest"):
            raise LostError
        if self.early_accepted:
            self.say("early_data", message(5))
        self.write_with(self.client_secret)
        if self.wants(12):
            self.deliver(record(CCS, b"\1"))
        if self.certificate_wanted:
            self.show_certificate()
        proof = verify_data(self.hash, self.client_secret, self.transcript.digest())
        self.say("client_finished", message(20, proof))
        self.write_with(self.schedule.derive("c ap traffic", self.digest))

    def show_certificate(self):
        self.say_certificate("client_certificate", credential("ecdsa").certificate_body, self.asks)
        signed = inspect.certificate_verify_input(False, self.transcript.digest())
        signature = private_key("ecdsa").sign_bytes(0x0403, signed)
        self.say("client_verify", message(15, u16s(0x0403) + vector(2, signature)))

    def resume12(self):
        if self.session12 is None or hasattr(self, "point"):
            raise LostError
        self.resumed12 = True
        self.master = self.session12.psk
        self.expand_keys12()

    def finish_tls12(self):
        if self.resumed12:
            self.finish12("client_finished")
            return
        if not hasattr(self, "point") or self.group not in SHARES:
            raise LostError
        if self.certificate_wanted:
            self.say("client_certificate", message(11, credential("ecdsa").certificate_body12))
        self.say("client_key", message(16, vector(1, SHARES[self.group].public)))
        self.make_keys12(SHARES[self.group].exchange(self.point), self.with_hash)
        if self.certificate_wanted:
            signature = private_key("ecdsa").sign12_bytes(0x0403, self.transcript.raw)
            self.say("client_verify", message(15, u16s(0x0403) + vector(2, signature)))
        self.finish12("client_finished")


TLS13_VERSION_LIST = (43, b"\4\3\4\3\3")


class ScriptedServer(Peer):
    """settings: 0-1 suite, 2 P-256 (with 12 the hybrid), 3 HelloRetryRequest, 4 TLS 1.2, 5 the client's PSK is taken,
    6 it sends early data, 7 which is taken, 8 RSA, 9 CertificateRequest, 10 a ticket in TLS 1.2, 11 what stands beside
    a certificate, and names of issuers, 12 change_cipher_spec, 13 no extended master secret, or in TLS 1.3 with 11 the
    certificate compressed."""

    client = False

    def __init__(self, engine, script, psk):
        super().__init__(engine, script)
        self.psk = psk
        self.kind = "rsa" if self.wants(8) else "ecdsa"
        self.tls12 = self.wants(4)
        self.suite = list(SUITES)[self.settings % 4 % 3]
        self.compression = ZLIB if self.settings & 3 == 3 else STORED
        if self.tls12:
            self.suite = list(SUITES)[3 + self.settings % 4 % 3 * 2 + self.wants(8)]
        if psk:
            self.suite = 0xC02B if self.tls12 else 0x1301
        self.hash, self.aead = SUITES[self.suite]
        self.transcript = TranscriptHash(self.hash)
        self.hello = None
        self.finished = False

    def handshake(self):
        self.listen()
        if self.wants(3) and not self.tls12:
            self.retry()
        if self.failed or self.hello is None:
            return
        if self.tls12:
            self.serve_tls12()
        else:
            self.serve_tls13()

    def take(self, whole):
        type, body = whole[0], whole[4:]
        if type == 1:
            self.hello = inspect.parse("client_hello", body)
            self.client_random = self.hello["random"]
            self.early_unread = self.hello["early_data"]
        if type == 20 and not self.tls12:
            if self.finished:
                raise LostError
            self.finished = True
            self.transcript.add(whole)
            self.read_with(self.schedule.derive("c ap traffic", self.digest))
            return
        self.transcript.add(whole)
        if type == 5:
            self.read_with(self.client_secret)
        if type == 16:
            self.make_keys12(SHARES[self.group].exchange(body[1:]), self.with_hash)

    def retry(self):
        hello, self.hello = self.hello, None
        if hello is None:
            raise LostError
        self.transcript.retry()
        body = b"\3\3" + RETRY_RANDOM + vector(1, hello["legacy_session_id"]) + u16s(self.suite) + b"\0"
        group = group_of(self.settings)
        self.say("retry", message(2, body + extensions(TLS13_VERSION, (51, u16s(group)), (44, vector(2, b"cookie")))))
        self.listen()

    def serve_tls13(self):
        hello = self.hello
        resumes = self.psk is not None and self.wants(5) and hello["pre_shared_key"] is not None
        share = next(((g, s) for g, s in hello["key_shares"] or () if g in SHARES), None)
        if share is None:
            raise LostError
        if share[0] == X25519MLKEM768:
            public, shared = SHARES[X25519MLKEM768].answer(share[1])
        else:
            public, shared = SHARES[share[0]].public, SHARES[share[0]].exchange(share[1])
        known = [TLS13_VERSION, (51, u16s(share[0]) + vector(2, public))]
        early = resumes and hello["early_data"] and self.wants(7)
        if early:
            self.hear_early()
        if resumes:
            known.append((41, b"\0\0"))
        body = b"\3\3" + b"\x66" * 32 + vector(1, hello["legacy_session_id"]) + u16s(self.suite) + b"\0"
        self.say("server_hello", message(2, body + extensions(*known)))
        self.schedule = Schedule(self.hash, psk=self.psk) if resumes else Schedule(self.hash, shared)
        if resumes:
            self.schedule.handshake(shared)
        digest = self.transcript.digest()
        self.client_secret = self.schedule.derive("c hs traffic", digest)
        server_secret = self.schedule.derive("s hs traffic", digest)
        self.write_with(server_secret)
        if not early:
            self.read_with(self.client_secret)
        if self.wants(12):
            self.deliver(record(CCS, b"\1"))
        self.say_flight(resumes, early, server_secret)

    def hear_early(self):
        digest = self.transcript.digest()
        self.early_unread = False
        self.read_with(Schedule(self.hash, psk=self.psk).derive("c e traffic", digest))
        for whole in self.early_records:
            self.read.unprotect(whole)

    def say_flight(self, resumes, early, server_secret):
        sent = self.say(
            "extensions", message(8, extensions((16, vector(2, vector(1, b"http/1.1"))), *([(42, b"")] * early)))
        )
        if early and 42 not in extension_map(sent[4:]):  # the script has refused it after all
            self.early_unread = True
            self.read_with(self.client_secret)
        if not resumes:
            if self.wants(9):
                self.say("request", message(13, b"\0" + extensions(*self.request_extensions())))
            self.say_certificate("certificate", self.certificate_body(), self.wants(11) and self.wants(13))
            signed = inspect.certificate_verify_input(True, self.transcript.digest())
            scheme = 0x0804 if self.wants(8) else 0x0403
            signature = private_key(self.kind).sign_bytes(scheme, signed)
            self.say("verify", message(15, u16s(scheme) + vector(2, signature)))
        self.say("finished", message(20, verify_data(self.hash, server_secret, self.transcript.digest())))
        self.digest = self.transcript.digest()
        self.schedule.master()
        self.write_with(self.schedule.derive("s ap traffic", self.digest))

    def request_extensions(self):
        schemes = (13, vector(2, u16s(0x0403, 0x0804)))
        if not self.wants(11):
            return [schemes]
        compression = (27, vector(1, u16s(self.compression.number)))
        return [schemes, (5, b""), ASKS_TIMESTAMPS, compression, (47, issuers())]

    def certificate_body(self):
        chain = credential(self.kind).chain
        beside = (b"\1" + vector(3, RESPONSE), TIMESTAMPS) if self.wants(11) else (b"", b"")
        return certificate_body(chain, b"", *beside)

    def serve_tls12(self):
        hello = self.hello
        if self.suite not in hello["cipher_suites"]:
            raise LostError
        self.with_hash = hello["extended_master_secret"] and not self.wants(13)
        self.server_random = b"\x66" * 32
        resumes = self.psk is not None and hello["legacy_session_id"]
        known = [(0xFF01, b"\0"), (11, b"\1\0")] + [(23, b"")] * self.with_hash + [(35, b"")] * self.wants(10)
        if self.wants(11) and not resumes:
            known += [(5, b""), (18, TIMESTAMPS)]
        session_id = vector(1, hello["legacy_session_id"] if resumes else b"")
        body = b"\3\3" + self.server_random + session_id + u16s(self.suite) + b"\0"
        self.server_random = self.say("server_hello", message(2, body + extensions(*known)))[6:38].ljust(32)
        if resumes:
            self.master = self.psk
            self.expand_keys12()
            self.finish_with_ticket()
            self.listen()
            return
        self.say("certificate", message(11, credential(self.kind).certificate_body12))
        if self.wants(11):
            self.say("retry", message(22, b"\1" + vector(3, RESPONSE)))  # CertificateStatus
        self.group = P256 if self.wants(2) else X25519
        params = b"\3" + u16s(self.group) + vector(1, SHARES[self.group].public)
        scheme = 0x0401 if self.wants(8) else 0x0403
        signature = private_key(self.kind).sign12_bytes(scheme, self.client_random + self.server_random + params)
        self.say("verify", message(12, params + u16s(scheme) + vector(2, signature)))
        if self.wants(9):
            schemes = vector(2, u16s(0x0403, 0x0804, 0x0401))
            names = issuers() if self.wants(11) else vector(2, b"")
            self.say("request", message(13, vector(1, b"\x40\1") + schemes + names))
        self.say("extensions", message(14))  # ServerHelloDone
        self.listen()
        if not hasattr(self, "own_key12") or not self.reading12:
            raise LostError
        self.finish_with_ticket()

    def finish_with_ticket(self):
        """NewSessionTicket, where it was announced, and the end."""
        if self.wants(10):
            self.say("ticket", message(4, (3600).to_bytes(4, "big") + vector(2, b"ticket" * 8)))
        self.finish12("finished")

    def tickets(self):
        if not self.tls12:
            body = (3600).to_bytes(4, "big") + b"\1\2\3\4" + vector(1, b"\0") + vector(2, b"ticket" * 8)
            self.say("ticket", message(4, body + extensions((42, (1024).to_bytes(4, "big")))))
