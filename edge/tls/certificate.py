"""Certificates with what signs for them: a key in memory, or any object that can."""

import asyncio
import concurrent.futures
import dataclasses
import hashlib
import inspect
import ipaddress
import threading
from collections.abc import Awaitable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar, runtime_checkable

from cext.crypto.sign import PrivateKey
from cext.tls.credential import Credential
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from edge.certificates import compression

_T = TypeVar("_T")

_DELEGATION_USAGE: Final = x509.ObjectIdentifier("1.3.6.1.4.1.44363.44")
_ED25519: Final = 0x0807
_HASHES: Final = {
    **dict.fromkeys((0x0401, 0x0403, 0x0804, 0x0809), "sha256"),
    **dict.fromkeys((0x0501, 0x0503, 0x0805, 0x080A), "sha384"),
    **dict.fromkeys((0x0601, 0x0603, 0x0806, 0x080B), "sha512"),
}
"""By SignatureScheme: of RSA PKCS #1, ECDSA, RSA-PSS, and RSA-PSS with a key of its own."""


@runtime_checkable
class Signer(Protocol):
    """A key that is somewhere else: in another process, on another host, in a token."""

    def sign(self, message: bytes, scheme: int) -> bytes | Awaitable[bytes]:
        """The signature of `message` by a SignatureScheme (RFC 8446, section 4.2.3: 0x0403, 0x0804, ...), ECDSA in
        DER; at once or as an awaitable. What it raises ends the handshake with internal_error.

        `message` is whole: a scheme with a hash signs its hash, which `digest` makes. It has about 200 bytes, but in a
        client of TLS 1.2 all of the handshake so far, some KiB with the server's certificates.
        """
        ...


def digest(message: bytes, scheme: int) -> bytes:
    """What a key that signs digests is given for `message` and a SignatureScheme: the scheme's hash of it, or the
    message itself for Ed25519. ValueError for a scheme that this engine never asks for."""
    if scheme == _ED25519:
        return message
    name = _HASHES.get(scheme)
    if name is None:
        raise ValueError(f"no signature scheme of ours: 0x{scheme:04x}")
    return hashlib.new(name, message).digest()


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Certificate:
    """A certificate chain and its private key.

    `chain`: DER certificates, the server's (or client's) own first. `private_key`: PEM, a key of the `cryptography`
    package, or a `Signer`. `names`: the host names it is chosen for; None: those of its subjectAltName.
    `ocsp_staple`: an OCSPResponse in DER, and `signed_certificate_timestamps`: of Certificate Transparency logs (RFC
    6962, section 3.2), which go to clients that ask for them.

    `delegated_credential`: what `issue_delegated_credential` has made (RFC 9345); `private_key` is then the key that it
    delegates to. A server shows it to clients of TLS 1.3 that take such, until it expires; for all others another
    Certificate of the same names is to follow. `match_issuer`: to be shown to peers alone that name an issuer of the
    chain's (certificate_authorities).

    Raises ValueError when the chain cannot be read, the key is of no use to TLS or not the one of the first certificate
    or the delegated credential, that one cannot be used, or staple and timestamps are too long.
    """

    chain: Sequence[bytes]
    private_key: bytes | PrivateKeyTypes | Signer = dataclasses.field(repr=False)
    names: Sequence[str] | None = None
    ocsp_staple: bytes = b""
    signed_certificate_timestamps: Sequence[bytes] = ()
    delegated_credential: bytes | None = None
    match_issuer: bool = False
    _credential: Any = dataclasses.field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "chain", tuple(bytes(der) for der in self.chain))
        if not self.chain:
            raise ValueError("chain: a certificate needs at least one")
        leaf = x509.load_der_x509_certificate(self.chain[0])
        names = subject_names(leaf) if self.names is None else self.names
        object.__setattr__(self, "names", tuple(names))
        if self.delegated_credential is not None and not may_delegate(leaf):
            raise ValueError("delegated_credential: the certificate has not DelegationUsage and digitalSignature")
        credential = Credential(
            self.chain,
            engine_key(self.private_key),
            self.names,
            ocsp_response=self.ocsp_staple,
            signed_certificate_timestamps=tuple(self.signed_certificate_timestamps),
            certificate_compression=compression.AVAILABLE,
            delegated_credential=self.delegated_credential,
            match_issuer=self.match_issuer,
        )
        if credential.delegated is not None and not credential.delegated.is_signed_by(self.chain[0]):
            raise ValueError("delegated_credential: is not signed by the certificate's key")
        object.__setattr__(self, "_credential", credential)

    @classmethod
    def load(cls, chain: str | Path, private_key: str | Path) -> "Certificate":
        """From PEM files, as nginx and OpenSSL use them; one file may hold both. Raises OSError and ValueError."""
        found = x509.load_pem_x509_certificates(Path(chain).read_bytes())
        return cls(
            chain=[certificate.public_bytes(Encoding.DER) for certificate in found],
            private_key=Path(private_key).read_bytes(),
        )

    @property
    def credential(self) -> Any:
        """The engine's form of it."""
        return self._credential


def subject_names(certificate: x509.Certificate) -> tuple[str, ...]:
    """The DNS names of its subjectAltName. () when it has none."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return ()
    return tuple(extension.value.get_values_for_type(x509.DNSName))


def timestamps(encoded: bytes) -> tuple[bytes, ...]:
    """The elements of a SignedCertificateTimestampList (RFC 6962, section 3.3) of right form; () of b""."""
    return vectors(encoded[2:])


def vectors(encoded: bytes) -> tuple[bytes, ...]:
    """The elements of a list of right form, each behind a length of two bytes."""
    found, at = [], 0
    while at < len(encoded):
        n = int.from_bytes(encoded[at : at + 2], "big")
        found.append(encoded[at + 2 : at + 2 + n])
        at += 2 + n
    return tuple(found)


def may_delegate(certificate: x509.Certificate) -> bool:
    """Whether its key may sign delegated credentials: its issuer says so by the extension DelegationUsage, and by the
    key usage digitalSignature (RFC 9345, section 4.2)."""
    try:
        certificate.extensions.get_extension_for_oid(_DELEGATION_USAGE)
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return False
    return usage.digital_signature


def engine_key(key: Any) -> Any:
    """The engine's form of a private key: a PrivateKey, or a Signer as it is."""
    if isinstance(key, PrivateKey):
        return key
    if isinstance(key, bytes):
        return PrivateKey.from_pem(key)
    if hasattr(key, "private_bytes"):  # the cryptography package's, whose sign() is of another form
        return PrivateKey.from_pem(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    if isinstance(key, Signer):
        return key
    raise ValueError(f"private_key: PEM, a private key or an object with sign(message, scheme), not {type(key)!r}")


def wait_for(result: _T | Awaitable[_T]) -> _T:
    """The value of what a hook or signer returned: an awaitable is run to its end, by an event loop of its own (in
    another thread when this one is running a loop already). Blocks until then; raises what it raises."""
    if not inspect.isawaitable(result):
        return result

    async def run() -> _T:
        return await result

    return _run(run())


def _run(coroutine: Coroutine[Any, Any, _T]) -> _T:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    done: concurrent.futures.Future[_T] = concurrent.futures.Future()

    def work() -> None:
        try:
            done.set_result(asyncio.run(coroutine))
        except BaseException as error:  # carried over to the thread that waits
            done.set_exception(error)

    threading.Thread(target=work, name="edge.tls hook").start()
    return done.result()


def is_address(name: str) -> bool:
    """Whether it is an IP address rather than a host name."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
