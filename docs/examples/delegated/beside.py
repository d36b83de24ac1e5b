"""Makes what the example needs, a certificate that may delegate, and runs `edge delegate` for it."""

import datetime
import signal
import subprocess
import sys
import time
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

DELEGATION_USAGE = x509.ObjectIdentifier("1.3.6.1.4.1.44363.44")


def usage(**allowed):
    every = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
        "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**{name: allowed.get(name, False) for name in every})


def certificate(subject, key, issuer, issuer_key, extensions):
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=30))
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(issuer_key, hashes.SHA256())


def make_certificate():
    """An authority and what it has issued for localhost, instead of those that were there."""
    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    ca = certificate("delegation example CA", ca_key, "delegation example CA", ca_key, [
        (x509.BasicConstraints(ca=True, path_length=0), True),
        (usage(key_cert_sign=True), True),
        (x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), False),
    ])  # fmt: skip
    leaf = certificate("localhost", key, "delegation example CA", ca_key, [
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (usage(digital_signature=True), True),
        (x509.SubjectAlternativeName([x509.DNSName("localhost")]), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), False),
        (x509.UnrecognizedExtension(DELEGATION_USAGE, b"\x05\x00"), False),  # what makes it one that may delegate
    ])  # fmt: skip
    Path("ca.pem").write_bytes(ca.public_bytes(Encoding.PEM))
    Path("cert.pem").write_bytes(leaf.public_bytes(Encoding.PEM))
    Path("key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def main():
    make_certificate()
    delegate = [sys.executable, "-m", "edge", "delegate", "--config", "edge.toml", "--every", "1m", "--lifetime", "10m"]
    process = subprocess.Popen(delegate)  # noqa: S603  # this interpreter
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    while not Path("delegated.bin").exists() and process.poll() is None:
        time.sleep(0.05)
    Path("ready").touch()
    sys.exit(process.wait())


main()
