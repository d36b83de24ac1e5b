"""The reader beside h11 and llhttp (httptools), and under bytes from nowhere.

The property that keeps requests from being smuggled: whatever our reader accepts, another reader that accepts it too
sees the same messages, cut at the same bytes; and what goes on is read by all three, whole, as we understood it. Where
ours refuses, the others may go on. Where one of them refuses what ours accepts, the reason is in a table below.
"""

import runpy
from pathlib import Path

import pytest
from cext.http.h1_reader import BodyDecoder, HeadFinder, parse_request_bytes, parse_response_bytes
from cext.http.h1_writer import serialise_request, serialise_response
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cext.http import others
from tests.cext.http.reading import CHUNKED, END, ERROR, METHODS, MORE, proxied_requests, proxied_responses
from tests.vectors import cases

VECTORS = Path(__file__).resolve().parents[2] / "vectors"
REQUESTS = runpy.run_path(str(VECTORS / "http1_requests.py"))
RESPONSES = runpy.run_path(str(VECTORS / "http1_responses.py"))
CHUNKS = runpy.run_path(str(VECTORS / "http1_chunks.py"))
STREAMS = cases.load("requests", "valid") + cases.load("requests", "invalid")
ANSWERS = cases.load("responses", "valid") + cases.load("responses", "invalid")
REQUEST_STATUSES = {-400, -414, -417, -431, -501, -505}
NEXT = b"GET /next HTTP/1.1\r\nHost: next\r\n\r\n"
CHUNKED_BODY = b"5;a=b\r\nhello\r\n3\r\n!!!\r\n0\r\nX-T: 1\r\n\r\n"

# Valid cases that another reader refuses.
REFUSED_REQUESTS = {
    others.h11_requests: {
        "cl-leading-zeros": "it takes 20 digits at most, the value being small or not",
        "empty-lines-before": "it skips no empty lines (RFC 9112, section 2.2, is a SHOULD)",
        "empty-line-between": "likewise",
        "http10-keep-alive": "it ends every connection of HTTP/1.0",
    },
    others.llhttp_requests: {
        "chunked-case": "it takes no whitespace behind the coding",
        "method-unknown": "it has a list of methods; ours is open (RFC 9110, section 16.1)",
        "trailers-forbidden": "it refuses the trailers that we drop",
        "upgrade-h2c": "it hands the connection over where a client asks for an upgrade; ours does not go on",
        "upgrade-body": "likewise",
        "version-minor": "it knows 1.0 and 1.1 (RFC 9110, section 2.5, asks for the highest minor version known)",
    },
}
REFUSED_RESPONSES = {
    others.h11_responses: {},
    others.llhttp_responses: {
        "chunked-trailers": "it refuses the trailers that we drop",
        "until-close": "nobody tells it that the connection ended",
        "until-close-empty": "likewise",
    },
}


def understood(reader, messages):
    """The messages that this reader can be compared by: of a client's upgrade, and of methods it has never heard of,
    llhttp makes something of its own."""
    if reader is others.llhttp_requests:
        for n, message in enumerate(messages):
            if message.upgrade or message.start[0] not in others.KNOWN_METHODS:
                return messages[:n], False
    return messages, True


def compare(data):
    """Asserts that the others read a client's bytes, where they accept them, as we do, and what we send upstream in any
    case -> the readers that read every message we did."""
    passage = proxied_requests([data])
    for sent, message in zip(passage.passed_on, passage.messages, strict=True):
        compare_upstream(sent, message)
    agreed = []
    for reader in REFUSED_REQUESTS:
        ours, all_of_them = understood(reader, passage.messages)
        theirs, why = reader(data)
        for mine, other in zip(ours, theirs, strict=False):
            assert mine == other, reader.__name__
        if not passage.end and all_of_them and not why:
            assert len(theirs) <= len(ours)             # where we wait for more, nobody sees a whole message
        if len(theirs) >= len(ours) and all_of_them:
            agreed.append(reader)
    return agreed


def compare_upstream(sent, received):
    """Every reader reads what we send for a request whole, ends it where we do, and has its method and content."""
    again = proxied_requests([sent + NEXT])
    assert again.answers == [200] * (1 if again.end else 2)
    message = again.messages[0]
    assert (message.start[0], message.content, message.trailers) == (received.start[0], received.content,
                                                                     received.trailers)
    if not any(name == b"max-forwards" for name, _ in message.fields):      # which may count
        assert again.passed_on[0] == sent
    for reader in REFUSED_REQUESTS:
        if not understood(reader, [message])[1]:
            continue
        theirs, why = reader(sent + (b"" if again.end else NEXT))
        assert (theirs, why) == (again.messages, "")
        assert theirs[0].trailers == message.trailers


def compare_responses(data, method):
    """Likewise for a backend's bytes and what we make of them for a client."""
    passage = proxied_responses([data], METHODS[method])
    agreed = []
    for reader in REFUSED_RESPONSES:
        if reader is others.llhttp_responses and method == "HEAD":
            continue                                    # it cannot be told
        theirs, _ = read_responses(reader, data, method)
        for mine, other in zip(passage.messages, theirs, strict=False):
            assert mine == other, reader.__name__
        if len(theirs) >= len(passage.messages):
            agreed.append(reader)
        if passage.end or 502 in passage.answers:
            continue
        sent = proxied_responses([passage.sent], METHODS[method])
        theirs, why = read_responses(reader, passage.sent, method)
        assert (theirs, why) == (sent.messages, "")
        assert [m.trailers for m in theirs] == [m.trailers for m in sent.messages]
    return agreed


def read_responses(reader, data, method):
    return reader(data, method) if reader is others.h11_responses else reader(data)


@pytest.mark.parametrize("case", STREAMS, ids=str)
def test_requests_of_the_corpus(case):
    agreed = compare(case.client + NEXT)
    if case.answers[-1] < 400:
        assert {r for r in REFUSED_REQUESTS if case.name in REFUSED_REQUESTS[r]} == REFUSED_REQUESTS.keys() - agreed


@pytest.mark.parametrize("case", ANSWERS, ids=str)
def test_responses_of_the_corpus(case):
    agreed = compare_responses(case.upstream, case.method)
    if case.answers[-1] != 502 and not case.end and case.method != "HEAD":
        assert {r for r in REFUSED_RESPONSES if case.name in REFUSED_RESPONSES[r]} == REFUSED_RESPONSES.keys() - agreed


def with_body(head):
    """The bytes of a message with this head and some content."""
    parsed = parse_request_bytes(head)
    if isinstance(parsed, int) or parsed.content_length > 1000:
        return head
    return head + (CHUNKED_BODY if parsed.framing == CHUNKED else b"x" * max(parsed.content_length, 0))


def test_valid_requests_are_framed_alike():
    assert sum(len(compare(with_body(case[1]) + NEXT)) for case in REQUESTS["VALID"]) > len(REQUESTS["VALID"])


def test_valid_chunks_are_read_alike():
    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert sum(len(compare(head + case[1] + NEXT)) for case in CHUNKS["VALID"]) > len(CHUNKS["VALID"])


# -- the corpus, mutated

PIECES = st.sampled_from([
    b"", b" ", b"\t", b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\0", b":", b",", b";", b'"', b"0", b"5", b"\x80", b"\x0b",
    b"chunked", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n", b"HTTP/1.1", b"Host: b\r\n",
    b"Connection: close\r\n", b"Expect: 100-continue\r\n", NEXT]) | st.binary(max_size=3)


@st.composite
def mutated(draw, streams):
    """A case with some of its bytes replaced, lines repeated, left out or swapped, or another case's end."""
    data = draw(st.sampled_from(streams))
    for _ in range(draw(st.integers(1, 3))):
        how = draw(st.integers(0, 4))
        lines = data.splitlines(keepends=True) or [b""]
        a, b = draw(st.integers(0, len(lines) - 1)), draw(st.integers(0, len(lines) - 1))
        if how == 0:
            lines[a:a] = [lines[b]]
        elif how == 1:
            lines[a], lines[b] = lines[b], lines[a]
        elif how == 2:
            other = draw(st.sampled_from(streams)).splitlines(keepends=True)
            lines[a:] = other[draw(st.integers(0, len(other))):]
        else:
            at = draw(st.integers(0, len(data)))
            lines = [data[:at], draw(PIECES), data[at + draw(st.integers(0, 3)):]]
        data = b"".join(lines)
    return data


@settings(max_examples=800, deadline=None)
@given(mutated([case.client for case in STREAMS if len(case.client) < 2000]))
def test_mutated_requests(data):
    compare(data + NEXT)
    compare(data)


@settings(max_examples=500, deadline=None)
@given(mutated([case.upstream for case in ANSWERS if len(case.upstream) < 2000]),
       st.sampled_from(["GET", "POST", "HEAD"]))
def test_mutated_responses(data, method):
    compare_responses(data, method)


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
    if parsed.method == b"CONNECT":
        return
    compare(with_body(head) + NEXT)
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
    compare(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + data + NEXT)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=40), max_size=6), st.binary(max_size=10))
def test_well_formed_chunks(parts, behind):
    data = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    assert BodyDecoder(CHUNKED).feed(data + behind) == (END, len(data), b"".join(parts))
