"""The reader beside h11 and httptools, and under bytes from nowhere.

The property that keeps requests from being smuggled: whatever our reader accepts, another reader that accepts it too
sees the same message, and the next one beginning at the same byte.
"""

import runpy
from contextlib import suppress
from pathlib import Path

import h11
import httptools
from cext.http.h1_reader import BodyDecoder, HeadFinder, parse_request_bytes, parse_response_bytes
from cext.http.h1_writer import serialise_request, serialise_response
from hypothesis import given, settings
from hypothesis import strategies as st

VECTORS = Path(__file__).resolve().parents[2] / "vectors"
REQUESTS = runpy.run_path(str(VECTORS / "http1_requests.py"))
RESPONSES = runpy.run_path(str(VECTORS / "http1_responses.py"))
CHUNKS = runpy.run_path(str(VECTORS / "http1_chunks.py"))
NONE, LENGTH, CHUNKED, CLOSE = 0, 1, 2, 3
MORE, DATA, END, ERROR = 0, 1, 2, -1
REQUEST_STATUSES = {-400, -414, -417, -431, -501, -505}
NEXT = b"GET /next HTTP/1.1\r\nHost: next\r\n\r\n"
CHUNKED_BODY = b"5;a=b\r\nhello\r\n3\r\n!!!\r\n0\r\nX-T: 1\r\n\r\n"


def with_body(head, parsed):
    """The bytes of a message with this head and its content, or None when the content is too long to make up."""
    if parsed.framing == LENGTH:
        return head + b"x" * parsed.content_length if parsed.content_length < 1000 else None
    return head + CHUNKED_BODY if parsed.framing == CHUNKED else head


def content(parsed):
    return b"hello!!!" if parsed.framing == CHUNKED else b"x" * max(parsed.content_length, 0)


def ours(parsed):
    return parsed.method, parsed.target, [(n.lower(), v) for n, v in parsed.fields], content(parsed)


def seen_by_h11(message):
    """What h11 reads: (method, target, fields, content) and the bytes it leaves, or None when it refuses."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(message + NEXT)
    head, body = None, b""
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            else:
                break
    except h11.RemoteProtocolError:
        return None
    assert isinstance(event, h11.EndOfMessage), event
    fields = [(bytes(n), bytes(v)) for n, v in head.headers]
    return (bytes(head.method), bytes(head.target), fields, body), bytes(connection.trailing_data[0])


class Collector:
    def __init__(self):
        self.messages = []

    def on_message_begin(self):
        self.url, self.fields, self.body, self.in_head = b"", [], b"", True

    def on_url(self, url):
        self.url += url

    def on_header(self, name, value):
        if self.in_head:                    # trailers come the same way
            self.fields.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self):
        self.in_head = False

    def on_body(self, body):
        self.body += body

    def on_message_complete(self):
        self.messages.append((self.parser.get_method(), self.url, self.fields, self.body))


def seen_by_httptools(message):
    """The messages httptools reads before it stops, with the one behind; None when it refuses the first."""
    collector = Collector()
    collector.parser = httptools.HttpRequestParser(collector)
    with suppress(httptools.HttpParserError, httptools.HttpParserUpgrade):
        collector.parser.feed_data(message + NEXT)
    return collector.messages or None


def compare(head):
    """Asserts that the others, where they accept it, read this head as we do -> how many of them did."""
    parsed = parse_request_bytes(head)
    message = None if isinstance(parsed, int) else with_body(head, parsed)
    if message is None:
        return 0
    agreed = 0
    theirs = seen_by_h11(message)
    # h11 reads Content-Length as Python's int and hands out what it made of it, so the field is compared as a number.
    if theirs is not None and parsed.method != b"CONNECT":
        (method, target, fields, body), left = theirs
        expected = ours(parsed)
        assert (method, target, body) == (expected[0], expected[1], expected[3])
        assert [n for n, _ in fields] == [n for n, _ in expected[2]]
        assert all(a == b or n in {b"content-length", b"transfer-encoding"}
                   for (n, a), (_, b) in zip(fields, expected[2], strict=True))
        assert left == NEXT
        agreed += 1
    messages = seen_by_httptools(message)
    if messages is not None and parsed.method != b"CONNECT" and not parsed.upgrade:
        assert messages[0] == ours(parsed)
        if parsed.keep_alive:               # httptools reads no request behind one that closes
            assert [m[1] for m in messages[1:]] == [b"/next"]
        agreed += 1
    return agreed


def test_valid_requests_are_framed_alike():
    assert sum(map(compare, (case[1] for case in REQUESTS["VALID"]))) > len(REQUESTS["VALID"])


def test_valid_chunks_are_read_alike():
    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    agreed = 0
    for _, data, body, _ in CHUNKS["VALID"]:
        theirs = seen_by_h11(head + data)
        if theirs is not None:
            assert (theirs[0][3], theirs[1]) == (body, NEXT)
            agreed += 1
        messages = seen_by_httptools(head + data)
        if messages is not None:
            assert [(m[1], m[3]) for m in messages] == [(b"/", body), (b"/next", b"")]
            agreed += 1
    assert agreed > len(CHUNKS["VALID"])


# -- heads made of the pieces attacks are made of

METHOD = st.sampled_from([b"GET", b"POST"] * 8 + [b"HEAD", b"OPTIONS", b"PUT", b"CONNECT", b"get", b"", b"G ET",
    b"G\0T"])
TARGET = st.sampled_from([b"/", b"/a?b"] * 12 + [
    b"*", b"a:443", b"http://a/", b"https://a:443/x?y", b"http://b", b"//a", b"", b"/ ", b"/\t", b"/#", b"/\x80",
    b"/\r",
    b"http://u@a/"])
VERSION = st.sampled_from([b"HTTP/1.1"] * 20 + [b"HTTP/1.0"] * 4 + [
    b"HTTP/1.2", b"HTTP/2.0", b"http/1.1", b"HTTP/1.1 ", b""])
NAME = st.sampled_from([
    b"Host", b"Content-Length", b"Transfer-Encoding", b"content-LENGTH", b"Content_Length", b"Content-Length ",
    b" Content-Length", b"Connection", b"TE", b"Expect", b"Upgrade", b"Trailer", b"Keep-Alive", b"X", b"", b"\0",
    b"X-Y"])
VALUE = st.sampled_from([
    b"a", b"a:443", b"0", b"3", b"3, 3", b"03", b"+3", b"3 ", b"\t3", b"chunked", b"Chunked", b"chunked, chunked",
    b"gzip",
    b"gzip, chunked", b" chunked\t", b"\x0bchunked", b"identity", b"close", b"keep-alive", b"X, X-Y", b"te",
    b"trailers",
    b"upgrade", b"100-continue", b"", b"\0", b"a\rb", b"a\r\n b", b"\xff", b"h2c"])
COLON = st.sampled_from([b": "] * 20 + [b":", b" : ", b":\t", b"", b"::"])
LINE_END = st.sampled_from([b"\r\n"] * 40 + [b"\n", b"\r", b"\r\r\n", b"\r\n\r\n"])
LIKELY = st.sampled_from([
    b"Content-Length: 3\r\n", b"content-length:0\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n",
    b"Connection: X, keep-alive\r\n", b"X: \t1 \r\n", b"X-Y:\r\n", b"TE: trailers\r\n", b"Expect: 100-continue\r\n"])


@st.composite
def heads(draw):
    parts = [draw(METHOD), b" ", draw(TARGET), b" ", draw(VERSION), draw(LINE_END)]
    if draw(st.integers(0, 9)):
        parts += [b"Host: a\r\n"]
    for _ in range(draw(st.integers(0, 4))):
        if draw(st.integers(0, 4)):
            parts += [draw(LIKELY)]
        else:
            parts += [draw(NAME), draw(COLON), draw(VALUE), draw(LINE_END)]
    return b"".join(parts) + b"\r\n"


@st.composite
def damaged(draw, cases):
    """A head of the tables, some bytes of it replaced, taken out or put in."""
    head = bytearray(draw(st.sampled_from(cases))[1])
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(head)))
        cut = draw(st.integers(0, 2))
        head[at:at + cut] = draw(st.sampled_from([b"", b" ", b"\t", b"\r", b"\n", b"\r\n", b"\0", b":", b",", b";",
            b"\x80"])
                                 | st.binary(max_size=3))
    return bytes(head)


def check_request(head):
    found = HeadFinder().find(head)
    assert found in {0, -400, -414, -431} or 4 <= found <= len(head)
    parsed = parse_request_bytes(head)
    if isinstance(parsed, int):
        assert parsed in REQUEST_STATUSES
        return
    assert found == len(head) == parsed.length      # the parser accepts nothing that the scanner would cut elsewhere
    for text in (parsed.method, parsed.target, parsed.path, parsed.host, *sum(parsed.fields, ())):
        assert not {0, 10, 13} & set(text)
    compare(head)
    if parsed.method == b"CONNECT":
        return
    sent = serialise_request(head, x_forwarded=True, forwarded=True)
    again = parse_request_bytes(sent)
    if parsed.host:
        assert (again.method, again.path, again.host) == (parsed.method, parsed.path, parsed.host)
        assert (again.framing, again.content_length) == (parsed.framing, parsed.content_length)
        assert serialise_request(sent, x_forwarded=True, forwarded=True) == sent
    else:
        assert again == -400                        # an HTTP/1.0 request without Host needs the default


@settings(max_examples=600, deadline=None)
@given(heads())
def test_heads_of_hostile_pieces(head):
    check_request(head)


@settings(max_examples=500, deadline=None)
@given(damaged(REQUESTS["VALID"]))
def test_damaged_requests(head):
    check_request(head)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_requests_of_any_bytes(data):
    check_request(data)
    check_request(b"GET / HTTP/1.1\r\nHost: a\r\n" + data + b"\r\n\r\n")


@settings(max_examples=500, deadline=None)
@given(damaged(RESPONSES["VALID"]), st.sampled_from([1, 2, 3, 9]))
def test_damaged_responses(head, method):
    parsed = parse_response_bytes(head, method)
    if isinstance(parsed, int):
        assert parsed == -502
        return
    assert HeadFinder(request=False).find(head) == len(head) == parsed.length
    assert 100 <= parsed.status <= 599
    sent = serialise_response(head, method, date=b"Sat, 21 Nov 2026 19:00:00 GMT")
    again = parse_response_bytes(sent, method)
    assert (again.status, again.reason) == (parsed.status, parsed.reason)
    assert (again.framing, again.content_length) == (parsed.framing, parsed.content_length)


# -- chunks

CHUNK_PIECES = st.sampled_from([
    b"0", b"1", b"5", b"a", b"F", b"10", b"\r\n", b"\r\n", b"\r\n", b"\r\n", b"\r", b"\n", b";", b"a=b", b'"', b"\\",
    b" ",
    b"\t", b"hello", b"x", b"X: 1", b"Host: a", b": ", b"\0", b"\x80", b"0\r\n\r\n", b"5\r\nhello\r\n"])


@settings(max_examples=600, deadline=None)
@given(st.lists(CHUNK_PIECES | st.binary(max_size=4), max_size=12).map(b"".join)
       | damaged([(None, case[1][:300]) for case in CHUNKS["VALID"]]), st.data())
def test_chunks_in_any_pieces(data, draw):
    """A body ends, goes on or fails; cut anywhere, it does so at the same byte with the same content."""
    whole = BodyDecoder(CHUNKED)
    result, taken, body = whole.feed(data)
    assert result in {MORE, END, ERROR}
    pieces = BodyDecoder(CHUNKED)
    at, parts, step = 0, b"", MORE
    while at < len(data) and step == MORE:
        n = draw.draw(st.integers(1, 9))
        step, used, part = pieces.feed(data[at:at + n])
        at += used
        parts += part
        assert step != MORE or used == min(n, len(data) - at + used)
    assert (step, parts) == (result, body)
    if result == END:
        assert at == taken
        assert pieces.trailers == whole.trailers
        assert all(b": " in line for line in whole.trailers.split(b"\r\n")[:-1])
    # Another reader that finds an end finds the same one.
    if result == END:
        theirs = seen_by_h11(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + data[:taken])
        assert theirs is None or (theirs[0][3], theirs[1]) == (body, NEXT)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=40), max_size=6), st.binary(max_size=10))
def test_well_formed_chunks(parts, behind):
    data = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    assert BodyDecoder(CHUNKED).feed(data + behind) == (END, len(data), b"".join(parts))
