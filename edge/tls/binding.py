"""Channel bindings: what ties an authentication within a connection (SCRAM, GSS-API) to that connection."""

from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes

CHANNEL_BINDINGS: Final = ("tls-exporter", "tls-unique", "tls-server-end-point")
"""RFC 9266; RFC 5929, sections 3 and 4."""
EXPORTER_LABEL: Final = "EXPORTER-Channel-Binding"
"""RFC 9266, section 2."""


def end_point(certificate: bytes) -> bytes:
    """tls-server-end-point of a server's DER certificate: its hash, by the hash of its own signature; SHA-256 in the
    place of MD5 and SHA-1. ValueError for a signature without a hash, as Ed25519's: RFC 5929 leaves it undefined."""
    try:
        algorithm = x509.load_der_x509_certificate(certificate).signature_hash_algorithm
    except UnsupportedAlgorithm:
        algorithm = None
    if algorithm is None:
        raise ValueError("tls-server-end-point: the certificate's signature has no hash")
    if isinstance(algorithm, hashes.MD5 | hashes.SHA1):
        algorithm = hashes.SHA256()
    digest = hashes.Hash(algorithm)
    digest.update(certificate)
    return digest.finalize()
