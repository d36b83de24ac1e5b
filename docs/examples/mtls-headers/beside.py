"""Makes an authority for clients, and a certificate of Alice's; there is nothing that has to go on running."""

import datetime
import signal
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

HERE = Path(__file__).parent


def name(common, organization):
    attributes = [(NameOID.COMMON_NAME, common), (NameOID.ORGANIZATION_NAME, organization)]
    return x509.Name([x509.NameAttribute(oid, text) for oid, text in attributes])


def certificate(subject, key, issuer, issuer_key, authority):
    now = datetime.datetime.now(datetime.UTC)
    usage = [False] * 9
    usage[5 if authority else 0] = True  # keyCertSign, or digitalSignature
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=0 if authority else None), critical=True)
        .add_extension(x509.KeyUsage(*usage), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if not authority:
        made = made.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
    return made.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


authority_key, alice_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
authority, alice = name("Clients", "Example"), name("Alïce", "Example")
(HERE / "clients.pem").write_bytes(certificate(authority, authority_key, authority, authority_key, True))
(HERE / "alice.pem").write_bytes(certificate(alice, alice_key, authority, authority_key, False))
(HERE / "alice.key").write_bytes(
    alice_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
)
(HERE / "ready").touch()
signal.pause()
