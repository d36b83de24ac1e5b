"""Certificate compression (RFC 8879): zstd and brotli by the libraries that Debian has anyway, zlib by Python's own.

A library that is not there takes its algorithm away, and nothing else. Both are called for whole buffers, whose size is
known before: what is decompressed is never larger than the handshake has announced, and allowed.
"""

import ctypes
import zlib
from typing import Final, Protocol

_ZSTD_LEVEL: Final = 19
_BROTLI_QUALITY: Final = 9  # 0.03 ms; what the best gains, 2 % of a certificate, takes 1.3 ms of a worker's loop
_BROTLI_LEAST_WINDOW: Final = 10  # bits, as the format has it
_BROTLI_LARGEST_WINDOW: Final = 24
_BROTLI_GENERIC: Final = 0


class Algorithm(Protocol):
    """As `cext.tls.compression` has it."""

    number: int
    """Its CertificateCompressionAlgorithm."""

    def compress(self, data: bytes) -> bytes | None:
        """None when that gains nothing."""

    def decompress(self, data: bytes, length: int) -> bytes:
        """The `length` bytes that were compressed to `data`; ValueError when it is not that."""


class Zlib:
    """RFC 1950."""

    number: int = 1

    def compress(self, data: bytes) -> bytes | None:
        return _smaller(zlib.compress(data, 9), data)

    def decompress(self, data: bytes, length: int) -> bytes:
        stream = zlib.decompressobj()
        try:
            content = stream.decompress(data, length + 1)
        except zlib.error as error:
            raise ValueError(f"zlib: {error}") from None
        if not stream.eof or stream.unused_data or len(content) != length:
            raise ValueError("zlib: not what was announced")
        return content


class Brotli:
    """RFC 7932. Raises OSError where libbrotli is not installed."""

    number: int = 2

    def __init__(self) -> None:
        size = ctypes.POINTER(ctypes.c_size_t)
        self._encode = ctypes.CDLL("libbrotlienc.so.1").BrotliEncoderCompress
        numbers = (ctypes.c_int, ctypes.c_int, ctypes.c_int)
        self._encode.argtypes = (*numbers, ctypes.c_size_t, ctypes.c_char_p, size, ctypes.c_char_p)
        self._decode = ctypes.CDLL("libbrotlidec.so.1").BrotliDecoderDecompress
        self._decode.argtypes = (ctypes.c_size_t, ctypes.c_char_p, size, ctypes.c_char_p)

    def compress(self, data: bytes) -> bytes | None:
        room = ctypes.c_size_t(len(data))  # what does not fit is no gain
        out = ctypes.create_string_buffer(len(data) or 1)
        # The smallest window that sees all of it: the encoder's memory, and the time to make it, go by that.
        window = min(max(_BROTLI_LEAST_WINDOW, len(data).bit_length()), _BROTLI_LARGEST_WINDOW)
        args = (_BROTLI_QUALITY, window, _BROTLI_GENERIC, len(data), data, ctypes.byref(room), out)
        return _smaller(out.raw[: room.value], data) if self._encode(*args) == 1 else None

    def decompress(self, data: bytes, length: int) -> bytes:
        got = ctypes.c_size_t(length)
        out = ctypes.create_string_buffer(length or 1)
        if self._decode(len(data), data, ctypes.byref(got), out) != 1 or got.value != length:
            raise ValueError("brotli: not what was announced")
        return out.raw[:length]


class Zstd:
    """RFC 8878. Raises OSError where libzstd is not installed."""

    number: int = 3

    def __init__(self) -> None:
        library = ctypes.CDLL("libzstd.so.1")
        self._encode = library.ZSTD_compress
        self._encode.argtypes = (ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int)
        self._encode.restype = ctypes.c_size_t
        self._decode = library.ZSTD_decompress
        self._decode.argtypes = (ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t)
        self._decode.restype = ctypes.c_size_t

    def compress(self, data: bytes) -> bytes | None:
        out = ctypes.create_string_buffer(len(data) or 1)  # as above
        n = self._encode(out, len(data), data, len(data), _ZSTD_LEVEL)
        # Error codes are sizes that no buffer has.
        return _smaller(out.raw[:n], data) if n <= len(data) else None

    def decompress(self, data: bytes, length: int) -> bytes:
        out = ctypes.create_string_buffer(length or 1)
        if self._decode(out, length, data, len(data)) != length:
            raise ValueError("zstd: not what was announced")
        return out.raw[:length]


def _smaller(compressed: bytes, data: bytes) -> bytes | None:
    return compressed if len(compressed) < len(data) else None


def _available() -> tuple[Algorithm, ...]:
    found: list[Algorithm] = []
    for make in (Zstd, Brotli, Zlib):
        try:
            found.append(make())
        except (OSError, AttributeError):  # no such library, or one without the function
            continue
    return tuple(found)


AVAILABLE: Final = _available()
"""Preferred first (docs/decisions.md says why)."""
