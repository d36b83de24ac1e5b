"""What is read once, and handed to those who may not read it."""

import os

import pytest

from edge.change.material import Handed, Material, from_pieces, in_pieces


def test_each_thing_is_read_once():
    material = Material()
    reads = []

    def read():
        reads.append(1)
        return b"content"

    assert material.reads
    assert [material.get("a", read) for _ in range(3)] == [b"content"] * 3
    assert len(reads) == 1


def test_a_failure_is_not_remembered():
    material = Material()

    def fail():
        raise OSError("not there")

    for _ in range(2):
        with pytest.raises(OSError, match="not there"):
            material.get("a", fail)
    assert material.get("a", lambda: 1) == 1


def test_what_was_read_goes_along():
    material = Material()
    for n in range(100):
        material.get(("certificate", n), lambda n=n: bytes(n))
    fd = os.open("/dev/null", os.O_RDONLY)
    try:
        assert material.descriptor("log", lambda: fd) == fd
        pieces = material.pieces()
        assert len(pieces) > 1
        handed = Handed(from_pieces(pieces), dict(material.descriptors()))
    finally:
        os.close(fd)
    assert not handed.reads

    def never():
        raise AssertionError

    assert handed.get(("certificate", 99), never) == bytes(99)
    assert handed.descriptor("log", never) == fd
    for ask in (handed.get, handed.descriptor):
        with pytest.raises(KeyError):
            ask("something else", never)
    handed.forget()
    with pytest.raises(KeyError):
        handed.get(("certificate", 99), never)


def test_pieces():
    assert from_pieces(in_pieces([])) == []
    items = list(range(1000))
    assert from_pieces(in_pieces(items)) == items
    assert from_pieces(in_pieces(tuple(items))) == items
