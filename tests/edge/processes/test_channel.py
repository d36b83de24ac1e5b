"""The line between master and worker: frames whole, in pieces, and against the protocol."""

import contextlib
import os
import socket

import pytest

from edge.processes.channel import Channel, ChannelError, numbered, split_number


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


# ---- descriptors


@pytest.fixture
def passing():
    """A channel that sends descriptors, and one that takes them."""
    one, other = socket.socketpair()
    made = Channel(one, 1024), Channel(other, 1 << 24, descriptors=True)
    yield made
    for end in made:
        end.close()


def content(fd):
    os.lseek(fd, 0, os.SEEK_SET)
    return os.read(fd, 100)


def memory(content):
    fd = os.memfd_create("test")
    os.write(fd, content)
    return fd


def test_descriptors_come_with_their_frames(passing):
    one, other = passing
    files = [memory(b"%d" % n) for n in range(5)]
    one.send(b"A", b"first", files[:2])
    one.send(b"B", b"second")
    one.send(b"C", b"third", files[2:])
    for fd in files:
        os.close(fd)  # copies are sent
    assert list(other.receive()) == [(b"A", b"first"), (b"B", b"second"), (b"C", b"third")]
    taken = [*other.take(2), *other.take(3)]
    assert [content(fd) for fd in taken] == [b"0", b"1", b"2", b"3", b"4"]
    assert not any(os.get_inheritable(fd) for fd in taken)
    for fd in taken:
        os.close(fd)
    with pytest.raises(ChannelError):
        other.take(1)


def test_descriptors_wait_with_what_does_not_fit(passing):
    one, other = passing
    fd = memory(b"x")
    one.send(b"A", bytes(10_000_000))
    one.send(b"B", b"", [fd])
    os.close(fd)
    assert one.sending
    came = []
    while len(came) < 2:
        came += other.receive()
        one.flush()
    assert not one.sending
    (taken,) = other.take(1)
    assert content(taken) == b"x"
    os.close(taken)


def test_nothing_is_left_open(passing):
    def count():
        return len(os.listdir("/proc/self/fd"))

    one, other = passing
    fd = memory(b"x")
    before = count()
    one.send(b"A", b"", [fd, fd])
    list(other.receive())
    other.close()
    one.send(b"B", b"", [fd])
    one.close()
    assert count() == before - 2
    os.close(fd)


def test_who_takes_none_gets_none(pair):
    one, other = pair
    with contextlib.closing(os.fdopen(memory(b"x"), "rb")) as file:
        other.send(b"A", b"", [file.fileno()])
    before = len(os.listdir("/proc/self/fd"))
    assert list(one.receive()) == [(b"A", b"")]
    assert len(os.listdir("/proc/self/fd")) == before
    with pytest.raises(ChannelError):
        one.take(1)
