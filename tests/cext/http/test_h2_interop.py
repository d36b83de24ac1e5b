"""Both roles of HTTP/2 joined in memory: with one another, and with the h2 library."""

import contextlib

import h2.config
import h2.connection
import h2.events
from cext.http.h2_engine import Engine, Requester
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.h2_peer import NO_ERROR

POST = b"POST /p HTTP/1.1\r\nHost: example.com\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_against_our_own_server():
    asking, serving = Requester(), Engine()

    def talk():
        for _ in range(8):
            serving_told.extend(serving.input(asking.output()))
            asking_told.extend(asking.input(serving.output()))

    asking_told, serving_told = [], []
    streams = [asking.ask(POST, content=True) for _ in range(50)]
    for stream in streams:
        asking.content(stream, b"x" * 1000)
        asking.finish(stream, b"T: 1\r\n")
    talk()
    assert [event for event in serving_told if event[0] == "end"] == [
        ("end", stream, b"t: 1\r\n") for stream in streams
    ]
    for stream in streams:
        serving.answer(stream, b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", False)
        serving.answer(stream, b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n", True)
        serving.content(stream, b"y" * 500)
        serving.finish(stream)
    talk()
    kinds = ["interim", "response", "data", "end", "closed"]
    for stream in streams:
        assert [event[0] for event in asking_told if event[1:2] == (stream,)] == kinds
    assert asking.state()["streams"] == serving.state()["streams"] == 0


class Pair:
    """Both roles, joined by bytes that lie between them until they are carried; content is held until it is taken."""

    WINDOW, CONNECTION_WINDOW = 700, 1500

    def __init__(self, streams):
        options = {"stream_window": self.WINDOW, "connection_window": self.CONNECTION_WINDOW}
        self.ends = Requester(**options), Engine(**options)
        self.between = [b"", b""]  # from the requester, from the server
        self.got = [{}, {}]
        self.held = [{}, {}]
        self.ended = [set(), set()]
        self.streams = [self.ends[0].ask(POST, content=True) for _ in range(streams)]
        for _ in range(3):  # SETTINGS count once they are acknowledged
            self.carry(0, 1 << 20)
            self.carry(1, 1 << 20)
        for stream in self.streams:
            self.ends[1].answer(stream, b"HTTP/1.1 200 OK\r\n\r\n", True)

    def carry(self, end, n):
        """At most n bytes that `end` has sent go to the other, which says what they bring."""
        self.between[end] += self.ends[end].output()
        other = 1 - end
        events = self.ends[other].input(self.between[end][:n])
        self.between[end] = self.between[end][n:]
        for kind, *rest in events:
            if kind in ("request", "response"):
                self.got[other][rest[0]], self.held[other][rest[0]] = b"", 0
            elif kind == "data":
                self.got[other][rest[0]] += rest[1]
                self.held[other][rest[0]] += len(rest[1])
            elif kind == "end":
                self.ended[other].add(rest[0])
            elif kind == "closed":
                self.held[other][rest[0]] = 0
        state = self.ends[other].state()
        assert not state["failed"], state
        assert state["held"] == sum(self.held[other].values())

    def take(self, end, stream):
        if self.held[end].get(stream):
            with contextlib.suppress(KeyError):  # it may be over
                self.ends[end].take(stream, self.held[end][stream])
            self.held[end][stream] = 0


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 1), st.integers(0, 2), st.integers(1, 2000)), max_size=80))
@settings(deadline=None)
def test_all_content_arrives_however_it_is_taken(steps):
    pair = Pair(3)
    sent = [dict.fromkeys(pair.streams, b""), dict.fromkeys(pair.streams, b"")]
    for action, end, i, n in steps:
        stream = pair.streams[i]
        if action == 0:
            sent[end][stream] += bytes((65 + i,)) * n
            pair.ends[end].content(stream, bytes((65 + i,)) * n)
        elif action == 1:
            pair.take(end, stream)
        else:
            pair.carry(end, n)
        assert all(held <= Pair.WINDOW for side in pair.held for held in side.values())
    for end in (0, 1):  # a server that ends first does not want the rest
        for stream in pair.streams:
            pair.ends[end].finish(stream)
        for _ in range(1000):
            if len(pair.ended[1 - end]) == 3:
                break
            for side in (0, 1):
                for stream in pair.streams:
                    pair.take(side, stream)
                pair.carry(side, 1 << 20)
    assert pair.got == [sent[1], sent[0]]
    assert [set(pair.streams)] * 2 == pair.ended


class Library:
    """A server by the h2 library, which answers with what it was sent."""

    def __init__(self):
        self.connection = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        )
        self.connection.initiate_connection()
        self.requests, self.bodies, self.rest = {}, {}, {}

    def input(self, data):
        for event in self.connection.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                self.requests[event.stream_id], self.bodies[event.stream_id] = dict(event.headers), b""
            elif isinstance(event, h2.events.DataReceived):
                self.bodies[event.stream_id] += event.data
                self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                self.connection.send_headers(event.stream_id, [(":status", "200"), ("x", "y")])
                self.rest[event.stream_id] = self.bodies[event.stream_id]
        for stream in list(self.rest):
            self.go_on(stream)
        return self.connection.data_to_send()

    def go_on(self, stream):
        while self.rest[stream]:
            n = min(self.connection.local_flow_control_window(stream), self.connection.max_outbound_frame_size)
            if n <= 0:
                return
            self.connection.send_data(stream, self.rest[stream][:n])
            self.rest[stream] = self.rest[stream][n:]
        self.connection.send_headers(stream, [("t", "1")], end_stream=True)
        del self.rest[stream]


def test_against_the_h2_library():
    asking, library = Requester(stream_window=30_000), Library()
    bodies = {asking.ask(POST, content=True): bytes([65 + i]) * (70_000 * i) for i in range(5)}
    for stream, body in bodies.items():
        asking.content(stream, body)
        asking.finish(stream)
    got = dict.fromkeys(bodies, b"")
    over = []
    for _ in range(400):
        for event in asking.input(library.input(asking.output())):
            if event[0] == "data":
                got[event[1]] += event[2]
                with contextlib.suppress(KeyError):  # it may be over
                    asking.take(event[1], len(event[2]))
            elif event[0] == "end":
                assert event[2] == b"t: 1\r\n"
            elif event[0] == "closed":
                over.append(event[1:])
    assert sorted(over) == [(stream, NO_ERROR) for stream in bodies]
    assert got == bodies
    assert library.requests[1] == {
        ":method": "POST", ":scheme": "https", ":authority": "example.com", ":path": "/p"}  # fmt: skip
