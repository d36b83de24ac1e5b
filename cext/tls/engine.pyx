"""A connection that is driven from Python: bytes in, events and bytes out, for programs (the blocking API), tests and
fuzzing. The data plane drives Connection itself, where nothing of a record becomes a Python object."""

cimport cython
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

from cext.base.buffer cimport Bytes, bytes_append, bytes_consume, bytes_free, bytes_reserve
from cext.tls.config cimport ServerConfig
from cext.tls.credential cimport Credential
from cext.tls.connection cimport (
    EARLY_ACCEPTED, EARLY_DISCARDING, EARLY_NONE, EARLY_OFFERED, EARLY_READING, EARLY_REJECTED, RECORD_HEADER,
    TLS_CLOSE_NOTIFY, TLS_DATA, TLS_ESTABLISHED, TLS_FAILED, TLS_NEED_DATA, TLS_PROGRESS, TLS_WAIT_POLICY,
    TLS_WAIT_CERTIFICATE, TLS_WAIT_REGISTER, TLS_WAIT_SIGN, Connection)
from cext.tls.constants cimport TLS13
from cext.tls.exporter cimport export_keying_material
from cext.tls.prf12 cimport FINISHED12_LENGTH
from cext.tls.record cimport PROTECTION_MAX
from cext.tls.replay cimport REGISTER_DOWN, REGISTER_FRESH, REGISTER_FULL, REGISTER_LATE, REGISTER_SEEN

# TlsEvent, for Python
NEED_DATA = TLS_NEED_DATA
DATA = TLS_DATA
PROGRESS = TLS_PROGRESS
ESTABLISHED = TLS_ESTABLISHED
CLOSE_NOTIFY = TLS_CLOSE_NOTIFY
FAILED = TLS_FAILED
WAIT_POLICY = TLS_WAIT_POLICY
WAIT_SIGN = TLS_WAIT_SIGN
WAIT_CERTIFICATE = TLS_WAIT_CERTIFICATE
WAIT_REGISTER = TLS_WAIT_REGISTER
# EarlyData
NO_EARLY_DATA, OFFERED, READING = EARLY_NONE, EARLY_OFFERED, EARLY_READING
DISCARDING, ACCEPTED, REJECTED = EARLY_DISCARDING, EARLY_ACCEPTED, EARLY_REJECTED


@cython.no_gc
cdef class Engine(Connection):
    """Engine(config): as Connection; what is to be sent is taken with take_output."""

    cdef Bytes inbox                    # a record of which a part has come

    def __dealloc__(self):
        bytes_free(&self.inbox)

    def receive_bytes(self, data not None):
        """Takes any bytes of the peer's stream; [(event, payload), ...] with payload b"" for all but DATA. Ends with
        FAILED when the connection has failed (see failure)."""
        cdef bytes raw = bytes(data)
        cdef list events = []
        cdef size_t offset = 0, consumed = 0, length = 0
        cdef uint8_t *content = NULL
        cdef int event
        if bytes_append(&self.inbox, <const char *> raw, len(raw)) < 0:
            raise MemoryError
        while True:
            event = self.receive(self.inbox.data + offset, self.inbox.len - offset, &consumed, &content, &length)
            if event == TLS_NEED_DATA:
                break
            offset += consumed
            events.append((event, content[:length] if event == TLS_DATA else b""))
            if event == TLS_FAILED:
                offset = self.inbox.len
                break
        bytes_consume(&self.inbox, offset)
        return events

    def send(self, data not None):
        """Seals application data into the output, in as few records as it fits; ValueError when it cannot be sent."""
        cdef bytes raw = bytes(data)
        cdef const char *p = raw
        cdef size_t n = len(raw), part
        cdef ssize_t length
        if not self.write_open:
            raise ValueError("the connection does not take application data")
        while n:
            self.before_write()
            part = min(n, <size_t> self.plaintext_max)
            if bytes_reserve(&self.out, RECORD_HEADER + part + PROTECTION_MAX) < 0:
                raise MemoryError
            memcpy(self.out.data + self.out.len + RECORD_HEADER, p, part)
            length = self.seal(self.out.data + self.out.len, part)
            if length < 0:
                raise ValueError("the record cannot be sealed")
            self.out.len += length
            p += part
            n -= part

    def decide(self, ServerConfig config=None, Credential credential=None):
        """Ends WAIT_POLICY (see resume_policy in the .pxd); the event that follows. ValueError at another time."""
        if self.waiting != TLS_WAIT_POLICY:
            raise ValueError("no decision is waited for")
        return self.resume_policy(config, credential)

    def give_signature(self, bytes signature not None):
        """Ends WAIT_SIGN; the event that follows. ValueError at another time."""
        if self.waiting != TLS_WAIT_SIGN:
            raise ValueError("no signature is waited for")
        return self.resume_sign(signature)

    def show(self, Credential credential=None):
        """Ends WAIT_CERTIFICATE (see resume_certificate in the .pxd); the event that follows. ValueError at another
        time."""
        if self.waiting != TLS_WAIT_CERTIFICATE:
            raise ValueError("no certificate is waited for")
        return self.resume_certificate(credential)

    def tell(self, int answer):
        """Ends WAIT_REGISTER with one of the answers in cext.tls.replay: FRESH, or why not; the event that follows.
        ValueError at another time, and for what is no answer."""
        if self.waiting != TLS_WAIT_REGISTER:
            raise ValueError("no register is waited for")
        if answer not in (REGISTER_SEEN, REGISTER_FRESH, REGISTER_FULL, REGISTER_LATE, REGISTER_DOWN):
            raise ValueError(f"{answer} is no answer of a register's")
        return self.resume_register(answer)

    def give_up(self, int description, str reason not None):
        """Ends any wait, and the connection, with an alert; FAILED. ValueError when nothing is waited for, or for
        what is no AlertDescription."""
        if not self.waiting or not 0 < description < 256:
            raise ValueError("nothing is waited for, or no such alert")
        return self.refuse_to_resume(description, reason)

    def take_output(self):
        """What is to be sent, as bytes; the output is empty then."""
        cdef bytes output = self.out.data[:self.out.len] if self.out.len else b""
        bytes_free(&self.out)
        return output

    def request_key_update(self, bint request_peer=True):
        """Changes our keys, and asks the peer to change its own too; ValueError before the handshake is confirmed, in TLS
        1.2, which has no KeyUpdate, and when nothing can be sent any more."""
        if not self.established or self.version != TLS13:
            raise ValueError("a KeyUpdate needs an established connection of TLS 1.3")
        if not self.write_open or self.send_key_update(request_peer) < 0:
            raise ValueError("no KeyUpdate can be sent")

    def send_close_notify(self):
        """Puts close_notify into the output: nothing more can be sent, what the peer sends is still taken."""
        self.close_notify()

    def exporter(self, label, context=None, size_t length=32):
        """`length` bytes that both ends of this connection alone have, for a label (str or bytes) and a context (RFC
        8446 section 7.5; RFC 5705 for TLS 1.2, where None is not the same as b""). ValueError before the handshake is
        confirmed, in TLS 1.2 without the extended master secret (RFC 7627 section 5.4), and for what cannot be."""
        if not self.established:
            raise ValueError("an exporter needs an established connection")
        label = label.encode("ascii") if isinstance(label, str) else bytes(label)
        context = None if context is None else bytes(context)
        if self.version == TLS13:
            return export_keying_material(self.hash, self.exporter_secret, label, context or b"", length)
        if self.exporter12 is None:
            raise ValueError("TLS 1.2 exports nothing without the extended master secret")
        return self.exporter12.export(label, context, length)

    @property
    def tls_unique(self):
        """The channel binding of TLS 1.2 (RFC 5929 section 3): the first Finished's verify_data, 12 bytes; b"" where there
        is none: in TLS 1.3, and without the extended master secret."""
        return b"" if self.exporter12 is None else self.exporter12.unique[:FINISHED12_LENGTH]

    def park_now(self):
        """Frees the AEAD contexts until the next record."""
        self.park()

    @property
    def key_update_after(self):
        """Records under one key after which our KeyUpdate is due."""
        return self.update_after

    @key_update_after.setter
    def key_update_after(self, uint64_t records):
        self.update_after = records
