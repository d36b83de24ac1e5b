"""The public key of a certificate."""

import datetime

import pytest
from cryptography import x509 as peer_x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

from cext.crypto import sign, x509

KINDS = {
    "ecdsa-p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ecdsa-p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
}


def certificate(key, key_usage=None):
    name = peer_x509.Name([peer_x509.NameAttribute(NameOID.COMMON_NAME, "example.com")])
    start = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    builder = (
        peer_x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=365))
    )
    if key_usage is not None:
        builder = builder.add_extension(key_usage, critical=True)
    algorithm = None if isinstance(key, (ed25519.Ed25519PrivateKey, ed448.Ed448PrivateKey)) else hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(Encoding.DER)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_key_of_a_certificate(kind):
    key = KINDS[kind]()
    public = x509.public_key(certificate(key))
    assert public.kind == kind
    assert public.spki() == key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    private = sign.PrivateKey.from_pem(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    assert private.matches(public)
    for scheme in private.schemes:
        assert public.verify_bytes(scheme, b"m", private.sign_bytes(scheme, b"m"))


@pytest.mark.parametrize("signs", [True, False])
def test_a_key_usage_without_signatures_is_refused(signs):
    usage = dict.fromkeys(
        ("content_commitment", "data_encipherment", "key_agreement", "key_cert_sign", "crl_sign", "encipher_only",
         "decipher_only"), False)  # fmt: skip
    key_usage = peer_x509.KeyUsage(digital_signature=signs, key_encipherment=True, **usage)
    der = certificate(KINDS["rsa"](), key_usage)
    if signs:
        assert x509.public_key(der).kind == "rsa"
        return
    with pytest.raises(ValueError, match="key usage"):
        x509.public_key(der)


def test_truncated_trailing_and_garbage():
    der = certificate(KINDS["ecdsa-p256"]())
    for n in range(len(der)):
        with pytest.raises(ValueError):
            x509.public_key(der[:n])
    for broken in (der + b"\0", der + der, b"\x30\x00", bytes(100), b"\xff" * 100):
        with pytest.raises(ValueError):
            x509.public_key(broken)


def test_flipped_bytes_give_a_key_or_a_refusal():
    der = certificate(KINDS["ecdsa-p256"]())
    for i in range(len(der)):
        for flip in (0x01, 0x80, 0xFF):
            broken = der[:i] + bytes([der[i] ^ flip]) + der[i + 1 :]
            try:
                assert x509.public_key(broken).kind.startswith("ecdsa")
            except ValueError:
                continue


def test_keys_tls_does_not_verify_with():
    makers = (
        lambda: ec.generate_private_key(ec.SECP224R1()),
        lambda: rsa.generate_private_key(65537, 1024),
        ed448.Ed448PrivateKey.generate,
    )
    for make in makers:
        with pytest.raises(ValueError):
            x509.public_key(certificate(make()))
    with pytest.raises(TypeError):
        x509.public_key(None)
