"""What stands in Redis: nothing to be read without the secret, nothing to be changed unnoticed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.fleet.link import Secret
from edge.fleet.wrapping import MARK, WRAPPED_MOST, WrappedError, unwrap, wrap

ONE, OTHER = Secret(b"1" * 32), Secret(b"2" * 32)


@given(st.binary(max_size=500))
def test_there_and_back(content):
    wrapped = wrap(ONE, "k", content)
    assert unwrap([ONE], "k", wrapped) == (content, 0)
    assert unwrap([OTHER, ONE], "k", wrapped) == (content, 1)
    assert wrap(ONE, "k", content) != wrapped, "a nonce of its own"
    assert len(content) < 4 or content not in wrapped[len(MARK) :]  # examples are taken from constants, too


def test_another_secret():
    with pytest.raises(WrappedError, match="secret_files"):
        unwrap([OTHER], "k", wrap(ONE, "k", b"content"))


def test_another_key():
    with pytest.raises(WrappedError, match="copied"):
        unwrap([ONE], "l", wrap(ONE, "k", b"content"))


@given(st.data())
def test_a_change_is_found_out(data):
    wrapped = bytearray(wrap(ONE, "k", b"content"))
    wrapped[data.draw(st.integers(0, len(wrapped) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(WrappedError):
        unwrap([ONE], "k", bytes(wrapped))


@given(st.integers(0, 46))
def test_a_part(length):
    with pytest.raises(WrappedError):
        unwrap([ONE], "k", wrap(ONE, "k", b"content")[:length])


def test_what_is_none():
    for text in (b"", b"EDG1", b"x" * 100, b"EDG1" + bytes(WRAPPED_MOST), wrap(ONE, "k", b"c") + b"x"):
        with pytest.raises(WrappedError):
            unwrap([ONE], "k", text)
