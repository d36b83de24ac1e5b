"""What a proxy does with a stream of bytes, by the reader and the writer alone, in the canonical form of the cases."""

import dataclasses
import re

from cext.http.h1_reader import BodyDecoder, HeadFinder, parse_request_bytes, parse_response_bytes, skip_empty
from cext.http.h1_writer import serialise_request, serialise_response

from tests.vectors import cases

METHODS = {"GET": 1, "HEAD": 2, "POST": 3, "CONNECT": 9}
NONE, LENGTH, CHUNKED, CLOSE = 0, 1, 2, 3
MORE, DATA, END, ERROR = 0, 1, 2, -1
RESPONSE_LIMITS = {"line": 16384, "head": 65536, "fields": 256}


@dataclasses.dataclass
class Message:
    """What a reader understood: of a request the method and target, of a response the status and phrase."""

    start: tuple
    fields: list                # (name in lower case, value)
    content: bytes
    trailers: list
    upgrade: bool = False       # both fields of one are there

    __hash__ = None

    def __eq__(self, other):
        """The same message, but for the trailers. Some readers hand out lengths and codings as they understood them,
        not as they came: these values do not count, the content does."""
        return (self.start == other.start and self.content == other.content
                and [_counted(f) for f in self.fields] == [_counted(f) for f in other.fields])


def _counted(field):
    return (field[0], None) if field[0] in (b"content-length", b"transfer-encoding") else field


@dataclasses.dataclass
class Passage:
    """What went through: a status for each whole message, how it ended, what was understood, and for each of these
    messages the bytes that the other side gets."""

    answers: list = dataclasses.field(default_factory=list)
    end: str = ""               # "close": no more is read; "cut": a response broke off
    messages: list = dataclasses.field(default_factory=list)
    passed_on: list = dataclasses.field(default_factory=list)

    @property
    def sent(self):
        return b"".join(self.passed_on)

    def refuse(self, status):
        self.answers.append(status)
        self.end = "close"
        return self


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
        finder = HeadFinder() if request else HeadFinder(request=False, **RESPONSE_LIMITS)
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
        """The content, the trailer section and the last BodyStep: MORE when the stream is short."""
        decoder = BodyDecoder(head.framing, head.content_length if head.framing == LENGTH else 0)
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
        return parts, decoder.trailers, step


def _fields(pairs):
    return [(name.lower(), value) for name, value in pairs]


def _trailers(section):
    return [tuple(line.split(b": ", 1)) for line in section.split(b"\r\n")[:-1]]


def _message(parsed, start, content, trailers):
    fields = _fields(parsed.fields)
    return Message(start, fields, content, _fields(_trailers(trailers)),
                   parsed.minor > 0 and _names_upgrade(fields))


def _names_upgrade(fields):
    """Whether a reader that looks at nothing further might take it for an upgrade."""
    return (any(name == b"upgrade" for name, _ in fields)
            and any(name == b"connection" and b"upgrade" in value.lower() for name, value in fields))


def proxied_requests(pieces):
    """A client's stream -> Passage to the upstream. A request that is not whole leaves no trace."""
    stream, passage = Stream(pieces), Passage()
    while True:
        head = stream.head(True)
        if head is None:
            return passage
        parsed = parse_request_bytes(head) if isinstance(head, bytes) else head
        if isinstance(parsed, int):
            return passage.refuse(-parsed)
        if parsed.method == b"CONNECT":
            return passage.refuse(405)
        content, trailers, step = stream.body(parsed)
        if step == MORE:
            return passage
        if step == ERROR:
            return passage.refuse(400)
        sent = serialise_request(head, x_forwarded=True, default_host=b"example.com")
        passage.passed_on.append(re.sub(cases.ADDED_TO_REQUESTS, b"", sent)
                                 + (cases.content(content, trailers) if parsed.framing == CHUNKED else content))
        passage.answers.append(200)
        passage.messages.append(_message(parsed, (parsed.method, parsed.target), content, trailers))
        if not parsed.keep_alive:
            passage.end = "close"
            return passage


def proxied_responses(pieces, method=1):
    """A backend's stream -> Passage to a client of HTTP/1.1, up to the final response."""
    stream, passage = Stream(pieces), Passage()
    parsed = None
    while parsed is None or parsed.status < 200:
        head = stream.head(False)
        parsed = parse_response_bytes(head, method, **RESPONSE_LIMITS) if isinstance(head, bytes) else None
        if parsed is None or isinstance(parsed, int) or parsed.status == 101:
            passage.answers.append(502)
            return passage
        passage.answers.append(parsed.status)
        framing = CHUNKED if parsed.framing == CLOSE else parsed.framing
        passage.passed_on.append(serialise_response(head, method, framing=framing))
        if parsed.status < 200:
            passage.messages.append(_message(parsed, (parsed.status, parsed.reason), b"", b""))
    content, trailers, step = stream.body(parsed)
    if step != END:
        passage.end = "cut"
        return passage
    passage.passed_on[-1] += cases.content(content, trailers) if framing == CHUNKED else content
    passage.messages.append(_message(parsed, (parsed.status, parsed.reason), content, trailers))
    return passage
