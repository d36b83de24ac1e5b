"""Certificates and keys: what is read from them, and each way in which they do not belong together."""

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509 import ocsp

from edge import config
from edge.certificates import certs
from edge.errors import ConfigError
from tests.edge.issuing import DAY, NOW, Authority, certificate, chain_pem, key_pem, p256, staple, timestamp, vector


@pytest.fixture
def load(tmp_path):
    """load((chain PEM, key PEM, names or None), ...) -> identities."""

    def do(*entries):
        text = '[[listener]]\nbind = ["127.0.0.1:1"]\n'
        for i, (chain, key, names) in enumerate(entries):
            (tmp_path / f"{i}.pem").write_bytes(chain)
            (tmp_path / f"{i}.key").write_bytes(key)
            text += f'[[certificate]]\nchain = "{i}.pem"\nkey = "{i}.key"\n'
            text += f"names = {list(names)!r}\n" if names else ""
        text += '[[upstream]]\nname = "u"\nservers = ["127.0.0.1:1"]\n[[route]]\nupstream = "u"\n'
        return certs.load(config.parse(text, str(tmp_path / "edge.toml")))

    return do


def refused(load, *entries):
    with pytest.raises(ConfigError) as caught:
        load(*entries)
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (p256, "ECDSA P-256"),
        (lambda: ec.generate_private_key(ec.SECP384R1()), "ECDSA P-384"),
        (lambda: rsa.generate_private_key(65537, 2048), "RSA 2048"),
        (ed25519.Ed25519PrivateKey.generate, "Ed25519"),
    ],
)
def test_each_kind_of_key(load, make, kind):
    key = make()
    leaf = certificate(key, "x", ["Example.com", "*.example.org"])
    (identity,) = load((chain_pem(leaf), key_pem(key), None))
    assert identity.kind == kind
    assert identity.names == ("example.com", "*.example.org")
    assert identity.chain == (leaf.public_bytes(Encoding.DER),)
    assert identity.key_pem == key_pem(key)
    assert identity.warnings == ()
    assert identity.expires == leaf.not_valid_after_utc
    assert key_pem(key).decode()[40:60] not in repr(identity)


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
def test_forms_of_keys(load, form):
    key = p256()
    pem = key.private_bytes(Encoding.PEM, form, NoEncryption())
    assert load((chain_pem(certificate(key, "x", ["a.de"])), pem, None))[0].kind == "ECDSA P-256"


def test_names_given_go_before_those_of_the_certificate(load):
    key = p256()
    pems = chain_pem(certificate(key, "x", ["a.de", "*.b.de"])), key_pem(key)
    (identity,) = load((*pems, ["x.b.de"]))
    assert (identity.names, identity.warnings) == (("x.b.de",), ())
    (identity,) = load((*pems, ["c.de", "a.de"]))
    assert identity.names == ("c.de", "a.de")
    (warning,) = identity.warnings
    assert 'does not name "c.de"' in warning


def test_a_certificate_without_names_is_the_default(load):
    key = p256()
    assert load((chain_pem(certificate(key, "a.de")), key_pem(key), None))[0].names == ()


def test_a_whole_chain(load):
    root_key, issuer_key, key = p256(), p256(), p256()
    root = certificate(root_key, "root")
    issuer = certificate(issuer_key, "issuer", issuer=root, issuer_key=root_key)
    leaf = certificate(key, "leaf", ["a.de"], issuer=issuer, issuer_key=issuer_key)
    (identity,) = load((chain_pem(leaf, issuer, root), key_pem(key), None))
    assert len(identity.chain) == 3

    e = refused(load, (chain_pem(leaf, root), key_pem(key), None))
    assert e.key == "certificate[0].chain"
    assert "number 2 (CN=root) did not issue number 1 (CN=leaf)" in e.problem
    assert "each issuer right after" in e.remedy

    e = refused(load, (chain_pem(issuer, leaf), key_pem(key), None))
    assert e.key == "certificate[0].chain"
    assert "the server's certificate is number 2" in e.problem
    assert "put it first" in e.remedy


def test_a_forged_issuer_is_seen(load):
    issuer_key, other_key, key = p256(), p256(), p256()
    issuer = certificate(issuer_key, "issuer")
    leaf = certificate(key, "leaf", ["a.de"], issuer=issuer, issuer_key=other_key)
    assert "did not issue" in refused(load, (chain_pem(leaf, issuer), key_pem(key), None)).problem


def test_a_key_that_does_not_fit(load):
    key = p256()
    e = refused(load, (chain_pem(certificate(key, "x", ["a.de"])), key_pem(p256()), None))
    assert e.key == "certificate[0].key"
    assert "is not the key of the certificate" in e.problem
    assert "issued for" in e.remedy


def test_keys_that_cannot_serve(load):
    usable = p256()
    leaf = chain_pem(certificate(usable, "x", ["a.de"]))
    public = usable.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for pem, problem, remedy in [
        (b"", "holds no private key", "BEGIN PRIVATE KEY"),
        (leaf, "holds no private key", "BEGIN PRIVATE KEY"),
        (public, "holds no private key", "BEGIN PRIVATE KEY"),
        (key_pem(usable, BestAvailableEncryption(b"secret")), "is encrypted", "decrypt it"),
        (key_pem(rsa.generate_private_key(65537, 1024)), "1024", "at least 2048 bits"),
        (key_pem(ec.generate_private_key(ec.SECP521R1())), "521", "P-256 or P-384"),
        (key_pem(ed448.Ed448PrivateKey.generate()), "Ed448", "Ed25519"),
    ]:
        e = refused(load, (leaf, pem, None))
        assert e.key == "certificate[0].key"
        assert problem in e.problem
        assert remedy in e.remedy


def test_files_that_hold_no_certificate(load, tmp_path):
    key = p256()
    e = refused(load, (b"hello", key_pem(key), None))
    assert (e.key, "holds no certificate" in e.problem) == ("certificate[0].chain", True)
    pem = chain_pem(certificate(key, "x", ["a.de"]))
    e = refused(load, (pem[:100] + b"AAAA" + pem[104:], key_pem(key), None))
    assert e.key == "certificate[0].chain"
    assert "damaged" in e.problem or "no certificate" in e.problem


def test_files_that_are_not_there(load, tmp_path):
    key = p256()
    load((chain_pem(certificate(key, "x", ["a.de"])), key_pem(key), None))
    text = (
        '[[listener]]\nbind = ["127.0.0.1:1"]\n[[certificate]]\nchain = "0.pem"\nkey = "none.key"\n'
        '[[upstream]]\nname = "u"\nservers = ["127.0.0.1:1"]\n[[route]]\nupstream = "u"\n'
    )
    with pytest.raises(ConfigError) as caught:
        certs.load(config.parse(text, str(tmp_path / "edge.toml")))
    assert caught.value.key == "certificate[0].key"
    assert f"{tmp_path}/none.key: no such file or directory" in caught.value.problem
    assert "name a file that exists" in caught.value.remedy


@pytest.mark.parametrize(
    ("begin", "end", "words"),
    [
        (NOW - 9 * DAY, NOW - DAY, "expired on"),
        (NOW + DAY, NOW + 60 * DAY, "is not valid before"),
        (NOW - DAY, NOW + 5 * DAY, "expires on"),
    ],
)
def test_times_are_warnings(load, begin, end, words):
    key = p256()
    (identity,) = load((chain_pem(certificate(key, "x", ["a.de"], begin=begin, end=end)), key_pem(key), None))
    (warning,) = identity.warnings
    assert words in warning
    assert "certificate[0].chain" in warning


def test_one_name_with_two_kinds_of_keys(load):
    keys = [p256(), ed25519.Ed25519PrivateKey.generate()]
    entries = [(chain_pem(certificate(k, "x", ["a.de"])), key_pem(k), ["a.de"]) for k in keys]
    assert [i.names for i in load(*entries)] == [("a.de",), ("a.de",)]


def test_one_name_twice_with_one_kind_of_key(load):
    keys = [p256(), p256()]
    pems = [(chain_pem(certificate(k, "x", ["a.de", f"{i}.de"])), key_pem(k)) for i, k in enumerate(keys)]
    e = refused(load, *((*p, ["a.de"]) for p in pems))
    assert e.key == "certificate[1].names"
    assert '"a.de" has an ECDSA certificate already in certificate[0]' in e.problem
    # Names that only the certificates give: the first one keeps them.
    assert [i.names for i in load(*((*p, None) for p in pems))] == [("a.de", "0.de"), ("1.de",)]


# --- what stands beside a certificate


@pytest.fixture
def issued():
    """(leaf, its key, the issuer, its key)."""
    ca_key, key = p256(), p256()
    ca = certificate(ca_key, "CA")
    return certificate(key, "leaf", ["a.test"], issuer=ca, issuer_key=ca_key), key, ca, ca_key


@pytest.fixture
def load_beside(tmp_path, issued):
    """load_beside(ocsp=bytes, scts=[bytes, ...], whole_chain=True) -> the identity of `issued` with these files."""

    def do(ocsp=None, scts=(), whole_chain=True):
        leaf, key, ca, _ = issued
        (tmp_path / "chain.pem").write_bytes(chain_pem(leaf, ca) if whole_chain else chain_pem(leaf))
        (tmp_path / "key.pem").write_bytes(key_pem(key))
        text = '[[listener]]\nbind = ["127.0.0.1:1"]\n[[certificate]]\nchain = "chain.pem"\nkey = "key.pem"\n'
        if ocsp is not None:
            (tmp_path / "staple.der").write_bytes(ocsp)
            text += 'ocsp = "staple.der"\n'
        for i, sct in enumerate(scts):
            (tmp_path / f"{i}.sct").write_bytes(sct)
        text += f"scts = {[f'{i}.sct' for i in range(len(scts))]!r}\n" if scts else ""
        text += '[[upstream]]\nname = "u"\nservers = ["127.0.0.1:2"]\n[[route]]\nupstream = "u"\n'
        path = tmp_path / "edge.toml"
        path.write_text(text)
        return certs.load(config.load(path))[0]

    return do


@pytest.mark.parametrize("whole_chain", [True, False])
def test_an_ocsp_response(load_beside, issued, whole_chain):
    leaf, _, ca, ca_key = issued
    der = staple(leaf, ca, ca_key)
    identity = load_beside(der, whole_chain=whole_chain)
    assert (identity.ocsp_response, identity.warnings) == (der, ())
    assert identity.ocsp_expires > NOW.timestamp()
    assert load_beside().ocsp_response == b""


@pytest.mark.parametrize(
    ("begin", "end", "words"), [(NOW - 2 * DAY, NOW - DAY, "expired on"), (NOW + DAY, NOW + 2 * DAY, "is not valid")]
)
def test_an_ocsp_response_out_of_its_time_is_not_shown(load_beside, issued, begin, end, words):
    leaf, _, ca, ca_key = issued
    identity = load_beside(staple(leaf, ca, ca_key, begin=begin, end=end))
    assert identity.ocsp_response == b""
    (warning,) = identity.warnings
    assert "certificate[0].ocsp" in warning and "staple.der" in warning and words in warning


def test_an_ocsp_response_without_an_end(load_beside, issued):
    leaf, _, ca, ca_key = issued
    der = staple(leaf, ca, ca_key, end=None)
    assert (load_beside(der).ocsp_response, load_beside(der).ocsp_expires) == (der, 0)


def test_ocsp_responses_that_are_refused(load_beside, issued):
    leaf, _, ca, ca_key = issued
    other = certificate(p256(), "other", ["b.test"], issuer=ca, issuer_key=ca_key)
    unauthorized = ocsp.OCSPResponseBuilder.build_unsuccessful(ocsp.OCSPResponseStatus.UNAUTHORIZED)
    for der, words in (
        (b"", "holds no OCSP response"),
        (staple(leaf, ca, ca_key)[:-1], "holds no OCSP response"),
        (leaf.public_bytes(Encoding.PEM), "holds no OCSP response"),
        (unauthorized.public_bytes(Encoding.DER), "the responder answered UNAUTHORIZED"),
        (staple(other, ca, ca_key), "is for another certificate"),
        (staple(leaf, ca, ca_key, status=ocsp.OCSPCertStatus.REVOKED), "the certificate is revoked"),
        (staple(leaf, ca, ca_key, status=ocsp.OCSPCertStatus.UNKNOWN), "the certificate is unknown"),
    ):
        with pytest.raises(ConfigError) as caught:
            load_beside(der)
        assert "certificate[0].ocsp" in str(caught.value) and "staple.der" in str(caught.value)
        assert words in str(caught.value), str(caught.value)


def test_timestamps(load_beside):
    first, second = timestamp(), timestamp(b"extensions")
    assert load_beside(scts=[first, second]).timestamps == (first, second)
    both = vector(vector(first) + vector(second))
    assert load_beside(scts=[both, timestamp(b"x")]).timestamps == (first, second, timestamp(b"x"))
    for wrong in (b"", first[:-1], first + b"\0", b"\1" + first[1:], both[:-1], both + b"\0"):
        with pytest.raises(ConfigError, match=r"1\.sct: holds no Signed Certificate Timestamp"):
            load_beside(scts=[first, wrong])


# --- responses that are to be fetched


URL = "http://ocsp.test/"


@pytest.fixture
def load_with(tmp_path):
    """load_with(ocsp=None, whole_chain=True, **of the certificate) -> its identity."""

    def do(ocsp=None, whole_chain=True, **named):
        ca, key = Authority(), p256()
        leaf = ca.issue(key, "leaf", **named)
        (tmp_path / "chain.pem").write_bytes(chain_pem(leaf, ca.certificate) if whole_chain else chain_pem(leaf))
        (tmp_path / "key.pem").write_bytes(key_pem(key))
        text = '[[listener]]\nbind = ["127.0.0.1:1"]\n[[certificate]]\nchain = "chain.pem"\nkey = "key.pem"\n'
        text += f'ocsp = "{ocsp}"\n' if ocsp else ""
        text += '[[upstream]]\nname = "u"\nservers = ["127.0.0.1:2"]\n[[route]]\nupstream = "u"\n'
        path = tmp_path / "edge.toml"
        path.write_text(text)
        return certs.load(config.load(path))[0]

    return do


@pytest.mark.parametrize(
    ("ocsp", "must_staple", "fetched"),
    [(None, False, False), (None, True, True), ("auto", True, True), ("fetch", False, True), ("none", False, False)],
)
def test_what_is_fetched(load_with, ocsp, must_staple, fetched):
    identity = load_with(ocsp, url=URL, must_staple=must_staple)
    assert identity.responders == ((URL,) if fetched else ())
    assert identity.must_staple == must_staple
    assert identity.warnings == ()


def test_what_cannot_be_fetched(load_with):
    lone = {"url": URL, "whole_chain": False}
    for named, words in (({}, "names no OCSP responder"), (lone, "issuer's certificate is")):
        with pytest.raises(ConfigError) as caught:
            load_with("fetch", **named)
        assert caught.value.key == "certificate[0].ocsp" and words in caught.value.problem
        # What clients demand is missed, but no reason to serve nobody.
        identity = load_with("fetch", must_staple=True, **named)
        assert identity.responders == () and words in identity.warnings[0] and "must-staple" in identity.warnings[0]
    (warning,) = load_with("none", must_staple=True, url=URL).warnings
    assert "clients refuse this certificate without an OCSP response (must-staple), and there is none" in warning


def test_a_response_in_a_file_is_the_issuers(load_beside, issued):
    leaf, _, ca, _ = issued
    other = Authority()
    forged = staple(leaf, ca, other.key, signer=other.certificate)
    with pytest.raises(ConfigError, match="signed by somebody who may not"):
        load_beside(forged)
    assert load_beside(forged, whole_chain=False).ocsp_response == forged  # the clients' to judge
