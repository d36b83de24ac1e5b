"""Receives connections that edge hands over, and answers one request on each through Python's ssl, or hands it back."""

import contextlib
import signal
import ssl
import sys
import threading
from pathlib import Path

from edge import handoff

RECORD = 16384


class TlsConnection:
    """TLS over a received connection. What was read already cannot be put back into a socket: `ssl` works in memory."""

    def __init__(self, connection, context):
        self.connection = connection
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._incoming.write(connection.data)
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        while True:
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._fill()
            except ssl.SSLError:
                self._flush()  # the alert
                raise
        self._flush()

    def recv(self, size=RECORD):
        """Data; empty at the client's close_notify. EOFError when the connection ends without it."""
        while True:
            try:
                return self.tls.read(size)
            except ssl.SSLZeroReturnError:
                return b""
            except ssl.SSLWantReadError:
                self._fill()

    def sendall(self, data):
        for start in range(0, len(data), RECORD):
            self.tls.write(data[start : start + RECORD])
            self._flush()

    def close(self):
        """Ends with close_notify; the client's is not waited for."""
        with contextlib.suppress(OSError, ValueError):
            self.tls.unwrap()
        with contextlib.suppress(OSError):
            self._flush()
        self.connection.close()

    def _fill(self):
        self._flush()
        got = self.connection.sock.recv(65536)
        if not got:
            raise EOFError("the client has closed the connection")
        self._incoming.write(got)

    def _flush(self):
        if self._outgoing.pending:
            self.connection.sock.sendall(self._outgoing.read())


def serve(connection, context):
    with connection:
        connection.sock.settimeout(10)
        try:
            if connection.handoff.name == "looked-at":
                print(f"receiver: {connection.client} goes back to edge", file=sys.stderr)
                handoff.give("edge.sock", connection.sock, connection.data)
                return
            tls = TlsConnection(connection, context)
            head = b""
            while b"\r\n\r\n" not in head and len(head) < 65536:
                got = tls.recv()
                if not got:
                    return
                head += got
            address, port = connection.client
            body = f"Python serves {address}:{port}, handed over as {connection.handoff.name!r} " \
                   f"with {len(connection.data)} bytes\n".encode()
            tls.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            tls.close()
        except (OSError, EOFError) as e:
            print(f"receiver: {e}", file=sys.stderr)


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain("cert.pem", "key.pem")
    with handoff.Receiver("python.sock") as receiver:
        Path("ready").touch()
        for connection in receiver:
            threading.Thread(target=serve, args=(connection, context), daemon=True).start()


if __name__ == "__main__":
    main()
