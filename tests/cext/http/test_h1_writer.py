"""What goes on: heads written anew from parsed ones, the framing our own."""

import runpy
from pathlib import Path

import pytest
from cext.http.h1_reader import BodyDecoder, parse_request_bytes, parse_response_bytes
from cext.http.h1_writer import (
    chunk_size_line,
    serialise_request,
    serialise_response,
    simple_response,
    without_field,
)

VECTORS = Path(__file__).resolve().parents[2] / "vectors"
REQUESTS = runpy.run_path(str(VECTORS / "http1_requests.py"))["VALID"]
RESPONSES = runpy.run_path(str(VECTORS / "http1_responses.py"))["VALID"]
METHODS = {"GET": 1, "HEAD": 2, "POST": 3, "CONNECT": 9}
NONE, LENGTH, CHUNKED, CLOSE = 0, 1, 2, 3
DATE = b"Sat, 21 Nov 2026 19:00:00 GMT"
DROPPED = {b"host", b"content-length", b"trailer"}


def request(fields=b"", line=b"GET /a?b HTTP/1.1", host=b"example.com"):
    return line + b"\r\nHost: " + host + b"\r\n" + fields + b"\r\n"


def response(fields=b"", line=b"HTTP/1.1 200 OK"):
    return line + b"\r\n" + fields + b"\r\n"


def lines(head):
    assert head.endswith(b"\r\n\r\n")
    return head[:-4].split(b"\r\n")


def end_to_end(head):
    """The fields of a parsed head that a writer passes on as they are."""
    return [f for f, hop in zip(head.fields, head.hop_by_hop, strict=True) if not hop and f[0].lower() not in DROPPED]


@pytest.mark.parametrize("case", [c for c in REQUESTS if c[2].get("method_id") != 9], ids=lambda c: c[0])
def test_a_request_survives_the_round_trip(case):
    received = parse_request_bytes(case[1])
    sent = parse_request_bytes(serialise_request(case[1], default_host=b"default.example"))
    assert (sent.method, sent.path, sent.query) == (received.method, received.path, received.query)
    assert sent.host == received.host or (received.host == b"" and sent.host == b"default.example")
    assert sent.fields[0] == (b"Host", sent.host)
    assert (sent.framing, sent.content_length) == (received.framing, received.content_length)
    assert (sent.minor, sent.te_trailers) == (1, received.te_trailers)
    assert end_to_end(sent) == end_to_end(received)


@pytest.mark.parametrize("case", RESPONSES, ids=lambda c: c[0])
def test_a_response_survives_the_round_trip(case):
    method = METHODS[case[2]]
    received = parse_response_bytes(case[1], method)
    sent = parse_response_bytes(serialise_response(case[1], method), method)
    assert (sent.status, sent.reason, sent.minor) == (received.status, received.reason, 1)
    assert (sent.framing, sent.content_length) == (received.framing, received.content_length)
    assert end_to_end(sent) == end_to_end(received)


def test_request_as_it_reaches_the_upstream():
    received = request(
        b"A:  1\t\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\nUpgrade: h2c\r\n"
        b"Via: 1.0 b\r\nContent-Length: 007\r\nExpect: 100-continue\r\n", b"POST http://EXAMPLE.com/a?b HTTP/1.0")
    assert lines(serialise_request(received)) == [
        b"POST /a?b HTTP/1.1", b"Host: EXAMPLE.com", b"A: 1", b"Via: 1.0 b", b"TE: trailers", b"Connection: TE",
        b"Content-Length: 7"]


def test_request_framing_is_the_callers():
    received = request(b"Content-Length: 7\r\nTrailer: X\r\n", b"POST / HTTP/1.1")
    assert lines(serialise_request(received, framing=CHUNKED))[2:] == [b"Trailer: X", b"Transfer-Encoding: chunked"]
    assert lines(serialise_request(received))[2:] == [b"Content-Length: 7"]
    assert lines(serialise_request(received, framing=NONE))[2:] == []


def test_connection_options_cannot_strip_what_the_upstream_relies_on():
    received = request(b"Connection: host, forwarded, content-length\r\nForwarded: for=a\r\nContent-Length: 1\r\n",
                       b"POST / HTTP/1.1")
    assert lines(serialise_request(received))[1:] == [b"Host: example.com", b"Forwarded: for=a", b"Content-Length: 1"]


SPOOFED = (b"X-Forwarded-For: 6.6.6.6\r\nx-forwarded-proto: ftp\r\nX-Forwarded-Host: evil\r\nForwarded: for=6.6.6.6\r\n"
           b"X-Forwarded-For: 7.7.7.7\r\n")


def test_x_forwarded_replaces_what_the_client_said():
    assert lines(serialise_request(request(SPOOFED, host=b"a:81"), client=b"2001:db8::1", client_is_v6=True,
                                   x_forwarded=True))[2:] == [
        b"Forwarded: for=6.6.6.6", b"X-Forwarded-For: 2001:db8::1", b"X-Forwarded-Proto: https",
        b"X-Forwarded-Host: a:81"]


CLAIMS = [b"X-Forwarded-Port", b"x-forwarded-PREFIX", b"X_Forwarded_Ssl", b"X-Real-IP", b"x_real-ip"]


@pytest.mark.parametrize("name", CLAIMS)
def test_other_claims_about_the_origin_go_too(name):
    received = request(name + b": evil\r\nX-Forwarder: 1\r\nX-Real-IPs: 2\r\n")
    assert lines(serialise_request(received, x_forwarded=True))[2:4] == [b"X-Forwarder: 1", b"X-Real-IPs: 2"]
    assert name + b": evil" in lines(serialise_request(received))


@pytest.mark.parametrize(("client", "v6", "host", "expected"), [
    (b"192.0.2.1", False, b"a.example", b'for=192.0.2.1;proto=http;host=a.example'),
    (b"2001:db8::1", True, b"a.example:81", b'for="[2001:db8::1]";proto=http;host="a.example:81"'),
    (b"", False, b"[::1]", b'for=unknown;proto=http;host="[::1]"'),
])
def test_forwarded_replaces_what_the_client_said(client, v6, host, expected):
    sent = lines(serialise_request(request(SPOOFED, host=host), client=client, client_is_v6=v6, proto=b"http",
                                   forwarded=True))
    assert sent[-1] == b"Forwarded: " + expected
    assert b"Forwarded: for=6.6.6.6" not in sent
    assert b"X-Forwarded-For: 6.6.6.6" in sent


def test_neither_setting_leaves_the_fields_alone():
    assert lines(serialise_request(request(SPOOFED)))[2:] == SPOOFED[:-2].split(b"\r\n")


def test_x_forwarded_for_of_a_client_without_address():
    assert b"X-Forwarded-For: unknown" in lines(serialise_request(request(), client=b"", x_forwarded=True))


def test_host_of_a_request_that_has_none():
    received = b"GET / HTTP/1.0\r\n\r\n"
    assert lines(serialise_request(received, default_host=b"d.example")) == [b"GET / HTTP/1.1", b"Host: d.example"]
    assert lines(serialise_request(received, x_forwarded=True))[1] == b"Host: "


def test_response_as_it_reaches_the_client():
    received = response(b"Content-Length: 07\r\nConnection: x\r\nX: 1\r\nServer:  s\r\nKeep-Alive: 5\r\n")
    assert lines(serialise_response(received, date=DATE)) == [
        b"HTTP/1.1 200 OK", b"Server: s", b"Date: " + DATE, b"Content-Length: 7"]
    assert lines(serialise_response(received, keep_alive=False))[2:] == [b"Content-Length: 7", b"Connection: close"]
    assert lines(serialise_response(received, client_minor=0))[2:] == [b"Content-Length: 7", b"Connection: keep-alive"]
    assert lines(serialise_response(response(b"Date: x\r\nContent-Length: 0\r\n"), date=DATE))[1:] == [
        b"Date: x", b"Content-Length: 0"]


def test_chunks_are_for_1_1_clients():
    received = response(b"Transfer-Encoding: chunked\r\nTrailer: X\r\n")
    assert lines(serialise_response(received))[1:] == [b"Trailer: X", b"Transfer-Encoding: chunked"]
    assert lines(serialise_response(received, client_minor=0))[1:] == [b"Connection: close"]


def test_content_until_close_closes():
    assert lines(serialise_response(response()))[1:] == [b"Connection: close"]
    assert lines(serialise_response(response(), framing=CHUNKED))[1:] == [b"Transfer-Encoding: chunked"]


def test_interim_response_has_neither_date_nor_framing():
    received = response(b"Link: a\r\nContent-Length: 3\r\n", b"HTTP/1.1 103 Early Hints")
    assert lines(serialise_response(received, date=DATE, keep_alive=False)) == [b"HTTP/1.1 103 Early Hints", b"Link: a"]


@pytest.mark.parametrize("whole", [request(b"A: b\r\nContent-Length: 3\r\nTE: trailers\r\n"), request(SPOOFED)])
def test_request_that_does_not_fit(whole):
    options = {"x_forwarded": True, "forwarded": True}
    n = len(serialise_request(whole, **options))
    assert len(serialise_request(whole, cap=n, **options)) == n
    assert {serialise_request(whole, cap=cap, **options) for cap in range(n)} == {-1}


def test_room_is_enough_for_the_largest_growth():
    """Fields without a space behind the colon, the longest host, the longest addition."""
    host = b"h" * 249 + b":65535"
    received = b"POST / HTTP/1.1\r\nHost:" + host + b"\r\nTE:trailers\r\nContent-Length:" + b"9" * 18 + b"\r\n"
    received += b"a:b\r\n" * 253 + b"\r\n"
    ours = {"client": b"2001:db8:1111:2222:3333:4444:5555:6666", "client_is_v6": True}
    ours |= {"x_forwarded": True, "forwarded": True}
    assert serialise_request(received, **ours).count(host) == 3
    assert serialise_request(b"GET / HTTP/1.0\r\n\r\n", default_host=host, **ours).count(host) == 3
    answer = b"HTTP/1.1 200\r\n" + b"a:b\r\n" * 255 + b"Content-Length:" + b"9" * 18 + b"\r\n\r\n"
    assert len(serialise_response(answer, keep_alive=False, date=DATE)) > len(answer) + 256


def test_response_that_does_not_fit():
    whole = response(b"A: b\r\nContent-Length: 3\r\n")
    n = len(serialise_response(whole, date=DATE))
    assert {serialise_response(whole, date=DATE, cap=cap) for cap in range(n)} == {-1}
    n = len(simple_response(502, date=DATE))
    assert {simple_response(502, date=DATE, cap=cap) for cap in range(n)} == {-1}


@pytest.mark.parametrize("n", [0, 1, 9, 10, 15, 16, 255, 0x1A2B, 2**32, 2**63 - 1, 2**64 - 1])
def test_chunk_size_line(n):
    assert chunk_size_line(n) == b"%x\r\n" % n


def test_chunk_size_line_is_read_back():
    assert BodyDecoder(CHUNKED).feed(chunk_size_line(300) + b"x" * 300) == (0, 305, b"x" * 300)


@pytest.mark.parametrize("status", [400, 404, 408, 413, 414, 417, 421, 425, 431, 500, 501, 502, 503, 504, 505, 599])
def test_simple_response(status):
    head, _, body = simple_response(status, date=DATE).partition(b"\r\n\r\n")
    parsed = parse_response_bytes(head + b"\r\n\r\n")
    assert (parsed.status, body) == (status, parsed.reason + b"\n")
    assert (parsed.framing, parsed.content_length, parsed.has_date) == (LENGTH, len(body), True)
    assert parsed.keep_alive
    assert simple_response(status, date=DATE, head_only=True) == head + b"\r\n\r\n"


def test_simple_response_says_whether_it_stays():
    assert not parse_response_bytes(simple_response(400, keep_alive=False, text=b"no", head_only=True)).keep_alive
    assert b"\r\nConnection: keep-alive\r\n" in simple_response(404, minor=0)
    assert simple_response(404, text=b"no such page").endswith(b"\r\nContent-Length: 13\r\n\r\nno such page\n")


def test_simple_response_without_content():
    assert simple_response(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert simple_response(304) == b"HTTP/1.1 304 Not Modified\r\n\r\n"


# A field that is ours alone.


@pytest.mark.parametrize("name", [b"Only-Ours", b"only-ours", b"ONLY_OURS", b"Only_ours"])
def test_a_field_that_is_ours_alone(name):
    head = b"GET / HTTP/1.1\r\nHost: a\r\n" + name + b": forged\r\nOnly-Our: 1\r\nOnly-Ours-2: 2\r\n\r\n"
    out = serialise_request(head, dropped=b"Only-Ours")
    assert b"forged" not in out
    assert b"Only-Our: 1\r\nOnly-Ours-2: 2\r\n" in out
    assert b"forged" in serialise_request(head)


def test_trailers_without_a_field():
    lines = b"A: 1\r\nonly_ours: 2\r\nOnly-Ours: 3\r\nOnly-Oursx: 4\r\nOnly-Our: 5\r\n"
    assert without_field(lines, b"Only-Ours") == b"A: 1\r\nOnly-Oursx: 4\r\nOnly-Our: 5\r\n"
    assert without_field(b"", b"Only-Ours") == b""
    assert without_field(b"Only-Ours:\r\n", b"Only-Ours") == b""
    assert without_field(b"X: Only-Ours\r\n", b"Only-Ours") == b"X: Only-Ours\r\n"
