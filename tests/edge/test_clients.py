"""Trust in clients' certificates: what is remembered, and for how long."""

import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edge import clients, trust
from edge.tls import Refuse


class Authority:
    def __init__(self):
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "clients")])
        identifier = x509.SubjectKeyIdentifier.from_public_key(self.key.public_key())
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        self.extensions = [
            (x509.BasicConstraints(ca=True, path_length=None), True),
            (usage, True),
            (identifier, False),
            (x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), False),
        ]
        self.certificate = self.of_its_own()

    def of_its_own(self):
        """Another certificate each time, of the same name and key."""
        return self.sign(self.name, self.key.public_key(), 3600, self.extensions)

    def sign(self, subject, public, seconds, extensions):
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(seconds=seconds))
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(self.key, hashes.SHA256())

    def client(self, seconds=3600, purpose=ExtendedKeyUsageOID.CLIENT_AUTH):
        key = ec.generate_private_key(ec.SECP256R1()).public_key()
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "someone")])
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        return self.sign(subject, key, seconds, [(x509.ExtendedKeyUsage([purpose]), False), (identifier, False)])


def der(certificate):
    return certificate.public_bytes(Encoding.DER)


@pytest.fixture(scope="module")
def authority():
    return Authority()


@pytest.fixture
def asked(monkeypatch):
    """The chains that were validated."""
    seen = []
    verify = clients.verify_client
    monkeypatch.setattr(clients, "verify_client", lambda roots, chain: seen.append(chain) or verify(roots, chain))
    return seen


def test_what_is_trusted_is_remembered_for_a_while(authority, asked, monkeypatch):
    trusted = clients.ClientTrust([authority.certificate])
    chain = [der(authority.client())]
    for _ in range(3):
        trusted(chain)
    assert len(asked) == 1
    now = trust.time.time()
    monkeypatch.setattr(trust.time, "time", lambda: now + trust._REMEMBER_SECONDS + 1)
    trusted(chain)
    assert len(asked) == 2


def test_no_longer_than_the_certificate_is_valid(authority, asked, monkeypatch):
    trusted = clients.ClientTrust([authority.certificate])
    chain = [der(authority.client(seconds=60))]
    trusted(chain)
    now = trust.time.time()
    monkeypatch.setattr(trust.time, "time", lambda: now + 61)
    trusted(chain)  # by the real clock it is still valid; what matters is that it was asked again
    assert len(asked) == 2


def test_distrust_is_not_remembered(authority, asked):
    trusted = clients.ClientTrust([Authority().certificate])
    for _ in range(2):
        with pytest.raises(Refuse):
            trusted([der(authority.client())])
    assert len(asked) == 2


@pytest.mark.parametrize(
    "make",
    [
        lambda authority: [der(authority.client(purpose=ExtendedKeyUsageOID.SERVER_AUTH))],
        lambda authority: [b"not a certificate"],
        lambda authority: [der(authority.client(seconds=-60))],
    ],
)
def test_what_is_not_trusted(authority, make):
    with pytest.raises(Refuse):
        clients.ClientTrust([authority.certificate])(make(authority))


def test_a_chain_of_many_paths_costs_no_more_than_one(authority):
    """Whoever signs certificates for themselves could have us try hundreds of paths, 40 ms for a kilobyte."""
    other = Authority()
    chain = [other.client(), *(other.of_its_own() for _ in range(4))]
    with pytest.raises(Refuse, match="unknown_ca") as caught:
        clients.ClientTrust([authority.certificate])([der(certificate) for certificate in chain])
    assert "check limit" not in str(caught.value)
    # The right one among them is still found: it is among the authorities.
    clients.ClientTrust([other.certificate])([der(certificate) for certificate in chain])


def test_what_would_be_dear_to_look_at_is_refused(authority):
    trusted = clients.ClientTrust([authority.certificate])
    with pytest.raises(Refuse, match="a chain of more than 16 certificates"):
        trusted([der(authority.client())] * 17)
    modulus = rsa.generate_private_key(65537, 2048).public_key().public_numbers().n
    dear = rsa.RSAPublicNumbers((1 << 2000) + 1, modulus).public_key()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "someone")])
    with pytest.raises(Refuse, match="public exponent of more than 32 bits"):
        trusted([der(authority.sign(subject, dear, 3600, []))])


def test_two_chains_of_the_same_bytes_are_two(authority):
    trusted = clients.ClientTrust([authority.certificate])
    leaf = der(authority.client())
    trusted([leaf])
    with pytest.raises(Refuse):
        trusted([leaf[:100], leaf[100:]])


def test_memory_is_bounded(authority, monkeypatch):
    monkeypatch.setattr(trust, "_REMEMBERED", 3)
    trusted = clients.ClientTrust([authority.certificate])
    for _ in range(5):
        trusted([der(authority.client())])
        assert len(trusted._trusted) <= 3
