"""A client of our own engine that sends early data, and holds its Finished back for as long as a test wants."""

import socket

from cext.tls.config import ClientConfig
from cext.tls.engine import ACCEPTED, CLOSE_NOTIFY, DATA, FAILED, Engine

SECONDS = 20


def session_of(port, *, name="example.com", alpn="http/1.1"):
    """The session of a full handshake."""
    with EarlyClient(port, name=name, alpn=alpn) as client:
        client.confirm()
        while client.engine.session is None:
            client.take()
        return client.engine.session


class EarlyClient:
    """A connection. `send` writes early data while there is a session for it that the handshake has not ended yet, and
    puts it on its way; nothing of ours that answers the server's flight leaves before `confirm`."""

    def __init__(self, port, session=None, *, name="example.com", alpn="http/1.1", early=True, sock=None):
        self.engine = Engine(ClientConfig(server_name=name, alpn=[alpn.encode()], early_data=early), session)
        self.sock = sock or socket.create_connection(("127.0.0.1", port), timeout=SECONDS)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.plain = b""
        self.ended = False                  # close_notify has come
        self.holds = session is not None
        self.first = b""                    # all that left before confirm(): the flight that somebody could replay

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.sock.close()

    def put(self, data):
        if self.holds:
            self.first += data
        self.sock.sendall(data)

    def send(self, *pieces):
        """Each as a record of its own."""
        for piece in pieces:
            self.engine.send(piece)
        if not (self.holds and self.engine.established):
            self.put(self.engine.take_output())

    def take(self):
        """One receive -> whether there was any."""
        data = self.sock.recv(65536)
        for event, payload in self.engine.receive_bytes(data):
            if event == DATA:
                self.plain += payload
            self.ended |= event == CLOSE_NOTIFY
            assert event != FAILED, self.engine.failure
        if not self.holds:
            self.sock.sendall(self.engine.take_output())
        return bool(data)

    def flight(self):
        """Takes the server's flight -> whether it takes our early data."""
        if self.holds and not self.first:
            self.put(self.engine.take_output())         # a ClientHello without early data
        while not self.engine.established:
            assert self.take(), "closed in the handshake"
        return self.engine.early_data_state == ACCEPTED

    def confirm(self):
        """EndOfEarlyData and Finished."""
        self.flight() if self.holds else self.put(self.engine.take_output())
        self.holds = False
        self.flight()
        self.sock.sendall(self.engine.take_output())

    def recv(self, n):
        """Plaintext, as socket.recv."""
        while not self.plain and not self.ended:
            if not self.take():
                raise EOFError("cut")
        taken, self.plain = self.plain[:n], self.plain[n:]
        return taken
