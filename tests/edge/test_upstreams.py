"""That what is said of an upstream's TLS reaches the engine, and whom it trusts."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from edge import config, plane, upstreams
from edge.errors import ConfigError
from edge.observe.labels import Labels
from edge.tls import Refuse

TEXT = """
[[listener]]
bind = ["127.0.0.1:1"]
[[certificate]]
chain = "localhost.pem"
key = "localhost.key"
[[upstream]]
name = "a"
servers = ["127.0.0.1:9", "localhost:10"]
{lines}
[[route]]
upstream = "a"
"""


class Made:
    """Stands for a class of the data plane: keeps what it was made of."""

    def __init__(self, *args, **named):
        self.args = args
        self.named = named


@pytest.fixture
def group(certificates, monkeypatch):
    monkeypatch.setattr(upstreams, "UpstreamGroup", Made)
    monkeypatch.setattr(upstreams, "ClientConfig", Made)

    def make(lines):
        settings = config.parse(TEXT.format(lines=lines), str(certificates / "edge.toml"))
        return upstreams.groups(settings, plane._credential, Labels())["a"].made

    return make


def test_without_tls(group):
    assert group("").named["tls"] == []


def test_each_server_is_asked_for_its_own_name(group):
    made = group('tls = { ca = "ca.pem" }')
    names = [one.named["server_name"] for one in made.named["tls"]]
    assert set(names) == {"127.0.0.1", "localhost"}
    assert len(names) == len(made.args[1])
    assert made.named["tls"][0].named["alpn"] == (b"http/1.1",)
    assert made.named["tls"][0].named["verify_resumed"] is True
    assert made.named["tls"][0].named["credentials"] == []


@pytest.mark.parametrize(("protocol", "alpn"), [("http/1.1", b"http/1.1"), ("h2", b"h2")])
def test_protocols(group, protocol, alpn):
    made = group(f'protocol = "{protocol}"\ntls = {{}}')
    assert made.named["protocol"] == protocol
    assert {one.named["alpn"] for one in made.named["tls"]} == {(alpn,)}


def test_http2_is_over_tls_unless_it_says_not(group):
    assert group('protocol = "h2"').named["tls"][0].named["verify"] is not None
    assert group('protocol = "h2c"').named["tls"] == []


def test_whom_it_trusts(group, certificates):
    """The certificate is for localhost and 127.0.0.1, and of an authority of its own."""
    chain = [
        one.public_bytes(Encoding.DER)
        for one in x509.load_pem_x509_certificates((certificates / "localhost.pem").read_bytes())
    ]
    for one in group('tls = { ca = "ca.pem" }').named["tls"]:
        one.named["verify"](chain, b"")
    for one in group('tls = { ca = "ca.pem", name = "other.internal" }').named["tls"]:
        with pytest.raises(Refuse, match="bad_certificate"):
            one.named["verify"](chain, b"")
    for one in group("tls = {}").named["tls"]:
        with pytest.raises(Refuse, match="unknown_ca"):
            one.named["verify"](chain, b"")


def test_without_trust(group):
    (one, *_) = group("tls = { verify = false }").named["tls"]
    assert one.named["verify"] is None
    assert one.named["verify_resumed"] is False


def test_a_certificate_of_our_own(group):
    (one, *_) = group('tls = { chain = "localhost.pem", key = "localhost.key" }').named["tls"]
    (credential,) = one.named["credentials"]
    assert credential.names == ()


@pytest.mark.parametrize(
    ("tls", "message"),
    [
        ('{ ca = "none.pem" }', r"upstream\[0\]\.tls\.ca: .*none\.pem: no such file"),
        ('{ ca = "localhost.pem" }', r"upstream\[0\]\.tls\.ca: .* is no authority's"),
        ('{ ca = "localhost.key" }', r"upstream\[0\]\.tls\.ca: .* holds no certificate"),
        ('{ chain = "ca.pem", key = "localhost.key" }', r"upstream\[0\]\.tls\.key: .* is not the key of"),
        ('{ chain = "localhost.pem", key = "none" }', r"upstream\[0\]\.tls\.key: .* no such file"),
    ],
)
def test_files_that_cannot_be_used(group, tls, message):
    with pytest.raises(ConfigError, match=message):
        group(f"tls = {tls}")


def test_a_system_without_authorities(group, monkeypatch):
    def none():
        raise ValueError("there is no store")

    monkeypatch.setattr(upstreams, "system_authorities", none)
    with pytest.raises(ConfigError, match=r"upstream\[0\]\.tls: .* no store; name a file of authorities under `ca`"):
        group("tls = {}")
    assert group('tls = { ca = "ca.pem" }').named["tls"]
