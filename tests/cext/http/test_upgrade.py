"""What asks for another protocol, what grants it, and what of both goes on."""

import base64

import pytest
from cext.http.h1_reader import parse_request_bytes, parse_response_bytes
from cext.http.h1_writer import serialise_request, serialise_response
from cext.http.upgrade import base64_text


def request(*fields, line="GET /chat HTTP/1.1"):
    return "\r\n".join([line, "Host: example.com", *fields, "", ""]).encode()


def switching(*fields):
    return "\r\n".join(["HTTP/1.1 101 Switching Protocols", *fields, "", ""]).encode()


@pytest.mark.parametrize(("fields", "asked"), [
    (("Upgrade: websocket", "Connection: Upgrade"), b"websocket"),
    (("Upgrade: a/1, b", "Connection: keep-alive, UPGRADE"), b"a/1, b"),
    (("Upgrade: websocket", "Connection: upgrade", "Content-Length: 0"), b"websocket"),
    (("Upgrade: websocket",), b""),
    (("Connection: upgrade",), b""),
    (("Upgrade: websocket", "Upgrade: h2c", "Connection: upgrade"), b""),          # which one a backend reads
    (("Upgrade: websocket", "Connection: upgrade", "Content-Length: 1"), b""),     # where it would begin
    (("Upgrade: websocket", "Connection: upgrade", "Transfer-Encoding: chunked"), b""),
])
def test_an_upgrade_is_listed_single_and_without_content(fields, asked):
    assert parse_request_bytes(request(*fields)).upgrade == asked


def test_http_1_0_asks_for_none():
    assert parse_request_bytes(request("Upgrade: a", "Connection: upgrade", line="GET / HTTP/1.0")).upgrade == b""


def test_it_goes_upstream_only_where_the_caller_says_so():
    head = request("Upgrade: websocket", "Connection: upgrade, X-Hop", "X-Hop: 1", "Sec-WebSocket-Version: 13")
    assert serialise_request(head) == request("Sec-WebSocket-Version: 13")
    assert serialise_request(head, upgrade=b"websocket") == request(
        "Sec-WebSocket-Version: 13", "Upgrade: websocket", "Connection: upgrade")
    head = request("Upgrade: a", "TE: trailers", "Connection: TE, upgrade")
    assert serialise_request(head, upgrade=b"a") == request("TE: trailers", "Upgrade: a", "Connection: TE, upgrade")


def test_room_for_all_that_is_added():
    """request_room is what the writer is given: the shortest head with all additions fits it."""
    head = request("TE: trailers", "Upgrade: a", "Connection: TE, upgrade", line="GET / HTTP/1.1")
    assert isinstance(serialise_request(head, upgrade=b"a", x_forwarded=True, forwarded=True), bytes)


def test_a_101_goes_to_the_client_with_its_upgrade_and_no_date():
    head = switching("Upgrade: websocket", "Connection: Upgrade, X-Hop", "X-Hop: 1", "Keep-Alive: 5", "A: b",
                     "Content-Length: 5")
    assert serialise_response(head, date=b"Sat, 21 Nov 2026 19:00:00 GMT") == switching(
        "A: b", "Upgrade: websocket", "Connection: upgrade")
    assert parse_response_bytes(switching("Upgrade: a", "Upgrade: b", "Connection: upgrade")).upgrade == b""


def test_base64():
    for n in range(20):
        data = bytes(range(250, 250 - n, -1))
        assert base64_text(data) == base64.b64encode(data)
