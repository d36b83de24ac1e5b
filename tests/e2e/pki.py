"""A certificate authority for the tests, and certificates of every kind of key that the server can use."""

import dataclasses
import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAYS = 90

KEYS = {
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
}


@dataclasses.dataclass(frozen=True)
class Certificate:
    """The files of one certificate, as a configuration names them."""

    label: str
    names: tuple[str, ...]
    chain: Path
    key: Path
    serial: int

    def table(self) -> dict:
        return {"names": list(self.names), "chain": str(self.chain), "key": str(self.key)}


class Authority:
    """A CA of its own directory; `issue` writes a certificate and its key there."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "edge test CA")])
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        self._certificate = (
            self._builder(self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self.file = directory / "ca.pem"
        self.file.write_bytes(self._certificate.public_bytes(Encoding.PEM))

    def issue(
        self, label: str, kind: str, *names: str, usage=ExtendedKeyUsageOID.SERVER_AUTH, extensions=()
    ) -> Certificate:
        key = KEYS[kind]()
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, label)])
        # NSS wants key encipherment of an RSA key, whatever the handshake does with it.
        key_usage = x509.KeyUsage(True, False, kind == "rsa", False, False, False, False, False, False)
        builder = (
            self._builder(subject, key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(key_usage, critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        chain, key_file = self.directory / f"{label}.pem", self.directory / f"{label}.key"
        chain.write_bytes(certificate.public_bytes(Encoding.PEM))
        key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        dns = tuple(name for name in names if not _is_address(name))
        return Certificate(label, dns, chain, key_file, certificate.serial_number)

    def _builder(self, subject: x509.Name, public) -> x509.CertificateBuilder:
        start = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + datetime.timedelta(days=DAYS))
        )


class Pki:
    """The authority and the certificates that the tests' servers present. The first one is the default."""

    def __init__(self, directory: Path) -> None:
        self.ca = Authority(directory)
        issue = self.ca.issue
        self.default = issue("default", "p256", "edge.test", "localhost", "127.0.0.1", "::1")
        self.p384 = issue("p384", "p384", "p384.edge.test")
        self.rsa = issue("rsa", "rsa", "rsa.edge.test")
        self.ed25519 = issue("ed25519", "ed25519", "ed25519.edge.test")
        self.wildcard = issue("wildcard", "p256", "*.wild.edge.test")
        self.exact = issue("exact", "p256", "exact.wild.edge.test")
        # One name, two kinds of key: the client's signature algorithms choose.
        self.multi_ecdsa = issue("multi-ecdsa", "p256", "multi.edge.test")
        self.multi_rsa = issue("multi-rsa", "rsa", "multi.edge.test")

    def all(self) -> list[Certificate]:
        return [
            self.default,
            self.p384,
            self.rsa,
            self.ed25519,
            self.wildcard,
            self.exact,
            self.multi_ecdsa,
            self.multi_rsa,
        ]


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _general_name(name: str) -> x509.GeneralName:
    return x509.IPAddress(ipaddress.ip_address(name)) if _is_address(name) else x509.DNSName(name)
