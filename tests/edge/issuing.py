"""Keys, certificates and what goes with them, made on the spot."""

import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


def p256():
    return ec.generate_private_key(ec.SECP256R1())


def name(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def certificate(
    key, subject, names=(), *, issuer=None, issuer_key=None, begin=NOW - DAY, end=NOW + 60 * DAY, extensions=()
):
    """A certificate for `key`, self-signed without an issuer."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(issuer.subject if issuer else name(subject))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=not names, path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(n) for n in names]), critical=False)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    signer = issuer_key or key
    modern = isinstance(signer, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey)
    return builder.sign(signer, None if modern else hashes.SHA256())


def key_pem(key, encryption=None):
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())


def chain_pem(*chain):
    return b"".join(c.public_bytes(Encoding.PEM) for c in chain)


def staple(
    leaf, issuer, key, *, status=ocsp.OCSPCertStatus.GOOD, begin=NOW - DAY, end=NOW + DAY, signer=None, beside=(),
    algorithm=hashes.SHA256, signed_with=hashes.SHA256, by_name=False
):  # fmt: skip
    """An OCSP response in DER, signed with `key`: that of the issuer, or of `signer`."""
    gone = NOW - DAY if status is ocsp.OCSPCertStatus.REVOKED else None
    builder = ocsp.OCSPResponseBuilder().add_response(
        cert=leaf, issuer=issuer, algorithm=algorithm(), cert_status=status, this_update=begin, next_update=end,
        revocation_time=gone, revocation_reason=None,
    )  # fmt: skip
    encoding = ocsp.OCSPResponderEncoding.NAME if by_name else ocsp.OCSPResponderEncoding.HASH
    builder = builder.responder_id(encoding, signer or issuer)
    if beside:
        builder = builder.certificates(list(beside))
    modern = isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey)
    return builder.sign(key, None if modern else signed_with()).public_bytes(Encoding.DER)


def vector(content):
    """Content behind its length, of two bytes."""
    return len(content).to_bytes(2, "big") + content


def timestamp(extensions=b"", signature=bytes(70)):
    """A Signed Certificate Timestamp, by its form."""
    return b"\0" + bytes(range(32)) + bytes(8) + vector(extensions) + b"\4\3" + vector(signature)


class Authority:
    """A CA with its key, and a certificate of its own that may sign its OCSP responses."""

    def __init__(self, key=None):
        self.key = key or p256()
        self.certificate = certificate(self.key, "CA")
        self.responder_key = p256()
        self.responder = self.issue(self.responder_key, "responder", usage=ExtendedKeyUsageOID.OCSP_SIGNING)

    def issue(self, key, subject, names=("a.test",), *, usage=None, url=None, must_staple=False, **more):
        extensions = [] if usage is None else [x509.ExtendedKeyUsage([usage])]
        if url:
            access = x509.AccessDescription(AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier(url))
            extensions.append(x509.AuthorityInformationAccess([access]))
        if must_staple:
            extensions.append(x509.TLSFeature([x509.TLSFeatureType.status_request]))
        extensions += more.pop("extensions", ())
        return certificate(
            key, subject, names, issuer=self.certificate, issuer_key=self.key, extensions=extensions, **more
        )
