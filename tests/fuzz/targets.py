"""What is fuzzed: TARGETS, each a function of one input. It returns, or an invariant is broken.

The invariants of an engine: whatever comes, receive_bytes raises nothing; a failure is a TlsAlert that tells a
reason, and internal_error only if it is the peer's; after a failure nothing is taken or said; no application data
before the handshake is done, but for early data where it was allowed; output bounded by input; and an established
handshake has a peer with the same keys.
"""

import dataclasses
import functools

from cext.http.h1_reader import BodyDecoder, HeadFinder, parse_request_bytes, parse_response_bytes, skip_empty
from cext.http.trace_context import context_of, trace_lines
from cext.tls.alert import TlsAlert
from cext.tls.config import SUITES, ClientConfig, ServerConfig
from cext.tls.engine import (
    DATA,
    ESTABLISHED,
    FAILED,
    WAIT_CERTIFICATE,
    WAIT_POLICY,
    WAIT_REGISTER,
    WAIT_SIGN,
    Engine,
)
from cext.tls.replay import FRESH, AwaitedRegister, SharedRegister
from cext.tls.session import Session, TicketKeys, decode_state, encode_state, now

from cext.tls import inspect, messages12
from tests.cext.tls.resuming import state_offset
from tests.fuzz.entropy import Entropy
from tests.fuzz.http2 import http2_requester, http2_server
from tests.fuzz.peers import (
    COMPRESSIONS,
    SHARES,
    ScriptedClient,
    ScriptedServer,
    credential,
    delegation,
    group_of,
    private_key,
)  # fmt: skip
from tests.fuzz.script import Script

ENTROPY = Entropy()
TICKET_KEYS = TicketKeys([(b"n" * 16, b"k" * 32)])
TLS13, ECDSA_SECP256R1_SHA256, ECDSA_SIGN = 0x0304, 0x0403, 64
EARLY_DATA_MAX = 1024
OUTPUT_SLACK = 1 << 16
MESSAGES = (
    "client_hello", "server_hello", "encrypted_extensions", "certificate_request", "certificate", "certificate_verify",
    "finished", "new_session_ticket", "key_update", "compressed_certificate",
)  # fmt: skip
MESSAGES12 = (
    "server_hello", "certificate", "certificate_request", "server_key_exchange", "client_key_exchange",
    "server_hello_done", "new_session_ticket",
)  # fmt: skip


def deterministic(run):
    """The target under the source of randomness that begins anew with each input."""

    @functools.wraps(run)
    def target(data):
        with ENTROPY.installed():
            ENTROPY.restart()
            return run(data)

    return target


# --- configurations


def server_config(settings):
    """Of 16 bits: 7 early data, 8 RSA (with 7 a register that is waited for, too), 9 tickets, 10 ALPN, 11 psk_ke, 13
    the client's certificate (in TLS 1.2, with 4: 12), 14 policy, 15 a remote signer. A delegated credential, one for
    clients that name its issuer, and what stands beside certificates are there for those who ask."""

    def wants(bit):
        return bool(settings >> bit & 1)

    kind = "rsa" if wants(8) else "ecdsa"
    options = {"cookie_secret": bytes(32), "alpn": (b"http/1.1",) if wants(10) else (), "psk_ke": wants(11)}
    if wants(9) or wants(5):
        options["tickets"] = TICKET_KEYS
    if wants(7):
        register = local = SharedRegister(20000, 64)
        if wants(8):
            register = AwaitedRegister(local, local.identity, bytes(32), local.keeps, 1000)
            register.up = True
        options.update(max_early_data=EARLY_DATA_MAX, replay=register)
    if wants(12 if wants(4) else 13):
        options.update(client_auth="require", verify_client=trust, certificate_compression=COMPRESSIONS)
    if wants(14):
        options["policy"] = True
    signer = RemoteSigner(kind) if wants(15) else None
    credentials = [credential(kind, signer, match_issuer=True), credential(kind, signer)]
    if kind == "ecdsa":
        signer = RemoteSigner("delegated") if wants(15) else None
        credentials.insert(0, credential(kind, signer, delegated_credential=delegation()))
    return ServerConfig(credentials, **options)


def trust(chain):
    assert chain and all(chain)


def fitting(version, request):
    """What is chosen for a CertificateRequest: our certificate where it can sign as that wants, else none."""
    if version == TLS13:
        schemes, types = inspect.parse("certificate_request", request[4:])["signature_algorithms"], (ECDSA_SIGN,)
    else:
        fields = messages12.parse("certificate_request", request[4:])
        schemes, types = memoryview(fields["signature_algorithms"]), fields["certificate_types"]
        schemes = [schemes[at] << 8 | schemes[at + 1] for at in range(0, len(schemes), 2)]
    return credential("ecdsa") if ECDSA_SECP256R1_SHA256 in schemes and ECDSA_SIGN in types else None


def check_status(chain, ocsp_response):
    if ocsp_response[:1] == b"\0":
        raise ValueError("revoked")


@dataclasses.dataclass(frozen=True)
class RemoteSigner:
    """A key elsewhere; answer() is its answer."""

    kind: str

    def sign(self, message, scheme):
        raise AssertionError("the engine asks its owner instead")

    def answer(self, message, scheme):
        key = private_key(self.kind)
        return key.sign12_bytes(scheme, message) if scheme in key.schemes12 else key.sign_bytes(scheme, message)


def client_config(settings, session=None):
    """Of 16 bits, as ScriptedServer reads them: 2 and 3 choose the share, 4 the version, 6 early data, 11 asks for what
    stands beside a certificate, and takes compressed ones; 14 certificates to show, 15 with a remote signer, or without
    14 one that is chosen when it is asked for."""
    tls12 = bool(settings >> 4 & 1)
    signer = RemoteSigner("ecdsa") if settings >> 15 & 1 else None
    shows, asks = bool(settings >> 14 & 1), bool(settings >> 11 & 1)
    group = group_of(settings)
    return ClientConfig(
        server_name="example.com",
        alpn=(b"http/1.1",),
        groups=tuple(SHARES),
        key_share_groups=() if settings >> 3 & 1 and not tls12 else (group,),
        cipher_suites=SUITES,
        session=session,
        early_data=bool(settings >> 6 & 1),
        credentials=[credential("ecdsa", signer, match_issuer=True), credential("ecdsa", signer)] if shows else (),
        policy=signer is not None and not shows,
        status_request=asks,
        signed_certificate_timestamp=asks,
        verify_status=check_status if asks else None,
        certificate_compression=COMPRESSIONS if asks else (),
    )


@dataclasses.dataclass
class Resumption:
    ticket: bytes
    psk: bytes
    age_add: int
    received: int
    session: Session

    def obfuscated_age(self):
        return now() - self.received + self.age_add & 0xFFFFFFFF


@functools.cache
def resumption(tls12=False):
    """A session between our two ends, as what a scripted client shows and as a Session."""
    with ENTROPY.installed():
        ENTROPY.restart()
        # First, as in server_script: its replay register then has the name that the ticket will hold.
        server = Engine(server_config(1 << 7 | 1 << 9 | 1 << 10))
        suite, version = (0xC02B, 0x0303) if tls12 else (0x1301, 0x0304)
        client = Engine(
            ClientConfig(
                server_name="example.com",
                alpn=(b"http/1.1",),
                cipher_suites=(suite,),
                max_version=version,
                status_request=True,
                signed_certificate_timestamp=True,
            )
        )
        for _ in range(4):
            server.receive_bytes(client.take_output())
            client.receive_bytes(server.take_output())
    session = client.session
    state = decode_state(session.to_bytes()[state_offset(session) :])
    return Resumption(session.ticket, state["secret"], session.age_add, session.received, session)


# --- the engine


class Watched:
    """A Connection whose waits are answered and whose invariants are checked at each step."""

    def __init__(self, config, session=None, early_data=False):
        self.inner = Engine(config, session) if session else Engine(config)
        self.early_data = early_data
        self.taken = self.given = 0
        self.established_seen = False

    def __getattr__(self, name):
        return getattr(self.inner, name)

    @property
    def key_update_after(self):
        return self.inner.key_update_after

    @key_update_after.setter
    def key_update_after(self, value):
        self.inner.key_update_after = value

    def receive_bytes(self, data):
        before = self.inner.failure
        events = self.inner.receive_bytes(data)
        waits = (WAIT_POLICY, WAIT_SIGN, WAIT_CERTIFICATE, WAIT_REGISTER)
        while events and events[-1][0] in waits and not self.inner.failure:
            if events[-1][0] == WAIT_POLICY:
                event = self.inner.decide()
            elif events[-1][0] == WAIT_CERTIFICATE:
                event = self.inner.show(fitting(*self.inner.certificate_request))
            elif events[-1][0] == WAIT_REGISTER:
                event = self.inner.tell(FRESH)
            else:
                event = self.inner.give_signature(self.inner.signer.answer(*self.inner.to_sign))
            events += [(event, b""), *self.inner.receive_bytes(b"")]
        self.taken += len(data)
        self.check(before, events)
        return events

    def check(self, before, events):
        failure = self.inner.failure
        for event, payload in events:
            if event == ESTABLISHED:
                self.established_seen = True
            if event == DATA:
                assert payload
                assert self.established_seen or self.early_data, "application data before the handshake"
        if before is not None:
            assert failure is before
            assert [event for event, _ in events] == [FAILED]
        if failure is None:
            assert not events or events[-1][0] != FAILED
            return
        assert type(failure) is TlsAlert, repr(failure)
        assert failure.name != "internal_error" or not failure.sent, failure
        assert failure.reason or not failure.sent, failure
        assert events[-1][0] == FAILED
        assert not self.inner.write_open

    def take_output(self):
        output = self.inner.take_output()
        self.given += len(output)
        assert self.given <= OUTPUT_SLACK + 4 * self.taken, "the output grows faster than the input"
        return output

    def end(self):
        """After all: a failed engine says its last word once and takes nothing more."""
        self.take_output()
        if self.inner.failure is not None:
            self.receive_bytes(b"\x16\3\3\0\1\0")
            assert self.take_output() == b""


def server_script(data):
    """The server, against a client that follows a script."""
    script = Script(data)
    session = resumption(bool(script.settings >> 4 & 1))
    ENTROPY.restart()
    engine = Watched(server_config(script.settings), early_data=bool(script.settings >> 7 & 1))
    peer = ScriptedClient(engine, script, session)
    peer.run()
    engine.end()
    return peer


def client_script(data):
    """The client, against a server that follows a script."""
    script = Script(data)
    known = resumption(bool(script.settings >> 4 & 1))
    ENTROPY.restart()
    resumes = script.settings >> 5 & 1
    engine = Watched(client_config(script.settings, known.session if resumes else None))
    if engine.write_open:
        engine.send(b"early")
    peer = ScriptedServer(engine, script, known.psk if resumes else None)
    peer.run()
    engine.end()
    return peer


def raw(engine, data):
    """Bytes as they are: the first one chooses the size of the pieces they come in."""
    size = (1, 7, 64, 1 << 16)[data[0] & 3] if data else 1
    for at in range(1, len(data), size):
        engine.receive_bytes(data[at : at + size])
    if engine.established and engine.write_open:
        engine.send(b"pong")
    engine.end()
    return engine


def server_records(data):
    """The server, given any records. With the same randomness a recorded client's Finished is right again."""
    return raw(Watched(server_config(1 << 9 | 1 << 10)), data)


def client_records(data):
    """The client, given any records."""
    return raw(Watched(client_config(0)), data)


# --- parsers


def handshake_messages(data):
    """One message's body into its parser: the first byte chooses which, the second what it answers."""
    if len(data) < 2:
        return
    kind = (*MESSAGES, *MESSAGES12)[data[0] % len(MESSAGES + MESSAGES12)]
    offered = (0, 5, 10, 13, 16, 18, 23, 28, 42, 43, 44, 45, 51, 41, 35, 27, 0xFF01)
    chosen = offered if data[1] & 1 else offered[data[1] >> 4 :]
    try:
        if data[0] % len(MESSAGES + MESSAGES12) >= len(MESSAGES):
            messages12.parse(kind, bytes(data[2:]), offered=chosen)
            return
        inspect.parse(kind, bytes(data[2:]), offered=chosen, hash_length=48 if data[1] & 2 else 32)
    except TlsAlert as alert:
        assert alert.name != "internal_error"
        assert alert.reason


def session_state(data):
    """The state in a ticket, and a stored Session: what was read and written again is read as the same. (Not every byte
    is: a client has no use for a replay register's name.)"""
    state = decode_state(data)
    if state is not None:
        assert decode_state(encode_state(state)) == state
    try:
        session = Session.from_bytes(data)
    except ValueError:
        return
    stored = session.to_bytes()
    assert Session.from_bytes(stored).to_bytes() == stored


def http1_heads(data):
    """Requests and responses: found whole or in pieces at the same place, and a head that is taken lies within it."""
    if not data:
        return
    request, step, body = not data[0] & 1, data[0] >> 1 & 63, data[1:]
    body = body[skip_empty(body) :] if request else body
    whole = HeadFinder(request).find(body)
    if step:
        finder, found = HeadFinder(request), 0
        for n in range(step, len(body) + step, step):
            found = finder.find(body, n)
            if found:
                break
        assert found == whole or (found < 0 and whole < 0), (found, whole)
    if whole <= 0:
        return
    head = (parse_request_bytes if request else parse_response_bytes)(body[:whole])
    if isinstance(head, int):
        assert head < 0
        return
    assert head.length == whole
    if request:
        trace_fields(body[:whole])
    for name, value in head.fields:
        assert name
        assert not set(b"\r\n\0") & set(value)


def trace_fields(head):
    """Of a request: a context or none; and what is written of its trace is read again as that, and written the same."""
    context = context_of(head)
    assert context is None or (any(context[0]) and any(context[1]) and context[2] < 4)
    written, at = trace_lines(head, b"t" * 16, b"s" * 8, 3, True)
    assert written[at : at + 16] == (b"s" * 8).hex().encode()
    again = b"GET / HTTP/1.1\r\nHost: a\r\n" + written + b"\r\n"
    assert context_of(again) == (b"t" * 16, b"s" * 8, 3)
    assert trace_lines(again, b"t" * 16, b"s" * 8, 3, True) == (written, at)


def http1_bodies(data):
    """A chunked body (or of another framing) gives the same content whole as byte by byte."""
    if len(data) < 2:
        return
    framing, length, body = data[0] % 4, data[1], data[2:]
    whole = BodyDecoder(framing, length)
    last, taken, content = whole.feed(body)
    slow = BodyDecoder(framing, length)
    pieces, used, state = [], 0, 0
    for i in range(len(body)):
        state, n, part = slow.feed(body[i : i + 1])
        used += n
        pieces.append(part)
        if state < 0 or n == 0:
            break
    assert (last < 0 and state < 0) or (used, b"".join(pieces)) == (taken, content), (last, taken, state, used)
    assert whole.trailers == slow.trailers or last < 0


TARGETS = {
    "server_script": deterministic(server_script),
    "client_script": deterministic(client_script),
    "server_records": deterministic(server_records),
    "client_records": deterministic(client_records),
    "handshake_messages": handshake_messages,
    "session_state": session_state,
    "http1_heads": http1_heads,
    "http1_bodies": http1_bodies,
    "http2_server": http2_server,
    "http2_requester": http2_requester,
}
