"""Configuration: what is refused when it is made, and which credential a ClientHello gets."""

import gc
import weakref

import pytest
from cext.crypto.sign import PrivateKey
from cext.tls.config import ClientConfig, ServerConfig
from cext.tls.credential import Credential
from cext.tls.engine import Engine
from cryptography.hazmat.primitives import serialization

from tests.cext.tls.peer import RawClient, certified, credential, pump, server_config
from tests.tls_corrupt import SERVER_NAME, vec

CERTIFICATE_VERIFY = 15
ECDSA, RSA = 0x0403, 0x0804


def der(certificate):
    return certificate.public_bytes(serialization.Encoding.DER)


def named(kind, *names):
    """A credential that is known under other names than its certificate's."""
    known = credential(kind)
    return Credential(known.chain, known.key, names)


# --- Credential


def test_credential_is_a_certificate_message():
    leaf, issuer = credential("ecdsa-p256").chain[0], credential("rsa").chain[0]
    made = Credential([leaf, issuer], credential("ecdsa-p256").key, ["Example.COM.", "*.example.com"])
    assert made.names == ("example.com", "*.example.com")
    assert made.certificate_body == b"\0" + vec(3, vec(3, leaf) + b"\0\0" + vec(3, issuer) + b"\0\0")
    assert made.chain == (leaf, issuer)


@pytest.mark.parametrize("chain", [[], [b""], [b"not a certificate"]])
def test_credential_without_a_leaf(chain):
    with pytest.raises(ValueError):
        Credential(chain, credential().key)


def test_a_signer_that_refers_to_its_credential_is_collected():
    class Signer:
        def sign(self, message, scheme):
            raise AssertionError

    signer = Signer()
    signer.credential = Credential(credential().chain, signer)
    gone = weakref.ref(signer)
    del signer
    gc.collect()
    assert gone() is None


def test_credential_of_another_key():
    with pytest.raises(ValueError, match="key is not"):
        Credential(credential("rsa").chain, credential("ecdsa-p256").key)
    other = certified("ecdsa-p256", "other.example")[1].private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with pytest.raises(ValueError, match="key is not"):
        Credential(credential("ecdsa-p256").chain, PrivateKey.from_pem(other))


def test_credential_with_schemes_of_choice():
    chain, key = credential("rsa").chain, credential("rsa").key
    a = Engine(ClientConfig())
    b = Engine(ServerConfig([Credential(chain, key, (), [0x0806, 0x0804])]))
    pump(a, b)
    assert a.signature_scheme == b.signature_scheme == 0x0806
    for schemes in ([], [0x0403], [0x0804, 0x0804]):
        with pytest.raises(ValueError, match="signature scheme"):
            Credential(chain, key, (), schemes)


def test_client_with_schemes_of_choice():
    a, b = Engine(ClientConfig(schemes=[0x0805, 0x0401])), Engine(server_config("rsa"))
    pump(a, b)
    assert a.signature_scheme == b.signature_scheme == 0x0805
    a, b = Engine(ClientConfig(schemes=[0x0401])), Engine(server_config("rsa", min_version=0x0304))
    pump(a, b)
    assert b.failure.name == "handshake_failure"
    for schemes in ([], [0x0201], [0x0804, 0x0804]):
        with pytest.raises(ValueError, match="signature scheme"):
            ClientConfig(schemes=schemes)


def test_credential_longer_than_a_message():
    with pytest.raises(ValueError, match="fit"):
        Credential([credential().chain[0], bytes(1 << 24)], credential().key)


@pytest.mark.parametrize(
    "name", ["", "bücher.example", "a..b", ".a", "*", "*.", "a.*.b", "a b", "a\n", "a" * 64, "a." * 129, b"a"]
)
def test_credential_of_no_name(name):
    with pytest.raises(ValueError, match="name"):
        named("ecdsa-p256", name)


# --- ServerConfig


@pytest.mark.parametrize(
    "options",
    [
        {"alpn": [b""]},
        {"alpn": [b"a" * 256]},
        {"cipher_suites": ()},
        {"cipher_suites": (0x1301, 0x1301)},
        {"cipher_suites": (0xC013,)},
        {"cipher_suites": (0xC02F,), "min_version": 0x0304},
        {"cipher_suites": (0x1301,), "max_version": 0x0303},
        {"min_version": 0x0302},
        {"max_version": 0x0305},
        {"min_version": 0x0304, "max_version": 0x0303},
        {"groups": ()},
        {"groups": (0x001E,)},
        {"groups": (0x001D, 0x001D)},
        {"groups": (0x1001D,)},
        {"cookie_secret": b"short"},
    ],
)
def test_server_config_that_cannot_work(options):
    with pytest.raises(ValueError):
        ServerConfig([credential()], **options)


def test_server_config_without_credentials():
    for credentials in ([], [None], ["x"]):
        with pytest.raises(ValueError, match="Credential"):
            ServerConfig(credentials)


def test_cookie_secret_is_given_or_random():
    first, second = ServerConfig([credential()]), ServerConfig([credential()])
    assert len(first.cookie_secret) >= 32 and first.cookie_secret != second.cookie_secret
    assert ServerConfig([credential()], cookie_secret=b"s" * 32).cookie_secret == b"s" * 32


# --- which credential: the server's Certificate is seen by a client's verify


def served(credentials, name, schemes=None, **options):
    """The credential a client is served for `name`; with `schemes`, what CertificateVerify is signed with. Or the name
    of the alert."""
    seen = []
    config = ServerConfig(credentials, **options)
    if schemes is None:
        client = Engine(ClientConfig(server_name=name, verify=lambda chain, _: seen.extend(chain)))
        server = Engine(config)
        server.receive_bytes(client.take_output())
        client.receive_bytes(server.take_output())
        if server.failure is not None:
            return server.failure.name
        (credential,) = (known for known in credentials if known.chain[0] == seen[0])
        return credential
    client = RawClient(config, schemes=schemes, name=name, omit=() if name else (SERVER_NAME,)).hello()
    if client.server.failure is not None:
        return client.server.failure.name
    (verify,) = (whole for type, whole in client.flight if type == CERTIFICATE_VERIFY)
    return int.from_bytes(verify[4:6], "big")


def certificates(*kinds_and_names):
    """Credentials of different keys, by name."""
    made = [(kind, names) for kind, *names in kinds_and_names]
    return [named(kind, *names) for kind, names in made]


A, B, WILD, DEEP = certificates(
    ("ecdsa-p256", "a.example"),
    ("rsa", "b.example", "www.b.example"),
    ("ed25519", "*.example"),
    ("ecdsa-p384", "*.deep.example", "deep.example"),
)


@pytest.mark.parametrize(
    ("name", "chosen"),
    [
        ("a.example", A),
        ("A.EXAMPLE", A),
        ("b.example", B),
        ("www.b.example", B),
        ("c.example", WILD),
        ("deep.example", DEEP),
        ("x.deep.example", DEEP),
        ("x.y.deep.example", A),  # a wildcard stands for one label
        ("example", A),
        ("elsewhere.test", A),
        (None, A),
        ("192.0.2.1", A),
    ],
)
def test_by_name(name, chosen):
    assert served([A, B, WILD, DEEP], name) is chosen


def test_a_final_dot_is_no_difference():
    assert served([A, B], "b.example.", schemes=(ECDSA, RSA)) == RSA


def test_an_exact_name_goes_before_a_wildcard():
    exact, wild = certificates(("rsa", "a.example"), ("ecdsa-p256", "*.example"))
    for order in ([exact, wild], [wild, exact]):
        assert served(order, "a.example") is exact
        assert served(order, "b.example") is wild


def test_by_what_the_client_verifies():
    ecdsa, rsa = certificates(("ecdsa-p256", "a.example"), ("rsa", "a.example"))
    assert served([ecdsa, rsa], "a.example", schemes=(RSA, ECDSA)) == ECDSA
    assert served([rsa, ecdsa], "a.example", schemes=(ECDSA, RSA)) == RSA
    assert served([ecdsa, rsa], "a.example", schemes=(RSA,)) == RSA
    assert served([ecdsa, rsa], "a.example", schemes=(0x0503, 0x0401)) == "handshake_failure"


def test_the_default_is_every_credential_of_its_names():
    ecdsa, rsa, other = certificates(("ecdsa-p256", "a.example"), ("rsa", "a.example"), ("ed25519", "b.example"))
    for name in ("", "unknown.example"):
        assert served([ecdsa, rsa, other], name, schemes=(RSA,)) == RSA
        assert served([ecdsa, rsa, other], name, schemes=(0x0807,)) == "handshake_failure"


def test_a_name_is_not_served_by_another_names_certificate():
    ecdsa, rsa = certificates(("ecdsa-p256", "a.example"), ("rsa", "b.example"))
    assert served([rsa, ecdsa], "a.example", schemes=(RSA,)) == "handshake_failure"


def test_a_wildcard_helps_out_where_the_exact_name_cannot():
    exact, wild = certificates(("rsa", "a.example"), ("ecdsa-p256", "*.example"))
    assert served([exact, wild], "a.example", schemes=(ECDSA,)) == ECDSA


def test_require_sni():
    known = {"require_sni": True, "schemes": (ECDSA, RSA)}
    assert served([A, B], "b.example", **known) == RSA
    assert served([A, B], "unknown.example", **known) == "unrecognized_name"
    assert served([A, B], "", **known) == "missing_extension"
    assert served([named("rsa")], "a.example", schemes=(RSA,)) == RSA


# --- ClientConfig


@pytest.mark.parametrize(
    "options",
    [
        {"server_name": "a b"},
        {"server_name": "bücher.example"},
        {"alpn": [b""]},
        {"cipher_suites": (0x1304,)},
        {"groups": ()},
        {"key_share_groups": (0x0018,), "groups": (0x001D,)},
        {"key_share_groups": (0x001D, 0x001D)},
    ],
)
def test_client_config_that_cannot_work(options):
    with pytest.raises(ValueError):
        ClientConfig(**options)
