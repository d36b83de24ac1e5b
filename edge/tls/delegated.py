"""Delegated credentials (RFC 9345): short-lived keys that a certificate's key signs, so that the hosts which answer for
its names need not hold that key."""

import datetime
from typing import Any, Final

from cext.crypto.sign import PrivateKey, PublicKey
from cext.tls.delegated import CONTEXT, VALIDITY_MAX
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from edge.tls.certificate import engine_key, may_delegate, wait_for

_VALIDITY_MAX: Final = datetime.timedelta(seconds=VALIDITY_MAX)


def issue_delegated_credential(
    certificate: x509.Certificate,
    private_key: Any,
    delegated_key: bytes,
    *,
    lifetime: datetime.timedelta = datetime.timedelta(days=1),
    scheme: int | None = None,
    algorithm: int | None = None,
) -> bytes:
    """A delegated credential (section 4), for `Certificate(delegated_credential=...)` on the hosts that are to have it.

    `private_key` is the certificate's, in any form that `Certificate` takes; `delegated_key` the public half, as
    SubjectPublicKeyInfo (DER), of the key that is delegated to: ECDSA, Ed25519 or RSASSA-PSS. The credential is good
    for `lifetime` from now, at most seven days. `scheme` is the SignatureScheme that the delegated key signs by,
    `algorithm` the one that the certificate's signs the credential by; None: the key's first. ValueError for a
    certificate that may not delegate, keys or schemes that do not fit, and a lifetime too long.
    """
    leaf = certificate.public_bytes(Encoding.DER)
    if not may_delegate(certificate):
        raise ValueError("certificate: has not DelegationUsage (RFC 9345, section 4.2) and digitalSignature")
    if not datetime.timedelta() < lifetime <= _VALIDITY_MAX:
        raise ValueError("lifetime: seven days at most")
    expires = datetime.datetime.now(datetime.UTC) + lifetime
    if expires > certificate.not_valid_after_utc:
        raise ValueError(
            f"lifetime: the certificate is valid until {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
        )
    valid_time = int((expires - certificate.not_valid_before_utc).total_seconds())
    public = PublicKey.from_spki(delegated_key)
    own = PublicKey.from_spki(_spki(certificate))
    scheme = _chosen("scheme", scheme, public)
    algorithm = _chosen("algorithm", algorithm, own)
    if public.kind == "rsa":
        raise ValueError("delegated_key: of kind rsa, which cannot be delegated to")
    signed = valid_time.to_bytes(4, "big") + scheme.to_bytes(2, "big") + _vector(3, delegated_key)
    signed += algorithm.to_bytes(2, "big")
    signature = _sign(engine_key(private_key), CONTEXT + leaf + signed, algorithm)
    if not own.verify_bytes(algorithm, CONTEXT + leaf + signed, signature):
        raise ValueError("private_key: is not the certificate's")
    return signed + _vector(2, signature)


def _spki(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _chosen(what: str, scheme: int | None, key: Any) -> int:
    if scheme is not None and scheme not in key.schemes:
        raise ValueError(f"{what}: a key of kind {key.kind} does not sign by 0x{scheme:04x}")
    return int(key.schemes[0] if scheme is None else scheme)


def _sign(key: Any, message: bytes, algorithm: int) -> bytes:
    if isinstance(key, PrivateKey):
        try:
            return bytes(key.sign_bytes(algorithm, message))
        except ValueError as error:
            raise ValueError(f"private_key: {error}") from None
    signature = wait_for(key.sign(message, algorithm))
    if not isinstance(signature, bytes):
        raise TypeError(f"the signer returned {type(signature).__name__}, not bytes")
    return signature


def _vector(width: int, content: bytes) -> bytes:
    return len(content).to_bytes(width, "big") + content
