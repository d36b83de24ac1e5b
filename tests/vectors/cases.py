r"""HTTP/1.1 messages, one file per case: requests/{valid,invalid} and responses/{valid,invalid}.

A file is text. Its first lines say what the case is about:

    shows: what it shows, with the section of the RFC that rules it
    answers: what the client gets, in order: a status for each request, then "close" when the server ends the
             connection, or "cut" when it ends without close_notify because a response cannot be completed
    method: (responses) of the request that is answered, GET when not given
    by: proxy, when the answer is not the reader's: for it the message is well-formed

Then come two sections, "== client" and "== upstream": the bytes that the sender sends, and what the edge makes of them
for the other side, in canonical form: every chunked body is one chunk. The X-Forwarded-* that an edge adds to a
request and the Date that it adds to a response are left out. Of an invalid message the second section holds what has
gone on whole before it; what belongs to the message itself may have gone on in part.

Bytes are written as they are, with \r, \n, \t, \0, \xNN, \\ for what cannot be seen and \{text*N} for text repeated.
A line's end in the file means nothing, so that bare CR, bare LF and trailing spaces stand there for all to see.
"""

import dataclasses
import re
from pathlib import Path

ROOT = Path(__file__).parent
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: example.com\r\n\r\n"

_ESCAPE = re.compile(rb"\\(?:x([0-9a-f]{2})|\{([^*]+)\*([0-9]+)\}|([rnt0\\]))")
_PLAIN = {b"r": b"\r", b"n": b"\n", b"t": b"\t", b"0": b"\0", b"\\": b"\\"}
_KEYS = {"shows", "answers", "method", "by"}


@dataclasses.dataclass(frozen=True)
class Case:
    name: str
    shows: str
    answers: tuple[int, ...]
    end: str                # "", "close" or "cut"
    method: str
    by: str
    client: bytes
    upstream: bytes

    def __str__(self):
        return self.name


def load(kind, sort):
    """The cases of requests or responses, valid or invalid."""
    return [read(path) for path in sorted((ROOT / kind / sort).iterdir())]


def read(path):
    head, *sections = re.split(r"^== (client|upstream)\n", path.read_text("ascii"), flags=re.MULTILINE)
    keys = dict(line.split(": ", 1) for line in head.splitlines())
    found = {name: unescape(text) for name, text in zip(sections[::2], sections[1::2], strict=True)}
    assert {"shows", "answers"} <= set(keys) <= _KEYS and set(found) == {"client", "upstream"}, path
    words = keys["answers"].split()
    end = words.pop() if words[-1] in ("close", "cut") else ""
    return Case(path.stem, keys["shows"], tuple(map(int, words)), end, keys.get("method", "GET"), keys.get("by", ""),
                **found)


def unescape(text):
    def one(match):
        code, repeated, times, plain = match.groups()
        if code:
            return bytes([int(code, 16)])
        return repeated * int(times) if repeated else _PLAIN[plain]

    data = text.encode("ascii").replace(b"\n", b"")
    assert b"\\" not in _ESCAPE.sub(b"", data), text
    return _ESCAPE.sub(one, data)


# -- canonical form

def content(data, trailers=b""):
    """A chunked body in one chunk."""
    return (b"%x\r\n%s\r\n" % (len(data), data) if data else b"") + b"0\r\n" + trailers + b"\r\n"


class Wire:
    """Reads what an edge wrote, which is to be exactly framed: the canonical messages, from recv."""

    def __init__(self, recv, left_out):
        self.recv = recv
        self.left_out = left_out        # a pattern of the head's lines that do not count
        self.buffer = b""

    def until(self, mark):
        while mark not in self.buffer:
            self.more()
        taken, _, self.buffer = self.buffer.partition(mark)
        return taken + mark

    def exactly(self, n):
        while len(self.buffer) < n:
            self.more()
        taken, self.buffer = self.buffer[:n], self.buffer[n:]
        return taken

    def more(self):
        got = self.recv(65536)
        if not got:
            raise EOFError(self.buffer)
        self.buffer += got

    def message(self, bodiless=False):
        """The next message -> (its start line, its canonical bytes). EOFError with the bytes left when none follows."""
        head = self.until(b"\r\n\r\n")
        assert not re.search(rb"\r(?!\n)|(?<!\r)\n|\0", head), head
        kept = re.sub(self.left_out, b"", head)
        length = re.findall(rb"\r\nContent-Length: ([0-9]+)\r\n", head)
        codings = re.findall(rb"\r\nTransfer-Encoding: ([^\r]*)", head)
        assert len(length) + len(codings) <= 1, head
        if bodiless:
            return head.partition(b"\r\n")[0], kept
        if codings == [b"chunked"]:
            kept += self.chunks()
        elif length:
            kept += self.exactly(int(length[0]))
        return head.partition(b"\r\n")[0], kept

    def chunks(self):
        data, trailers = b"", b""
        while size := int(self.until(b"\r\n")[:-2], 16):
            data += self.exactly(size)
            assert self.exactly(2) == b"\r\n"
        while (line := self.until(b"\r\n")) != b"\r\n":
            trailers += line
        return content(data, trailers)


ADDED_TO_REQUESTS = rb"(?m)^X-Forwarded-(For|Proto|Host): [^\r]*\r\n"
ADDED_TO_RESPONSES = rb"(?m)^Date: [^\r]*\r\n"
