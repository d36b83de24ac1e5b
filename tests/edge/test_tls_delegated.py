"""Delegated credentials (RFC 9345): issued, checked, configured."""

import datetime
import functools

import pytest
from cext.tls.config import ClientConfig
from cext.tls.delegated import DelegatedCredential
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from edge import tls
from tests.edge.tls_peers import client_config, connected, server_config

NOW = datetime.datetime.now(datetime.UTC)
USAGE = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.44363.44"), b"\x05\x00")
HOUR = datetime.timedelta(hours=1)


@functools.cache
def key():
    return ec.generate_private_key(ec.SECP256R1())


@functools.cache
def delegated_key(kind):
    return ec.generate_private_key(ec.SECP384R1()) if kind == "ec" else rsa.generate_private_key(65537, 2048)


def spki(kind="ec"):
    return delegated_key(kind).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@functools.cache
def leaf(*, delegates=True, digital_signature=True, days=90):
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    usage = dict.fromkeys((
        "content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "key_cert_sign", "crl_sign",
        "encipher_only", "decipher_only"), False)
    builder = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key().public_key())
        .serial_number(1).not_valid_before(NOW - datetime.timedelta(20))
        .not_valid_after(NOW + datetime.timedelta(days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.KeyUsage(**{**usage, "digital_signature": digital_signature, "crl_sign": True}), True))
    if delegates:
        builder = builder.add_extension(USAGE, critical=False)
    return builder.sign(key(), hashes.SHA256())


def der(certificate=None):
    return (certificate or leaf()).public_bytes(Encoding.DER)


def issue(**options):
    return tls.issue_delegated_credential(leaf(), key(), spki(), **options)


@pytest.mark.parametrize("lifetime", [HOUR, datetime.timedelta(days=7)])
def test_issued_for_a_time(lifetime):
    made = DelegatedCredential(issue(lifetime=lifetime), der())
    assert (made.scheme, made.algorithm) == (0x0503, 0x0403)
    assert abs(made.expires / 1000 - (datetime.datetime.now(datetime.UTC) + lifetime).timestamp()) < 60


def test_issued_by_a_key_that_is_somewhere_else():
    class Remote:
        async def sign(self, message, scheme):
            assert scheme == 0x0403
            return key().sign(message, ec.ECDSA(hashes.SHA256()))

    assert DelegatedCredential(tls.issue_delegated_credential(leaf(), Remote(), spki()), der()).algorithm == 0x0403


@pytest.mark.parametrize(("options", "reason"), [
    ({"certificate": leaf(delegates=False)}, "DelegationUsage"),
    ({"certificate": leaf(digital_signature=False)}, "DelegationUsage"),
    ({"private_key": delegated_key("ec")}, "private_key"),
    ({"private_key": ec.generate_private_key(ec.SECP256R1())}, "is not the certificate's"),
    ({"delegated_key": spki("rsa")}, "kind rsa"),
    ({"delegated_key": b"no key"}, "SubjectPublicKeyInfo"),
    ({"lifetime": datetime.timedelta(days=7, seconds=1)}, "seven days"),
    ({"lifetime": datetime.timedelta(0)}, "seven days"),
    ({"certificate": leaf(days=3), "lifetime": datetime.timedelta(days=4)}, "valid until"),
    ({"scheme": 0x0403}, "scheme"),
    ({"algorithm": 0x0503}, "algorithm"),
])
def test_what_is_not_issued(options, reason):
    whole = {"certificate": leaf(), "private_key": key(), "delegated_key": spki(), **options}
    with pytest.raises(ValueError, match=reason):
        tls.issue_delegated_credential(**whole)


def test_a_certificate_that_may_not_delegate():
    made = issue()
    tls.Certificate(chain=[der()], private_key=delegated_key("ec"), delegated_credential=made)
    with pytest.raises(ValueError, match="DelegationUsage"):
        tls.Certificate(chain=[der(leaf(delegates=False))], private_key=delegated_key("ec"), delegated_credential=made)
    with pytest.raises(ValueError, match="delegated credential"):
        tls.Certificate(chain=[der()], private_key=key(), delegated_credential=made)
    with pytest.raises(ValueError, match="not signed by"):
        tls.Certificate(chain=[der(leaf(days=89))], private_key=delegated_key("ec"), delegated_credential=made)


def test_others_get_the_certificate_itself():
    delegated = tls.Certificate(chain=[der()], private_key=delegated_key("ec"), delegated_credential=issue())
    both = server_config(certificates=[delegated, tls.Certificate(chain=[der()], private_key=key())])
    with connected(server=both, client=client_config(verify=lambda chain, name: None)) as (client, _):
        assert client.connection_state().signature_scheme == "ecdsa_secp256r1_sha256"
        assert client.connection_state().peer_certificates == (der(),)


def test_a_client_has_none():
    delegated = tls.Certificate(chain=[der()], private_key=delegated_key("ec"), delegated_credential=issue())
    with pytest.raises(ValueError, match="delegated"):
        ClientConfig(credentials=[delegated.credential])
