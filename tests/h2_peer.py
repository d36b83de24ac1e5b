"""Both ends of HTTP/2 made of raw frames (RFC 9113), to send whatever a peer could; hpack does the fields.

`H2Peer(send, receive)`, a client, and `H2Origin(send, receive)`, a server, are given what writes bytes and what reads
some (b"" at the end of the connection, which raises EOFError).
"""

import dataclasses
import struct

import hpack

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
PRIORITY_UPDATE = 0x10
END_STREAM = ACK = 1
END_HEADERS, PADDED = 4, 8
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE = 1, 2, 3, 4
ENABLE_CONNECT_PROTOCOL = 8
(
    NO_ERROR,
    PROTOCOL_ERROR,
    INTERNAL_ERROR,
    FLOW_CONTROL_ERROR,
    _,
    STREAM_CLOSED,
    FRAME_SIZE_ERROR,
    REFUSED_STREAM,
    CANCEL,
    COMPRESSION_ERROR,
    _,
    ENHANCE_YOUR_CALM,
) = range(12)


@dataclasses.dataclass
class Frame:
    type: int
    flags: int
    stream: int
    payload: bytes


@dataclasses.dataclass
class Response:
    """What has come on a stream so far."""

    interim: list = dataclasses.field(default_factory=list)
    fields: dict | None = None
    body: bytearray = dataclasses.field(default_factory=bytearray)
    trailers: dict | None = None
    ended: bool = False
    reset: int | None = None
    promises: list = dataclasses.field(default_factory=list)  # (stream, fields)

    @property
    def status(self):
        return int(self.fields[":status"])


def frame(type_, flags=0, stream=0, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", type_, flags, stream) + payload


def settings(**values):
    """settings(initial_window_size=0) -> a SETTINGS frame."""
    numbers = {"header_table_size": 1, "enable_push": 2, "max_concurrent_streams": 3, "initial_window_size": 4}
    return frame(SETTINGS, payload=b"".join(struct.pack(">HI", numbers[k], v) for k, v in values.items()))


def window(stream, increment):
    return frame(WINDOW_UPDATE, stream=stream, payload=struct.pack(">I", increment))


def reset(stream, code=CANCEL):
    return frame(RST_STREAM, stream=stream, payload=struct.pack(">I", code))


def request_fields(path="/", method="GET", authority="example.com", fields=()):
    return [(":method", method), (":scheme", "https"), (":authority", authority), (":path", path), *fields]


class H2Peer:
    """A connection. Windows are opened as content comes, unless `hold`."""

    def __init__(self, send, receive, *, hold=False, begin=True, **own_settings):
        self.send_bytes, self.receive_bytes = send, receive
        self.encoder, self.decoder = hpack.Encoder(), hpack.Decoder(max_header_list_size=1 << 20)
        self.buffer = bytearray()
        self.hold = hold
        self.uploaded = 0  # bytes of content, of all streams
        self.next_stream = 1
        self.responses = {}
        self.order = []  # stream of each DATA frame that came
        self.settings = None
        self.acks = self.pongs = 0
        self.goaways = []  # (last stream, code)
        self.block = b""
        self.windows = {}  # what we may send, by stream; 0: the connection
        self.initial_window = 65535
        self.connection_window = 65535
        if begin:
            send(PREFACE + settings(**own_settings))

    # --- out

    def send(self, *frames):
        self.send_bytes(b"".join(frames))

    def head(self, stream, fields, *, end=True, flags=0):
        """HEADERS, with CONTINUATION frames for what is larger than a frame."""
        block = self.encoder.encode(fields)
        parts = [block[i : i + 16384] for i in range(0, len(block), 16384)] or [b""]
        flags |= END_STREAM if end else 0
        kinds = [(HEADERS, flags)] + [(CONTINUATION, 0)] * (len(parts) - 1)
        kinds[-1] = (kinds[-1][0], kinds[-1][1] | END_HEADERS)
        return b"".join(frame(*kind, stream, part) for kind, part in zip(kinds, parts, strict=True))

    def stream(self):
        """A new stream's number."""
        self.next_stream += 2
        self.responses[self.next_stream - 2] = Response()
        return self.next_stream - 2

    def get(self, path="/", **how):
        """A request without content -> its stream."""
        stream = self.stream()
        self.send(self.head(stream, request_fields(path, **how)))
        return stream

    def post(self, body=b"", path="/", *, end=True, trailers=(), method="POST", fields=(), **how):
        """A request with content, as far as it fits the first windows -> its stream."""
        stream = self.stream()
        out = [self.head(stream, request_fields(path, method, fields=fields, **how), end=False)]
        out += [frame(DATA, 0, stream, body[i : i + 16384]) for i in range(0, len(body), 16384)]
        if trailers:
            out.append(self.head(stream, trailers))
        elif end:
            out.append(frame(DATA, END_STREAM, stream))
        self.send(*out)
        return stream

    def upload(self, stream, body, *, end=True):
        """Content, as the windows allow."""
        body = memoryview(body)
        while body:
            room = min(self.room(stream), self.room(0), 16384, len(body))
            if room <= 0:
                self.step()
                continue
            self.send(frame(DATA, 0, stream, bytes(body[:room])))
            self.windows[stream] = self.room(stream) - room
            self.windows[0] = self.room(0) - room
            self.uploaded += room
            body = body[room:]
        if end:
            self.send(frame(DATA, END_STREAM, stream))

    def room(self, stream):
        return self.windows.get(stream, self.initial_window if stream else 65535)

    # --- in

    def next_frame(self):
        while len(self.buffer) < 9 or len(self.buffer) < 9 + int.from_bytes(self.buffer[:3], "big"):
            got = self.receive_bytes()
            if not got:
                raise EOFError(self.buffer)
            self.buffer += got
        end = 9 + int.from_bytes(self.buffer[:3], "big")
        whole = bytes(self.buffer[:end])
        del self.buffer[:end]
        type_, flags, stream = struct.unpack(">BBI", whole[3:9])
        return Frame(type_, flags, stream, whole[9:])

    def step(self):
        """Takes one frame in -> it."""
        f = self.next_frame()
        response = self.responses.setdefault(f.stream, Response()) if f.stream else None
        if f.type == DATA:
            response.body += f.payload
            response.ended |= bool(f.flags & END_STREAM)
            self.order.append(f.stream)
            if f.payload and not self.hold:
                self.send(window(0, len(f.payload)), window(f.stream, len(f.payload)))
        elif f.type in (HEADERS, PUSH_PROMISE, CONTINUATION):
            if f.type == PUSH_PROMISE:
                self.promised, f.payload = int.from_bytes(f.payload[:4], "big"), f.payload[4:]
            if f.type != CONTINUATION:
                self.opened = f
                self.block = b""
            self.block += f.payload
            if f.flags & END_HEADERS:
                self._fields(self.opened, response, dict(self.decoder.decode(self.block)))
        elif f.type == RST_STREAM:
            response.reset = int.from_bytes(f.payload, "big")
        elif f.type == SETTINGS and f.flags & ACK:
            self.acks += 1
        elif f.type == SETTINGS:
            pairs = [struct.unpack(">HI", f.payload[i : i + 6]) for i in range(0, len(f.payload), 6)]
            self.settings = dict(pairs)
            self.initial_window = self.settings.get(INITIAL_WINDOW_SIZE, 65535)
            self.send(frame(SETTINGS, ACK))
        elif f.type == PING:
            self.pongs += 1
        elif f.type == GOAWAY:
            self.goaways.append(struct.unpack(">II", f.payload[:8]))
        elif f.type == WINDOW_UPDATE:
            self.windows[f.stream] = self.room(f.stream) + int.from_bytes(f.payload, "big")
        return f

    def _fields(self, opened, response, fields):
        if opened.type == PUSH_PROMISE:
            response.promises.append((self.promised, fields))
            self.responses[self.promised] = Response()
        elif response.fields is not None:
            response.trailers = fields
        elif fields[":status"].startswith("1"):
            response.interim.append(fields)
        else:
            response.fields = fields
        response.ended |= bool(opened.flags & END_STREAM)

    def until(self, condition):
        while not condition():
            self.step()

    def response(self, stream):
        """The whole response, or as much as came before a reset."""
        response = self.responses[stream]
        self.until(lambda: response.ended or response.reset is not None)
        return response

    def ask(self, *request, **how):
        return self.response(self.get(*request, **how))

    def end(self):
        """Takes in everything until the connection ends -> the last GOAWAY's (stream, code), or None."""
        try:
            while True:
                self.step()
        except (EOFError, ConnectionError):
            return self.goaways[-1] if self.goaways else None


class H2Origin(H2Peer):
    """The other end: `responses` holds the requests that came, by stream."""

    def __init__(self, send, receive, *, hold=False, **own_settings):
        super().__init__(send, receive, hold=hold, begin=False)
        self.greeted = False
        send(settings(**own_settings))

    def next_frame(self):
        while not self.greeted:
            if len(self.buffer) >= len(PREFACE):
                assert self.buffer.startswith(PREFACE)
                del self.buffer[: len(PREFACE)]
                self.greeted = True
            else:
                self.buffer += self.receive_bytes()
        return super().next_frame()

    def _fields(self, opened, request, fields):
        if request.fields is None:
            request.fields = fields
        else:
            request.trailers = fields
        request.ended |= bool(opened.flags & END_STREAM)

    def respond(self, stream, body=b"", *, status="200", fields=(), trailers=(), end=True):
        """A response, as far as it fits the first windows."""
        last = end and not trailers
        out = [self.head(stream, [(":status", status), *fields], end=last and not body)]
        parts = [body[i : i + 16384] for i in range(0, len(body), 16384)]
        out += [frame(DATA, END_STREAM if last and part is parts[-1] else 0, stream, part) for part in parts]
        if trailers:
            out.append(self.head(stream, trailers))
        self.send(*out)


class WithEngine:
    """For a peer that is joined in memory to an `engine` of ours; `events` is what that has told."""

    def deliver(self, data):
        self.events += self.engine.input(data)

    def told(self, kind):
        self.events += self.engine.told()
        return [event[1:] for event in self.events if event[0] == kind]

    def flush(self):
        """Takes in all that the engine has to say."""
        while True:
            self.buffer += self.engine.output()
            if not self.buffer:
                return
            self.step()
