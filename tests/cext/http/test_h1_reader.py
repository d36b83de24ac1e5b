"""Heads and bodies against the tables in tests/vectors: whole, byte by byte, truncated, with trailing bytes."""

import runpy
from pathlib import Path

import pytest
from cext.http.h1_reader import BodyDecoder, HeadFinder, parse_request_bytes, parse_response_bytes, skip_empty

VECTORS = Path(__file__).resolve().parents[2] / "vectors"
REQUESTS = runpy.run_path(str(VECTORS / "http1_requests.py"))
RESPONSES = runpy.run_path(str(VECTORS / "http1_responses.py"))
CHUNKS = runpy.run_path(str(VECTORS / "http1_chunks.py"))
METHODS = {"GET": 1, "HEAD": 2, "POST": 3, "CONNECT": 9}
NONE, LENGTH, CHUNKED, CLOSE = 0, 1, 2, 3
MORE, DATA, END, ERROR = 0, 1, 2, -1
GET = b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"


def table(cases):
    return pytest.mark.parametrize("case", cases, ids=[case[0] for case in cases])


def members(head, names):
    return {name: getattr(head, name) for name in names}


def trickle(data, request=True, **limits):
    """The first answer of find_head_end other than "not yet" as bytes arrive one by one, and after how many."""
    finder = HeadFinder(request, **limits)
    for n in range(1, len(data) + 1):
        found = finder.find(data, n)
        if found:
            return found, n
    return 0, len(data)


# -- heads


@table(REQUESTS["VALID"])
def test_valid_request(case):
    _, head, expected = case
    parsed = parse_request_bytes(head)
    assert not isinstance(parsed, int), parsed
    assert parsed.length == len(head)
    assert members(parsed, expected) == expected


@table(REQUESTS["REFUSED"])
def test_refused_request(case):
    _, head, status = case
    assert parse_request_bytes(head) == -status


@table(RESPONSES["VALID"])
def test_valid_response(case):
    _, head, method, expected = case
    parsed = parse_response_bytes(head, METHODS[method])
    assert not isinstance(parsed, int), parsed
    assert parsed.length == len(head)
    assert members(parsed, expected) == expected


@table(RESPONSES["REFUSED"])
def test_refused_response(case):
    assert parse_response_bytes(case[1]) == -502


@table(REQUESTS["VALID"] + RESPONSES["VALID"])
def test_head_in_pieces(case):
    head = case[1]
    request = not head.startswith(b"HTTP/")
    assert HeadFinder(request).find(head) == len(head)
    assert HeadFinder(request).find(head + b"\r\n\r\nGET \0\n") == len(head)
    assert trickle(head, request) == (len(head), len(head))
    parse = parse_request_bytes if request else parse_response_bytes
    for n in range(len(head)):
        assert isinstance(parse(head[:n]), int), head[:n]
    for trailing in (b"\r\n", b"x", b"\n", b"\r\n\r\n"):
        assert isinstance(parse(head + trailing), int)


@table([*REQUESTS["REFUSED"], *RESPONSES["REFUSED"]])
def test_refused_head_in_pieces(case):
    """What the line scanner lets through is refused by the parser; what it refuses, it refuses in pieces too."""
    head = case[1]
    request = len(case) == 3
    whole = HeadFinder(request).find(head)
    assert whole == len(head) or whole == (-400 if request else -502)
    assert trickle(head, request)[0] == whole


@pytest.mark.parametrize("bad", [b"\n", b"\r ", b"\0", b"\rx", b"\r\r"])
@pytest.mark.parametrize("before", [b"GE", b"GET / HTTP/1.1\r\nA: b", b"GET / HTTP/1.1\r\nA: " + b"v" * 40])
def test_bad_byte_is_told_at_once(before, bad):
    assert trickle(before + bad + b"never looked at") == (-400, len(before + bad))
    assert trickle(before + bad + b"never looked at", request=False) == (-502, len(before + bad))


def test_a_head_that_trickles_in_is_scanned_once():
    head = GET[:-2] + b"A: " + b"x" * 8000 + b"\r\n" + b"Short: 1\r\n" * 2000 + b"\r\n"
    finder = HeadFinder(head=len(head))
    for n in range(1, len(head)):
        assert finder.find(head, n) == 0
        assert finder.looked >= n - 1       # but for a CR whose LF is yet to come
    assert finder.find(head) == len(head)


@pytest.mark.parametrize("pieces", [1, 2, 3, 7, 16, 17, 33])
def test_head_in_pieces_of_every_size(pieces):
    head = GET[:-2] + b"Cookie: " + b"c" * 50 + b"\r\nA: b\r\n\r\nleft over"
    finder = HeadFinder()
    found = 0
    for n in range(pieces, len(head) + pieces, pieces):
        found = finder.find(head, n)
        if found:
            break
    assert found == len(head) - len(b"left over")


def test_empty_lines_before_a_request():
    assert skip_empty(b"") == skip_empty(b"\r") == skip_empty(b"\n\r\n") == skip_empty(b"G\r\n") == 0
    assert skip_empty(b"\r\n\r\n\r\nGET") == 6
    assert skip_empty(b"\r\n\r") == 2
    assert HeadFinder().find(b"\r") == 0
    assert HeadFinder().find(b"\r\n") == -400


def test_a_truncated_version_does_not_read_on():
    for n in range(len(b"HTTP/1.1")):
        assert parse_request_bytes(b"GET / " + b"HTTP/1.1"[:n] + b"\r\n\r\n") == -400
        assert parse_response_bytes(b"HTTP/1.1"[:n] + b"\r\n\r\n") == -502


# -- limits


def test_request_line_limit():
    line = b"GET /" + b"a" * 86 + b" HTTP/1.1"      # 100 bytes
    head = line + GET[14:]
    assert HeadFinder(line=100).find(head) == len(head)
    assert parse_request_bytes(head, line=100).path == b"/" + b"a" * 86
    assert HeadFinder(line=99).find(head) == -414
    assert HeadFinder(False, line=99).find(head) == -502
    assert trickle(head, line=99) == (-414, 100)    # without waiting for the line's end
    assert parse_request_bytes(head, line=99) == parse_request_bytes(head, line=50) == -414


def test_field_line_limit():
    head = GET[:-2] + b"A: " + b"b" * 97 + b"\r\n\r\n"
    assert parse_request_bytes(head, line=100).fields[1] == (b"A", b"b" * 97)
    assert parse_request_bytes(head, line=99) == -431
    assert parse_response_bytes(b"HTTP/1.1 200 OK\r\nA: " + b"b" * 97 + b"\r\n\r\n", line=99) == -502
    assert parse_response_bytes(b"HTTP/1.1 200 " + b"b" * 97 + b"\r\n\r\n", line=99) == -502


def test_head_limit():
    n = len(GET)
    assert HeadFinder(head=n).find(GET + b"body") == n
    assert HeadFinder(head=n - 1).find(GET) == -431
    assert HeadFinder(head=n - 1).find(GET[:-2]) == 0
    assert trickle(GET, head=n - 1) == (-431, n - 1)
    assert trickle(GET, request=False, head=n - 1) == (-502, n - 1)
    assert parse_request_bytes(GET, head=n).length == n
    assert parse_request_bytes(GET, head=n - 1) == -431


def test_number_of_fields():
    head = GET[:-2] + b"A: b\r\n" * 9 + b"\r\n"
    assert len(parse_request_bytes(head, fields=10).fields) == 10
    assert parse_request_bytes(head, fields=9) == -431
    most = GET[:-2] + b"A: b\r\n" * 255 + b"\r\n"
    assert len(parse_request_bytes(most, fields=100000).fields) == 256
    assert parse_request_bytes(most[:-2] + b"A: b\r\n\r\n", fields=100000) == -431


def test_limits_have_names():
    with pytest.raises(TypeError):
        parse_request_bytes(GET, lines=3)


# -- bodies


def steps_one_by_one(decoder, data):
    """Like BodyDecoder.feed, a byte at a time: (last step, bytes consumed, content)."""
    content, taken = b"", 0
    result = decoder.step(b"")[0]
    while result in (MORE, DATA) and taken < len(data):
        result, consumed, part = decoder.step(data[taken:taken + 1])
        content += part
        taken += consumed
    while result == DATA:
        result = decoder.step(b"")[0]
    return result, taken, content


@table(CHUNKS["VALID"])
def test_valid_chunks(case):
    _, data, content, trailers = case
    for trailing in (b"", b"\r\n", b"GET / HTTP/1.1\r\n", b"\0"):
        decoder = BodyDecoder(CHUNKED)
        assert decoder.feed(data + trailing) == (END, len(data), content)
        assert decoder.trailers == trailers
        assert decoder.feed(trailing) == (END, 0, b"")
        assert decoder.eof() == END
        decoder = BodyDecoder(CHUNKED)
        assert steps_one_by_one(decoder, data + trailing) == (END, len(data), content)
        assert decoder.trailers == trailers


@table(CHUNKS["VALID"])
def test_truncated_chunks(case):
    data, content = case[1:3]
    for n in range(0, len(data), max(1, len(data) // 500)):
        decoder = BodyDecoder(CHUNKED)
        result, taken, part = decoder.feed(data[:n])
        assert (result, taken) == (MORE, n)
        assert content.startswith(part)
        assert decoder.eof() == ERROR
        assert decoder.step(b"0") == (ERROR, 0, b"")


@table(CHUNKS["REFUSED"])
def test_refused_chunks(case):
    data = case[1]
    decoder = BodyDecoder(CHUNKED)
    result, _, content = decoder.feed(data)
    assert result == ERROR
    assert decoder.step(b"5\r\nhello\r\n") == (ERROR, 0, b"")      # for good
    assert decoder.eof() == ERROR
    one_by_one = steps_one_by_one(BodyDecoder(CHUNKED), data)
    assert (one_by_one[0], one_by_one[2]) == (ERROR, content)


def test_largest_chunk():
    assert BodyDecoder(CHUNKED).feed(b"7fffffffffffffff\r\nabc") == (MORE, 21, b"abc")


def test_a_trailer_line_without_end_is_not_kept():
    assert BodyDecoder(CHUNKED).feed(b"0\r\nA: " + b"b" * 8189)[0] == MORE
    assert BodyDecoder(CHUNKED).feed(b"0\r\nA: " + b"b" * 8190)[0] == ERROR


def test_content_of_a_length():
    decoder = BodyDecoder(LENGTH, 5)
    assert decoder.step(b"") == (MORE, 0, b"")
    assert decoder.step(b"hel") == (DATA, 3, b"hel")
    assert decoder.step(b"loGET") == (DATA, 2, b"lo")
    assert decoder.step(b"GET") == (END, 0, b"")
    assert decoder.eof() == END
    assert BodyDecoder(LENGTH, 0).step(b"GET") == (END, 0, b"")
    assert BodyDecoder(LENGTH, 2**63 - 1).step(b"GET") == (DATA, 3, b"GET")


def test_content_of_a_length_cut_off():
    decoder = BodyDecoder(LENGTH, 5)
    assert decoder.feed(b"hell") == (MORE, 4, b"hell")
    assert decoder.eof() == ERROR
    assert decoder.step(b"o") == (ERROR, 0, b"")


def test_a_length_complete_at_the_end_of_the_connection():
    decoder = BodyDecoder(LENGTH, 1)
    assert decoder.step(b"x") == (DATA, 1, b"x")
    assert decoder.eof() == END


def test_no_content():
    assert BodyDecoder(NONE).step(b"GET") == (END, 0, b"")
    assert BodyDecoder(NONE).eof() == END


def test_content_until_close():
    decoder = BodyDecoder(CLOSE)
    assert decoder.step(b"abc") == (DATA, 3, b"abc")
    assert decoder.step(b"") == (MORE, 0, b"")
    assert decoder.eof() == END
    assert decoder.step(b"") == (END, 0, b"")
