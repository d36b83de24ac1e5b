"""Delegated credentials of a server (RFC 9345): what is taken, and whom they are shown to."""

import datetime

import pytest
from cext.crypto.sign import PrivateKey
from cext.tls.config import ClientConfig, ServerConfig
from cext.tls.credential import Credential
from cext.tls.delegated import DelegatedCredential
from cext.tls.engine import WAIT_SIGN, Engine
from cext.tls.inspect import parse
from cext.tls.session import shift_clock
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from tests.cext.tls.peer import ALERT, ALERTS, RawClient, certified, credential, extension, u16s, vector

DELEGATED_CREDENTIAL = 34
P256_SHA256, P384_SHA384, ED25519, RSA_PSS = 0x0403, 0x0503, 0x0807, 0x0804
DAY = 24 * 3600
KEYS = {
    P256_SHA256: ec.generate_private_key(ec.SECP256R1()),
    P384_SHA384: ec.generate_private_key(ec.SECP384R1()),
    ED25519: ed25519.Ed25519PrivateKey.generate(),
    RSA_PSS: rsa.generate_private_key(65537, 2048),
}


def pem(key):
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def der(kind):
    return certified(kind, "example.com")[0].public_bytes(serialization.Encoding.DER)


def delegate(kind="ecdsa-p256", scheme=P256_SHA256, *, seconds=DAY, key=None, algorithm=None,
             context=b"TLS, server delegated credentials", leaf=None):
    """A delegated credential by the certificate of that kind, good for so many seconds from now."""
    certificate, issuer = certified(kind, "example.com")
    key = key or KEYS[scheme]
    valid_time = int(datetime.datetime.now(datetime.UTC).timestamp() + seconds
                     - certificate.not_valid_before_utc.timestamp())
    spki = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    algorithm = algorithm or {"ecdsa-p256": P256_SHA256, "rsa": RSA_PSS, "ed25519": ED25519}[kind]
    body = valid_time.to_bytes(4, "big") + u16s(scheme) + vector(3, spki) + u16s(algorithm)
    signed = b" " * 64 + context + b"\0" + (leaf or der(kind)) + body
    if kind == "rsa":
        signature = issuer.sign(signed, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())
    elif kind == "ed25519":
        signature = issuer.sign(signed)
    else:
        signature = issuer.sign(signed, ec.ECDSA(hashes.SHA256()))
    return body + vector(2, signature)


def delegated(kind="ecdsa-p256", scheme=P256_SHA256, *, key=None, **options):
    return Credential([der(kind)], key or PrivateKey.from_pem(pem(KEYS[scheme])), ["example.com"],
                      delegated_credential=delegate(kind, scheme, **options))


def shown(config, *, schemes=(P256_SHA256, RSA_PSS, ED25519), offered=(P256_SHA256,)):
    """(the Certificate's body, the CertificateVerify's fields, client) of a handshake with a raw client."""
    extra = (extension(DELEGATED_CREDENTIAL, vector(2, u16s(*offered))),) if offered is not None else ()
    client = RawClient(config)
    client.hello(schemes=schemes, extra=extra)
    flight = dict(client.flight)
    return flight[11][4:], parse("certificate_verify", flight[15][4:]), client


def test_structure():
    encoded = delegate(scheme=P384_SHA384)
    made = DelegatedCredential(encoded, der("ecdsa-p256"))
    assert (made.encoded, made.scheme, made.algorithm) == (encoded, P384_SHA384, P256_SHA256)
    assert made.public_key.kind == "ecdsa-p384"
    expected = datetime.datetime.now(datetime.UTC).timestamp() + DAY
    assert abs(made.expires / 1000 - expected) < 60


def test_truncated_and_with_trailing_bytes():
    encoded = delegate()
    for n in range(len(encoded)):
        with pytest.raises(ValueError, match="cannot be decoded"):
            DelegatedCredential(encoded[:n], der("ecdsa-p256"))
    with pytest.raises(ValueError, match="cannot be decoded"):
        DelegatedCredential(encoded + b"\0", der("ecdsa-p256"))


@pytest.mark.parametrize("kind", ["ecdsa-p256", "rsa", "ed25519"])
def test_every_changed_byte_is_found(kind):
    encoded = delegate(kind)
    assert DelegatedCredential(encoded, der(kind)).is_signed_by(der(kind))
    for i in range(len(encoded)):
        changed = encoded[:i] + bytes([encoded[i] ^ 1]) + encoded[i + 1 :]
        try:
            made = DelegatedCredential(changed, der(kind))
        except ValueError:
            continue
        assert not made.is_signed_by(der(kind)), i


@pytest.mark.parametrize("options", [{"context": b"TLS, client delegated credentials"}, {"leaf": b"another"}])
def test_signed_for_something_else(options):
    assert not DelegatedCredential(delegate(**options), der("ecdsa-p256")).is_signed_by(der("ecdsa-p256"))
    assert not DelegatedCredential(delegate(), der("ecdsa-p256")).is_signed_by(der("rsa"))


@pytest.mark.parametrize(("options", "reason"), [
    ({"scheme": RSA_PSS}, "of kind rsa cannot be delegated to"),
    ({"scheme": P384_SHA384, "key": KEYS[P256_SHA256]}, "does not sign by 0x0503"),
    ({"algorithm": P384_SHA384}, "certificate's key does not sign by 0x0503"),
    ({"seconds": -1}, "has expired"),
    ({"seconds": 7 * DAY + 60}, "more than seven days"),
])
def test_what_is_refused(options, reason):
    with pytest.raises(ValueError, match=reason):
        DelegatedCredential(delegate(**options), der("ecdsa-p256"))


def test_the_key_is_the_delegated_one():
    with pytest.raises(ValueError, match="not the one of the delegated credential"):
        delegated(key=credential().key)
    with pytest.raises(ValueError, match="delegated"):
        ClientConfig(credentials=[delegated()])


@pytest.mark.parametrize("kind", ["ecdsa-p256", "rsa", "ed25519"])
@pytest.mark.parametrize("scheme", [P256_SHA256, P384_SHA384, ED25519])
def test_shown_to_who_takes_it(kind, scheme):
    certificate, verify, client = shown(ServerConfig([delegated(kind, scheme), credential(kind)]),
                                        offered=(scheme, 0x0A0A))
    leaf = der(kind)
    encoded = certificate[4 + 3 + len(leaf) + 2 + 4 :]
    assert certificate == b"\0" + vector(3, vector(3, leaf) + vector(2, extension(DELEGATED_CREDENTIAL, encoded)))
    assert verify["algorithm"] == scheme
    # It is the delegated key that has signed: what comes before the CertificateVerify.
    for number, whole in client.flight[1:]:
        if number == 15:
            break
        client.transcript.add(whole)
    signed = b" " * 64 + b"TLS 1.3, server CertificateVerify\0" + client.transcript.digest()
    assert DelegatedCredential(encoded, leaf).public_key.verify_bytes(scheme, signed, verify["signature"])


@pytest.mark.parametrize("client", [
    {"offered": None},
    {"offered": (P384_SHA384,)},                                        # not by what it signs
    {"schemes": (P256_SHA256,), "offered": (P256_SHA256,)},             # not what it is signed by
])
def test_not_shown_to_others(client):
    config = ServerConfig([delegated("rsa"), credential("ecdsa-p256")])
    certificate, verify, _ = shown(config, **client)
    assert der("ecdsa-p256") in certificate
    assert certificate.endswith(b"\0\0")
    assert verify["algorithm"] == P256_SHA256


def test_not_shown_in_tls12():
    client = Engine(ClientConfig(server_name="example.com", max_version=0x0303))
    server = Engine(ServerConfig([delegated()]))
    server.receive_bytes(client.take_output())
    assert server.failure.name == "handshake_failure"


def test_not_shown_once_expired():
    config = ServerConfig([delegated(seconds=60), credential()])
    assert not shown(config)[0].endswith(b"\0\0")
    shift_clock(120 * 1000)
    assert shown(config)[0].endswith(b"\0\0")


def test_signed_elsewhere():
    class Remote:
        def sign(self, message, scheme):
            return PrivateKey.from_pem(pem(KEYS[P256_SHA256])).sign_bytes(scheme, message)

    client = RawClient(ServerConfig([delegated("rsa", key=Remote())]))
    client.hello(extra=(extension(DELEGATED_CREDENTIAL, vector(2, u16s(P256_SHA256))),))
    assert client.events[-1] == (WAIT_SIGN, b"")
    client.server.give_signature(client.server.signer.sign(*client.server.to_sign))
    client.take_flight()
    assert [kind for kind, _ in client.flight] == [2, 8, 11, 15, 20]
    client.finish()
    assert client.server.established


@pytest.mark.parametrize("body", [b"", b"\0\0", vector(2, b"\4"), vector(2, u16s(P256_SHA256)) + b"\0"])
def test_malformed_extension(body):
    client = RawClient(ServerConfig([delegated(), credential()]))
    client.hello(extra=(extension(DELEGATED_CREDENTIAL, body),))
    assert client.flight == [(ALERT, bytes([2, ALERTS["decode_error"]]))]
    assert "delegated_credential" in client.server.failure.reason
