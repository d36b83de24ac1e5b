"""Peers that ask for much at no cost of their own: each is cut off with the GOAWAY that says why, soon, and having cost
little."""

import contextlib
import resource
import struct
import time

import pytest

from tests.cext.proxy.harness import H2Client, serving, until
from tests.h2_peer import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    HEADERS,
    NO_ERROR,
    PING,
    PRIORITY,
    PRIORITY_UPDATE,
    PROTOCOL_ERROR,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
    request_fields,
    reset,
    window,
)


def slow(conn):
    conn.request()
    conn.more()


@pytest.fixture
def edge():
    with serving(slow) as edge:
        yield edge


def cut_off(edge, pieces, *, frames, seconds=3.0, megabytes=24, code=ENHANCE_YOUR_CALM, prepare=None):
    """Sends pieces(client, n) for n = 0, 1, ... until the connection ends, which must be before `frames`."""
    cpu = time.thread_time(), time.process_time()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    chunks = edge.chunks_in_use()
    with H2Client(edge) as client:
        client.until(lambda: client.settings is not None)
        if prepare:
            prepare(client)
        try:
            for n in range(0, frames, 50):
                client.send(b"".join(pieces(client, i) for i in range(n, n + 50)))
            sent_all = True
        except OSError:
            sent_all = False
        client.sock.settimeout(4)
        goaway = client.end()
    assert goaway is not None, f"no GOAWAY, sent all: {sent_all}"
    assert goaway[1] == code
    edge.until_idle()
    ours = time.thread_time() - cpu[0]
    assert time.process_time() - cpu[1] - ours < seconds
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < megabytes * 1024
    until(lambda: edge.chunks_in_use() <= chunks)


def test_rapid_reset(edge):
    """CVE-2023-44487."""

    def piece(client, n):
        stream = client.stream()
        return client.head(stream, request_fields()) + reset(stream)

    cut_off(edge, piece, frames=1500)
    assert edge.counters()["requests"] < 1200


@pytest.mark.parametrize(
    "how", ["window overflow", "zero increment", "data after the end", "wrong length", "malformed"]
)
def test_streams_that_we_are_made_to_reset(edge, how):
    """CVE-2025-8671: what the peer sends is wrong, so that the reset is ours."""

    def piece(client, n):
        stream = client.stream()
        if how == "malformed":
            return client.head(stream, request_fields(fields=[("connection", "x")]))
        if how == "wrong length":
            return client.head(
                stream, request_fields(method="POST", fields=[("content-length", "1")]), end=False
            ) + frame(DATA, END_STREAM, stream, b"abc")
        head = client.head(stream, request_fields(method="POST"), end=False)
        if how == "window overflow":
            return head + window(stream, 2**31 - 1)
        if how == "zero increment":
            return head + window(stream, 0)
        return head + frame(DATA, END_STREAM, stream) + frame(DATA, 0, stream, b"x")

    code = {"zero increment": None, "data after the end": None}.get(how, ENHANCE_YOUR_CALM)
    if code is None:  # a fault of the connection at once
        with H2Client(edge) as client:
            client.send(*(piece(client, n) for n in range(3)))
            assert client.end()[1] != NO_ERROR
        return
    cut_off(edge, piece, frames=1500)


def test_continuation_without_end(edge):
    def piece(client, n):
        block = client.encoder.encode([(f"x-{n}", "v" * 50)])
        return frame(HEADERS if n == 0 else CONTINUATION, 0, 1, block)

    cut_off(edge, piece, frames=500)


def test_continuation_of_nothing(edge):
    cut_off(edge, lambda client, n: frame(CONTINUATION if n else HEADERS, 0, 1), frames=500)


def test_hpack_bomb(edge):
    """One entry of the table, named by a byte each time: 16 KiB that are 64 MiB."""

    def piece(client, n):
        bomb = b"\x40\x01x" + b"\x7f\xa1\x1e" + b"v" * 4000 if n == 0 else b""
        block = client.encoder.encode(request_fields()) + bomb
        return frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, block + b"\xbe" * 10_000)

    cut_off(edge, piece, frames=50)


@pytest.mark.parametrize(
    "one",
    [
        frame(SETTINGS, payload=struct.pack(">HI", 4, 65535)),
        frame(SETTINGS),
        frame(PING, payload=bytes(8)),
        frame(PRIORITY, 0, 1, bytes(4) + b"\x10"),
        frame(PRIORITY_UPDATE, payload=b"\0\0\0\1u=1"),
        frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\1"),
        frame(0x77, payload=b"unknown"),
    ],
    ids=["settings", "empty settings", "ping", "priority", "priority update", "window update", "unknown"],
)
def test_frames_that_ask_for_nothing(edge, one):
    cut_off(edge, lambda client, n: one, frames=40_000)


def test_empty_data(edge):
    cut_off(edge, lambda client, n: frame(DATA, 0, 1), frames=6000, prepare=lambda client: client.post(end=False))


def test_more_streams_than_are_allowed(edge):
    """The client has acknowledged our SETTINGS: it knows (RFC 9113, section 5.1.2)."""
    cut_off(edge, lambda client, n: client.head(client.stream(), request_fields()), frames=2500, code=PROTOCOL_ERROR)
    assert edge.counters()["requests"] == 256


def test_window_overflow_of_the_connection(edge):
    with H2Client(edge) as client:
        client.send(window(0, 2**31 - 1))
        assert client.end()[1] == FLOW_CONTROL_ERROR


def test_pings_whose_answers_nobody_reads(edge):
    with H2Client(edge, receive_buffer=4096) as client:
        client.sock.settimeout(3)
        with contextlib.suppress(OSError):
            for _ in range(2000):
                client.send(frame(PING, payload=bytes(8)) * 500)
        assert edge.chunks_in_use() < 40
        until(lambda: edge.counters()["connections_open"] == 0)


def test_a_client_in_good_order_is_not_cut_off(edge):
    """As many frames as a download of a gigabyte asks for, at the pace of one of 100 MB/s."""
    with H2Client(edge) as client:
        client.until(lambda: client.settings is not None)
        for _ in range(20):
            client.send(frame(PING, payload=bytes(8)), *[window(0, 1)] * 200)
            time.sleep(0.01)
        client.until(lambda: client.pongs == 20)
        with pytest.raises(TimeoutError):
            client.sock.settimeout(0.1)
            client.step()
        assert not client.goaways


def test_ended_is_raised_for_what_is_cut(edge):
    with H2Client(edge, begin=False) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n")
        with pytest.raises(EOFError):
            while True:
                client.next_frame()
