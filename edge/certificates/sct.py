"""Signed Certificate Timestamps (RFC 6962, sections 3.2 and 3.3), as logs give them: one, or a list."""

from collections.abc import Iterator
from typing import Final

from cryptography import x509

MOST: Final = 16 * 1024
"""Bytes of a file."""
_BEFORE_EXTENSIONS: Final = 1 + 32 + 8
"""Version, log id, time."""


def read(content: bytes) -> tuple[bytes, ...]:
    """The timestamps of a file that holds one of version 1, or a SignedCertificateTimestampList of such. ValueError
    for anything else."""
    if len(content) <= MOST:
        if _is_timestamp(content):
            return (content,)
        found = tuple(_elements(content[2:]))
        if found and len(content) - 2 == int.from_bytes(content[:2], "big") and all(map(_is_timestamp, found)):
            return found
    raise ValueError("holds no Signed Certificate Timestamp, and no list of them")


def _is_timestamp(content: bytes) -> bool:
    """By its structure: version 1 (which is written 0), log id, time, extensions, signature."""
    if len(content) < _BEFORE_EXTENSIONS + 2 or content[0] != 0:
        return False
    at = _BEFORE_EXTENSIONS + 2 + int.from_bytes(content[_BEFORE_EXTENSIONS : _BEFORE_EXTENSIONS + 2], "big")
    signature = content[at + 4 :]
    return len(signature) > 0 and len(signature) == int.from_bytes(content[at + 2 : at + 4], "big")


def _elements(content: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(content):
        end = at + 2 + int.from_bytes(content[at : at + 2], "big")
        yield content[at + 2 : end] if end <= len(content) else b""
        at = end


def embedded(certificate: x509.Certificate) -> int:
    """How many a certificate has within."""
    try:
        oid = x509.PrecertificateSignedCertificateTimestamps
        return len(certificate.extensions.get_extension_for_class(oid).value)
    except (x509.ExtensionNotFound, ValueError):
        return 0
