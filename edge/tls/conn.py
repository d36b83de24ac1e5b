"""Conn: a TLS connection over a blocking socket, for a reader, a writer and a closer in threads of their own.

The engine is sans-I/O and no two threads may be in it; the network may keep a thread waiting for as long as it likes.
So no lock that one needs is held while the other is waited for:

    lock         held by                            while
    _handshake   who runs the handshake             it waits for the peer and for hooks, until the handshake is complete
    _confirm     who takes input while the          it waits for the peer, until the peer's Finished has come: a reader
                 handshake is unconfirmed           lets go of it then, and goes on waiting for data without it
    _read        who receives                       it waits for the peer
    _write       who sends                          it waits for the peer to take what is sent
    _engine      who is in the engine               it computes
    _state       who opens and closes               never for anything

A thread takes them in this order, each at most once, and may leave any out. So no circle of waiting threads can form:
of those that wait for a lock, the one waiting for the last in the order is waiting for a thread that waits for the
network at most, which `close` ends. A reader never waits for `_write`: what it has to say (an alert, a KeyUpdate's
answer) goes into the queue, and if a writer has the lock, it is the writer that sends it. Otherwise a peer that reads
only after we have read would stop both.
"""

import collections
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from cext.tls.engine import (
    ACCEPTED,
    CLOSE_NOTIFY,
    DATA,
    OFFERED,
    READING,
    WAIT_CERTIFICATE,
    WAIT_POLICY,
    WAIT_REGISTER,
    WAIT_SIGN,
    Engine,
)
from cext.tls.names import describe
from cext.tls.session import Session

from edge.tls.binding import CHANNEL_BINDINGS, EXPORTER_LABEL, end_point
from edge.tls.certificate import Certificate, timestamps, wait_for
from edge.tls.config import VERSIONS, Config
from edge.tls.errors import (
    AlertReceived,
    AlertSent,
    CertificateError,
    ClosedError,
    Refuse,
    TlsError,
    UnexpectedEOF,
)
from edge.tls.hello import ClientHelloInfo
from edge.tls.replay import ask
from edge.tls.request import CertificateRequestInfo
from edge.tls.socketlike import SocketLike, send_at_once, shut
from edge.tls.state import ConnectionState
from edge.tls.verify import asking, heed, last_error, verify_server

_INTERNAL_ERROR: Final = 80
_WAITS: Final = (WAIT_POLICY, WAIT_SIGN, WAIT_CERTIFICATE, WAIT_REGISTER)
_RECEIVE: Final = 1 << 16
_SEAL: Final = 1 << 17
"""Bytes that are sealed before they are sent: a long write must not need its length twice in memory."""


class Transport(Protocol):
    """What a Conn runs over: a connected, blocking stream socket, or anything that has these two of it.

    `shutdown`, `close`, `settimeout`, `fileno` and the like are used where they are there.
    """

    def recv(self, n: int, /) -> bytes:
        """1 to n bytes; b"" at the end. Blocks."""
        ...

    def sendall(self, data: bytes, /) -> object:
        """Sends all of it. Blocks."""
        ...


def server(sock: Transport, config: Config) -> "Conn":
    """The server's side of a connection over `sock`. ValueError when the configuration has no certificate."""
    return Conn(sock, config, Engine(config.server_config()), is_client=False)


def client(
    sock: Transport,
    config: Config,
    *,
    server_name: str = "",
    session: Session | None = None,
    early_data: bytes = b"",
) -> "Conn":
    """The client's side of a connection over `sock`.

    `server_name` is what the server's certificate must be for, a host name or an IP address; a host name is also sent
    (SNI). ValueError without one, unless the configuration has a `verify` of its own, and for one that is no name.

    `session`: an earlier connection's (Conn.session), to be resumed if the server will; it is offered only if its
    certificates would be trusted now, and its OCSP response pass the configuration's `verify_staple`. `early_data` goes
    out at once with it, before the server has answered, if the session allows that much: anyone can send it to the
    server again. ConnectionState.early_data_used tells whether the server took it; when not, it is the caller's to send
    again (RFC 8446, section 4.2.10).
    """
    if config.verify is True and not server_name:
        raise ValueError("server_name: without one there is nothing to verify the server's certificate for")
    check = _trust(config, server_name) if config.verify is not False else None
    if session is not None and not _may_resume(config, check, session):
        session = None
    early = session is not None and 0 < len(early_data) <= session.max_early_data
    verify = asking(check) if check is not None else None
    connection = Engine(config.client_config(server_name, verify, early_data=early), session)
    if connection.early_data_state == OFFERED:
        connection.send(early_data)
    return Conn(sock, config, connection, is_client=True)


def _trust(config: Config, server_name: str) -> Callable[[Sequence[bytes]], None]:
    """What raises when a server's chain is not trusted."""
    if callable(config.verify):
        verify = config.verify
        return lambda chain: heed(verify(chain, server_name), "bad_certificate")
    roots = config.roots()
    return lambda chain: verify_server(roots, chain, server_name)


def _may_resume(config: Config, check: Callable[[Sequence[bytes]], None] | None, session: Session) -> bool:
    """Whether what the session's server has shown would be taken now."""
    try:
        if check is not None:
            check(session.chain)
        config.judge_staple(session.chain, session.ocsp_response)
    except Exception:
        return False
    return True


def _credential(hook: str, certificate: Certificate | None) -> Any:
    """The engine's form of what a hook has returned."""
    if certificate is None:
        return None
    if not isinstance(certificate, Certificate):
        raise TypeError(f"{hook} returned {type(certificate).__name__}, not a Certificate")
    return certificate.credential


class Conn(SocketLike):
    """A TLS connection: `server` and `client` make it.

    The first read or write does the handshake. Every method may raise TlsError (see edge.tls.errors) and what the
    socket raises: OSError, and TimeoutError when it has a timeout. A reader, a writer and a closer may each be in a
    thread of its own, and any number of threads at once does no harm beyond mixing their data.
    """

    def __init__(self, sock: Transport, config: Config, connection: Any, *, is_client: bool) -> None:
        self._sock = sock
        self._is_client = is_client
        self._config = config
        self._connection = connection
        self._handshake = threading.Lock()
        self._confirm = threading.Lock()
        self._read = threading.Lock()
        self._write = threading.Lock()
        self._engine = threading.Lock()
        self._state = threading.Lock()
        self._complete = False  # the handshake; never unset
        self._outgoing: collections.deque[bytes] = collections.deque()  # under _engine; sent under _write
        self._incoming = bytearray()  # under _read
        self._ended = False  # the peer's close_notify has come
        self._waiting = 0  # the engine's event: who is to decide before it goes on
        self._hook_error: Exception | None = None
        self._failure: TlsError | None = None  # of the connection: raised again by all that follows
        self._broken: BaseException | None = None  # of sending: part of a record may have gone out
        self._write_closed = False
        self._closing = False
        self._files = 0  # makefile()s that are open: the socket's convention for close()
        self._callers = 0  # threads that are using the socket: the last one closes it
        self._closed = False

    # --- the handshake

    def handshake(self) -> None:
        """Completes the handshake, if that has not happened; blocks until then.

        After a TimeoutError while waiting for the peer it may be called again.
        """
        if self._complete:
            return
        with self._using(), self._handshake:
            if self._complete:
                return
            with self._read:
                self._check_failure()
                self._queue_output()
                self._flush(wait=True)
                self._answer()  # a hook may have been interrupted
                while not self._is_complete():
                    self._receive()
            self._complete = True

    def _is_complete(self) -> bool:
        return bool(self._connection.established or self._connection.early_data_state == READING)

    def confirm_handshake(self) -> None:
        """Blocks until the handshake is confirmed: the peer has proved that it is there now.

        What was read before may have been early data, which anyone may have sent again; when this has returned, it was
        not. Data that comes on the way is kept for `read`.
        """
        self.handshake()
        if self._connection.established:
            return
        with self._using(), self._confirm:
            if self._connection.established:
                return
            with self._read:
                while not self._connection.established:
                    self._check_failure()
                    self._receive()

    # --- data

    def read(self, n: int = 16384) -> bytes:
        """1 to n bytes, or b"" when the peer has closed its side with close_notify. Blocks.

        Raises UnexpectedEOF when the stream ends without that. After a TimeoutError it may be called again.
        """
        if n < 0:
            raise ValueError("read: a negative number of bytes")
        self.handshake()
        with self._using():
            return self._read_some(n)

    def _read_some(self, n: int) -> bytes:
        unconfirmed = not self._connection.established
        if unconfirmed:
            self._confirm.acquire()
        try:
            with self._read:
                while n and not self._incoming and not self._ended:
                    if unconfirmed and self._connection.established:
                        unconfirmed = False
                        self._confirm.release()  # who waits for that need not wait for data
                    self._check_failure()
                    self._receive()
                data = bytes(self._incoming[:n])
                del self._incoming[:n]
                return data
        finally:
            if unconfirmed:
                self._confirm.release()

    def readinto(self, buffer: Any) -> int:
        """As `read`, into a writable buffer; the number of bytes."""
        with memoryview(buffer).cast("B") as view:
            data = self.read(len(view))
            view[: len(data)] = data
            return len(data)

    def write(self, data: Any) -> int:
        """Sends all of `data`, any bytes-like object, and returns its length. Blocks while the peer takes nothing.

        When it raises (TimeoutError too), the peer may have got a part: nothing more can be written then.
        """
        self.handshake()
        with memoryview(data).cast("B") as view, self._using():
            with self._write:
                for at in range(0, len(view), _SEAL):
                    self._check_writable()
                    with self._engine:
                        self._seal(view[at : at + _SEAL])
                        self._queue_output_locked()
                    self._send_queue()
            self._flush(wait=False)
            return len(view)

    def _seal(self, data: memoryview) -> None:
        self._check_engine()
        try:
            self._connection.send(data)
        except ValueError as error:  # the keys have sealed all they may
            raise TlsError(f"nothing more can be written: {error}") from error

    def _check_engine(self) -> None:
        """Holds _engine: a reader may have found out just now what has ended the connection."""
        if self._connection.failure is not None:
            raise self._failed(self._connection.failure)

    def _check_writable(self) -> None:
        if self._broken is not None:
            raise TlsError(f"an earlier write failed: {self._broken}") from self._broken
        if self._write_closed:
            raise ClosedError("the connection's writing side is closed")
        self._check_failure()

    def request_key_update(self, *, peer: bool = True) -> None:
        """Changes the keys that this side writes under (RFC 8446, section 4.6.3); with `peer` asks the other side to
        change its own too, before the next thing it writes. Blocks as `write` does.

        The engine does so itself long before a key has sealed all that is safe: this is for policies of time.
        ValueError before the handshake is confirmed, and in TLS 1.2.
        """
        self.handshake()
        with self._using():
            with self._write:
                self._check_writable()
                with self._engine:
                    self._check_engine()
                    self._connection.request_key_update(peer)
                    self._queue_output_locked()
                self._send_queue()
            self._flush(wait=False)

    # --- the ways out

    def close_write(self) -> None:
        """Ends what this side writes, with close_notify; reading goes on. Blocks as `write` does. Twice is once."""
        self.handshake()
        with self._using():
            with self._write:
                if self._write_closed:
                    return
                self._check_writable()
                self._write_closed = True
                with self._engine:
                    self._connection.send_close_notify()
                    self._queue_output_locked()
                self._send_queue()
            self._flush(wait=False)

    def close(self) -> None:
        """Ends the connection: close_notify if that can go at once, and the socket. Never blocks on a socket; threads
        that read or write are woken, and raise ClosedError. Twice is once.

        While files of `makefile` are open, they keep the connection, as a socket's do; `abort` does not wait for them.
        """
        with self._state:
            self._closing = True
            if self._files:
                return
        self.abort()

    def abort(self) -> None:
        """As `close`, whatever files are open."""
        with self._state:
            self._closing = True
            if self._closed:
                return
            self._closed = True
            self._callers += 1
        try:
            if self._write.acquire(blocking=False):  # else a writer is at it, and will be told
                try:
                    self._say_goodbye()
                finally:
                    self._write.release()
            # Others may be in recv or send: closing under them would leave them there, and free the descriptor's
            # number for a stranger. They are woken, and the last of them closes.
            if self._callers > 1 and not shut(self._sock, socket.SHUT_RDWR):
                self._close_socket()
        finally:
            self._leave()

    def _say_goodbye(self) -> None:
        """close_notify, as far as the socket's buffer takes it. Holds _write."""
        if self._broken is not None:
            return
        with self._engine:
            if not self._write_closed:
                self._connection.send_close_notify()
            self._write_closed = True
            self._queue_output_locked()
        try:
            while self._outgoing:
                send_at_once(self._sock, self._outgoing.popleft())
        except OSError as error:
            self._broken = error

    def shutdown(self, how: int) -> None:
        """Ends writing (socket.SHUT_WR: as `close_write`, then the socket's), reading, or both, on the socket, too;
        who waits there is woken. Blocks as `close_write` does."""
        try:
            if how != socket.SHUT_RD and self._complete:
                self.close_write()
        finally:
            with self._using():
                shut(self._sock, how)

    def _file_opened(self) -> None:
        with self._state:
            if self._closing:
                raise ClosedError("the connection was closed")
            self._files += 1

    def _file_closed(self) -> None:
        with self._state:
            self._files -= 1
            last = self._closing and self._files == 0
        if last:
            self.abort()

    def _using(self) -> "_Using":
        return _Using(self)

    def _enter(self) -> None:
        with self._state:
            if self._closed:
                raise ClosedError("the connection was closed")
            self._callers += 1

    def _leave(self) -> None:
        with self._state:
            self._callers -= 1
            last = self._closed and self._callers == 0
        if last:
            self._close_socket()

    def _close_socket(self) -> None:
        close = getattr(self._sock, "close", None)
        if close is not None:
            close()

    # --- between socket and engine

    def _receive(self) -> None:
        """One recv, and all that follows from it. Holds _read; raises once nothing more can come."""
        if self._ended:
            raise UnexpectedEOF("the peer closed the connection within the handshake")
        try:
            data = self._sock.recv(_RECEIVE)
        except OSError:
            if self._closed:
                raise ClosedError("the connection was closed") from None
            raise
        if self._closed:
            raise ClosedError("the connection was closed")
        if not data:
            where = "" if self._complete else " during the handshake"
            self._failure = UnexpectedEOF(f"the stream ended without close_notify{where}")
            raise self._failure
        self._take(data)

    def _take(self, data: bytes) -> None:
        """What `data` leads to. Raises when it ends the connection."""
        self._feed(data)
        self._answer()

    def _feed(self, data: bytes) -> None:
        last_error()
        with self._engine:
            for event, payload in self._connection.receive_bytes(data):
                if event == DATA:
                    self._incoming += payload
                elif event == CLOSE_NOTIFY:
                    self._ended = True
                elif event in _WAITS:
                    self._waiting = event
            self._queue_output_locked()
        self._after_step()

    def _after_step(self) -> None:
        """Sends what a step of the engine has left to be sent, and raises what it has failed of."""
        failure = self._connection.failure
        failed = None if failure is None else self._failed(failure)
        self._failure = self._failure or failed
        # During the handshake it is the caller's own flight; later, an error of sending is the writer's to report.
        own = not self._complete and failed is None
        self._flush(wait=own, quiet=not own)
        if failed is not None and not self._incoming:
            cause = failed.__cause__
            if cause is not None and not isinstance(cause, Exception):
                raise cause  # an interrupt: the connection has ended by it, and who called it is to know
            raise failed

    # --- hooks and signers: called in the thread that does the handshake, holding _handshake and _read

    def _answer(self) -> None:
        """Gives the engine the decisions that it waits for."""
        while self._waiting:
            try:
                answer = self._decide()
            except Refuse as error:
                self._go_on(self._connection.give_up, (error.description, str(error)), error)
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"
                self._go_on(self._connection.give_up, (_INTERNAL_ERROR, reason), error)
            else:
                self._go_on(*answer)
            self._feed(b"")  # what came behind the message that it stopped at

    def _go_on(self, step: Callable[..., int], arguments: tuple[Any, ...], error: Exception | None = None) -> None:
        self._hook_error = error
        last_error()
        with self._engine:
            event = step(*arguments)
            self._waiting = event if event in _WAITS else 0
            self._queue_output_locked()
        self._after_step()

    def _decide(self) -> tuple[Callable[..., int], tuple[Any, ...]]:
        """What goes on from here, and with which arguments."""
        if self._waiting == WAIT_POLICY:
            return self._choose()
        if self._waiting == WAIT_CERTIFICATE:
            return self._choose_own()
        if self._waiting == WAIT_REGISTER:
            return self._connection.tell, (ask(self._connection.asked_register, self._connection.asked_name),)
        return self._sign()

    def _choose(self) -> tuple[Callable[..., int], tuple[Any, ...]]:
        try:
            hello = ClientHelloInfo.parse(self._connection.client_hello, self._sock)
        except ValueError as error:  # in an extension that the engine has no use for
            raise Refuse("decode_error", str(error)) from error
        config = self._config
        if config.get_config_for_client is not None:
            chosen = wait_for(config.get_config_for_client(hello))
            if chosen is not None:
                if not isinstance(chosen, Config):
                    raise TypeError(f"get_config_for_client returned {type(chosen).__name__}, not a Config")
                config = self._config = chosen
        credential = None
        if config.get_certificate is not None:
            credential = _credential("get_certificate", wait_for(config.get_certificate(hello)))
        return self._connection.decide, (config.server_config(), credential)

    def _choose_own(self) -> tuple[Callable[..., int], tuple[Any, ...]]:
        hook = self._config.get_client_certificate
        request = CertificateRequestInfo.parse(*self._connection.certificate_request)
        certificate = wait_for(hook(request)) if hook is not None else None
        return self._connection.show, (_credential("get_client_certificate", certificate),)

    def _sign(self) -> tuple[Callable[..., int], tuple[Any, ...]]:
        signature = wait_for(self._connection.signer.sign(*self._connection.to_sign))
        if not isinstance(signature, bytes):
            raise TypeError(f"the signer returned {type(signature).__name__}, not bytes")
        return self._connection.give_signature, (signature,)

    def _failed(self, failure: Any) -> TlsError:
        if not failure.sent:
            return AlertReceived(failure)
        distrust = last_error()
        error = CertificateError(failure) if distrust is not None else AlertSent(failure)
        error.__cause__ = distrust if distrust is not None else self._hook_error
        return error

    def _check_failure(self) -> None:
        if self._closed:
            raise ClosedError("the connection was closed")
        if self._failure is not None:
            raise self._failure.with_traceback(None)  # else each time adds to it

    def _queue_output(self) -> None:
        with self._engine:
            self._queue_output_locked()

    def _queue_output_locked(self) -> None:
        """What the engine has to say, in its order: whoever holds _engine queues it before another may add to it."""
        output = self._connection.take_output()
        if output:
            self._outgoing.append(output)

    def _flush(self, *, wait: bool, quiet: bool = False) -> None:
        """Sends the queue. Without `wait`, whoever is sending now is left to send that too."""
        while self._outgoing and self._broken is None:
            if not self._write.acquire(blocking=wait):
                return  # its holder looks at the queue once more when it has let go
            try:
                self._send_queue()
            except OSError:
                if not quiet:
                    raise
            finally:
                self._write.release()

    def _send_queue(self) -> None:
        """Holds _write."""
        while self._outgoing:
            data = self._outgoing.popleft()
            try:
                self._sock.sendall(data)
            except BaseException as error:
                self._broken = error
                if self._closed and isinstance(error, OSError):
                    raise ClosedError("the connection was closed") from None
                raise

    # --- what is known

    def connection_state(self) -> ConnectionState:
        """A snapshot of what has been negotiated so far. Does not block."""
        with self._engine:
            c = self._connection
            names = describe(c.version, c.cipher_suite, c.group, c.signature_scheme).split()
            version, cipher_suite, group, scheme = ("" if name == "-" else name for name in names)
            return ConnectionState(
                version=version,
                cipher_suite=cipher_suite,
                group=group,
                signature_scheme=scheme,
                alpn=c.alpn.decode("ascii", "surrogateescape"),
                server_name=c.server_name.decode("ascii"),
                handshake_complete=self._complete,
                handshake_confirmed=bool(c.established),
                peer_certificates=c.peer_certificates,
                ocsp_response=c.ocsp_response,
                signed_certificate_timestamps=timestamps(c.signed_certificate_timestamps),
                hello_retried=bool(c.hello_retried),
                resumed=bool(c.resumed),
                early_data_used=c.early_data_state in (READING, ACCEPTED),
                fingerprint=c.fingerprint.decode("ascii"),
                unique=self._unique(),
            )

    def _unique(self) -> bytes:
        if not self._connection.established:
            return b""
        if self._connection.version == VERSIONS["1.3"]:
            return bytes(self._connection.exporter(EXPORTER_LABEL, b"", 32))
        return bytes(self._connection.tls_unique)

    def export_keying_material(self, label: str, context: bytes | None = None, length: int = 32) -> bytes:
        """Keying material that only the two ends of this connection have (RFC 8446, section 7.5), for a label of the
        program's own. In TLS 1.2 (RFC 5705) an empty context is another than none. ValueError before the handshake is
        confirmed, and in TLS 1.2 without the extended master secret."""
        with self._engine:
            if not self._connection.established:
                raise ValueError("export_keying_material: needs a confirmed handshake")
            return bytes(self._connection.exporter(label, context, length))

    def channel_binding(self, kind: str) -> bytes:
        """The channel binding of a kind, the same bytes at both ends of this connection; see CHANNEL_BINDINGS.

        "tls-exporter" (RFC 9266): 32 bytes of this connection alone; in TLS 1.2 with the extended master secret.
        "tls-unique" (RFC 5929, section 3): 12 bytes, of TLS 1.2 with the extended master secret alone.
        "tls-server-end-point" (RFC 5929, section 4): the hash of the server's certificate; a server in a resumed
        session does not know it. ValueError where there is none, before the handshake is confirmed, and for an unknown
        kind.
        """
        if kind not in CHANNEL_BINDINGS:
            raise ValueError(f"channel_binding: {kind!r} is none of {', '.join(CHANNEL_BINDINGS)}")
        if kind == "tls-exporter":
            return self.export_keying_material(EXPORTER_LABEL, b"")
        with self._engine:
            c = self._connection
            if not c.established:
                raise ValueError("channel_binding: needs a confirmed handshake")
            if kind == "tls-unique":
                if not c.tls_unique:
                    raise ValueError("tls-unique: is of TLS 1.2 with the extended master secret")
                return bytes(c.tls_unique)
            chain = c.peer_certificates if self._is_client else c.credential and c.credential.chain
        if not chain:
            raise ValueError("tls-server-end-point: in a resumed session a server does not know its certificate")
        return end_point(chain[0])

    @property
    def session(self) -> Session | None:
        """Of a client: the newest session that the server has given, to be resumed by another connection; None before
        it has. They come with the data after the handshake, so something must have been read.

        `to_bytes` and `Session.from_bytes` carry one to another process; it holds the session's secret.
        """
        with self._engine:
            return self._connection.session

    def pending(self) -> int:
        """Bytes that `read` has without waiting."""
        return len(self._incoming)


class _Using:
    """The time that a thread uses the socket in, as a context: `close` leaves the closing to the last of them."""

    __slots__ = ("_conn",)

    def __init__(self, conn: Conn) -> None:
        self._conn = conn

    def __enter__(self) -> None:
        self._conn._enter()

    def __exit__(self, *_: object) -> None:
        self._conn._leave()
