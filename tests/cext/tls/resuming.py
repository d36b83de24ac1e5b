"""A RawClient that resumes: it offers what PSKs and binders a test wants, and early data record by record."""

import hashlib
import os

from cext.tls.config import ClientConfig
from cext.tls.key_schedule import Schedule, verify_data
from cext.tls.record import RecordKeys
from cext.tls.session import Session, TicketKeys, decode_state, encode_state, now

from tests.cext.tls.peer import (
    APPLICATION_DATA,
    CCS,
    HANDSHAKE,
    Engine,
    RawClient,
    client_hello,
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

END_OF_EARLY_DATA = message(5)
PSK_KE, PSK_DHE_KE = 0, 1


def resuming_config(**options):
    options.setdefault("tickets", TicketKeys([(b"n" * 16, os.urandom(32))]))
    return server_config(**options)


def first_session(config, **client):
    """The session of a full handshake with the server."""
    client.setdefault("server_name", "example.com")
    a, b = Engine(ClientConfig(**client)), Engine(config)
    pump(a, b)
    assert a.established and b.established, (a.failure, b.failure)
    return a.session


def altered(session, ticket=None, **changes):
    """A session with another ticket, or other values in its state."""
    data = session.to_bytes()
    state = decode_state(data[state_offset(session):])
    ticket = session.ticket if ticket is None else ticket
    return Session.from_bytes(
        data[:1] + len(ticket).to_bytes(2, "big") + ticket + bytes(5) + encode_state({**state, **changes}))


def state_offset(session):
    """Where the state begins in to_bytes(): after what the server showed beside its certificate."""
    return 8 + len(session.ticket) + len(session.ocsp_response) + len(session.signed_certificate_timestamps)


def secret_of(session):
    return decode_state(session.to_bytes()[state_offset(session):])["secret"]

LIMIT = 1000
"""Bytes of early data that `again` allows."""


class ResumingClient(RawClient):
    """Offers `session`; hello() takes what shall be different."""

    def __init__(self, config, session, **options):
        super().__init__(config, session.cipher_suite, **options)
        self.session = session
        self.resumed = False
        self.ended = False              # EndOfEarlyData was sent
        self.before = b""               # the transcript in front of the ClientHello

    def psk_hello(self, *, early=False, age=None, identities=None, binder=None, modes=(PSK_DHE_KE,), alter_binder=0,
                  extra=(), after=(), binders=None, **changes):
        """`identities`: (ticket, obfuscated age) each; `binder`: instead of the right one; `after`: extensions behind
        pre_shared_key."""
        age = now() - self.session.received if age is None else age
        identities = identities or [(self.session.ticket, (age + self.session.age_add) % 2**32)]
        n = len(binder) if binder is not None else 32 if self.hash == 1 else 48
        count = len(identities) if binders is None else binders
        offered = vector(2, b"".join(vector(2, t) + a.to_bytes(4, "big") for t, a in identities))
        blank = vector(2, vector(1, bytes(n)) * count)
        more = [*extra]
        if early:
            more.append(extension(42))
        if modes is not None:
            more.append(extension(45, vector(1, bytes(modes))))
        more += [extension(41, offered + blank), *after]
        hello = client_hello(**{**self.hello_options, "extra": more, **changes})
        schedule = Schedule(self.hash, psk=secret_of(self.session))
        if not after:
            digest = hashlib.new("sha256" if self.hash == 1 else "sha384", self.before + hello[: -len(blank)]).digest()
            made = binder if binder is not None else schedule.binder(digest)
            made = bytes([made[0] ^ alter_binder, *made[1:]]) if alter_binder else made
            hello = hello[: -len(blank)] + vector(2, vector(1, made) * count)
        self.early_schedule = schedule
        return hello

    def hello(self, **options):
        hello = self.psk_hello(**options)
        self.transcript.add(hello)
        # Early data goes out under keys of its own; the answer is read under the server's.
        self.early = RecordKeys(
            self.hash, self.aead, self.early_schedule.derive("c e traffic", self.transcript.digest()), True)
        self.send(record(HANDSHAKE, hello, 0x0301))
        if not self.server.failure:
            self.take_flight()
        return self

    def take_server_hello(self, hello):
        self.flight.append((2, hello))
        self.transcript.add(hello)
        self.resumed = u16s(41, 2) in hello
        share = u16s(self.share.group, len(self.share.public))
        shared = None
        if share in hello:
            at = hello.index(share) + 4
            shared = self.share.exchange(hello[at : at + len(self.share.public)])
        self.shared = shared
        if self.resumed:
            self.schedule = self.early_schedule
            self.schedule.handshake(shared)
        else:
            self.schedule = Schedule(self.hash, shared)
        digest = self.transcript.digest()
        self.client_secret = self.schedule.derive("c hs traffic", digest)
        self.server_secret = self.schedule.derive("s hs traffic", digest)
        self.write = RecordKeys(self.hash, self.aead, self.client_secret, True)
        self.read = RecordKeys(self.hash, self.aead, self.server_secret, False)

    def take_flight(self):
        """The server's tickets follow its Finished, under the application keys: they are kept unread."""
        self.later = []
        for kind, whole in records(self.server.take_output()):
            if kind == CCS:
                self.ccs += 1
            elif kind == HANDSHAKE:
                self.take_server_hello(whole[5:])
            elif any(kind == 20 for kind, _ in self.flight):
                self.later.append(whole)
            else:
                inner, content = self.read.unprotect(whole)
                assert inner == HANDSHAKE
                self.flight += messages(content)
        return self.flight

    def use_application_keys(self):
        super().use_application_keys()
        self.tickets = [self.read.unprotect(whole) for whole in self.later]

    @property
    def early_accepted(self):
        extensions = next(m for kind, m in self.flight if kind == 8)
        return extension(42) in extensions

    def send_early(self, content, kind=APPLICATION_DATA):
        return self.send(self.early.protect(content, kind))

    def end_early_data(self):
        """EndOfEarlyData; the transcript then holds it behind the server's Finished, where `finished` adds it."""
        self.ended = True
        return self.send_early(END_OF_EARLY_DATA, HANDSHAKE)

    def finished(self):
        for _, whole in self.flight[[kind for kind, _ in self.flight].index(8) :]:
            self.transcript.add(whole)
        digest = self.transcript.digest()
        self.schedule.master()
        self.client_application = self.schedule.derive("c ap traffic", digest)
        self.server_application = self.schedule.derive("s ap traffic", digest)
        if self.ended:
            self.transcript.add(END_OF_EARLY_DATA)
        return message(20, verify_data(self.hash, self.client_secret, self.transcript.digest()))


def again(config, **options):
    """The same server, configured otherwise."""
    same = {"tickets": config.tickets, "alpn": (), "max_early_data": LIMIT, "replay": config.replay}
    return resuming_config(**{**same, **options})
