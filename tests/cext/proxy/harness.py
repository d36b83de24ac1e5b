"""A data plane in a thread, backends that follow a script, and a TLS 1.3 client of raw bytes.

Everything runs in this process over loopback, so that a test sees the counters, the chunk pool and the logs.
"""

import contextlib
import dataclasses
import json
import queue
import socket
import ssl
import struct
import threading
import time

from cext.base.buffer import allocation_counters
from cext.proxy.listener_settings import ListenerSettings
from cext.proxy.pool import UpstreamGroup
from cext.proxy.router import Route, Router
from cext.worker import DataPlane

from tests.cext.tls.peer import server_config
from tests.h2_peer import H2Peer

SECONDS = 30
PROTOCOLS = (b"h2", b"http/1.1")
RESET = struct.pack("ii", 1, 0)     # SO_LINGER: close() sends RST


def until(condition, seconds=SECONDS):
    """Waits until condition() is true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.002)


@dataclasses.dataclass
class Message:
    """A request or a response: the start line, the fields with lower-case names, content and trailer lines."""

    start: str
    fields: dict[str, str]
    body: bytes = b""
    trailers: bytes = b""

    @property
    def status(self):
        return int(self.start.split()[1])


class Reader:
    """Reads HTTP/1.1 messages from anything with recv."""

    def __init__(self, sock):
        self.sock = sock
        self.buffer = b""

    def more(self):
        got = self.sock.recv(65536)
        self.buffer += got
        return bool(got)

    def line(self):
        while b"\r\n" not in self.buffer:
            if not self.more():
                raise EOFError(self.buffer)
        line, _, self.buffer = self.buffer.partition(b"\r\n")
        return line

    def exactly(self, n):
        while len(self.buffer) < n:
            if not self.more():
                raise EOFError(f"{len(self.buffer)} of {n} bytes")
        taken, self.buffer = self.buffer[:n], self.buffer[n:]
        return taken

    def rest(self):
        while self.more():
            pass
        taken, self.buffer = self.buffer, b""
        return taken

    def head(self):
        start = self.line().decode("latin-1")
        fields = {}
        while line := self.line():
            name, _, value = line.decode("latin-1").partition(": ")
            fields[name.lower()] = value
        return Message(start, fields)

    def content(self, message, until_close):
        if message.fields.get("transfer-encoding") == "chunked":
            while size := int(self.line(), 16):
                message.body += self.exactly(size)
                assert self.exactly(2) == b"\r\n"
            while line := self.line():
                message.trailers += line + b"\r\n"
        elif "content-length" in message.fields:
            message.body = self.exactly(int(message.fields["content-length"]))
        elif until_close:
            message.body = self.rest()
        return message

    def request(self):
        return self.content(self.head(), False)

    def response(self, *, head_only=False):
        message = self.head()
        if head_only or message.status < 200 or message.status in (204, 304):
            return message
        return self.content(message, True)


class Conn(Reader):
    """A backend's end of a connection."""

    def __init__(self, sock, number):
        super().__init__(sock)
        self.number = number                # 0 for the backend's first connection

    def send(self, data):
        self.sock.sendall(data)

    def reset(self):
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.sock.close()


def reply(body=b"ok", *, status="200 OK", fields=()):
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *fields]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def echo(conn):
    """Answers every request with its method, path and content."""
    while True:
        request = conn.request()
        method, path, _ = request.start.split()
        body = f"{method} {path} ".encode() + request.body
        if method == "HEAD":
            conn.send(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode())
        else:
            conn.send(reply(body))


class Backend:
    """Serves each connection with script(conn) in a thread of its own; the connection is closed when it returns."""

    tls = None                              # or an ssl.SSLContext

    def __init__(self, script=echo, *, receive_buffer=0, tls=None):
        self.script = script
        self.tls = tls
        self.accepted = 0
        self.open = []
        self.failures = []
        self.listener = socket.socket()
        if receive_buffer:
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(64)
        self.address = ("tcp", *self.listener.getsockname())
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.settimeout(SECONDS)
            self.open.append(sock)
            conn = Conn(sock, self.accepted)
            self.accepted += 1
            threading.Thread(target=self._serve, args=(conn,), daemon=True).start()

    def _serve(self, conn):
        try:
            if self.tls is not None:
                conn.sock = self.tls.wrap_socket(conn.sock, server_side=True, suppress_ragged_eofs=False)
            self.script(conn)
        except (OSError, EOFError):
            pass
        except Exception as e:
            self.failures.append(e)
        finally:
            conn.sock.close()

    def close(self):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for sock in self.open:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


def by_limits(settings, *others):
    """Settings with those that end in _ms, but for `others`, in `timeouts`: total_ms=9 is timeouts={"total": 9}."""
    found = {"timeouts": dict(settings.get("timeouts", {}))}
    for name, value in settings.items():
        if name.endswith("_ms") and name not in others:
            found["timeouts"][name.removesuffix("_ms")] = value
        elif name != "timeouts":
            found[name] = value
    return found


class Edge:
    """A data plane in a thread, in front of `servers` (addresses, or Backends)."""

    def __init__(self, *servers, routes=None, listener=None, pool=None, plane=None, send_buffer=0, keep_log=True,
                 hooks=None, tls=None, upstreams=(), **route):
        self.chunks_before = allocation_counters()[0]
        self.lines = []
        self.keep_log = keep_log
        self.errors = []
        self.commands = queue.SimpleQueue()
        self.group = UpstreamGroup("app", [getattr(s, "address", s) for s in servers], **(pool or {}))
        self.upstreams = {group.name: group for group in (self.group, *upstreams)}
        routes = [Route(self.group, **by_limits(route))] if routes is None else routes(self.group)
        self.listener = socket.socket()
        if send_buffer:
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(256)
        self.listener.setblocking(False)
        self.port = self.listener.getsockname()[1]
        self.plane = DataPlane(access_log=self._log, error_log=lambda level, text: self.errors.append((level, text)),
                               **(plane or {}))
        self.plane.hooks = hooks
        self.door = self.plane.listen(
            self.listener.fileno(),
            ListenerSettings(tls or server_config(alpn=PROTOCOLS), Router(routes, self.upstreams),
                             **by_limits(listener or {}, "handshake_ms", "record_idle_ms")))
        self.obeying = self.plane.every(2, self._obey)
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _log(self, batch):
        if self.keep_log:
            self.lines.append(batch)
        return len(batch)

    def _run(self):
        try:
            self.plane.run()
        finally:
            self.ended.set()

    def _obey(self):
        while not self.commands.empty():
            command, done = self.commands.get()
            done.put(command())

    def call(self, command):
        """command() in the loop's thread -> its result."""
        done = queue.SimpleQueue()
        self.commands.put((command, done))
        return done.get(timeout=SECONDS)

    def counters(self):
        return self.call(self.plane.counters) if not self.ended.is_set() else self.plane.counters()

    def chunks_in_use(self):
        return self.call(lambda: allocation_counters()[0] - self.chunks_before)

    def until_idle(self):
        """Waits until no client is connected."""
        until(lambda: self.counters()["connections_open"] == 0)

    def stop(self):
        if not self.ended.is_set():
            self.commands.put((self.plane.stop, queue.SimpleQueue()))
            assert self.ended.wait(SECONDS), "run() does not return"
        self.thread.join(SECONDS)

    def close(self):
        """Stops, and looks whether everything was given back."""
        self.stop()
        self.obeying.cancel()
        self.listener.close()
        assert self.plane.counters()["connections_open"] == 0
        assert self.group.idle_connections() == 0
        assert allocation_counters()[0] == self.chunks_before, "chunks leak"

    def log(self):
        """The access log's entries (it is complete once the edge has stopped)."""
        return [json.loads(line) for line in b"".join(self.lines).splitlines()]


@contextlib.contextmanager
def serving(*scripts, **settings):
    """An Edge in front of one Backend per script."""
    backends = [script if isinstance(script, Backend) else Backend(script) for script in scripts]
    edge = Edge(*backends, **settings)
    edge.backends = backends
    try:
        yield edge
        edge.close()
    finally:
        edge.stop()
        for backend in backends:
            backend.close()
    assert [f for b in backends for f in b.failures] == []


def client_context(protocol="http/1.1"):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols([protocol])
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF    # Python's default
    return context


CONTEXT = client_context()
H2_CONTEXT = client_context("h2")


class Client(Reader):
    """A TLS client. What ends without close_notify raises ssl.SSLError."""

    def __init__(self, edge, *, receive_buffer=0, seconds=SECONDS, context=CONTEXT):
        raw = socket.socket()
        if receive_buffer:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        raw.settimeout(seconds)
        raw.connect(("127.0.0.1", edge.port))
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().__init__(context.wrap_socket(raw, server_hostname="example.com", suppress_ragged_eofs=False))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def send(self, data):
        self.sock.sendall(data)

    def ask(self, data, **how):
        self.send(data)
        return self.response(**how)

    def ended(self):
        """Whether the server has ended the connection in good order, with nothing left."""
        return self.buffer + self.sock.recv(1) == b""

    def cut(self):
        """FIN without close_notify."""
        socket.socket(fileno=self.sock.detach()).close()

    def reset(self):
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.sock.close()

    def close(self):
        self.sock.close()


class H2Client(H2Peer):
    """A client of HTTP/2."""

    def __init__(self, edge, *, receive_buffer=0, **how):
        self.client = Client(edge, receive_buffer=receive_buffer, context=H2_CONTEXT)
        self.sock = self.client.sock
        super().__init__(self.client.send, lambda: self.sock.recv(65536), **how)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.client.close()


class BytesClient(Reader):
    """A TLS client without a socket of its own: the test decides how records and segments are cut."""

    def __init__(self, edge, *, context=CONTEXT, tcp=None):
        self.tcp = tcp or socket.create_connection(("127.0.0.1", edge.port), timeout=SECONDS)
        self.tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="example.com")
        super().__init__(self)
        while True:
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self.tcp.sendall(self.outgoing.read())
                self.incoming.write(self.tcp.recv(65536))
        self.tcp.sendall(self.outgoing.read())

    def records(self, *pieces):
        """One record for each piece, as ciphertext."""
        for piece in pieces:
            self.tls.write(piece)
        return self.outgoing.read()

    def close_notify(self):
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        return self.outgoing.read()

    def recv(self, n):
        while True:
            try:
                return self.tls.read(n)
            except ssl.SSLWantReadError:
                got = self.tcp.recv(65536)
                if not got:
                    raise EOFError("cut") from None
                self.incoming.write(got)
            except ssl.SSLZeroReturnError:
                return b""

    def close(self):
        self.tcp.close()


def get(path="/", *fields, method="GET", version="1.1"):
    return "\r\n".join([f"{method} {path} HTTP/{version}", "Host: example.com", *fields, "", ""]).encode()


def post(body, path="/", *fields, method="POST"):
    return get(path, f"Content-Length: {len(body)}", *fields, method=method) + body
