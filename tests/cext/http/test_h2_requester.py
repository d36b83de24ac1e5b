"""The asking end of HTTP/2 in memory: what goes out for a request, and what it makes of a server's frames."""

import contextlib

import hpack
import pytest
from cext.http.h2_engine import Requester
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.h2_peer import (
    CANCEL,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    GOAWAY,
    HEADERS,
    INTERNAL_ERROR,
    NO_ERROR,
    PING,
    PRIORITY,
    PRIORITY_UPDATE,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    REFUSED_STREAM,
    STREAM_CLOSED,
    H2Origin,
    WithEngine,
    frame,
    reset,
    window,
)
from tests.h2_peer import settings as settings_frame

NONE, LENGTH, CHUNKED = 0, 1, 2  # how content is framed
GET = b"GET /a?b HTTP/1.1\r\nHost: example.com\r\n\r\n"
HEAD = b"HEAD / HTTP/1.1\r\nHost: example.com\r\n\r\n"
POST = b"POST /p HTTP/1.1\r\nHost: example.com\r\nTransfer-Encoding: chunked\r\n\r\n"


class Talk(WithEngine, H2Origin):
    """A server of raw frames and an engine, joined."""

    def __init__(self, *, own=None, hold=False, **options):
        self.engine = Requester(**options)
        self.events = []
        super().__init__(self.deliver, self.engine.output, hold=hold, **(own or {}))

    def ask(self, text=GET, **how):
        stream = self.engine.ask(text, **how)
        self.flush()
        return stream

    def cut_off(self):
        """The code of the connection error that the engine tells of; None: there is none."""
        self.flush()
        return self.goaways[-1][1] if self.goaways else None


def goaway(last, code=NO_ERROR):
    return frame(GOAWAY, payload=last.to_bytes(4, "big") + code.to_bytes(4, "big"))


# ---- requests


def test_a_request_and_its_response():
    talk = Talk()
    stream = talk.ask(GET)
    assert talk.responses[stream].fields == {
        ":method": "GET", ":scheme": "https", ":authority": "example.com", ":path": "/a?b"}  # fmt: skip
    assert talk.responses[stream].ended
    talk.respond(stream, b"abc", fields=[("x", "y")], trailers=[("t", "1"), ("u", "2")])
    assert talk.told("response") == [
        (stream, 200, [(b"x", b"y"), (b"Transfer-Encoding", b"chunked")], CHUNKED, -1, False)
    ]
    assert talk.told("data") == [(stream, b"abc")]
    assert talk.told("end") == [(stream, b"t: 1\r\nu: 2\r\n")]
    assert talk.told("closed") == [(stream, NO_ERROR)]
    assert talk.engine.state()["streams"] == 0


def test_fields_of_this_hop_stay_here():
    talk = Talk()
    stream = talk.ask(
        b"POST /x HTTP/1.1\r\nHost: example.com:8080\r\nX-Thing: A b\r\nconnection: TE, x-hop, close\r\n"
        b"TE: trailers, gzip\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nUpgrade: h2c\r\nProxy-Connection: close\r\n"
        b"Content-Length: 3\r\nCookie: a=1; b=2\r\n\r\n",
        https=False,
        content=True,
    )
    talk.engine.content(stream, b"abc")
    talk.engine.finish(stream)
    talk.flush()
    assert talk.responses[stream].fields == {
        ":method": "POST", ":scheme": "http", ":authority": "example.com:8080", ":path": "/x", "x-thing": "A b",
        "content-length": "3", "cookie": "a=1; b=2", "te": "trailers"}  # fmt: skip
    assert talk.responses[stream].body == b"abc"
    assert talk.responses[stream].ended


def test_content_and_trailers_of_a_request():
    talk = Talk()
    stream = talk.ask(POST, content=True)
    assert "transfer-encoding" not in talk.responses[stream].fields
    assert not talk.responses[stream].ended
    talk.engine.content(stream, b"one")
    talk.flush()
    talk.engine.content(stream, b"two")
    talk.engine.finish(stream, b"T: 1\r\n")
    talk.flush()
    assert talk.responses[stream].body == b"onetwo"
    assert talk.responses[stream].trailers == {"t": "1"}
    assert talk.responses[stream].ended


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET /a b HTTP/1.1\r\nHost: h\r\n\r\n",
        b"CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n",
    ],
)
def test_what_is_no_request(text):
    talk = Talk()
    assert talk.engine.ask(text) is None
    assert talk.engine.state()["streams"] == 0
    assert talk.ask() == 1


def test_values_that_identify_clients_are_not_kept_by_hpack():
    """RFC 7541, section 7.1: many clients share the connection's table."""
    talk = Talk()
    for _ in range(2):
        talk.engine.ask(
            GET[:-2] + b"Cookie: " + b"secret" * 20 + b"\r\nAuthorization: Basic " + b"x" * 40 + b"\r\n\r\n"
        )
    out = talk.engine.output()
    first, second = frames_of(out[24:], HEADERS)
    assert len(second) > 100  # spelt again
    talk.buffer += out
    talk.flush()
    assert not any(b"secret" in name + value for name, value in talk.decoder.header_table.dynamic_entries)
    assert first


def frames_of(data, kind):
    found = []
    while data:
        n = int.from_bytes(data[:3], "big")
        if data[3] == kind:
            found.append(data[9 : 9 + n])
        data = data[9 + n :]
    return found


def test_settings_are_told():
    talk = Talk(stream_window=1000, head=5000, max_streams=7)
    talk.flush()
    assert talk.settings == {2: 0, 4: 1000, 6: 5000}
    assert talk.acks == 1
    assert talk.told("settings") == [()]


# ---- heads of responses


@pytest.mark.parametrize(
    ("text", "status", "fields", "framing", "length"),
    [
        (GET, "200", [("content-length", "3")], LENGTH, 3),
        (GET, "200", [], CHUNKED, -1),
        (GET, "404", [("content-length", "0")], LENGTH, 0),
        (HEAD, "200", [("content-length", "3")], NONE, 3),
        (HEAD, "200", [], NONE, -1),
        (GET, "204", [], NONE, -1),
        (GET, "304", [("content-length", "3")], NONE, 3),
        (GET, "599", [], CHUNKED, -1),
    ],
)
def test_how_content_is_framed(text, status, fields, framing, length):
    talk = Talk()
    stream = talk.ask(text)
    talk.respond(stream, status=status, fields=fields, end=False)
    assert [event[:2] + event[3:] for event in talk.told("response")] == [
        (stream, int(status), framing, length, False)]  # fmt: skip
    talk.send(frame(DATA, END_STREAM, stream, b"abc" if length == 3 and framing else b""))
    assert talk.told("end") == [(stream, b"")]
    assert talk.told("closed") == [(stream, NO_ERROR)]


@pytest.mark.parametrize(
    ("text", "status", "framing", "length"),
    [(GET, "200", LENGTH, 0), (HEAD, "200", NONE, -1), (GET, "204", NONE, -1), (GET, "304", NONE, -1)],
)
def test_a_response_that_is_a_head_alone(text, status, framing, length):
    talk = Talk()
    stream = talk.ask(text)
    talk.respond(stream, status=status)
    assert [event[:2] + event[3:] for event in talk.told("response")] == [
        (stream, int(status), framing, length, True)]  # fmt: skip
    assert talk.told("end") == []
    assert talk.told("closed") == [(stream, NO_ERROR)]


def test_interim_responses():
    talk = Talk()
    stream = talk.ask()
    talk.respond(stream, status="103", fields=[("link", "</a>")], end=False)
    talk.respond(stream, status="100", end=False)
    talk.respond(stream, b"abc", fields=[("link", "</b>")])
    assert talk.told("interim") == [(stream, 103, [(b"link", b"</a>")]), (stream, 100, [])]
    assert talk.told("response")[0][2][0] == (b"link", b"</b>")
    assert talk.told("closed") == [(stream, NO_ERROR)]


def test_interim_responses_without_end():
    talk = Talk()
    stream, other = talk.ask(), talk.ask()
    for _ in range(40):
        talk.respond(stream, status="103", end=False)
    talk.flush()
    assert len(talk.told("interim")) == 32
    assert talk.responses[stream].reset == PROTOCOL_ERROR
    assert talk.engine.faults == {stream: "too many interim responses"}
    talk.respond(other)
    assert talk.told("closed") == [(stream, PROTOCOL_ERROR), (other, NO_ERROR)]


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [("x", "y")],
        [(":status", "2000")],
        [(":status", "abc")],
        [(":status", "600")],
        [(":status", "099")],
        [(":status", "101")],
        [(":status", "200"), (":status", "200")],
        [(":status", "200"), (":path", "/")],
        [("x", "y"), (":status", "200")],
        [(":status", "200"), ("connection", "close")],
        [(":status", "200"), ("transfer-encoding", "chunked")],
        [(":status", "200"), ("upgrade", "websocket")],
        [(":status", "200"), ("X", "y")],
        [(":status", "200"), ("a b", "y")],
        [(":status", "200"), ("x", "a\nb")],
        [(":status", "200"), ("x", "a\x00b")],
        [(":status", "200"), ("content-length", "1"), ("content-length", "1")],
        [(":status", "200"), ("content-length", "1, 1")],
        [(":status", "200"), ("content-length", "-1")],
        [(":status", "200"), ("content-length", "99999999999999999999")],
        [(":status", "103"), ("content-length", "3")],
    ],
)
def test_heads_that_are_none(fields):
    talk = Talk()
    stream, other = talk.ask(), talk.ask()
    talk.encoder = hpack.Encoder()
    talk.send(talk.head(stream, fields, end=False) + frame(DATA, END_STREAM, stream, b"a"))
    assert talk.told("response") == talk.told("interim") == talk.told("data") == talk.told("end") == []
    talk.flush()
    assert talk.responses[stream].reset in (PROTOCOL_ERROR, INTERNAL_ERROR)
    assert talk.engine.faults[stream] in ("malformed", "bad response")
    talk.respond(other)
    assert talk.told("closed")[-1] == (other, NO_ERROR)
    assert not talk.engine.state()["failed"]


@pytest.mark.parametrize(
    ("fields", "limits"),
    [
        ([("x", "y" * 200)], {"line": 100}),
        ([(f"x-{i}", "y" * 50) for i in range(30)], {"head": 1000}),
        ([(f"x-{i}", "y") for i in range(30)], {"fields": 20}),
    ],
)
def test_heads_that_are_too_large(fields, limits):
    talk = Talk(**limits)
    stream = talk.ask()
    talk.respond(stream, fields=fields)
    talk.flush()
    assert talk.told("response") == []
    assert talk.told("closed") == [(stream, PROTOCOL_ERROR)]
    assert talk.engine.faults == {stream: "response head too large"}
    assert not talk.engine.state()["failed"]


def test_trailers():
    talk = Talk()
    stream = talk.ask()
    named = [("grpc-status", "0"), ("host", "x"), ("set-cookie", "a"), ("x-forwarded-for", "1")]
    talk.respond(stream, b"abc", trailers=named)
    assert talk.told("end") == [(stream, b"grpc-status: 0\r\n")]
    stream = talk.ask()
    talk.respond(stream, b"abc", trailers=[(f"t{i}", "v" * 2000) for i in range(9)])
    assert len(talk.told("end")[1][1]) < 8192


@pytest.mark.parametrize(
    "trailers", [[(":status", "200")], [("connection", "x")], [("X", "y")], [("content-length", "9")]]
)
def test_trailers_that_are_malformed(trailers):
    talk = Talk()
    stream = talk.ask()
    talk.respond(stream, b"abc", trailers=trailers)
    talk.flush()
    assert talk.told("end") == []
    assert talk.told("closed") == [(stream, PROTOCOL_ERROR)]
    assert talk.engine.faults == {stream: "malformed"}


def test_trailers_that_do_not_end_the_stream():
    talk = Talk()
    stream = talk.ask()
    talk.respond(stream, b"abc", end=False)
    talk.send(talk.head(stream, [("t", "1")], end=False))
    talk.flush()
    assert talk.told("closed") == [(stream, PROTOCOL_ERROR)]


# ---- content of responses


@pytest.mark.parametrize("parts", [[b"abcd"], [b"ab", b"cd"], [b"ab"], []])
def test_content_that_has_not_its_length(parts):
    talk = Talk()
    stream = talk.ask()
    talk.respond(stream, fields=[("content-length", "3")], end=False)
    for i, part in enumerate(parts):
        talk.send(frame(DATA, END_STREAM if i == len(parts) - 1 else 0, stream, part))
    if not parts:
        talk.send(frame(DATA, END_STREAM, stream))
    talk.flush()
    assert talk.told("end") == []
    assert sum(len(data) for _, data in talk.told("data")) <= 3
    assert talk.told("closed") == [(stream, PROTOCOL_ERROR)]
    assert talk.engine.faults == {stream: "malformed"}
    talk.send(frame(DATA, 0, stream, b"on its way"))
    assert not talk.engine.state()["failed"]


@pytest.mark.parametrize(("text", "status"), [(HEAD, "200"), (GET, "204"), (GET, "304")])
def test_content_where_there_is_none(text, status):
    talk = Talk()
    stream = talk.ask(text)
    talk.respond(stream, b"abc", status=status)
    talk.flush()
    assert talk.told("data") == []
    assert talk.told("closed") == [(stream, PROTOCOL_ERROR)]


@pytest.mark.parametrize("kind", ["unanswered", "idle", "even", "over"])
def test_content_that_nobody_asked_for(kind):
    talk = Talk()
    stream = talk.ask()
    if kind == "over":
        talk.respond(stream, b"abc")
    talk.send(frame(DATA, 0, {"idle": 99, "even": 2}.get(kind, stream), b"x"))
    assert talk.cut_off() == (STREAM_CLOSED if kind == "over" else PROTOCOL_ERROR)
    assert talk.engine.state()["failed"]


def test_a_response_that_nobody_asked_for():
    for stream in (2, 99):
        talk = Talk()
        talk.ask()
        talk.respond(stream)
        assert talk.cut_off() == PROTOCOL_ERROR


def test_what_comes_after_our_reset_is_passed_over():
    talk = Talk()
    streams = [talk.ask() for _ in range(20)]
    for stream in streams:
        talk.respond(stream, b"abc", end=False)
        talk.engine.cancel(stream, CANCEL)
        talk.send(frame(DATA, 0, stream, b"def"))
    talk.flush()
    for stream in streams:  # nobody remembers the first of them
        talk.send(frame(DATA, 0, stream, b"ghi"), talk.head(stream, [("t", "1")]))
    talk.flush()
    assert talk.told("data") == [(stream, b"abc") for stream in streams]
    assert talk.told("closed") == [(stream, CANCEL) for stream in streams]
    assert talk.engine.state()["held"] == 0
    assert not talk.engine.state()["failed"]
    assert talk.ask()


# ---- windows


def test_a_stream_that_nobody_takes_stalls_itself_alone():
    talk = Talk(stream_window=1000)
    slow, quick = talk.ask(), talk.ask()
    talk.respond(slow, b"x" * 1000, end=False)
    talk.respond(quick, end=False)
    for _ in range(100):
        talk.send(frame(DATA, 0, quick, b"y" * 1000))
        talk.engine.take(quick, 1000)
        talk.flush()
    assert not talk.engine.state()["failed"]
    assert len(talk.told("data")) == 101
    assert slow not in talk.windows
    assert talk.engine.state()["held"] == 1000
    talk.send(frame(DATA, 0, slow, b"x"))
    talk.flush()
    assert talk.told("closed") == [(slow, FLOW_CONTROL_ERROR)]
    assert talk.engine.state()["held"] == 0


def test_streams_that_nobody_takes_leave_the_connection_to_the_others():
    """They are of many clients: what is held is bounded by the windows of the streams."""
    talk = Talk(stream_window=65535, connection_window=100_000)
    streams = [talk.ask() for _ in range(5)]
    assert talk.windows[0] == 100_000
    for stream in streams[:4]:
        talk.respond(stream, b"x" * 50_000, end=False)
        talk.flush()
    assert talk.windows[0] == 300_000  # all that came, and the first
    assert talk.engine.state()["held"] == 200_000
    talk.respond(streams[4], b"x" * 50_000, end=False)
    talk.engine.take(streams[4], 50_000)
    talk.flush()
    assert talk.windows[0] == 350_000


def test_a_request_waits_for_the_windows():
    talk = Talk(hold=True)
    stream = talk.ask(POST, content=True)
    assert talk.engine.content(stream, b"x" * 100_000) is False
    assert talk.engine.content(stream, b"x" * 50_000) is True
    talk.flush()
    assert len(talk.responses[stream].body) == 65535
    talk.send(window(0, 60_000), window(stream, 60_000))
    talk.flush()
    assert talk.told("drained") == [(stream,)]
    other = talk.ask()
    talk.respond(other)
    assert talk.told("closed") == [(other, NO_ERROR)]
    talk.send(reset(stream))
    assert talk.engine.state()["waiting"] == 0


# ---- room, ends and refusals


def test_room_is_the_narrower_of_both_limits():
    talk = Talk(max_streams=5)
    assert talk.engine.spare() == 5
    assert [talk.ask() for _ in range(6)] == [1, 3, 5, 7, 9, None]
    talk.respond(3)
    assert talk.engine.spare() == 1
    talk = Talk(own={"max_concurrent_streams": 2})
    assert [talk.ask() for _ in range(3)] == [1, 3, None]
    talk.send(settings_frame(max_concurrent_streams=3))
    assert talk.told("settings") == [(), ()]
    assert talk.engine.spare() == 1
    talk.send(settings_frame(max_concurrent_streams=0))
    assert talk.engine.spare() == 0


def test_requests_that_went_before_the_settings_came():
    engine = Requester(max_streams=5)
    streams = [engine.ask(GET) for _ in range(5)]
    assert frames_of(engine.output()[24:], HEADERS)[4]
    engine.input(settings_frame(max_concurrent_streams=1))
    assert engine.spare() == 0
    assert engine.input(reset(3, REFUSED_STREAM) + reset(5, REFUSED_STREAM)) == [
        ("closed", 3, REFUSED_STREAM), ("closed", 5, REFUSED_STREAM)]  # fmt: skip
    assert streams == [1, 3, 5, 7, 9]


def test_a_goaway_says_what_was_not_processed():
    talk = Talk()
    streams = [talk.ask() for _ in range(3)]
    talk.engine.ask(GET)  # not sent yet
    talk.send(goaway(streams[1]))
    assert talk.told("goaway") == [(streams[1], NO_ERROR)]
    assert talk.engine.spare() == 0
    assert talk.engine.ask(GET) is None
    talk.flush()
    assert talk.told("closed") == [(5, REFUSED_STREAM), (7, REFUSED_STREAM)]
    for stream in streams[:2]:
        assert not talk.engine.state()["finished"]
        talk.respond(stream, b"abc")
    assert [event[0] for event in talk.told("response")] == streams[:2]
    talk.flush()
    assert talk.engine.state()["finished"]
    assert not talk.engine.state()["failed"]


def test_a_goaway_in_two_steps():
    talk = Talk()
    first = talk.ask()
    talk.send(goaway(2**31 - 1))
    assert talk.engine.spare() == 0
    talk.send(goaway(first))
    talk.respond(first)
    assert talk.told("goaway") == [(2**31 - 1, NO_ERROR), (first, NO_ERROR)]
    assert talk.told("closed") == [(first, NO_ERROR)]


def test_we_leave():
    talk = Talk()
    stream = talk.ask()
    talk.engine.leave()
    assert talk.engine.spare() == 0
    talk.flush()
    assert talk.goaways == [(0, NO_ERROR)]
    assert not talk.engine.state()["finished"]
    talk.respond(stream)
    talk.flush()
    assert talk.engine.state()["finished"]


def test_a_request_that_is_taken_back_before_it_went():
    talk = Talk()
    stream = talk.engine.ask(POST, content=True)
    talk.engine.content(stream, b"abc")
    talk.engine.cancel(stream, CANCEL)
    talk.flush()
    assert talk.responses == {}
    assert talk.told("closed") == [(stream, CANCEL)]
    assert talk.engine.state()["streams"] == talk.engine.state()["waiting"] == 0
    assert talk.ask() == 3


def test_a_response_that_is_whole_before_its_request():
    talk = Talk()
    stream = talk.ask(POST, content=True)
    talk.respond(stream, b"no", status="413")
    assert talk.told("end") == [(stream, b"")]
    assert talk.told("closed") == []
    talk.engine.cancel(stream, NO_ERROR)
    talk.flush()
    assert talk.responses[stream].reset == NO_ERROR
    assert talk.told("closed") == [(stream, NO_ERROR)]
    stream = talk.ask(POST, content=True)
    talk.respond(stream, b"no", status="413")
    talk.send(reset(stream, NO_ERROR))  # section 8.1
    assert talk.told("data")[-1] == (stream, b"no")
    assert talk.told("closed")[-1] == (stream, NO_ERROR)


def test_a_request_within_the_call_that_tells_of_a_response():
    talk = Talk(again=b"PUT /other HTTP/1.1\r\nHost: another.example\r\nX-Long: " + b"z" * 300 + b"\r\n\r\n")
    stream = talk.ask()
    talk.respond(stream, fields=[("content-length", "0"), ("x", "y")])
    assert talk.told("response") == [(stream, 200, [(b"content-length", b"0"), (b"x", b"y")], LENGTH, 0, True)]
    talk.flush()
    assert talk.responses[stream + 2].fields[":path"] == "/other"


def test_a_response_that_is_cut():
    talk = Talk()
    stream = talk.ask()
    talk.respond(stream, b"abc", end=False)
    talk.send(reset(stream, INTERNAL_ERROR))
    assert talk.told("end") == []
    assert talk.told("closed") == [(stream, INTERNAL_ERROR)]


# ---- floods


def bomb(talk, n):
    """A block of small bytes that decodes to much: one large field of the dynamic table, again and again."""
    block = hpack.Encoder().encode([(":status", "200"), ("x", "v" * 3900)])
    return frame(HEADERS, END_HEADERS, talk.asked, block + b"\xbe" * 10_000)


FLOODS = {
    "settings": lambda talk, n: settings_frame(initial_window_size=n + 1),
    "ping": lambda talk, n: frame(PING, payload=bytes(8)),
    "empty data": lambda talk, n: frame(DATA, 0, talk.asked),
    "unknown frames": lambda talk, n: frame(0x99),
    "window": lambda talk, n: window(0, 1),
    "priority": lambda talk, n: frame(PRIORITY, 0, 1, bytes(3) + b"\3\0"),
    "continuation": lambda talk, n: frame(CONTINUATION if n else HEADERS, 0, talk.asked, b"\x88" if not n else b""),
    "reset": lambda talk, n: reset(talk.asked),
    "goaway": lambda talk, n: goaway(2**31 - 1),
    "bomb": bomb,
}


@pytest.mark.parametrize("kind", FLOODS)
def test_floods(kind):
    talk = Talk(stream_window=1 << 20)
    talk.asked = talk.ask()
    if kind == "empty data":
        talk.respond(talk.asked, end=False)
    for n in range(16_000):
        talk.deliver(FLOODS[kind](talk, n))
        if talk.engine.state()["failed"]:
            break
    assert talk.engine.state()["failed"]
    assert len(talk.told("goaway")) < 16_000
    assert talk.cut_off() == ENHANCE_YOUR_CALM


def test_malformed_responses_without_end():
    talk = Talk()
    for _ in range(1500):
        stream = talk.engine.ask(GET)
        if stream is None:
            break
        talk.flush()
        talk.respond(stream, fields=[("connection", "x")])
        talk.flush()
    assert talk.cut_off() == ENHANCE_YOUR_CALM


def test_refusals_are_not_dear():
    """A busy backend refuses what we send too much of it; each refusal is one for a request of ours."""
    talk = Talk()
    for _ in range(5000):
        talk.send(reset(talk.ask(), REFUSED_STREAM))
    assert not talk.engine.state()["failed"]
    assert len(talk.told("closed")) == 5000


def test_pushes_are_not_taken():
    """They are forbidden by the SETTINGS that stand in front of the first request."""
    for acked in (False, True):
        talk = Talk()
        stream = talk.ask() if acked else talk.engine.ask(GET)
        promise = talk.encoder.encode([(":method", "GET"), (":scheme", "https"), (":authority", "a"), (":path", "/")])
        talk.send(frame(PUSH_PROMISE, END_HEADERS, stream, (2).to_bytes(4, "big") + promise))
        assert talk.cut_off() == PROTOCOL_ERROR
        assert talk.engine.state()["fault"] == "PUSH_PROMISE that was not enabled"


def test_priority_update_is_a_client_s():
    talk = Talk()
    talk.send(frame(PRIORITY_UPDATE, payload=(1).to_bytes(4, "big") + b"u=0"))
    assert talk.cut_off() == PROTOCOL_ERROR


def test_what_is_not_http_2():
    engine = Requester()
    engine.ask(GET)
    engine.output()
    engine.input(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
    engine.output()
    assert engine.state()["failed"]
    assert engine.state()["fault"]
    engine.input(b"more")


# ---- however the bytes are cut


def conversation():
    """What a server says to three GETs and a HEAD."""
    out = []
    talk = H2Origin(out.append, None, initial_window_size=100)
    talk.respond(1, status="103", fields=[("link", "a")], end=False)
    talk.respond(1, b"abc", fields=[("content-length", "3"), ("x", "y" * 5000)])
    talk.respond(3, b"d" * 3000, trailers=[("t", "1"), ("host", "x")])
    talk.send(frame(PING, payload=bytes(8)), window(0, 5), frame(0x99, payload=b"?"), settings_frame())
    talk.respond(5, fields=[("connection", "x")])
    talk.respond(7, fields=[("content-length", "9")])
    talk.send(goaway(7))
    return b"".join(out)


BYTES = conversation()


def begun():
    engine = Requester()
    for text in (GET, GET, GET, HEAD):
        engine.ask(text)
    engine.output()
    return engine


def events_of(data, cuts=()):
    engine = begun()
    events = []
    for start, stop in zip([0, *cuts], [*cuts, len(data)], strict=True):
        events += engine.input(data[start:stop])
        engine.output()
        events += engine.told()
    return events


def joined(events):
    """Content in one piece for each stream, as how it is cut follows the input; the rest by stream."""
    by_stream = {}
    for kind, *rest in events:
        of = by_stream.setdefault(rest[0] if rest and kind != "goaway" else 0, [])
        if kind == "data" and of and of[-1][0] == "data":
            of[-1] = ("data", of[-1][1] + rest[1])
        else:
            of.append((kind, *rest[1:]))
    return by_stream


def test_the_conversation():
    assert {stream: [event[0] for event in events] for stream, events in joined(events_of(BYTES)).items()} == {
        0: ["settings", "settings", "goaway"], 1: ["interim", "response", "data", "end", "closed"],
        3: ["response", "data", "end", "closed"], 5: ["closed"], 7: ["response", "closed"]}  # fmt: skip


@given(st.lists(st.integers(0, len(BYTES)), max_size=12).map(sorted))
@settings(deadline=None)
def test_any_pieces_bring_the_same(cuts):
    assert joined(events_of(BYTES, cuts)) == joined(events_of(BYTES))


def test_byte_by_byte():
    assert joined(events_of(BYTES, range(1, len(BYTES)))) == joined(events_of(BYTES))


@given(st.integers(0, len(BYTES) - 1), st.binary(min_size=1, max_size=6), st.lists(st.integers(0, 5), max_size=20))
@settings(deadline=None)
def test_damaged_bytes_do_no_harm(at, noise, actions):
    engine = begun()
    data = BYTES[:at] + noise + BYTES[at + len(noise) :]
    step = max(len(data) // (len(actions) + 1), 1)
    over = []
    for n, action in enumerate([*actions, 0]):
        events = engine.input(data[n * step : (n + 1) * step])
        with contextlib.suppress(KeyError):  # it may be over by now
            if action == 1:
                engine.cancel(1, CANCEL)
            elif action == 2:
                engine.take(3, sum(len(event[2]) for event in events if event[:2] == ("data", 3)))
        if action == 3:
            engine.ask(GET)
        if action != 4:
            engine.output()
        over += [event[1] for event in [*events, *engine.told()] if event[0] == "closed"]
    assert len(over) == len(set(over))
    assert engine.state()["streams"] <= 24
