"""What a proxy does with a stream of bytes, by the reader and the writer alone, in the canonical form of the cases."""

import re

from cext.http.h1_reader import BodyDecoder, HeadFinder, parse_request_bytes, parse_response_bytes, skip_empty
from cext.http.h1_writer import serialise_request, serialise_response

from tests.vectors import cases

METHODS = {"GET": 1, "HEAD": 2, "POST": 3, "CONNECT": 9}
NONE, LENGTH, CHUNKED, CLOSE = 0, 1, 2, 3
MORE, DATA, END, ERROR = 0, 1, 2, -1


class Stream:
    """Bytes that arrive in pieces; what was used is gone."""

    def __init__(self, pieces):
        self.pieces = iter(pieces)
        self.data = b""

    def more(self):
        piece = next(self.pieces, None)
        self.data += piece or b""
        return piece is not None

    def take(self, n):
        taken, self.data = self.data[:n], self.data[n:]
        return taken

    def head(self, request):
        """The next head; None when the stream ends before it, or the negative status."""
        finder = HeadFinder(request) if request else HeadFinder(request, line=16384, head=65536, fields=256)
        begun = False
        while True:
            if request and not begun:
                self.take(skip_empty(self.data))
            found = finder.find(self.data) if self.data else 0
            if found:
                return self.take(found) if found > 0 else found
            # One CR may be half of an empty line: nothing that the finder has to remember yet.
            begun = len(self.data) > 1
            if not self.more():
                return None

    def body(self, head):
        """The content and trailers in the form of the framing, and the last BodyStep: MORE when the stream is short."""
        decoder = BodyDecoder(head.framing, max(head.content_length, 0) if head.framing == LENGTH else 0)
        parts = b""
        step = MORE
        while step == MORE:
            step, used, part = decoder.feed(self.data)
            self.take(used)
            parts += part
            if step == MORE and not self.more():
                if decoder.eof() == END:
                    step = END
                break
        chunked = head.framing in (CHUNKED, CLOSE)
        return cases.content(parts, decoder.trailers) if chunked else parts, step


def proxied_requests(pieces, **limits):
    """-> (statuses, "close" or "", what went upstream). A request that is not whole has no status."""
    stream = Stream(pieces)
    answers, upstream = [], b""
    while True:
        head = stream.head(True)
        if head is None:
            return answers, "", upstream
        parsed = parse_request_bytes(head, **limits) if isinstance(head, bytes) else head
        if isinstance(parsed, int):
            return [*answers, -parsed], "close", upstream
        if parsed.method == b"CONNECT":
            return [*answers, 405], "close", upstream
        content, step = stream.body(parsed)
        if step == MORE:
            return answers, "", upstream
        if step == ERROR:
            return [*answers, 400], "close", upstream
        sent = serialise_request(head, x_forwarded=True, default_host=b"example.com")
        upstream += re.sub(cases.ADDED_TO_REQUESTS, b"", sent) + content
        answers.append(200)
        if not parsed.keep_alive:
            return answers, "close", upstream


def proxied_responses(pieces, method=1):
    """-> (statuses, "cut" or "", what went to a client of HTTP/1.1)."""
    stream = Stream(pieces)
    answers, client = [], b""
    while True:
        head = stream.head(False)
        parsed = parse_response_bytes(head, method, line=16384, head=65536, fields=256) \
            if isinstance(head, bytes) else None
        if parsed is None or isinstance(parsed, int) or parsed.status == 101:
            return [*answers, 502], "", client
        answers.append(parsed.status)
        if parsed.status >= 200:
            break
        client += serialise_response(head, method)
    client += serialise_response(head, method, framing=CHUNKED if parsed.framing == CLOSE else parsed.framing)
    content, step = stream.body(parsed)
    return (answers, "", client + content) if step == END else (answers, "cut", client)
