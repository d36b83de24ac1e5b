"""The line between master and worker: frames whole, in pieces, and against the protocol."""

import socket

import pytest

from edge.channel import Channel, ChannelError, numbered, split_number


@pytest.fixture
def pair():
    one, other = socket.socketpair()
    made = Channel(one, 1024), Channel(other, 1 << 24)
    yield made
    for end in made:
        end.close()


@pytest.fixture
def raw():
    """A channel, and the bare socket at its other end."""
    one, other = socket.socketpair()
    made = Channel(one, 1024)
    yield made, other
    made.close()
    other.close()


def test_frames_come_as_they_were_sent(pair):
    one, other = pair
    assert list(other.receive()) == []
    one.send(b"A")
    one.send(b"B", b"body")
    one.send(b"C", bytes(70000))
    assert list(other.receive()) == [(b"A", b""), (b"B", b"body"), (b"C", bytes(70000))]
    other.send(b"D", bytes(1024))
    assert list(one.receive()) == [(b"D", bytes(1024))]


def test_what_does_not_fit_goes_when_there_is_room(pair):
    one, other = pair
    body = bytes(range(256)) * 40000  # 10 MB
    one.send(b"A", body)
    one.send(b"B")
    came = []
    while len(came) < 2:
        came += other.receive()
        one.flush()
    assert came == [(b"A", body), (b"B", b"")]


def test_byte_by_byte(raw):
    channel, other = raw
    for byte in b"\0\0\0\3Pxyz\0\0\0\0C":
        assert list(channel.receive()) == []
        other.send(bytes([byte]))
        if byte == ord("z"):
            assert list(channel.receive()) == [(b"P", b"xyz")]
    assert list(channel.receive()) == [(b"C", b"")]


def test_the_rest_waits_where_not_all_frames_are_taken(raw):
    channel, other = raw
    other.sendall(b"\0\0\0\1Ax\0\0\0\0B")
    for letter, body in channel.receive():
        assert (letter, body) == (b"A", b"x")
        break
    assert list(channel.receive()) == [(b"B", b"")]


@pytest.mark.parametrize("head", [b"\0\0\4\1X", b"\xff\xff\xff\xffX"])
def test_too_long_a_frame_is_refused_by_its_head(raw, head):
    channel, other = raw
    other.sendall(head)
    with pytest.raises(ChannelError, match="a frame of"):
        list(channel.receive())


def test_whoever_says_much_is_read_in_pieces(raw):
    channel, other = raw
    other.setblocking(False)
    sent = 0
    frame = b"\0\0\4\0X" + bytes(1024)
    while True:
        try:
            sent += other.send(frame * 64)
        except BlockingIOError:
            break
    first = sum(len(body) + 5 for _, body in channel.receive())
    assert 0 < first <= 64 * 1029
    assert not channel.ended


def test_an_end(raw):
    channel, other = raw
    other.sendall(b"\0\0\0\0A\0\0")
    other.close()
    assert list(channel.receive()) == [(b"A", b"")]
    assert channel.ended
    channel.send(b"B")  # nobody hears it
    assert list(channel.receive()) == []


def test_a_closed_channel_says_and_hears_nothing(pair):
    one, other = pair
    one.close()
    one.send(b"A")
    assert list(one.receive()) == []
    assert list(other.receive()) == [] and other.ended


def test_numbers():
    assert split_number(numbered(7, b"rest")) == (7, b"rest")
    assert split_number(numbered(0xFFFFFFFF)) == (0xFFFFFFFF, b"")
    for short in (b"", b"\0\0\0"):
        with pytest.raises(ChannelError):
            split_number(short)
