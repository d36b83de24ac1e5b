"""Handing over for Python programs: the document's vectors, a receiver, and who may."""

import os
import re
import socket
import threading
from pathlib import Path

import pytest

from edge import handoff
from edge.handoff import Handoff

DOCUMENT = Path(__file__).resolve().parents[2] / "docs/handoff.md"


def vectors():
    found = re.findall(r"```hex\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    return [bytes.fromhex("".join(text.split())) for text in found]


def test_the_documents_vectors_are_what_is_written_and_read():
    first = Handoff(client=("192.0.2.1", 50000), local=("198.51.100.7", 443), data=b"\x16\x03\x01", name="legacy")
    second = Handoff(
        client=("2001:db8::1", 50000), local=("2001:db8::7", 443), proxied=True, tlvs=bytes.fromhex("0500026964")
    )
    assert vectors() == [first.encode(), second.encode()]
    assert [Handoff.decode(vector) for vector in vectors()] == [first, second]


@pytest.fixture
def accepted():
    """(client, the connection that was accepted from it)."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname(), 30)
        server, _ = listener.accept()
    with client, server:
        yield client, server


def test_a_connection_goes_from_program_to_program(tmp_path, accepted):
    client, server = accepted
    client.sendall(b"hello")
    data = server.recv(3)
    with handoff.Receiver(tmp_path / "r.sock") as receiver:
        giving = threading.Thread(target=handoff.give, args=(tmp_path / "r.sock", server, data), kwargs={"name": "x"})
        giving.start()
        with receiver.accept(30) as connection:
            giving.join()
            assert connection.data + connection.sock.recv(10) == b"hello"
            assert (connection.client, connection.handoff.local) == (client.getsockname(), client.getpeername())
            assert connection.handoff.name == "x"
    assert not (tmp_path / "r.sock").exists()


def test_what_is_none_is_passed_over(tmp_path, accepted):
    client, server = accepted
    with handoff.Receiver(tmp_path / "r.sock") as receiver, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as out:
        out.connect(str(tmp_path / "r.sock"))
        good = Handoff(client=client.getsockname(), local=client.getpeername()).encode()
        before = len(os.listdir("/proc/self/fd"))
        for message, fds in ((b"x", [server.fileno()]), (good, []), (good, [server.fileno()] * 3)):
            socket.send_fds(out, [message], fds)
        with pytest.raises(TimeoutError):
            receiver.accept(0.05)
        assert len(os.listdir("/proc/self/fd")) == before + 1  # the sender's
        socket.send_fds(out, [good], [server.fileno()])
        receiver.accept(30).close()


def test_who_listens_where(tmp_path):
    path = tmp_path / "r.sock"
    with handoff.Receiver(path, mode=0o660):
        assert path.stat().st_mode & 0o777 == 0o660
        with pytest.raises(OSError, match="somebody listens there"):
            handoff.Receiver(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stale:
        stale.bind(str(path))
    with handoff.Receiver(path):
        assert path.is_socket()
    path.write_text("a file")
    with pytest.raises(OSError, match="no socket"):
        handoff.Receiver(path)
    assert path.read_text() == "a file"
