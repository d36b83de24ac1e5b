"""OCSP (RFC 6960): requests, and whether a response says something about a certificate that can be believed.

A response is made by strangers: `check` bounds it, and raises nothing but OcspError, whatever it is given.
"""

import dataclasses
import datetime
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID

from edge.schema import File, Kind, Place

RESPONSE_MOST: Final = 64 * 1024
"""Bytes; one of a public authority has some hundred, with the certificate of a responder some thousand."""
SKEW: Final = datetime.timedelta(minutes=5)
"""How far a responder's clock may be ahead of ours."""

_URL: Final = re.compile(r"http://[^@/?#\s\x00-\x20\x7f-\uffff]+(/[!-~]*)?")
_WEAK: Final = (hashes.MD5, hashes.SHA1)


class OcspError(Exception):
    """What is wrong with a response."""


class OcspStaleError(OcspError):
    """It holds no more, or not yet."""


class Source(Kind[Path | str]):
    """A file, or one of a few words."""

    WORDS: Final = ("auto", "fetch", "none")
    text = 'path, "auto", "fetch" or "none"'

    def read(self, value: object, at: Place) -> Path | str:
        return str(value) if value in self.WORDS else File().read(value, at)


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """What a response says of a certificate, and until when."""

    der: bytes
    status: ocsp.OCSPCertStatus
    begins: datetime.datetime
    expires: datetime.datetime | None
    """None: it does not say."""
    revoked: datetime.datetime | None

    @property
    def good(self) -> bool:
        return self.status is ocsp.OCSPCertStatus.GOOD


def responders(certificate: x509.Certificate) -> tuple[str, ...]:
    """The URLs at which its authority answers (RFC 5280, section 4.2.2.1), those that are of HTTP."""
    try:
        access = certificate.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    except (x509.ExtensionNotFound, ValueError):
        return ()
    named = [
        description.access_location.value
        for description in access
        if description.access_method == AuthorityInformationAccessOID.OCSP
        and isinstance(description.access_location, x509.UniformResourceIdentifier)
    ]
    return tuple(url for url in named if _is_http(url))


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(_URL.fullmatch(url) and parts.hostname) and parts.port != 0
    except ValueError:
        return False


def must_staple(certificate: x509.Certificate) -> bool:
    """Whether clients are to refuse it without a response beside it (RFC 7633: TLS Feature, status_request)."""
    try:
        feature = certificate.extensions.get_extension_for_class(x509.TLSFeature).value
    except (x509.ExtensionNotFound, ValueError):
        return False
    return x509.TLSFeatureType.status_request in feature


def request(leaf: x509.Certificate, issuer: x509.Certificate) -> bytes:
    """An OCSPRequest in DER, by SHA-1 as all responders know it (RFC 5019, section 2.1.1); without a nonce, so that
    responders may answer from a cache."""
    return _request(leaf, issuer, hashes.SHA1()).public_bytes(Encoding.DER)  # noqa: S303


def _request(leaf: x509.Certificate, issuer: x509.Certificate, algorithm: hashes.HashAlgorithm) -> ocsp.OCSPRequest:
    return ocsp.OCSPRequestBuilder().add_certificate(leaf, issuer, algorithm).build()


def check(
    der: bytes,
    leaf: x509.Certificate,
    issuer: x509.Certificate | None,
    now: datetime.datetime | None = None,
) -> Answer:
    """What the response says of `leaf`. OcspError: nothing that can be believed, or nothing that holds now.

    Signed by the issuer, or by whom it says may sign for it (RFC 6960, section 4.2.2.2); without an `issuer` at hand
    that is the clients' to judge.
    """
    now = now or datetime.datetime.now(datetime.UTC)
    try:
        answer = read(der, leaf, issuer)
    except OcspError:
        raise
    except (ValueError, TypeError, UnsupportedAlgorithm) as e:
        raise OcspError(f"holds no OCSP response ({e})") from None
    if answer.begins > now + SKEW:
        raise OcspStaleError(f"is not valid before {answer.begins:%Y-%m-%d %H:%M} UTC")
    if answer.expires is not None and answer.expires <= now:
        raise OcspStaleError(f"expired on {answer.expires:%Y-%m-%d %H:%M} UTC")
    return answer


def read(der: bytes, leaf: x509.Certificate, issuer: x509.Certificate | None) -> Answer:
    """As `check`, but of whatever time. Raises what the parser does, too."""
    if len(der) > RESPONSE_MOST:
        raise OcspError(f"has more than {RESPONSE_MOST} bytes")
    response = ocsp.load_der_ocsp_response(der)
    if response.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
        raise OcspError(f"says that the responder answered {response.response_status.name}")
    found = [single for single in response.responses if _is_for(single, leaf, issuer)]
    if not found:
        raise OcspError("is for another certificate")
    single = found[0]
    if issuer is not None:
        _verify(response, issuer, single.this_update_utc)
    return Answer(
        der, single.certificate_status, single.this_update_utc, single.next_update_utc, single.revocation_time_utc
    )


def _is_for(single: ocsp.OCSPSingleResponse, leaf: x509.Certificate, issuer: x509.Certificate | None) -> bool:
    """By the CertID (RFC 6960, section 4.1.1)."""
    if single.serial_number != leaf.serial_number:
        return False
    if issuer is None:
        digest = hashes.Hash(single.hash_algorithm)
        digest.update(leaf.issuer.public_bytes())
        return single.issuer_name_hash == digest.finalize()
    own = _request(leaf, issuer, single.hash_algorithm)
    return (single.issuer_name_hash, single.issuer_key_hash) == (own.issuer_name_hash, own.issuer_key_hash)


def _verify(response: ocsp.OCSPResponse, issuer: x509.Certificate, at: datetime.datetime) -> None:
    for signer in (issuer, *response.certificates):
        if not _is_responder(response, signer):
            continue
        if signer != issuer and not _may_sign(signer, issuer, at):
            continue
        _verify_signature(response, signer)
        return
    raise OcspError("is signed by somebody who may not sign it")


def _is_responder(response: ocsp.OCSPResponse, signer: x509.Certificate) -> bool:
    if response.responder_name is not None:
        return response.responder_name == signer.subject
    return response.responder_key_hash == x509.SubjectKeyIdentifier.from_public_key(signer.public_key()).digest


def _may_sign(signer: x509.Certificate, issuer: x509.Certificate, at: datetime.datetime) -> bool:
    """Whether it was issued for that, by the very issuer, and was valid then."""
    if not signer.not_valid_before_utc <= at <= signer.not_valid_after_utc:
        return False
    try:
        signer.verify_directly_issued_by(issuer)
        usage = signer.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm, x509.ExtensionNotFound):
        return False
    return ExtendedKeyUsageOID.OCSP_SIGNING in usage


def _verify_signature(response: ocsp.OCSPResponse, signer: x509.Certificate) -> None:
    algorithm = response.signature_hash_algorithm
    if isinstance(algorithm, _WEAK):
        raise OcspError(f"is signed with {algorithm.name}, which clients refuse")
    key = signer.public_key()
    signed = response.tbs_response_bytes
    try:
        match key:
            case rsa.RSAPublicKey() if algorithm is not None:
                key.verify(response.signature, signed, padding.PKCS1v15(), algorithm)
            case ec.EllipticCurvePublicKey() if algorithm is not None:
                key.verify(response.signature, signed, ec.ECDSA(algorithm))
            case ed25519.Ed25519PublicKey() | ed448.Ed448PublicKey():
                key.verify(response.signature, signed)
            case _:
                raise OcspError("is signed in a way that is not known")
    except InvalidSignature:
        raise OcspError("has a signature that is wrong") from None


def issuer_of(chain: Sequence[bytes]) -> x509.Certificate | None:
    """The certificate that issued the first of a chain (DER), when it stands in it."""
    return x509.load_der_x509_certificate(chain[1]) if len(chain) > 1 else None
