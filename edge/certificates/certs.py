"""Certificate chains and private keys: read, checked against each other, and made ready for the engine.

`cryptography` reads X.509; the key itself goes to libcrypto through `cext`, which signs with it.
"""

import dataclasses
import datetime
import functools
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from edge import token
from edge.certificates import delegated, ocsp, sct
from edge.config import addresses, read_file
from edge.keyless import client as keyless
from edge.schema import Place
from edge.settings import Certificate, Server, Settings
from edge.signers import KeylessKey, Pkcs11Key, key_files
from edge.tls.certificate import Signer

_RSA_LEAST_BITS: Final = 2048
_DEMANDED: Final = "clients refuse this certificate without an OCSP response (must-staple)"
_EXPIRES_SOON: Final = datetime.timedelta(days=14)
_USABLE: Final = "use an ECDSA key on P-256 or P-384, an RSA key of at least 2048 bits, or an Ed25519 key"


@dataclasses.dataclass(frozen=True, slots=True)
class Identity:
    """A certificate with its key, checked: what the engine's credential is made of."""

    names: tuple[str, ...]
    asked: tuple[str, ...]
    """`names`, and those that an earlier certificate serves."""
    chain: tuple[bytes, ...]
    """DER, the server's certificate first."""
    public_key: bytes
    """SubjectPublicKeyInfo of the certificate."""
    key_pem: bytes = dataclasses.field(repr=False)
    """b"": there is a signer, or it is the key that is loaded already."""
    signer: Signer | None
    """What signs where the key is somewhere else."""
    delegation: delegated.Delegation | None
    """What clients that take delegated credentials are shown."""
    ocsp_response: bytes
    """DER; b"" when there is none that is good, or it is fetched."""
    ocsp_expires: float
    """Seconds since 1970; 0: never."""
    responders: tuple[str, ...]
    """URLs that OCSP responses are fetched from; () when none is."""
    must_staple: bool
    """Whether clients are to refuse it without a response."""
    timestamps: tuple[bytes, ...]
    kind: str
    """The key's kind, for people: "ECDSA P-256", "RSA 2048", ..."""
    expires: datetime.datetime
    ends: float
    """When the first certificate of the chain expires: seconds since 1970."""
    warnings: tuple[str, ...]
    at: Place

    def first_end(self) -> float:
        """When the first of all that makes it up expires: seconds since 1970."""
        ends = [self.ends]
        if self.delegation:
            ends.append(self.delegation.expires.timestamp())
        if self.ocsp_response and self.ocsp_expires:
            ends.append(self.ocsp_expires)
        return min(ends)

    def describe(self) -> str:
        """For the log: which certificate it is."""
        leaf = x509.load_der_x509_certificate(self.chain[0])
        names = ", ".join(self.names) or "no names of its own"
        said = f"{self.kind} for {names}, serial {leaf.serial_number:x}, until {self.expires:%Y-%m-%d %H:%M} UTC"
        return f"{said}, delegated until {self.delegation.expires:%Y-%m-%d %H:%M} UTC" if self.delegation else said


def load(settings: Settings) -> tuple[Identity, ...]:
    """Every [[certificate]] of a configuration. Raises ConfigError."""
    return settle(settings, [load_entry(settings, i) for i in range(len(settings.certificate))])


def load_entry(settings: Settings, index: int) -> Identity:
    """One [[certificate]], with all of its names. Raises ConfigError."""
    return _identity(settings.certificate[index], Place(settings.file).key("certificate").item(index))


def load_for_delegation(entry: Certificate, at: Place) -> Identity:
    """A certificate and its key, whatever else its entry names. Raises ConfigError."""
    return _identity(dataclasses.replace(entry, delegated=None, ocsp="none", scts=()), at)


def settle(settings: Settings, identities: Sequence[Identity]) -> tuple[Identity, ...]:
    """Of several that have a name and a kind of key in common, the first is for it. Raises ConfigError."""
    found: list[Identity] = []
    seen: dict[tuple[str, str], Place] = {}
    for entry, identity in zip(settings.certificate, identities, strict=True):
        kind = identity.kind.split()[0]
        twice = [name for name in identity.asked if (name, kind) in seen]
        if twice and entry.names is not None:
            raise identity.at.key("names").error(
                f'"{twice[0]}" has an {kind} certificate already in {seen[twice[0], kind].path}',
                "give each name one certificate of a kind",
            )
        names = tuple(name for name in identity.asked if name not in twice)
        seen.update(((name, kind), identity.at) for name in names)
        found.append(identity if names == identity.names else dataclasses.replace(identity, names=names))
    return tuple(found)


def files(entry: Certificate) -> tuple[Path, ...]:
    """All that an identity is made of."""
    delegation = (entry.delegated.credential, entry.delegated.key) if entry.delegated else ()
    beside = (*key_files(entry.key), *delegation, entry.ocsp, *entry.scts)
    return (entry.chain, *(path for path in beside if isinstance(path, Path)))


def load_one(chain: Path, key: Path, at: Place) -> Identity:
    """A certificate that is shown to servers, with its key; `chain` and `key` stand at `at`. Raises ConfigError."""
    return _identity(Certificate(names=(), chain=chain, key=key), at)


def load_authorities(path: Path, at: Place) -> tuple[x509.Certificate, ...]:
    """The certificates in a PEM file, each of which may issue others. Raises ConfigError."""
    found = _read_pem(path, at)
    for i, certificate in enumerate(found):
        if not _may_issue(certificate):
            raise at.error(
                f"{path}: certificate number {i + 1} ({subject(certificate)}) is no authority's",
                "name a file with the certificates of those who issue, not of those issued to",
            )
    return tuple(found)


def _may_issue(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False


def _identity(entry: Certificate, at: Place) -> Identity:
    chain = _read_pem(entry.chain, at.key("chain"))
    certified = _dns_names(chain[0])
    names = entry.names if entry.names is not None else certified
    pem, signer = b"", None
    if isinstance(entry.key, Path):
        pem = read_file(entry.key, at.key("key"))
        public, kind = _read_key(entry, pem, at.key("key"))
        _check_fit(entry, chain, public, at)
    else:
        public = _public(chain[0].public_key())
        kind = _kind(chain[0].public_key(), f"{entry.chain}: a certificate with", at.key("chain"))
        signer = _signer(entry.key, public, names, at.key("key"))
    _check_order(entry, chain, at.key("chain"))
    staple: tuple[bytes, float, tuple[str, ...]] = (b"", 0.0, ())
    if isinstance(entry.ocsp, Path):
        staple = _read_ocsp(entry.ocsp, chain, at.key("ocsp"))
    delegation: delegated.Delegation | None = None
    undelegated: tuple[str, ...] = ()
    if entry.delegated:
        delegation, undelegated = delegated.load(entry.delegated, chain[0], at.key("delegated"))
    responders, unstapled = _responders(entry, chain, at.key("ocsp"))
    return Identity(
        names=names,
        asked=names,
        public_key=public,
        chain=(chain[0].public_bytes(Encoding.DER), *map(_issuer, chain[1:])),
        key_pem=pem,
        signer=signer,
        delegation=delegation,
        ocsp_response=staple[0],
        ocsp_expires=staple[1],
        responders=responders,
        must_staple=ocsp.must_staple(chain[0]),
        timestamps=tuple(
            timestamp
            for i, path in enumerate(entry.scts)
            for timestamp in _read_timestamps(path, at.key("scts").item(i))
        ),
        kind=kind,
        expires=chain[0].not_valid_after_utc,
        ends=min(c.not_valid_after_utc for c in chain).timestamp(),
        warnings=(*_warnings(entry, chain, names, certified, at), *undelegated, *staple[2], *unstapled),
        at=at,
    )


@functools.lru_cache(256)
def _issuer(certificate: x509.Certificate) -> bytes:
    """In DER: the same object for all that it has issued."""
    return certificate.public_bytes(Encoding.DER)


def _read_pem(path: Path, at: Place) -> list[x509.Certificate]:
    pem = read_file(path, at)
    try:
        return x509.load_pem_x509_certificates(pem)
    except (ValueError, UnsupportedAlgorithm) as e:
        reason = "holds no certificate" if b"BEGIN CERTIFICATE" not in pem else f"holds a damaged certificate ({e})"
        raise at.error(f"{path}: {reason}", 'name a PEM file with blocks of "BEGIN CERTIFICATE"') from None


def _read_key(entry: Certificate, pem: bytes, at: Place) -> tuple[bytes, str]:
    """The public half (SubjectPublicKeyInfo) and the kind of a private key."""
    try:
        key = load_pem_private_key(pem, password=None)
    except TypeError:
        raise at.error(
            f"{entry.key}: the key is encrypted", "decrypt it (openssl pkey) and guard the file by its permissions"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise at.error(
            f"{entry.key}: holds no private key", 'name a PEM file with a block of "BEGIN PRIVATE KEY"'
        ) from None
    return _public(key.public_key()), _kind(key.public_key(), f"{entry.key}:", at)


def _public(key: PublicKeyTypes) -> bytes:
    """The SubjectPublicKeyInfo."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _kind(key: PublicKeyTypes, where: str, at: Place) -> str:
    """For people. ConfigError, beginning with `where`, when TLS has no use for it."""
    match key:
        case ec.EllipticCurvePublicKey(curve=ec.SECP256R1() | ec.SECP384R1()):
            return f"ECDSA P-{key.curve.key_size}"
        case rsa.RSAPublicKey() if key.key_size >= _RSA_LEAST_BITS:
            return f"RSA {key.key_size}"
        case ed25519.Ed25519PublicKey():
            return "Ed25519"
    size = getattr(key, "key_size", "")
    name = type(key).__name__.replace("PublicKey", "PrivateKey")
    raise at.error(f"{where} a {size or ''} {name} cannot serve".replace("  ", " "), _USABLE)


def _signer(key: KeylessKey | Pkcs11Key, public_key: bytes, names: Sequence[str], at: Place) -> Signer:
    """What signs by a key that is somewhere else; `public_key` is the certificate's."""
    return _keyless(key, public_key, names, at) if isinstance(key, KeylessKey) else _token(key, public_key, at)


def read_pin(path: Path, at: Place) -> str:
    """What stands on a file's first line. Raises ConfigError."""
    try:
        pin = read_file(path, at).decode().partition("\n")[0].strip()
    except UnicodeDecodeError:
        pin = ""
    if not pin:
        raise at.error(f"{path}: holds no PIN", "write it on the first line")
    return pin


def _token(key: Pkcs11Key, public_key: bytes, at: Place) -> Signer:
    if key.label is None and key.id is None:
        raise at.key("label").error("is missing", "name the key by its label (CKA_LABEL), its id (CKA_ID) or both")
    pin = read_pin(key.pin_file, at.key("pin_file")) if key.pin_file is not None else None
    place, name = token.Place(str(key.module), key.token, pin), token.Name(key.label, key.id)
    fault = token.check(place, name, public_key)
    if fault:
        raise at.error(fault, "see that module, token, key and PIN are those of this certificate (pkcs11-tool -O)")
    return token.TokenSigner(place, name, public_key, timeout=key.timeout / 1000, pending=key.pending)


def _keyless(key: KeylessKey, public_key: bytes, names: Sequence[str], at: Place) -> Signer:
    own = load_one(key.chain, key.key, at)
    authorities = load_authorities(key.ca, at.key("ca"))
    hosts = []
    for i, (host, port) in enumerate(key.servers):
        found = addresses(Server(host=host, port=port), at.key("servers").item(i))
        literal = tuple(str(address[1]) for address in found)
        hosts.append(keyless.Host(name=host, port=port, addresses=literal, certified=key.name or host))
    servers = keyless.Servers(
        hosts=tuple(hosts),
        authorities=tuple(authority.public_bytes(Encoding.DER) for authority in authorities),
        chain=own.chain,
        key_pem=own.key_pem,
        timeout=key.timeout / 1000,
        connections=key.connections,
        pending=key.pending,
    )
    return keyless.KeylessSigner(servers, keyless.subject_key_identifier(public_key), names[0] if names else "")


def _read_ocsp(path: Path, chain: Sequence[x509.Certificate], at: Place) -> tuple[bytes, float, tuple[str, ...]]:
    """An OCSPResponse for the server's certificate, until when it holds, and warnings: one out of date is left out,
    since clients refuse it where they would take none."""
    der = read_file(path, at)
    try:
        answer = ocsp.check(der, chain[0], chain[1] if len(chain) > 1 else None)
    except ocsp.OcspStaleError as e:
        return b"", 0.0, (f"{at.file}: {at.path}: {path}: the OCSP response {e}, and is not shown",)
    except ocsp.OcspError as e:
        raise at.error(
            f"{path}: {e}",
            'name a file with an OCSP response for this certificate, in DER ("openssl ocsp -respout" writes one)',
        ) from None
    if not answer.good:
        raise at.error(
            f"{path}: the certificate is {answer.status.name.lower()}, says its OCSP response",
            "use another certificate",
        )
    return der, answer.expires.timestamp() if answer.expires else 0.0, ()


def _responders(entry: Certificate, chain: Sequence[x509.Certificate], at: Place) -> tuple[tuple[str, ...], list[str]]:
    """Where responses are to be fetched from, and warnings. Raises ConfigError where that was asked for by name."""
    demanded = ocsp.must_staple(chain[0])
    where = f"{at.file}: {at.path}: {entry.chain}"
    if entry.ocsp == "none" and demanded:
        return (), [f"{where}: {_DEMANDED}, and there is none"]
    if entry.ocsp != "fetch" and not (entry.ocsp == "auto" and demanded):
        return (), []
    urls = ocsp.responders(chain[0])
    problem, remedy = "", ""
    if not urls:
        problem, remedy = "the certificate names no OCSP responder", "name a file with a response"
    elif len(chain) == 1:
        problem, remedy = "the issuer's certificate is missing, which a response is checked by", "add it to the chain"
    if problem and not demanded:
        raise at.error(f"{entry.chain}: {problem}", f'{remedy}, or write ocsp = "none"')
    if problem:
        return (), [f"{where}: {_DEMANDED}: {problem}; {remedy}"]
    return urls, []


def _read_timestamps(path: Path, at: Place) -> tuple[bytes, ...]:
    try:
        return sct.read(read_file(path, at))
    except ValueError as e:
        raise at.error(f"{path}: {e}", "name a file with one or a list, in the binary form that logs give") from None


def _check_fit(entry: Certificate, chain: Sequence[x509.Certificate], public: bytes, at: Place) -> None:
    if _public(chain[0].public_key()) == public:
        return
    fits = [_public(c.public_key()) == public for c in chain]
    if any(fits):
        raise at.key("chain").error(
            f"{entry.chain}: the server's certificate is number {fits.index(True) + 1}",
            "put it first, then each issuer's",
        )
    raise at.key("key").error(
        f"{entry.key} is not the key of the certificate in {entry.chain}", "name the key that it was issued for"
    )


def _check_order(entry: Certificate, chain: Sequence[x509.Certificate], at: Place) -> None:
    """Each certificate is issued by the next (RFC 9846, section 4.5.2)."""
    for i, (issued, issuer) in enumerate(itertools.pairwise(chain)):
        try:
            issued.verify_directly_issued_by(issuer)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            raise at.error(
                f"{entry.chain}: certificate number {i + 2} ({subject(issuer)}) did not issue number {i + 1} "
                f"({subject(issued)})",
                "put each issuer right after what it issued, and nothing else",
            ) from None


def _warnings(
    entry: Certificate,
    chain: Sequence[x509.Certificate],
    names: Sequence[str],
    certified: Sequence[str],
    at: Place,
) -> Iterator[str]:
    now = datetime.datetime.now(datetime.UTC)
    where = f"{at.file}: {at.key('chain').path}: {entry.chain}"
    for i, c in enumerate(chain):
        begins, ends = c.not_valid_before_utc, c.not_valid_after_utc
        if begins <= now and ends >= now + _EXPIRES_SOON:
            continue
        which = f"{where}: certificate number {i + 1} ({subject(c)})"
        if begins > now:
            yield f"{which} is not valid before {begins:%Y-%m-%d %H:%M} UTC"
        if ends < now:
            yield f"{which} expired on {ends:%Y-%m-%d %H:%M} UTC"
        elif ends < now + _EXPIRES_SOON:
            yield f"{which} expires on {ends:%Y-%m-%d %H:%M} UTC"
    for name in names:
        if not _covered(name, certified):
            yield f'{where}: the certificate does not name "{name}"; clients will refuse it there'


def _covered(name: str, certified: Sequence[str]) -> bool:
    return name in certified or "*." + name.partition(".")[2] in certified


def _dns_names(certificate: x509.Certificate) -> tuple[str, ...]:
    """The DNS names of the subject alternative name; a common name counts for nothing (RFC 9525, section 2)."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, ValueError):
        return ()
    names = (name.lower().removesuffix(".") for name in extension.value.get_values_for_type(x509.DNSName))
    return tuple(dict.fromkeys(names))


def subject(certificate: x509.Certificate) -> str:
    """Whose it is, for messages."""
    return certificate.subject.rfc4514_string() or "no subject"
