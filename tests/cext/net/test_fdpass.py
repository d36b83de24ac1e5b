"""One descriptor with one message: whole, alone, and never left open."""

import array
import os
import socket

import pytest
from cext.net.fdpass import receive, send


@pytest.fixture
def pair():
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    yield ends
    for end in ends:
        end.close()


def open_descriptors():
    return set(os.listdir("/proc/self/fd"))


def rights(*descriptors):
    return (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))


def test_a_message_and_its_descriptor_arrive_together(pair):
    out, into = pair
    read, write = os.pipe()
    assert send(out.fileno(), b"hello", write)
    os.close(write)
    message, fd = receive(into.fileno())
    assert message == b"hello"
    assert not os.get_inheritable(fd)
    os.write(fd, b"through")
    os.close(fd)
    assert os.read(read, 100) == b"through"
    os.close(read)


def test_nothing_there_and_the_end(pair):
    out, into = pair
    assert receive(into.fileno()) is None
    out.close()
    assert receive(into.fileno()) == (b"", -1)


def test_messages_queue_until_there_is_no_room_and_then_go_on(pair):
    out, into = pair
    sent = 0
    while send(out.fileno(), b"m" * 4000, into.fileno()):
        sent += 1
        assert sent < 10000
    assert sent > 3
    for _ in range(sent):
        message, fd = receive(into.fileno())
        assert message == b"m" * 4000
        os.close(fd)
    assert receive(into.fileno()) is None
    assert send(out.fileno(), b"again", into.fileno())


def test_a_receiver_that_has_gone(pair):
    out, into = pair
    into.close()
    with pytest.raises(BrokenPipeError):
        send(out.fileno(), b"hello", out.fileno())


@pytest.mark.parametrize("n", [0, 2, 3, 20, 200])
def test_any_other_number_of_descriptors_is_refused_and_none_stays_open(pair, n):
    out, into = pair
    before = open_descriptors()
    out.sendmsg([b"hello"], [rights(*[out.fileno()] * n)] if n else [])
    with pytest.raises(ValueError, match="exactly one"):
        receive(into.fileno())
    assert open_descriptors() == before


def test_a_message_longer_than_the_room_is_refused(pair):
    out, into = pair
    before = open_descriptors()
    assert send(out.fileno(), b"x" * 101, out.fileno())
    assert send(out.fileno(), b"x" * 100, out.fileno())
    with pytest.raises(ValueError, match="cut off"):
        receive(into.fileno(), 100)
    assert open_descriptors() == before
    message, fd = receive(into.fileno(), 100)
    assert message == b"x" * 100
    os.close(fd)


def test_an_empty_message_with_a_descriptor_is_refused(pair):
    out, into = pair
    before = open_descriptors()
    out.sendmsg([b""], [rights(out.fileno())])
    with pytest.raises(ValueError, match="exactly one"):
        receive(into.fileno())
    assert open_descriptors() == before
