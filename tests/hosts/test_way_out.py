"""The proxy that the machines have, on loopback: what it lets through, and what it keeps."""

import asyncio
import os

import pytest

from tests.hosts import way_out
from tests.hosts.way_out import HEAD_MAX, WayOut


class Mirror:
    """An origin, which counts what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.length: int | None = None

    async def serve(self, reader, writer):
        head = await reader.read(HEAD_MAX)
        if not head:
            return
        self.asked.append(head.decode())
        body = b"package" * 50_000
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {self.length or len(body)}\r\n\r\n".encode() + body)
        await writer.drain()
        writer.close()


async def ask(port: int, request: str) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request.encode())
    async with asyncio.timeout(30):
        answer = await reader.read()
    writer.close()
    return answer


def through(kept, monkeypatch, *requests, length=None, here=True):
    """What the proxy answers, and what the mirror was asked for. {port} in a request is the mirror's."""

    async def main():
        mirror = Mirror()
        mirror.length = length
        origin = await asyncio.start_server(mirror.serve, "127.0.0.1", 0)
        port = origin.sockets[0].getsockname()[1]
        monkeypatch.setattr(way_out, "PORTS", (port,))
        if here:  # this host itself, which is refused otherwise
            monkeypatch.setattr(way_out, "_elsewhere", lambda address: True)
        proxy = await asyncio.start_server(WayOut(kept).serve, "127.0.0.1", 0, limit=HEAD_MAX)
        own = proxy.sockets[0].getsockname()[1]
        answers = [await ask(own, request.replace("{port}", str(port))) for request in requests]
        return answers, mirror.asked

    return asyncio.run(main())


GET = "GET http://127.0.0.1:{port}/pool/a.deb HTTP/1.1\r\nHost: x\r\nProxy-Connection: keep-alive\r\nX-Own: 1\r\n\r\n"


def test_a_package_is_fetched_once(tmp_path, monkeypatch):
    (first, second), asked = through(tmp_path, monkeypatch, GET, GET)
    assert first.split(b"\r\n\r\n")[1] == second.split(b"\r\n\r\n")[1] == b"package" * 50_000
    (head,) = asked
    assert head.startswith("GET /pool/a.deb HTTP/1.1\r\nHost: 127.0.0.1:")
    assert "X-Own: 1\r\n" in head
    assert "Proxy" not in head
    assert "Connection: close" in head
    assert [file.suffix for file in tmp_path.iterdir()] == [".deb"]


def test_half_a_package_is_not_kept(tmp_path, monkeypatch):
    _, asked = through(tmp_path, monkeypatch, GET, GET, length=1_000_000)
    assert len(asked) == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("field", ["Range: bytes=5-", "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT"])
def test_what_is_no_whole_package_is_passed_on(tmp_path, monkeypatch, field):
    _, asked = through(tmp_path, monkeypatch, GET.replace("X-Own: 1", field))
    assert field in asked[0]
    assert list(tmp_path.iterdir()) == []


def test_a_tunnel(tmp_path, monkeypatch):
    request = "CONNECT 127.0.0.1:{port} HTTP/1.1\r\n\r\nGET /inside HTTP/1.1\r\nHost: x\r\n\r\n"
    (answer,), asked = through(tmp_path, monkeypatch, request)
    assert answer.startswith(b"HTTP/1.1 200 Connection established\r\n\r\nHTTP/1.1 200 OK\r\n")
    assert asked == ["GET /inside HTTP/1.1\r\nHost: x\r\n\r\n"]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ("CONNECT 127.0.0.1:{port} HTTP/1.1\r\n\r\n", 403),
        ("CONNECT localhost:{port} HTTP/1.1\r\n\r\n", 403),
        ("CONNECT 127.0.0.1:1 HTTP/1.1\r\n\r\n", 403),
        ("CONNECT 127.0.0.1:99999 HTTP/1.1\r\n\r\n", 400),
        ("CONNECT  HTTP/1.1\r\n\r\n", 403),
        ("GET /relative HTTP/1.1\r\n\r\n", 405),
        ("GET http://[::1/ HTTP/1.1\r\n\r\n", 400),
        ("POST http://127.0.0.1:{port}/ HTTP/1.1\r\n\r\n", 405),
        ("GET ftp://127.0.0.1:{port}/ HTTP/1.1\r\n\r\n", 405),
        ("GET http://does-not-exist.invalid:{port}/ HTTP/1.1\r\n\r\n", 502),
        ("nonsense\r\n\r\n", 400),
    ],
)
def test_what_is_refused(tmp_path, monkeypatch, request_, status):
    (answer,), asked = through(tmp_path, monkeypatch, request_, here=False)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert asked == []


def test_packages_that_nobody_wants_go(tmp_path):
    old, new = tmp_path / "old.deb", tmp_path / "new.deb"
    for file in (old, new):
        file.write_bytes(b"x")
    os.utime(old, (0, 0))
    WayOut(tmp_path)
    assert new.exists()
    assert not old.exists()
