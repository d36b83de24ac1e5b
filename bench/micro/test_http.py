"""HTTP/1.1 heads and chunks, read and written, beside httptools on the same bytes.

    python -m pytest bench/micro/test_http.py

One round is 1000 heads, so a figure in us is ns per head. httptools is llhttp behind Python objects: it tells what
the same work costs in the usual library, not how fast llhttp is.
"""

import httptools
import pytest

from bench.micro import http_loops

TIMES = 1000
CURL = b"GET /index.html HTTP/1.1\r\nHost: www.example.com\r\nUser-Agent: curl/8.14.1\r\nAccept: */*\r\n\r\n"
BROWSER = (
    b"GET /articles/2026/11/a-look-at-edges?utm_source=feed&page=2 HTTP/1.1\r\nHost: www.example.com\r\n"
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0\r\n"
    b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Language: en-US,en;q=0.5\r\n"
    b"Accept-Encoding: gzip, deflate, br, zstd\r\nReferer: https://www.example.com/articles/\r\n"
    b"Connection: keep-alive\r\nCookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n"
    b"Upgrade-Insecure-Requests: 1\r\nSec-Fetch-Dest: document\r\nSec-Fetch-Mode: navigate\r\n\r\n"
)
RESPONSE = (
    b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Sat, 21 Nov 2026 19:00:00 GMT\r\nContent-Type: text/html\r\n"
    b"Content-Length: 1024\r\nLast-Modified: Fri, 20 Nov 2026 08:00:00 GMT\r\nConnection: keep-alive\r\n"
    b'ETag: "673d9f80-400"\r\nAccept-Ranges: bytes\r\n\r\n'
)
CHUNKS = (b"400\r\n" + b"x" * 1024 + b"\r\n") * 16 + b"0\r\n\r\n"
REQUESTS = {"curl": CURL, "browser": BROWSER}


@pytest.fixture(params=REQUESTS, ids=lambda name: f"{name}-{len(REQUESTS[name])}B")
def request_head(request):
    return REQUESTS[request.param]


def test_read_request(benchmark, request_head):
    assert benchmark(http_loops.read_requests, request_head, TIMES) == TIMES * len(request_head)


def test_read_request_httptools(benchmark, request_head):
    class Fields:
        def on_header(self, name, value):
            pass

    def run():
        for _ in range(TIMES):
            httptools.HttpRequestParser(Fields()).feed_data(request_head)

    benchmark(run)


def test_write_request(benchmark, request_head):
    assert benchmark(http_loops.write_requests, request_head, TIMES) > TIMES * len(request_head)


def test_read_response(benchmark):
    assert benchmark(http_loops.read_responses, RESPONSE, TIMES) == TIMES * len(RESPONSE)


def test_write_response(benchmark):
    assert benchmark(http_loops.write_responses, RESPONSE, TIMES) > 0


def test_read_chunked(benchmark):
    """16 chunks of 1 KiB a time."""
    assert benchmark(http_loops.read_chunked, CHUNKS, TIMES) == TIMES * 16 * 1024
