"""Certificate compression: there and back by each algorithm, against other implementations, and what is none."""

import contextlib
import ctypes
import hashlib
import shutil
import subprocess
import tracemalloc
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.certificates.compression import AVAILABLE, Brotli, Zlib, Zstd

NAMES = {1: "zlib", 2: "brotli", 3: "zstd"}
each = pytest.mark.parametrize("algorithm", AVAILABLE, ids=lambda algorithm: NAMES[algorithm.number])
CERTIFICATE = b"".join(b"%d: a certificate's usual words, over and over" % n for n in range(60))


def test_the_order_of_preference():
    assert [algorithm.number for algorithm in AVAILABLE] == [3, 2, 1], "the libraries are installed here"


@each
@given(data=st.binary(min_size=1, max_size=2000).map(lambda data: data * 3))
@settings(max_examples=60)
def test_there_and_back(algorithm, data):
    compressed = algorithm.compress(data)
    if compressed is None:
        return
    assert len(compressed) < len(data)
    assert algorithm.decompress(compressed, len(data)) == data


@each
def test_what_gains_nothing(algorithm):
    assert algorithm.compress(b"") is None
    assert algorithm.compress(b"a") is None
    assert algorithm.compress(hashlib.shake_256(b"").digest(1000)) is None
    assert len(algorithm.compress(CERTIFICATE)) < len(CERTIFICATE) // 2


@each
@pytest.mark.parametrize("off", [-1, 1, -len(CERTIFICATE), 1 << 16])
def test_another_length_than_announced(algorithm, off):
    with pytest.raises(ValueError, match="announced"):
        algorithm.decompress(algorithm.compress(CERTIFICATE), len(CERTIFICATE) + off)


@each
def test_truncated_and_trailing(algorithm):
    compressed = algorithm.compress(CERTIFICATE)
    for n in range(len(compressed)):
        with pytest.raises(ValueError):
            algorithm.decompress(compressed[:n], len(CERTIFICATE))
    if algorithm.number == 2:
        return                          # libbrotli's whole-buffer call does not look behind the end of its stream
    for tail in (b"\0", b"garbage"):
        with pytest.raises(ValueError):
            algorithm.decompress(compressed + tail, len(CERTIFICATE))


@each
@given(data=st.binary(max_size=200), length=st.integers(0, 4096))
@settings(max_examples=200)
def test_garbage(algorithm, data, length):
    with contextlib.suppress(ValueError):
        assert len(algorithm.decompress(data, length)) == length


@each
def test_a_bomb_gets_no_room(algorithm):
    """Sixteen megabytes of zeros, in a few bytes: no more is made of them than was announced."""
    bomb = algorithm.compress(bytes(1 << 24))
    assert len(bomb) < 1 << 15
    tracemalloc.start()
    try:
        with pytest.raises(ValueError):
            algorithm.decompress(bomb, 4096)
        assert tracemalloc.get_traced_memory()[1] < 1 << 17
    finally:
        tracemalloc.stop()


def test_other_implementations_agree():
    assert zlib.decompress(Zlib().compress(CERTIFICATE)) == CERTIFICATE
    zstd = shutil.which("zstd")
    if not zstd:
        pytest.skip("no zstd here")
    read = subprocess.run([zstd, "-dc"], input=Zstd().compress(CERTIFICATE), capture_output=True, check=True)
    assert read.stdout == CERTIFICATE
    made = subprocess.run([zstd, "-c"], input=CERTIFICATE, capture_output=True, check=True)
    assert Zstd().decompress(made.stdout, len(CERTIFICATE)) == CERTIFICATE


@pytest.mark.parametrize("make", [Brotli, Zstd])
def test_a_library_that_is_not_there(monkeypatch, make):
    def absent(name):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", absent)
    with pytest.raises(OSError):
        make()
    from edge.certificates import compression

    assert [algorithm.number for algorithm in compression._available()] == [1]
