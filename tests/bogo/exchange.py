"""One connection with the runner: the stream, the handshake, what is checked after it, the echo, the end."""

import binascii
import socket
import struct

from cext.tls.engine import (
    ACCEPTED,
    CLOSE_NOTIFY,
    DATA,
    ESTABLISHED,
    FAILED,
    NO_EARLY_DATA,
    OFFERED,
    READING,
    REJECTED,
    WAIT_CERTIFICATE,
    WAIT_POLICY,
    WAIT_SIGN,
    Engine,
)
from cext.tls.inspect import parse as parse_message
from cext.tls.messages12 import parse as parse_message12
from cext.tls.session import shift_clock
from flags import UnimplementedError
from settings import TLS12, TLS13, build, decided_credential, name_list, protocol_names, read_chain

WAITS = (WAIT_POLICY, WAIT_SIGN, WAIT_CERTIFICATE)
RECORD_HEADER, HANDSHAKE_HEADER = 5, 4
HANDSHAKE_FAILURE, INTERNAL_ERROR = 40, 80
DIFFERENT_SIZES = (0, 1, 255, 256, 257, 16383, 16384, 16385, 32767, 32768, 32769)
FLIPPED = bytes(byte ^ 0xFF for byte in range(256))
RECORD_OF = {2: 22, 8: 23}     # ServerHello is in the first handshake record, EncryptedExtensions in the next
TIMEOUT = 20            # seconds; the runner's own is 15


class ExchangeError(Exception):
    """The connection failed, or did not go as the flags want; the runner looks for the errors it expects in the
    text."""


class HandshakeDoneError(ExchangeError):
    """The handshake was completed where it must not be: no other error can make the test pass."""


class Link:
    """An engine and its socket."""

    def __init__(self, options, engine):
        self.engine = engine
        self.options = options
        self.one_by_one = options.async_
        self.header = b""               # of the record that is coming in
        self.body = 0                   # bytes of it that are still to come
        self.selected = -1              # number of the credential that signed
        self.request = None             # (version, CertificateRequest) that a client was to choose by
        self.keep = options.expect_advertised_alpn is not None or options.expect_peer_verify_pref
        self.kept = b""                 # the first bytes of the stream, where they are asked for
        self.unsent = b""               # of a write that is to stay unfinished until there is more to send
        self.on_record = None           # called with the type of each record that has been taken
        family, address = (socket.AF_INET6, "::1") if options.ipv6 else (socket.AF_INET, "127.0.0.1")
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.settimeout(TIMEOUT)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.connect((address, options.port))
        self.socket.sendall(options.shim_id.to_bytes(8, "little"))
        self.flush()
        self.events = self.receive()

    def receive(self):
        """The engine's events, record by record, until the runner closes; ExchangeError when the connection fails."""
        while data := self.socket.recv(1 << 16):
            if self.keep:
                self.kept += data
            for piece in self.cut(data):
                yield from self.take(piece)

    def take(self, piece):
        for event, payload in self.engine.receive_bytes(piece):
            waited = event in WAITS
            result = self.settle(event) if waited else event
            self.flush(failed=result == FAILED)
            if result == FAILED:
                raise ExchangeError(str(self.engine.failure))
            yield result, payload
            if waited:                  # what came behind was not taken in the meantime
                yield from self.take(b"")
        self.flush()

    def settle(self, event):
        """Decides and signs until the handshake waits no more; the event that follows."""
        options, engine = self.options, self.engine
        while event in WAITS:
            self.flush()
            if event == WAIT_SIGN:
                self.selected = engine.signer.number
                event = engine.give_signature(engine.signer.sign(*engine.to_sign))
            elif options.fail_early_callback:
                event = engine.give_up(HANDSHAKE_FAILURE, "rejected by policy")
            elif options.fail_ddos_callback:
                event = engine.give_up(INTERNAL_ERROR, "rejected by policy")
            elif options.fail_cert_callback:
                event = engine.give_up(INTERNAL_ERROR, "no certificate by policy")
            elif options.fail_ocsp_callback and options.server:
                event = engine.give_up(INTERNAL_ERROR, "no certificate status by policy")
            elif event == WAIT_POLICY:
                event = engine.decide(credential=decided_credential(options))
            else:
                self.request = engine.certificate_request
                event = engine.show()
        return event

    def cut(self, data):
        """Cuts the stream where headers and records end, so that each event is acted upon before the next record is
        taken. -async feeds byte by byte."""
        while data:
            n = min(len(data), self.body or RECORD_HEADER - len(self.header))
            piece, data = data[:n], data[n:]
            if self.body:
                self.body -= n
            else:
                self.header += piece
                if len(self.header) == RECORD_HEADER:
                    self.record_type = self.header[0]
                    self.body = int.from_bytes(self.header[3:], "big")
                    self.header = b""
            if self.one_by_one:
                yield from (piece[i : i + 1] for i in range(n))
            else:
                yield piece
            if self.on_record and not self.header and not self.body:
                self.on_record(self.record_type)

    def flush(self, failed=False):
        output = self.engine.take_output()
        if not output:
            return
        output, self.unsent = self.unsent + output, b""
        try:
            self.socket.sendall(output)
        except OSError as error:
            if not failed:              # an alert may find the runner gone; anything else must arrive
                raise ExchangeError(f"the runner has closed: {error}") from error

    def send(self, data):
        self.engine.send(data)
        self.flush()

    def send_unfinished(self, data):
        """Sends one byte of it, and the rest in front of what comes next."""
        self.engine.send(data)
        output = self.engine.take_output()
        self.socket.sendall(output[:1])
        self.unsent = output[1:]

    def close(self):
        """Half-closes and reads to the end: a reset would take our last alert from the runner."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
            while self.socket.recv(1 << 16):
                pass
        except OSError:
            pass
        self.socket.close()


def connect(options, retry, memory, is_resumption):
    """Makes one connection as the options say; `retry` holds those for a client whose early data was rejected.
    ExchangeError and UnimplementedError when that cannot be."""
    shift_clock(memory.later(options.resumption_delay))
    engine = Engine(build(options, retry, memory))
    link = Link(options, engine)
    try:
        Exchange(link, options, retry, memory, is_resumption).run()
    finally:
        link.close()
    memory.session = engine.session


class Exchange:
    """The application's part of a connection: it checks what was negotiated, writes what is asked for, echoes every
    byte flipped, and closes."""

    def __init__(self, link, options, retry, memory, is_resumption):
        self.memory = memory
        self.link, self.engine, self.options, self.retry = link, link.engine, options, retry
        self.is_resumption = is_resumption
        self.begun = False              # what is to be written first has been
        self.unwritten = b""            # of it: what early data had no room for

    def run(self):
        options, engine = self.options, self.engine
        if engine.early_data_state == OFFERED:
            if options.expect_no_offer_early_data:
                raise ExchangeError("early data was offered")
            self.begin_early()
        closed = False
        for event, payload in self.link.events:
            if event == ESTABLISHED:
                self.establish()
                if self.begin():
                    return
            elif engine.early_data_state == READING and event != DATA:
                self.begin()
            elif event == DATA:
                self.update_keys(self.options.key_update)
                self.link.send(payload.translate(FLIPPED))
                self.update_keys(self.options.key_update_before_read)
            elif event == CLOSE_NOTIFY:
                closed = True
                break
        self.end(closed)

    def establish(self):
        engine, options = self.engine, self.options
        if options.handshake_never_done:
            raise HandshakeDoneError("the handshake was completed")
        rejected = engine.early_data_state == REJECTED
        if rejected and not options.server and not options.expect_reject_early_data:
            raise ExchangeError("early data was rejected")
        if not options.server and options.expect_reject_early_data and (
            rejected or engine.early_data_state == NO_EARLY_DATA
        ):
            # BoringSSL's application notices, and begins anew on the same connection. Ours may have known before.
            self.options = self.retry
            self.begun, self.unwritten = False, b""
        check(self.link, self.options, self.is_resumption)

    def begin_early(self):
        """A client's early data: as much of what it writes first as the server said it takes."""
        if self.options.export_keying_material:
            self.export()
        if self.options.early_write_after_message:
            self.link.on_record = self.write_early_late
        elif self.options.read_with_unfinished_write:
            self.link.send_unfinished(self.options.shim_initial_write)
            self.begun = True
        elif self.options.shim_writes_first:
            for _ in range(self.options.repeat_shim_initial_write):
                data = self.options.shim_initial_write
                room = self.engine.early_data_left
                self.link.send(data[:room])
                self.unwritten += data[room:]
            self.begun = True

    def write_early_late(self, record_type):
        """Early data when that message of the server's flight has come, each in a record of its own."""
        if record_type == RECORD_OF[self.options.early_write_after_message]:
            self.link.on_record = None
            self.link.send(self.options.shim_initial_write)
            self.begun = True

    def begin(self):
        """Writes what comes first, if that has not been done; whether the connection is over by that."""
        link, options = self.link, self.options
        if self.unwritten:
            link.send(self.unwritten)
            self.unwritten = b""
        if self.begun:
            return False
        self.begun = True
        if options.export_keying_material:
            self.export()
        if options.tls_unique:
            link.send(self.engine.tls_unique)
        if options.write_different_record_sizes:
            for n in DIFFERENT_SIZES:
                link.send(b"\x42" * n)
        elif options.read_with_unfinished_write:
            link.send_unfinished(options.shim_initial_write)
        elif options.shim_writes_first:
            for _ in range(options.repeat_shim_initial_write):
                link.send(options.shim_initial_write)
        if options.shim_shuts_down:
            if options.check_close_notify:
                shut_down(link)
            return True
        if options.write_different_record_sizes:
            return True
        self.update_keys(options.key_update_before_read)
        return False

    def export(self):
        options = self.options
        if not options.export_label and self.engine.version == TLS13:
            raise UnimplementedError("exporters without a label")
        context = options.export_context or (b"" if options.use_export_context else None)
        try:
            secret = self.engine.exporter(options.export_label or b"", context, options.export_keying_material)
        except ValueError as error:
            raise ExchangeError(str(error)) from None
        self.link.send(secret)

    def end(self, closed):
        """The runner has closed, by close_notify or without."""
        engine, options = self.engine, self.options
        if not engine.established:
            raise ExchangeError("closed within the handshake")
        if not options.server:
            self.check_session()
        if options.check_close_notify:
            if not closed:
                raise ExchangeError("closed without close_notify")
            engine.send_close_notify()
            self.link.flush()

    def check_session(self):
        session, options = self.engine.session, self.options
        if self.is_resumption and options.expect_ticket_renewal and (
            session is None or session.ticket == self.memory.session.ticket
        ):
            raise ExchangeError("no new ticket")
        if self.engine.version == TLS12:        # a session without a ticket cannot be resumed, which BoringSSL's can
            return
        if (session is not None) == options.expect_no_session:
            raise ExchangeError(f"the session to resume: {session!r}")
        if session is not None and bool(session.max_early_data) != options.expect_ticket_supports_early_data:
            raise ExchangeError(f"the session takes {session.max_early_data} bytes of early data")

    def update_keys(self, wanted):
        if wanted and self.engine.established:
            self.engine.request_key_update(False)
            self.link.flush()


def check(link, options, is_resumption):
    """What the flags want to have been negotiated."""
    engine = link.engine
    for what, wanted, found in (
        ("version", options.expect_version, engine.version),
        ("cipher suite", options.expect_cipher or options.expect_cipher_aes, engine.cipher_suite),
        # Resumption in TLS 1.2 has no key exchange; BoringSSL tells the first one's group.
        ("group", 0 if engine.resumed and engine.version == TLS12 else options.expect_curve_id, engine.group),
    ):
        if wanted and wanted != found:
            raise ExchangeError(f"{what} {found:#06x} instead of {wanted:#06x}")
    if (options.expect_hrr and not engine.hello_retried) or (options.expect_no_hrr and engine.hello_retried):
        raise ExchangeError(f"a HelloRetryRequest: {engine.hello_retried}")
    if engine.resumed != (is_resumption and not options.expect_session_miss):
        raise ExchangeError(f"resumed: {engine.resumed}")
    if options.expect_ticket_age_skew is not None and is_resumption:
        skew = round(engine.ticket_age_skew / 1000)
        if skew != options.expect_ticket_age_skew:
            raise ExchangeError(f"the ticket's age differs by {skew} seconds")
    if options.expect_accept_early_data and engine.early_data_state != ACCEPTED:
        raise ExchangeError("early data was not accepted")
    if options.expect_reject_early_data and engine.early_data_state not in (REJECTED, NO_EARLY_DATA):
        raise ExchangeError("early data was not rejected")
    protocol = (options.select_alpn if options.server else options.expect_alpn) or b""
    if engine.alpn != protocol:
        raise ExchangeError(f"ALPN {engine.alpn!r} instead of {protocol!r}")
    check_peer_certificates(engine, options)
    if options.expect_selected_credential not in (None, link.selected):
        raise ExchangeError(f"credential {link.selected} instead of {options.expect_selected_credential}")
    if options.server:
        check_client_hello(link, options)
    else:
        check_server(options, engine)
        check_request(link, options)


def check_peer_certificates(engine, options):
    chain = list(engine.peer_certificates)
    if options.expect_peer_cert_file and chain != read_chain(options.expect_peer_cert_file):
        raise ExchangeError("another certificate chain than expected")
    if options.expect_no_peer_cert and chain:
        raise ExchangeError("a certificate where none is expected")
    if not options.expect_no_peer_cert and (not options.server or options.require_any_client_certificate) and not chain:
        raise ExchangeError("no certificate where one is expected")


def check_client_hello(link, options):
    name = link.engine.server_name
    if options.expect_server_name is not None and name != options.expect_server_name:
        raise ExchangeError(f"server_name {name!r} instead of {options.expect_server_name!r}")
    if options.expect_no_server_name and name:
        raise ExchangeError(f"a server_name: {name!r}")
    wanted = options.expect_peer_signature_algorithm
    if wanted and link.engine.client_signature_scheme != wanted and not link.engine.resumed:
        raise ExchangeError(f"signature scheme {link.engine.client_signature_scheme:#06x} instead of {wanted:#06x}")
    if not link.keep:
        return
    fields = parse_message("client_hello", first_message(link.kept)[HANDSHAKE_HEADER:])
    protocols = options.expect_advertised_alpn
    if protocols is not None and fields["alpn"] != protocol_names(protocols):
        raise ExchangeError(f"ALPN offered: {fields['alpn']!r} instead of {protocols!r}")
    schemes = options.expect_peer_verify_pref
    if schemes and fields["signature_algorithms"] != tuple(schemes):
        raise ExchangeError(f"signature_algorithms {fields['signature_algorithms']} instead of {schemes}")


def check_server(options, engine):
    for what, expected, found in (
        ("OCSP response", options.expect_ocsp_response, engine.ocsp_response),
        ("timestamps", options.expect_signed_cert_timestamps, engine.signed_certificate_timestamps),
    ):
        if expected is not None and binascii.a2b_base64(expected) != found:
            raise ExchangeError(f"{what} {found!r} instead of {expected!r}")
    wanted = options.expect_peer_signature_algorithm
    if wanted and engine.signature_scheme != wanted and not engine.resumed:
        raise ExchangeError(f"signature scheme {engine.signature_scheme:#06x} instead of {wanted:#06x}")


def check_request(link, options):
    """Whether the server's CertificateRequest asks for what the flags want."""
    if link.request is None:
        return
    version, request = link.request
    if version == TLS12:
        fields = parse_message12("certificate_request", request[HANDSHAKE_HEADER:])
        schemes = struct.unpack(f"!{len(fields['signature_algorithms']) // 2}H", fields["signature_algorithms"])
        authorities, types = names_in(fields["authorities"]), fields["certificate_types"]
    else:
        fields = parse_message("certificate_request", request[HANDSHAKE_HEADER:])
        schemes, authorities, types = fields["signature_algorithms"], fields["certificate_authorities"], None
    wanted = options.expect_peer_verify_pref
    if wanted and schemes != tuple(wanted):
        raise ExchangeError(f"signature_algorithms {schemes} instead of {wanted}")
    if options.expect_certificate_types and types != binascii.a2b_base64(options.expect_certificate_types):
        raise ExchangeError(f"certificate_types {types!r}")
    names = options.expect_client_ca_list
    if names and authorities != name_list(names):
        raise ExchangeError(f"authorities {authorities!r} instead of {names!r}")


def names_in(authorities):
    """The names of TLS 1.2's list of them, encoded."""
    names = []
    while authorities:
        n = 2 + int.from_bytes(authorities[:2], "big")
        names.append(authorities[2:n])
        authorities = authorities[n:]
    return tuple(names)


def first_message(stream):
    """The first handshake message of a stream of records without protection."""
    message = b""
    while len(message) < HANDSHAKE_HEADER or len(message) < HANDSHAKE_HEADER + int.from_bytes(message[1:4], "big"):
        n = int.from_bytes(stream[3:RECORD_HEADER], "big")
        message += stream[RECORD_HEADER : RECORD_HEADER + n]
        stream = stream[RECORD_HEADER + n :]
    return message


def shut_down(link):
    """Our close_notify first, then the runner's, with nothing in between."""
    link.engine.send_close_notify()
    link.flush()
    for event, _ in link.events:
        if event == CLOSE_NOTIFY:
            return
        if event == DATA:
            raise ExchangeError("application data after our close_notify")
    raise ExchangeError("closed without close_notify")
