"""The public key of a certificate."""

import contextlib
import datetime

import pytest
from cryptography import x509 as peer_x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

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


def usage_of(*, signs):
    others = dict.fromkeys(
        ("content_commitment", "data_encipherment", "key_agreement", "key_cert_sign", "crl_sign", "encipher_only",
         "decipher_only"), False)  # fmt: skip
    return peer_x509.KeyUsage(digital_signature=signs, key_encipherment=True, **others)


def loaded(key):
    return sign.PrivateKey.from_pem(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


P521 = {"ecdsa-p521": lambda: ec.generate_private_key(ec.SECP521R1())}


@pytest.mark.parametrize("kind", sorted(KINDS | P521))
def test_what_is_plain_to_see(kind):
    make = (KINDS | P521)[kind]
    key, other = make(), make()
    plain = kind != "rsa"
    assert loaded(key).public_spki() == key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert x509.certifies_plainly(certificate(key), loaded(key)) is plain
    assert x509.certifies_plainly(certificate(key, usage_of(signs=True)), loaded(key)) is plain
    assert not x509.certifies_plainly(certificate(key, usage_of(signs=False)), loaded(key))
    assert not x509.certifies_plainly(certificate(other), loaded(key))


def test_nothing_is_plain_of_what_is_cut_or_too_long():
    key = KINDS["ecdsa-p256"]()
    der, private = certificate(key, usage_of(signs=True)), loaded(key)
    for n in range(len(der)):
        assert not x509.certifies_plainly(der[:n], private)
    for broken in (der + b"\0", b"\x30\x00", bytes(100), b"\xff" * 100):
        assert not x509.certifies_plainly(broken, private)
    for nothing in ((None, private), (der, None)):
        with pytest.raises(TypeError):
            x509.certifies_plainly(*nothing)


PLAIN_KEY = KINDS["ecdsa-p256"]()
PLAIN = certificate(PLAIN_KEY, usage_of(signs=True)), loaded(PLAIN_KEY)
KEY_USAGE = bytes.fromhex("04 04 03 02 05 a0")
"""OCTET STRING { BIT STRING { 5 bits unused, digitalSignature and keyEncipherment } }"""


def assert_plain_is_so(der):
    """Whatever else is wrong with a certificate, there is no other key in it, and none that may not sign."""
    if not x509.certifies_plainly(der, PLAIN[1]):
        return
    try:
        assert PLAIN[1].matches(x509.public_key(der))
    except ValueError:
        # libcrypto takes the same way out of any extension that cannot be read: only what it says of this one counts.
        with contextlib.suppress(ValueError, peer_x509.ExtensionNotFound):
            usage = peer_x509.load_der_x509_certificate(der).extensions.get_extension_for_class(peer_x509.KeyUsage)
            assert usage.value.digital_signature


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(PLAIN[0]) - 1), st.integers(0, 255)), max_size=4))
def test_what_seems_plain_is_so(changes):
    der = bytearray(PLAIN[0])
    for at, value in changes:
        der[at] = value
    assert_plain_is_so(bytes(der))


def test_what_seems_plain_is_so_whichever_byte_is_another():
    der, _, end = PLAIN[0].partition(KEY_USAGE)
    for at in range(len(PLAIN[0])):
        for value in (0, 1, PLAIN[0][at] ^ 1, PLAIN[0][at] ^ 0x80, 0x7F, 0x80, 0xFF):
            assert_plain_is_so(PLAIN[0][:at] + bytes([value]) + PLAIN[0][at + 1 :])
    for unused in range(256):
        bits = KEY_USAGE[:-2] + bytes([unused]) + KEY_USAGE[-1:]
        assert x509.certifies_plainly(der + bits + end, PLAIN[1]) == (unused <= 7)


@pytest.mark.parametrize("signs", [True, False])
def test_a_key_usage_without_signatures_is_refused(signs):
    der = certificate(KINDS["rsa"](), usage_of(signs=signs))
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
