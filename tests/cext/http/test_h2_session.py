"""The HTTP/2 session in memory: what it makes of a peer's frames, however they are cut."""

import contextlib
import itertools

import pytest
from cext.http.h2_engine import Engine
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.h2_peer import (
    CANCEL,
    CONTINUATION,
    DATA,
    ENABLE_CONNECT_PROTOCOL,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    HEADERS,
    NO_ERROR,
    PADDED,
    PING,
    PREFACE,
    PROTOCOL_ERROR,
    STREAM_CLOSED,
    H2Peer,
    WithEngine,
    frame,
    request_fields,
    reset,
    window,
)
from tests.h2_peer import settings as settings_frame


class Talk(WithEngine, H2Peer):
    """A peer and an engine, joined."""

    def __init__(self, *, own=None, **options):
        self.engine = Engine(**options)
        self.events = []
        super().__init__(self.deliver, self.engine.output, **(own or {}))


OK = b"HTTP/1.1 200 OK\r\nX: y\r\n\r\n"


def test_a_request_and_its_response():
    talk = Talk()
    stream = talk.get("/a?b", fields=[("x", "y")])
    assert talk.told("request") == [(1, b"GET", b"/a?b", b"example.com", True)]
    talk.engine.answer(stream, OK, True)
    assert talk.engine.content(stream, b"abc") is False
    talk.engine.finish(stream, b"T: 1\r\nU: 2\r\n")
    talk.flush()
    response = talk.responses[stream]
    assert (response.status, response.fields["x"], response.body) == (200, "y", b"abc")
    assert response.trailers == {"t": "1", "u": "2"}
    assert talk.told("closed") == [(stream, NO_ERROR)]
    assert talk.engine.state()["streams"] == 0


def test_settings_are_told():
    talk = Talk(max_streams=7, stream_window=1000, head=5000)
    talk.flush()
    assert (talk.settings[3], talk.settings[4], talk.settings[6], talk.settings[9]) == (7, 1000, 5000, 1)
    assert talk.acks == 1


def test_content_and_its_windows():
    talk = Talk(stream_window=1000)
    talk.flush()
    stream = talk.post(b"x" * 1000, end=False)
    assert talk.told("data") == [(stream, b"x" * 1000)]
    assert talk.engine.state()["held"] == 1000
    talk.flush()
    assert stream not in talk.windows  # nobody has taken it
    talk.engine.take(stream, 1000)
    talk.flush()
    assert talk.windows[stream] == 2000
    assert talk.engine.state()["held"] == 0
    talk.send(frame(DATA, END_STREAM | PADDED, stream, b"\x03abc" + bytes(3)))
    assert talk.told("data")[-1] == (stream, b"abc")
    assert talk.told("end") == [(stream, b"")]


def test_the_window_of_the_connection_opens_at_once_but_not_beyond_itself():
    talk = Talk(stream_window=65535, connection_window=100_000)
    talk.flush()
    assert talk.windows[0] == 100_000
    streams = [talk.post(b"x" * 50_000, end=False) for _ in range(3)]
    talk.flush()
    opened = talk.windows[0]
    assert opened >= 150_000  # of three times 50,000, two came while no more was held
    talk.engine.cancel(streams[0], CANCEL)
    talk.engine.take(streams[1], 50_000)
    talk.flush()
    assert talk.windows[0] > opened
    assert talk.engine.state()["held"] == 50_000


def test_a_stream_is_full_and_drained():
    talk = Talk()
    stream = talk.get()
    talk.engine.answer(stream, OK, True)
    assert talk.engine.content(stream, b"x" * 100_000) is False
    assert talk.engine.content(stream, b"x" * 50_000) is True
    assert talk.engine.state()["waiting"] == 150_000
    talk.hold = True
    talk.flush()
    assert len(talk.responses[stream].body) == 65535
    assert talk.told("drained") == []
    talk.send(window(0, 60_000), window(stream, 60_000))
    talk.flush()
    assert talk.told("drained") == [(stream,)]
    assert talk.engine.state()["waiting"] == 150_000 - 125_535


def test_what_waits_is_given_back_with_its_stream():
    talk = Talk()
    stream = talk.get()
    talk.engine.answer(stream, OK, True)
    talk.engine.content(stream, b"x" * 100_000)
    talk.send(reset(stream))
    assert talk.told("closed") == [(stream, CANCEL)]
    assert talk.engine.state()["waiting"] == 0
    with pytest.raises(KeyError):
        talk.engine.content(stream, b"x")


def test_all_streams_are_full_when_too_much_waits_in_them_together():
    talk = Talk()
    streams = [talk.get() for _ in range(50)]
    full = []
    for stream in streams:
        talk.engine.answer(stream, OK, True)
        full.append(talk.engine.content(stream, b"x" * 120_000))
    assert full.index(True) == 34  # 4 MiB


def test_answers_within_the_callback():
    talk = Talk(answering=True)
    streams = [talk.get("/", method=method) for method in ("GET", "HEAD", "POST")]
    talk.flush()
    assert [talk.responses[s].status for s in streams] == [404] * 3
    assert [len(talk.responses[s].body) for s in streams] == [10, 0, 10]


def test_a_response_to_a_request_that_goes_on():
    talk = Talk(answering=True)
    stream = talk.post(b"abc", end=False)
    talk.flush()
    assert talk.responses[stream].reset == NO_ERROR
    talk.send(frame(DATA, 0, stream, b"on its way"))
    assert not talk.engine.state()["failed"]


def test_a_response_goes_before_the_reset_behind_it():
    talk = Talk(answering=True)
    stream = talk.post(b"abc", end=False)
    talk.buffer += talk.engine.output()
    while talk.buffer:
        talk.step()
    assert talk.responses[stream].ended
    assert talk.responses[stream].reset is None
    talk.flush()
    assert talk.responses[stream].reset == NO_ERROR


def test_a_request_that_ends_before_its_reset_is_sent():
    talk = Talk(answering=True)
    stream = talk.post(b"abc", end=False)
    talk.buffer += talk.engine.output()
    talk.send(frame(DATA, END_STREAM, stream))
    talk.flush()
    assert talk.told("closed") == [(stream, NO_ERROR)]
    assert talk.engine.state()["streams"] == 0
    assert not talk.engine.state()["failed"]


def test_a_frame_for_a_stream_that_its_sender_has_ended():
    talk = Talk(answering=True)
    stream = talk.get()
    talk.flush()
    talk.send(frame(DATA, 0, stream, b"x"))
    assert talk.engine.state()["failed"]
    talk.flush()
    assert talk.goaways[-1][1] == STREAM_CLOSED


def test_goaways():
    talk = Talk()
    first = talk.get()
    talk.engine.part()
    talk.flush()
    second = talk.get()
    assert len(talk.told("request")) == 2
    talk.engine.leave()
    talk.flush()
    assert talk.goaways == [(2**31 - 1, NO_ERROR), (second, NO_ERROR)]
    talk.get()
    assert len(talk.told("request")) == 2  # passed over
    for stream in (first, second):
        assert not talk.engine.state()["finished"]
        talk.engine.simple(stream, 404)
        talk.flush()
    assert talk.engine.state()["finished"]


def test_a_head_over_many_frames_is_one_that_is_not_read_to_its_end():
    talk = Talk()
    block = talk.encoder.encode(request_fields())
    talk.send(frame(HEADERS, END_STREAM, 1, block[:3]))
    assert talk.engine.state()["in_block"]
    talk.send(frame(CONTINUATION, 0, 1, block[3:5]), frame(CONTINUATION, END_HEADERS, 1, block[5:]))
    assert not talk.engine.state()["in_block"]
    assert len(talk.told("request")) == 1


@pytest.mark.parametrize("fields", [[("connection", "x")], [(":path", "/")], [("X", "y")]])
def test_a_head_that_is_refused_is_over_as_well(fields):
    talk = Talk()
    talk.flush()
    block = talk.encoder.encode(request_fields(fields=fields))
    whole = frame(HEADERS, END_STREAM, 1, block[:3]) + frame(CONTINUATION, END_HEADERS, 1, block[3:])
    cuts = [0, 10, 12, 14, 30, len(whole) - 1]
    for start, stop in itertools.pairwise(cuts):
        talk.send(whole[start:stop])
        assert talk.engine.state()["in_block"]
    talk.send(whole[-1:])
    assert not talk.engine.state()["in_block"]
    talk.flush()
    assert talk.responses[1].reset == PROTOCOL_ERROR
    assert not talk.engine.state()["in_block"]


@pytest.mark.parametrize(
    "text",
    [
        b"GET /a HTTP/1.1\r\nHost: h\r\ncookie: c\r\n\r\n",
        b"GET /a b HTTP/1.1\r\nHost: h\r\n\r\n",
        b"",
        b"GET /\r\n\r\n",
    ],
)
def test_promises(text):
    talk = Talk()
    stream = talk.get()
    good = text.startswith(b"GET /a HTTP")
    assert talk.engine.push(stream, text) is good
    talk.flush()
    if good:
        assert talk.responses[stream].promises == [
            (2, {":method": "GET", ":scheme": "https", ":authority": "h", ":path": "/a", "cookie": "c"})
        ]
        assert talk.told("request")[-1] == (2, b"GET", b"/a", b"h", True)
        talk.engine.simple(2, 404)
        talk.flush()
        assert talk.responses[2].status == 404
    assert talk.engine.takes_pushes()


def test_a_promise_whose_request_is_over_before_it_is_sent():
    talk = Talk()
    stream = talk.get()
    assert talk.engine.push(stream, b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n")
    talk.send(reset(stream))
    talk.flush()
    assert talk.engine.state()["streams"] == 0


def test_pushes_are_not_made_once_the_peer_says_so():
    assert not Talk(own={"enable_push": 0}).engine.takes_pushes()
    talk = Talk()
    talk.engine.part()
    assert not talk.engine.takes_pushes()


def test_credit_comes_back_with_time():
    talk = Talk()
    for now in range(0, 60_000, 1000):
        talk.engine.input(frame(PING, payload=bytes(8)) * 90, now)
        talk.engine.output()
    assert not talk.engine.state()["failed"]
    talk.engine.input(frame(PING, payload=bytes(8)) * 4000, 60_000)
    assert talk.engine.state()["failed"]
    talk.flush()
    assert talk.goaways[-1][1] == ENHANCE_YOUR_CALM


def test_content_that_is_sent_earns_credit():
    """The WINDOW_UPDATEs of a long download are no flood, nor are the PINGs by which gRPC measures the path."""
    talk = Talk()
    stream = talk.get()
    talk.engine.answer(stream, OK, True)
    for _ in range(9000):
        talk.engine.content(stream, b"x")
        talk.send(frame(PING, payload=bytes(8)))
        talk.flush()
    assert len(talk.order) == talk.pongs == 9000  # and two WINDOW_UPDATEs for each
    assert not talk.engine.state()["failed"]


def test_crumbs_earn_nothing():
    """A window that is opened by a byte at a time makes a frame of each (CVE-2019-9511)."""
    talk = Talk(own={"initial_window_size": 0, "hold": True})
    stream = talk.get()
    talk.engine.answer(stream, OK, True)
    talk.engine.content(stream, b"x" * 100_000)
    for _ in range(20_000):
        talk.send(window(stream, 1))
        talk.flush()
        if talk.engine.state()["failed"]:
            break
    assert talk.goaways[-1][1] == ENHANCE_YOUR_CALM
    assert len(talk.order) < 16_000


# ---- extended CONNECT (RFC 8441)


def connect_fields(protocol="websocket", path="/chat?x", fields=(), drop=()):
    named = [(":method", "CONNECT"), (":protocol", protocol), (":scheme", "https"), (":authority", "example.com"),
             (":path", path), *fields]  # fmt: skip
    return [(name, value) for name, value in named if name not in drop]


def connect(talk, *, end=False, **how):
    stream = talk.stream()
    talk.send(talk.head(stream, connect_fields(**how), end=end))
    return stream


def tunnel():
    talk = Talk(connect_protocol=True)
    talk.flush()
    assert talk.settings[ENABLE_CONNECT_PROTOCOL] == 1
    stream = connect(talk, fields=[("sec-websocket-version", "13"), ("origin", "https://example.com")])
    assert talk.told("connect") == [(stream, b"websocket", b"/chat?x", b"example.com", False)]
    talk.engine.answer(stream, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: y\r\n\r\n", True)
    talk.flush()
    return talk, stream


def test_a_tunnel():
    talk, stream = tunnel()
    talk.engine.content(stream, b"to the client")
    talk.send(frame(DATA, 0, stream, b"to the server"))
    talk.flush()
    response = talk.responses[stream]
    assert (response.status, response.fields["x"], response.body) == (200, "y", b"to the client")
    assert "content-length" not in response.fields
    assert talk.told("data") == [(stream, b"to the server")]


def test_a_tunnel_ends_each_way_by_itself():
    talk, stream = tunnel()
    talk.engine.finish(stream)
    talk.flush()
    assert talk.responses[stream].ended
    assert talk.responses[stream].reset is None
    talk.send(frame(DATA, 0, stream, b"more"), frame(DATA, END_STREAM, stream))
    assert talk.told("data") == [(stream, b"more")]
    assert talk.told("end") == [(stream, b"")]
    assert talk.told("closed") == [(stream, NO_ERROR)]


def test_a_tunnel_that_the_client_ends_first():
    talk, stream = tunnel()
    talk.send(frame(DATA, END_STREAM, stream))
    assert talk.told("end") == [(stream, b"")]
    talk.engine.content(stream, b"last words")
    talk.engine.finish(stream)
    talk.flush()
    assert talk.responses[stream].body.endswith(b"last words")
    assert talk.told("closed") == [(stream, NO_ERROR)]


def test_a_tunnel_that_is_not_taken():
    talk = Talk(connect_protocol=True)
    stream = connect(talk)
    talk.engine.simple(stream, 404)
    talk.flush()
    assert talk.responses[stream].status == 404
    assert talk.responses[stream].reset == NO_ERROR  # nothing that follows is wanted


def test_a_tunnel_is_reset():
    talk, stream = tunnel()
    talk.send(reset(stream))
    assert talk.told("closed") == [(stream, CANCEL)]
    talk, stream = tunnel()
    talk.engine.cancel(stream, CANCEL)
    talk.flush()
    assert talk.responses[stream].reset == CANCEL


def test_trailers_in_a_tunnel_reset_it():
    talk, stream = tunnel()
    talk.send(talk.head(stream, [("x", "y")]))
    talk.flush()
    assert talk.responses[stream].reset == PROTOCOL_ERROR
    assert talk.told("end") == []


@pytest.mark.parametrize(
    "how",
    [
        {"drop": (":scheme",)},
        {"drop": (":path",)},
        {"drop": (":authority",)},
        {"drop": (":authority",), "fields": [("host", "example.com")]},
        {"fields": [("transfer-encoding", "chunked")]},
        {"fields": [("upgrade", "websocket")]},
        {"fields": [(":protocol", "websocket")]},
        {"path": ""},
        {"path": "*"},
        {"path": "https://example.com/"},
    ],
)
def test_an_extended_connect_that_is_malformed(how):
    talk = Talk(connect_protocol=True)
    stream = connect(talk, **how)
    talk.flush()
    assert talk.responses[stream].reset == PROTOCOL_ERROR
    assert talk.told("connect") == []


@pytest.mark.parametrize(
    "how",
    [
        {"fields": [("content-length", "0")]},
        {"protocol": "web socket"},
        {"protocol": "web,socket"},
        {"fields": [("host", "other.example")]},
    ],
)
def test_an_extended_connect_that_is_refused(how):
    talk = Talk(connect_protocol=True)
    stream = connect(talk, **how)
    talk.flush()
    assert talk.told("refused") == [(stream, 400)]


def test_protocol_of_what_is_not_connect():
    talk = Talk(connect_protocol=True)
    stream = talk.get("/", fields=[])
    talk.send(talk.head(talk.stream(), [(":method", "GET"), *connect_fields()[1:]]))
    talk.flush()
    assert talk.responses[stream + 2].reset == PROTOCOL_ERROR


def test_protocol_that_was_not_enabled():
    talk = Talk()
    stream = connect(talk)
    talk.flush()
    assert ENABLE_CONNECT_PROTOCOL not in talk.settings
    assert talk.responses[stream].reset == PROTOCOL_ERROR


def test_a_plain_connect_has_no_path():
    talk = Talk(connect_protocol=True)
    talk.send(talk.head(talk.stream(), [(":method", "CONNECT"), (":authority", "example.com:443")], end=False))
    assert talk.told("request") == [(1, b"CONNECT", b"", b"example.com:443", False)]


# ---- however the bytes are cut


def conversation():
    talk = H2Peer(lambda _: None, None)
    out = []
    talk.send_bytes = out.append
    out.append(PREFACE + settings_frame(initial_window_size=100))
    talk.get("/1")
    talk.post(b"abc", "/2", trailers=[("t", "v")])
    talk.get("/3", fields=[("cookie", "a"), ("cookie", "b"), ("connection", "x")])
    talk.send(frame(PING, payload=bytes(8)), reset(1), window(0, 5), frame(0x99, payload=b"?"))
    talk.post(b"x" * 50, "/4", fields=[("content-length", "50")])
    talk.get("/" + "p" * 300, fields=[("x", "y" * 9000)])
    return b"".join(out)


BYTES = conversation()


def events_of(data, cuts=()):
    engine = Engine()
    events, output = [], b""
    for start, stop in zip([0, *cuts], [*cuts, len(data)], strict=True):
        events += engine.input(data[start:stop])
        output += engine.output()
        events += engine.told()
    return events, output


def joined(events):
    """Content in one piece for each stream, as how it is cut follows the input; the rest by stream."""
    by_stream = {}
    for kind, stream, *rest in events:
        of = by_stream.setdefault(stream, [])
        if kind == "data" and of and of[-1][0] == "data":
            of[-1] = ("data", of[-1][1] + rest[0])
        else:
            of.append((kind, *rest))
    return by_stream


@given(st.lists(st.integers(0, len(BYTES)), max_size=12).map(sorted))
@settings(deadline=None)
def test_any_pieces_bring_the_same(cuts):
    assert joined(events_of(BYTES, cuts)[0]) == joined(events_of(BYTES)[0])


def test_byte_by_byte():
    assert joined(events_of(BYTES, range(1, len(BYTES)))[0]) == joined(events_of(BYTES)[0])


@given(st.integers(24, len(BYTES) - 1), st.binary(min_size=1, max_size=6), st.lists(st.integers(0, 5), max_size=20))
@settings(deadline=None)
def test_damaged_bytes_do_no_harm(at, noise, actions):
    engine = Engine(answering=bool(actions and actions[0] % 2))
    data = BYTES[:at] + noise + BYTES[at + len(noise) :]
    step = max(len(data) // (len(actions) + 1), 1)
    for n, action in enumerate([*actions, 0]):
        for kind, stream, *_ in engine.input(data[n * step : (n + 1) * step]):
            if kind != "request" or engine.state()["failed"]:
                continue
            with contextlib.suppress(KeyError):  # it may be over by now
                if action == 1:
                    engine.cancel(stream, CANCEL)
                elif action == 2 and not actions[0] % 2:
                    engine.answer(stream, OK, True)
                    engine.content(stream, b"z" * 200_000)
                elif action == 3:
                    engine.push(stream, b"GET /p HTTP/1.1\r\nHost: h\r\n\r\n")
        if action != 4:
            engine.output()
    assert engine.state()["streams"] <= 12


def test_what_is_not_http_2():
    engine = Engine()
    engine.input(b"GET / HTTP/1.1\r\n\r\n")
    assert engine.state()["fault"] == "not HTTP/2"
    engine.input(b"more")
    engine.output()
