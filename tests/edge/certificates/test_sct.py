"""Signed Certificate Timestamps: one or a list, and nothing else."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.certificates import sct
from tests.edge.issuing import timestamp, vector

ONE, OTHER = timestamp(), timestamp(b"extension", b"s")


@pytest.mark.parametrize("found", [(ONE,), (OTHER,), (ONE, OTHER), (OTHER,) * 100])
def test_lists(found):
    assert sct.read(vector(b"".join(map(vector, found)))) == found


def test_one():
    assert sct.read(ONE) == (ONE,)
    assert sct.read(OTHER) == (OTHER,)


@pytest.mark.parametrize("whole", [ONE, OTHER, vector(vector(ONE) + vector(OTHER))])
def test_truncated_and_with_trailing_bytes(whole):
    for n in range(len(whole)):
        with pytest.raises(ValueError, match="holds no"):
            sct.read(whole[:n])
    with pytest.raises(ValueError, match="holds no"):
        sct.read(whole + b"\0")


@pytest.mark.parametrize(
    "wrong",
    [b"\1" + ONE[1:], timestamp(signature=b""), vector(b""), vector(vector(b"")), vector(vector(ONE) + vector(b"x")),
     vector(vector(b"x") + vector(ONE)), vector(b"".join([vector(ONE)] * 200))],
)  # fmt: skip
def test_what_is_none(wrong):
    with pytest.raises(ValueError, match="holds no"):
        sct.read(wrong)


@given(st.binary(max_size=200))
def test_any_bytes(content):
    with contextlib.suppress(ValueError):
        assert sct.read(content)
