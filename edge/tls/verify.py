"""Trust in a peer's certificate, by the `cryptography` package's path validation (RFC 5280, as the web has it)."""

import contextlib
import datetime
import functools
import ipaddress
import os
import re
import threading
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from cext.tls.alert import TlsAlert
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID

from edge.tls.errors import Refuse

_SYSTEM_STORES: Final = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
"""Of Debian, Red Hat, and the rest."""
_CERTIFICATE: Final = re.compile(b"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_CHAIN_MAX: Final = 16
_EXPONENT_MAX: Final = (1 << 32) - 1

Roots = str | Path | Sequence[x509.Certificate]
Store = verification.Store


def load_roots(roots: Roots) -> tuple[x509.Certificate, ...]:
    """Trusted certificates, of a PEM file or as they are given. Raises OSError, and ValueError when there is none."""
    found = tuple(x509.load_pem_x509_certificates(Path(roots).read_bytes()) if isinstance(roots, str | Path) else roots)
    if not found or not all(isinstance(certificate, x509.Certificate) for certificate in found):
        raise ValueError("a PEM file or a sequence of x509.Certificate, with at least one")
    return found


def store(roots: Roots) -> Store:
    """The same, ready for verify_server and verify_client."""
    return Store(list(load_roots(roots)))


@functools.cache
def system_store() -> Store:
    """The system's trusted certificates; read once. Raises what system_authorities() does."""
    return Store(list(system_authorities()))


def system_authorities() -> tuple[x509.Certificate, ...]:
    """Those of the system's file, or of the one that the environment variable SSL_CERT_FILE names. Raises OSError, and
    ValueError when there is none."""
    named = os.environ.get("SSL_CERT_FILE")
    for path in [named] if named else _SYSTEM_STORES:
        if os.path.exists(path):
            return tuple(_readable(Path(path).read_bytes()))
    raise ValueError("root_cas: this system has no store of trusted certificates; name a file")


def _readable(pem: bytes) -> list[x509.Certificate]:
    """One that breaks the rules of today must not cost the others: systems keep old ones."""
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        for block in _CERTIFICATE.findall(pem):
            with contextlib.suppress(ValueError):
                found.append(x509.load_pem_x509_certificate(block))
    return found


def heed(verdict: object, alert: str) -> None:
    """What a callable that is to raise has returned: False is a no as well, and Refuse is raised for it."""
    if verdict is False:
        raise Refuse(alert, "the callable that is to verify it returned False")


class _Last(threading.local):
    error: BaseException | None = None


_last: Final = _Last()


def asking(check: Callable[[Sequence[bytes]], None]) -> Callable[..., None]:
    """`check` as the engine calls it, in the midst of a handshake: what it raises becomes the alert, and is kept for
    `last_error`, since it cannot pass through the engine."""

    def ask(chain: list[bytes], *_: object) -> None:
        try:
            check(tuple(chain))
        except Refuse as error:
            _last.error = error
            raise TlsAlert(error.description, error.reason) from error
        except BaseException as error:
            _last.error = error
            raise

    return ask


def last_error() -> BaseException | None:
    """What an `asking` has raised in this thread since this was last called."""
    error, _last.error = _last.error, None
    return error


def verify_server(roots: Store, chain: Sequence[bytes], server_name: str) -> None:
    """Raises Refuse unless the chain (DER, leaf first) leads to one of the roots, is valid now, and is for
    `server_name`, a host name or an IP address."""
    leaf, others = _parse(chain)
    subject: x509.DNSName | x509.IPAddress
    try:
        subject = x509.IPAddress(ipaddress.ip_address(server_name))
    except ValueError:
        subject = x509.DNSName(server_name)
    try:
        _builder(roots, ExtendedKeyUsageOID.SERVER_AUTH).build_server_verifier(subject).verify(leaf, others)
    except verification.VerificationError as error:
        raise _refusal(leaf, error) from error


def verify_client(roots: Store, chain: Sequence[bytes]) -> None:
    """Raises Refuse unless the chain (DER, leaf first) leads to one of the roots, is valid now, and may authenticate
    a client.

    Of several issuers of one name the first is taken: a client that signs its own could have every path through them
    tried, which costs hundreds of signatures.
    """
    leaf, others = _parse(chain)
    others = list({issuer.subject: issuer for issuer in reversed(others)}.values())
    try:
        _builder(roots, ExtendedKeyUsageOID.CLIENT_AUTH).build_client_verifier().verify(leaf, others)
    except verification.VerificationError as error:
        raise _refusal(leaf, error) from error


def _parse(chain: Sequence[bytes]) -> tuple[x509.Certificate, list[x509.Certificate]]:
    """A peer's chain, within what it may cost to look at: a public exponent as long as its modulus makes a verification
    two hundred times as dear."""
    if len(chain) > _CHAIN_MAX:
        raise Refuse("bad_certificate", f"a chain of more than {_CHAIN_MAX} certificates")
    try:
        certificates = [x509.load_der_x509_certificate(der) for der in chain]
        keys = [certificate.public_key() for certificate in certificates]
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Refuse("bad_certificate", f"a certificate cannot be read: {error}") from error
    if any(isinstance(key, rsa.RSAPublicKey) and key.public_numbers().e > _EXPONENT_MAX for key in keys):
        raise Refuse("bad_certificate", "an RSA key with a public exponent of more than 32 bits")
    return certificates[0], certificates[1:]


def _builder(roots: Store, purpose: x509.ObjectIdentifier) -> verification.PolicyBuilder:
    now = datetime.datetime.now(datetime.UTC)
    builder = verification.PolicyBuilder().store(roots).time(now)
    return builder.extension_policies(
        ca_policy=verification.ExtensionPolicy.webpki_defaults_ca(), ee_policy=_leaf_policy(purpose)
    )


def _leaf_policy(purpose: x509.ObjectIdentifier) -> verification.ExtensionPolicy:
    """The web's rules, save that two extensions may be critical, as RFC 5280 lets them and private authorities make
    them (sections 4.2.1.6 and 4.2.1.12), and that a client may be named by its subject alone."""

    def for_purpose(_policy: object, _leaf: object, usage: x509.ExtendedKeyUsage | None) -> None:
        if usage is not None and purpose not in usage:
            raise ValueError("extendedKeyUsage is for another purpose")

    either = verification.Criticality.AGNOSTIC
    policy = verification.ExtensionPolicy.webpki_defaults_ee()
    policy = policy.may_be_present(x509.ExtendedKeyUsage, either, for_purpose)
    if purpose == ExtendedKeyUsageOID.CLIENT_AUTH:
        return policy.may_be_present(x509.SubjectAlternativeName, either, None)
    return policy.require_present(x509.SubjectAlternativeName, either, None)


def _refusal(leaf: x509.Certificate, error: Exception) -> Refuse:
    """The alert for it (RFC 8446, section 6.2): what the leaf tells by itself, else by the validator's words."""
    now = datetime.datetime.now(datetime.UTC)
    if now > leaf.not_valid_after_utc:
        return Refuse("certificate_expired", f"it was valid until {leaf.not_valid_after_utc:%Y-%m-%d %H:%M} UTC")
    words = str(error)
    return Refuse("unknown_ca" if "candidates exhausted" in words else "bad_certificate", words)
