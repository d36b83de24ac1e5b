"""HTTP/2's two roles, each against a peer that an input speaks for: frames, bytes, and what its own side does.

    input = options (1 byte) operation*
    operation = kind, flags, stream, n, payload (n bytes)

A kind up to 0x1F is a frame of that type, with the payload 64 times when 0x20 is added: content is long, scripts are
not. 0x40 and above is an action of our own side, by its low 4 bits; 0x80 and above are bytes as they are. Any bytes are
such a script; one that is cut short ends it. Options: 1 the peer says nothing proper first, 2 bytes come in small
pieces, 4 frames go out rarely, 8 extended CONNECT, 16 few streams and small windows.

The invariants: nothing is raised; of each stream is told in order, once, and never after its end; what is held and the
number of streams have their bounds; output is bounded by input and by what our own side gave; and after a failure there
is one last word and nothing is taken.
"""

import contextlib

from cext.http.h2_engine import Engine, Requester

from tests.h2_peer import PREFACE, frame, settings

OPERATIONS_MAX = 400
REPEATED = 64
WINDOW, SMALL_WINDOW = 65535, 300
OUTPUT_SLACK = 1 << 16
ANSWERS = (
    b"HTTP/1.1 200 OK\r\nX: y\r\n\r\n", b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nSet-Cookie: a\r\nConnection: x\r\n\r\n",
)  # fmt: skip
REQUESTS = (
    b"GET /a?b HTTP/1.1\r\nHost: a.example\r\n\r\n", b"HEAD / HTTP/1.1\r\nHost: a.example\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\nConnection: TE\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: a.example\r\nCookie: a=b\r\n\r\n",
)  # fmt: skip


def operations(data):
    at = 1
    for _ in range(OPERATIONS_MAX):
        if at + 4 > len(data):
            return
        end = at + 4 + data[at + 3]
        yield data[at], data[at + 1], data[at + 2], data[at + 4 : end]
        at = end


def operation(kind, flags=0, stream=0, payload=b""):
    """The bytes of one."""
    assert len(payload) < 256
    return bytes((kind, flags, stream, len(payload))) + payload


class Side:
    """One role; what it tells is checked as it comes."""

    def __init__(self, engine, options):
        self.engine = engine
        self.step = 7 if options & 2 else 1 << 20
        self.rarely = bool(options & 4)
        self.taken = self.given = self.put = 0
        self.stage = {}  # of each stream what was told last
        self.speaking = set()  # streams that our side adds content to
        self.turn = 0

    def input(self, data):
        for at in range(0, len(data), self.step):
            failed = self.engine.state()["failed"]
            events = self.engine.input(data[at : at + self.step], self.turn)
            assert not (failed and events), "told after a failure"
            self.check(events)
        self.taken += len(data)
        self.turn += 1
        if not self.rarely or self.turn % 8 == 0:
            self.output()

    def output(self):
        out = self.engine.output()
        self.check(self.engine.told())
        self.given += len(out)
        assert self.given <= OUTPUT_SLACK + 16 * self.taken + 2 * self.put, "the output grows faster than the input"
        state = self.engine.state()
        assert state["held"] >= 0
        assert state["streams"] <= self.most + 1, state
        assert state["held"] <= 2 * max(self.connection_window, WINDOW) + WINDOW, state

    def check(self, events):
        for event in events:
            self.check_one(*event)

    def check_one(self, kind, *rest):
        if kind in ("settings", "goaway"):
            return
        stream = rest[0]
        before = self.stage.get(stream)
        assert before != "closed", (kind, rest)
        if kind in ("request", "connect", "refused", "response"):
            assert before in (None, "interim", "asked"), (before, kind)
            self.head(kind, rest)
            self.stage[stream] = "ended" if kind != "refused" and rest[-1] is True else "head"
        elif kind == "interim":
            assert before in ("interim", "asked")
            self.stage[stream] = kind
        elif kind == "data":
            assert before in ("head", "data"), (before, kind)
            assert rest[1]
            self.stage[stream] = kind
            self.received(*rest)
        elif kind == "end":
            assert before in ("head", "data"), (before, kind)
            assert rest[1] == b"" or rest[1].endswith(b"\r\n")
            assert b"\0" not in rest[1]
            self.stage[stream] = "ended"
        elif kind == "closed":
            self.stage[stream] = kind
            self.speaking.discard(stream)

    def received(self, stream, data):
        """Most content is passed on at once."""
        if stream % 8 != 3:
            with contextlib.suppress(KeyError):  # it may be over by now
                self.engine.take(stream, len(data))

    def act(self, action, flags, stream, payload):
        """What both do."""
        if action == 0 and stream in self.speaking:
            self.put += len(payload) * REPEATED
            self.engine.content(stream, payload * REPEATED)
        elif action == 1 and stream in self.speaking:
            self.put += 64
            self.speaking.remove(stream)
            self.engine.finish(stream, b"T: 1\r\nU: 2\r\n" if flags & 1 else b"")
        elif action == 2:
            self.engine.cancel(stream, flags & 15)
        elif action == 3:
            self.engine.leave()
        elif action == 4:
            self.output()
        else:
            self.act_alone(action, flags, stream, payload)

    def run(self, data):
        for kind, flags, stream, payload in operations(data):
            if kind & 0x80:
                self.input(payload)
            elif kind & 0x40:
                with contextlib.suppress(KeyError):
                    self.act(kind & 15, flags, stream, payload)
            else:
                self.input(frame(kind & 0x1F, flags, stream, payload * (REPEATED if kind & 0x20 else 1)))
        self.end()

    def end(self):
        self.output()
        if self.engine.state()["failed"]:
            assert self.engine.state()["fault"]
            assert self.engine.input(frame(6, payload=bytes(8))) == []
            assert self.engine.output() == b""


class ServerSide(Side):
    def __init__(self, options):
        few = bool(options & 16)
        self.window, self.connection_window = (SMALL_WINDOW, 2000) if few else (WINDOW, 1 << 20)
        self.most = 3 if few else 100
        engine = Engine(max_streams=self.most, stream_window=self.window, connection_window=self.connection_window,
                        connect_protocol=bool(options & 8), fields=20, head=4096, line=1024)  # fmt: skip
        super().__init__(engine, options)
        self.pushed = 0
        self.unanswered = set()
        if not options & 1:
            self.input(PREFACE + settings())

    def output(self):
        self.most += self.pushed
        super().output()
        self.most -= self.pushed

    def head(self, kind, rest):
        if kind == "refused":
            assert 400 <= rest[1] <= 505  # and it was answered within the call
            self.put += 300
            return
        self.unanswered.add(rest[0])
        method, path, host = rest[1:4]
        assert method
        assert path or method == b"CONNECT"
        for part in rest[1:4]:
            assert not set(b"\r\n\0 ") & set(part)
        assert kind == "request" or (path.startswith(b"/") and host)

    def act_alone(self, action, flags, stream, payload):
        self.put += 500
        if action in (5, 6) and stream in self.unanswered:
            answer = ANSWERS[flags & 3]
            if action == 6:
                self.engine.simple(stream, 404)
            else:
                self.engine.answer(stream, answer, b" 200 " in answer)
            if action == 6 or b" 103 " not in answer:
                self.unanswered.remove(stream)
            if action == 5 and b" 200 " in answer:
                self.speaking.add(stream)
        elif action == 7 and stream in self.unanswered:
            self.pushed += self.engine.push(stream, REQUESTS[flags & 3])
        elif action == 8:
            self.engine.part()
        elif action == 9:
            self.engine.room = flags & 3
            self.output()
            self.engine.room = 1 << 30


class RequesterSide(Side):
    def __init__(self, options):
        few = bool(options & 16)
        self.window, self.connection_window = (SMALL_WINDOW, 2000) if few else (WINDOW, 1 << 20)
        self.most = 3 if few else 100
        engine = Requester(max_streams=self.most, stream_window=self.window, connection_window=self.connection_window,
                           fields=20, head=4096, line=1024)  # fmt: skip
        super().__init__(engine, options)
        for text in REQUESTS[:3]:
            self.ask(text)
        self.output()
        if not options & 1:
            self.input(settings())

    def ask(self, text):
        self.put += 500
        room = self.engine.spare()
        stream = self.engine.ask(text, content=text.startswith(b"POST"))
        assert (stream is not None) == (room > 0)
        if stream is not None:
            self.stage[stream] = "asked"
            if text.startswith(b"POST"):
                self.speaking.add(stream)

    def head(self, kind, rest):
        _, status, fields, framing, length, ended = rest
        assert 200 <= status <= 599
        assert framing in (0, 1, 2)
        assert length >= -1
        assert not ended or framing == 0 or length == 0
        for name, value in fields:
            assert name
            assert not set(b"\r\n\0") & set(name + value)

    def act_alone(self, action, flags, stream, payload):
        if action == 5:
            self.ask(REQUESTS[flags & 3])


def http2_server(data):
    """A server's session, against any client."""
    if data:
        ServerSide(data[0]).run(data)


def http2_requester(data):
    """A requester's session, against any backend."""
    if data:
        RequesterSide(data[0]).run(data)


# ---- where the fuzzer begins


def block(*fields):
    """Fields as literals that no table holds, so that every block stands for itself."""
    out = b""
    for name, value in fields:
        out += b"\0" + bytes((len(name),)) + name + bytes((len(value),)) + value
    return out


def asking(method=b"GET", path=b"/a?b", *fields):
    return block((b":method", method), (b":scheme", b"https"), (b":authority", b"a.example"), (b":path", path), *fields)


HEADERS_WHOLE, HEADERS_LAST = 4, 5  # flags: END_HEADERS, and END_STREAM
FRAMES = (
    operation(0, 0, 1, b"abc"),
    operation(0, 1, 1, b"abc"),
    operation(0, 8, 1, b"\2abc\0\0"),
    operation(0x20, 0, 1, b"x" * 200),
    operation(2, 0, 1, b"\0\0\0\0\x10"),
    operation(2, 0, 1, b"\0\0\0\1\x10"),
    operation(3, 0, 1, bytes(4)),
    operation(3, 0, 3, b"\0\0\0\x08"),
    operation(4, 1),
    operation(4, 0, 0, b"\0\4\0\0\0\1"),
    operation(4, 0, 0, b"\0\3\0\0\0\1"),
    operation(4, 0, 0, b"\0\2\0\0\0\0"),
    operation(4, 0, 0, b"\0\5\0\0\x40\0"),
    operation(4, 0, 0, b"\0\1\0\0\0\0"),
    operation(6, 0, 0, bytes(8)),
    operation(7, 0, 0, b"\0\0\0\3" + bytes(4)),
    operation(7, 0, 0, b"\x7f\xff\xff\xff" + bytes(4)),
    operation(8, 0, 0, b"\0\1\0\0"),
    operation(8, 0, 1, b"\0\0\0\1"),
    operation(8, 0, 1, b"\x7f\xff\xff\xff"),
    operation(0x10, 0, 0, b"\0\0\0\1u=0,i"),
    operation(0x19, 0, 0, b"?"),
    operation(0x80, 0, 0, b"\0\0\0\4\1\0\0\0\0"),
)
ACTIONS = tuple(
    operation(0x40 | action, flags, stream, b"c" * 20)
    for action in range(10)
    for flags in (0, 1, 8)
    for stream in (1, 3, 5)
)


def server_seeds():
    get = operation(1, HEADERS_LAST, 1, asking())
    post = operation(1, HEADERS_WHOLE, 1, asking(b"POST", b"/", (b"cookie", b"a"), (b"cookie", b"b")))
    upload = operation(1, HEADERS_WHOLE, 3, asking(b"PUT", b"/", (b"content-length", b"6"), (b"te", b"trailers")))
    tunnel = operation(1, HEADERS_WHOLE, 5, block((b":protocol", b"websocket")) + asking(b"CONNECT"))
    split = operation(1, 1, 1, asking()[:20]) + operation(9, 0, 1, asking()[20:40]) + operation(9, 4, 1, asking()[40:])
    trailers = operation(1, HEADERS_LAST, 1, block((b"t", b"1"), (b"host", b"x")))
    bad = operation(1, HEADERS_LAST, 1, asking(b"GET", b"/", (b"connection", b"x")))
    plain = operation(1, HEADERS_WHOLE, 1, block((b":method", b"CONNECT"), (b":authority", b"a.example:443")))
    answered = operation(0x45, 0, 1) + operation(0x40, 0, 1, b"c" * 250) + operation(0x41, 1, 1)
    for options in (0, 2, 4, 16, 24):
        yield bytes((options,)) + get + answered
        yield bytes((options,)) + post + FRAMES[0] + trailers + answered
        yield bytes((options | 8,)) + tunnel + operation(0x45, 0, 5) + operation(0, 0, 5, b"in") + operation(
            0x40, 0, 5, b"out") + operation(0x41, 0, 5) + operation(0, 1, 5, b"")  # fmt: skip
    for head in (get, post, upload, tunnel, split, bad, plain):
        yield b"\x08" + head
        for one in (*FRAMES, *ACTIONS):
            yield b"\x08" + head + one + answered
    yield b"\1" + operation(0x80, 0, 0, PREFACE + settings()) + get
    yield b"\1" + operation(0x80, 0, 0, b"GET / HTTP/1.1\r\n\r\n")
    yield b"\0" + b"".join(operation(1, HEADERS_LAST, 1 + 2 * i, asking()) + operation(3, 0, 1 + 2 * i, bytes(4))
                           for i in range(60))  # fmt: skip


def requester_seeds():
    ok = operation(1, HEADERS_WHOLE, 1, block((b":status", b"200"), (b"x", b"y")))
    whole = operation(1, HEADERS_LAST, 1, block((b":status", b"200"), (b"set-cookie", b"a")))
    sized = operation(1, HEADERS_WHOLE, 1, block((b":status", b"200"), (b"content-length", b"3")))
    hints = operation(1, HEADERS_WHOLE, 1, block((b":status", b"103"), (b"link", b"x")))
    early = operation(1, HEADERS_LAST, 5, block((b":status", b"413"))) + operation(3, 0, 5, bytes(4))
    switch = operation(1, HEADERS_WHOLE, 1, block((b":status", b"101")))
    head = operation(1, HEADERS_WHOLE, 3, block((b":status", b"304"), (b"content-length", b"3")))
    promise = operation(5, HEADERS_WHOLE, 1, b"\0\0\0\2" + asking())
    trailers = operation(1, HEADERS_LAST, 1, block((b"t", b"1"), (b"host", b"x")))
    for options in (0, 2, 4, 16, 20):
        yield bytes((options,)) + hints + ok + FRAMES[0] + trailers + early
        yield bytes((options,)) + sized + FRAMES[1] + operation(0x45) + operation(0x45, 2)
        yield bytes((options,)) + operation(0x40, 0, 5, b"c" * 250) + operation(0x41, 1, 5)
    for first in (ok, whole, sized, hints, early, switch, head, promise):
        yield b"\0" + first
        for one in (*FRAMES, *ACTIONS):
            yield b"\0" + first + one + trailers
    yield b"\1" + operation(0x80, 0, 0, b"HTTP/1.1 400 Bad Request\r\n\r\n")
    yield b"\0" + hints * 40
