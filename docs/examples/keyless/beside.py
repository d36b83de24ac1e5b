"""The other host: a key server, and the authority that both sides trust for their certificates.

`other-host` stands for that host's disk. What is left here is the certificate by which the key server knows us.
"""

import datetime
import ipaddress
import signal
import subprocess
import sys
import time
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PORT = 24071
AUTHORITY = "authority of the key server example"


def name(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def certificate(subject, key, authority_key, alternative=None, usage=None):
    """Issued by the authority; without `usage`, its own."""
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name(AUTHORITY))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=7))
        .add_extension(x509.BasicConstraints(ca=usage is None, path_length=None), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
    )
    if usage is None:
        signs = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        builder = builder.add_extension(signs, critical=True).add_extension(
            x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
        )
    else:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False).add_extension(
            x509.SubjectAlternativeName([alternative]), critical=False
        )
    return builder.sign(authority_key, hashes.SHA256()).public_bytes(Encoding.PEM)


def write(file, subject, authority_key, alternative, usage):
    """FILE.pem and FILE.key"""
    key = ec.generate_private_key(ec.SECP256R1())
    file.with_suffix(".pem").write_bytes(certificate(subject, key, authority_key, alternative, usage))
    secret = file.with_suffix(".key")
    secret.touch(0o600)
    secret.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


here, there = Path(), Path("other-host")
(there / "keys").mkdir(parents=True, mode=0o700)
Path("key.pem").rename(there / "keys/localhost.key")

authority = ec.generate_private_key(ec.SECP256R1())
Path("keys-ca.pem").write_bytes(certificate(AUTHORITY, authority, authority))
address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
write(there / "server", "key server", authority, address, ExtendedKeyUsageOID.SERVER_AUTH)
write(here / "us", "edge", authority, x509.DNSName("edge.example"), ExtendedKeyUsageOID.CLIENT_AUTH)

signal.signal(signal.SIGTERM, lambda *_: sys.exit())
with (there / "log").open("wb") as log:
    server = subprocess.Popen(  # noqa: S603 - this interpreter
        [
            *(sys.executable, "-m", "edge", "keyserver", "--listen", f"127.0.0.1:{PORT}"),
            *("--chain", there / "server.pem", "--key", there / "server.key"),
            *("--ca", here / "keys-ca.pem", "--keys", there / "keys"),
        ],
        stderr=log,
    )
try:
    while b"signs on" not in (there / "log").read_bytes():
        if server.poll() is not None:
            sys.exit((there / "log").read_text())
        time.sleep(0.02)
    Path("ready").touch()
    server.wait()
finally:
    server.terminate()
    server.wait()
