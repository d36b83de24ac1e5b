"""`key` as a table: what it may say, the faults of it, and the signer that a certificate gets."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448

from edge import config, plane
from edge.certificates import certs
from edge.errors import ConfigError
from edge.keyless.client import KeylessSigner
from edge.settings import Certificate
from edge.signers import KeylessKey, Pkcs11Key, key_files
from tests.edge.certificates.test_certs import certificate, chain_pem, key_pem, p256
from tests.edge.test_config import parse, with_line

KEYLESS = {"signer": "keyless", "servers": ["10.0.0.5:2407"], "ca": "ca.pem", "chain": "us.pem", "key": "us.key"}
TOKEN = {"signer": "pkcs11", "module": "/m.so", "token": "t", "label": "l"}


def toml(table):
    return "{ " + ", ".join(f"{k} = {v if isinstance(v, int) else repr(v)}" for k, v in table.items()) + " }"


def read(table):
    return parse(with_line("[[certificate]]", f"key = {toml(table)}")).certificate[0].key


def without(table, name):
    return {key: value for key, value in table.items() if key != name}


def test_key_servers():
    key = read({**KEYLESS, "servers": ["10.0.0.5:2407", "[::1]:1", "Keys.Example:99"], "timeout": "250ms"})
    assert key == KeylessKey(
        signer="keyless",
        servers=(("10.0.0.5", 2407), ("::1", 1), ("keys.example", 99)),
        ca=Path("/etc/edge/ca.pem"),
        name=None,
        chain=Path("/etc/edge/us.pem"),
        key=Path("/etc/edge/us.key"),
        timeout=250,
        connections=2,
        pending=1000,
    )
    assert key_files(key) == (key.ca, key.chain, key.key)


def test_tokens():
    key = read({**TOKEN, "id": "a1:B2", "pin_file": "pin", "pending": 5})
    assert key == Pkcs11Key(
        signer="pkcs11",
        module=Path("/m.so"),
        token="t",
        label="l",
        id=b"\xa1\xb2",
        pin_file=Path("/etc/edge/pin"),
        timeout=5000,
        pending=5,
    )
    assert key_files(key) == (Path("/etc/edge/pin"),)
    assert key_files(read(TOKEN)) == ()


@pytest.mark.parametrize(
    ("table", "key", "problem", "remedy"),
    [
        ({}, ".signer", "is missing", 'signer = "keyless" or "pkcs11"'),
        ({"signer": "sgx"}, ".signer", '"sgx" is not known', 'write "keyless" or "pkcs11"'),
        ({"signer": 5}, ".signer", "5 is not known", 'write "keyless" or "pkcs11"'),
        ({**KEYLESS, "server": "x"}, ".server", "unknown key", '"servers"'),
        ({**KEYLESS, "servers": []}, ".servers", "is empty", "at least one"),
        ({**KEYLESS, "servers": ["10.0.0.5"]}, ".servers[0]", "no port", "10.0.0.5:2407"),
        ({**KEYLESS, "servers": ["https://a:1"]}, ".servers[0]", "is a URL", "10.0.0.5:2407"),
        ({**KEYLESS, "servers": ["a b:1"]}, ".servers[0]", "no address or host name", "10.0.0.5:2407"),
        ({**KEYLESS, "servers": ["a:1", "a:1"]}, ".servers[1]", "stands here twice", "remove"),
        ({**KEYLESS, "name": "*.a.de"}, ".name", "a pattern", "without a port"),
        ({**KEYLESS, "timeout": "1ms"}, ".timeout", "out of range", "50ms"),
        ({**KEYLESS, "connections": 0}, ".connections", "out of range", "between 1 and 32"),
        (without(KEYLESS, "ca"), ".ca", "is missing", "authorities"),
        (without(KEYLESS, "key"), ".key", "is missing", "private key"),
        ({**TOKEN, "id": "x"}, ".id", "hexadecimal", "a1:b2:c3"),
        ({**TOKEN, "id": ""}, ".id", "is empty", "a1:b2:c3"),
        (without(TOKEN, "module"), ".module", "is missing", "shared library"),
    ],
)
def test_faults(table, key, problem, remedy):
    with pytest.raises(ConfigError) as caught:
        read(table)
    assert caught.value.key == f"certificate[0].key{key}"
    assert problem in caught.value.problem
    assert remedy in caught.value.remedy


class Files:
    """A configuration with one certificate, whose key is with key servers."""

    def __init__(self, directory):
        self.directory = directory
        self.key = p256()
        self.write("cert.pem", chain_pem(certificate(self.key, "a", ["a.example", "b.example"])))
        authority = p256()
        self.write("ca.pem", chain_pem(certificate(authority, "authority")))
        ours = p256()
        self.write("us.pem", chain_pem(certificate(ours, "us", ["us.example"])))
        self.write("us.key", key_pem(ours))
        self.table = {**KEYLESS, "servers": ["127.0.0.1:2407", "localhost:2408"]}

    def write(self, name, content):
        (self.directory / name).write_bytes(content)

    def settings(self):
        return parse(with_line("[[certificate]]", f"key = {toml(self.table)}"), self.directory)


@pytest.fixture
def files(tmp_path):
    return Files(tmp_path)


def test_a_certificate_with_a_signer(files):
    (identity,) = certs.load(files.settings())
    assert identity.key_pem == b""
    assert identity.kind == "ECDSA P-256"
    assert isinstance(identity.signer, KeylessSigner)
    assert identity.signer.server_name == "a.example"
    one, other = identity.signer.servers.hosts
    assert one.is_literal
    assert (other.name, other.certified, other.is_literal) == ("localhost", "localhost", False)
    assert set(other.addresses) <= {"127.0.0.1", "::1"}
    assert "PRIVATE" not in repr(identity.signer.servers)
    # Read again it is the same, so that nothing is exchanged that has not changed; with another certificate it is not.
    assert certs.load(files.settings())[0].signer == identity.signer
    files.write("cert.pem", chain_pem(certificate(p256(), "a", ["a.example"])))
    assert certs.load(files.settings())[0].signer != identity.signer


def test_what_a_key_table_names_is_read(files):
    entry = files.settings().certificate[0]
    assert set(certs.files(entry)) == {files.directory / name for name in ("cert.pem", "ca.pem", "us.pem", "us.key")}


@pytest.mark.parametrize(
    ("name", "content", "key", "problem"),
    [
        ("us.key", b"", ".key.key", "holds no private key"),
        ("us.key", key_pem(p256()), ".key.key", "is not the key of the certificate"),
        ("us.pem", b"", ".key.chain", "holds no certificate"),
        ("ca.pem", b"", ".key.ca", "holds no certificate"),
        ("ca.pem", chain_pem(certificate(p256(), "a", ["a.example"])), ".key.ca", "is no authority's"),
        ("cert.pem", chain_pem(certificate(ed448.Ed448PrivateKey.generate(), "a")), ".chain", "Ed448"),
        ("cert.pem", chain_pem(certificate(ec.generate_private_key(ec.SECP521R1()), "a")), ".chain", "521"),
    ],
)
def test_files_that_cannot_be_used(files, name, content, key, problem):
    files.write(name, content)
    with pytest.raises(ConfigError) as caught:
        certs.load(files.settings())
    assert caught.value.key == f"certificate[0]{key}"
    assert problem in caught.value.problem


def test_a_name_that_leads_nowhere(files):
    files.table["servers"] = ["nothing.invalid:1"]
    with pytest.raises(ConfigError) as caught:
        certs.load(files.settings())
    assert caught.value.key == "certificate[0].key.servers[0]"
    assert "cannot be resolved" in caught.value.problem


def test_a_token_needs_a_key(files):
    files.table = without(TOKEN, "label")
    with pytest.raises(ConfigError) as caught:
        certs.load(files.settings())
    assert (caught.value.key, caught.value.problem) == ("certificate[0].key.label", "is missing")
    files.table = {**TOKEN, "pin_file": "pin"}
    for content in (b"", b"\n1234", b"\xff\xfe"):
        files.write("pin", content)
        with pytest.raises(ConfigError, match="holds no PIN"):
            certs.load(files.settings())


class Guest:
    """The worker's asyncio, for what starts at once."""

    def __init__(self):
        import asyncio

        self.aio = asyncio.new_event_loop()

    def run_coroutine(self, coroutine, done):
        task = self.aio.create_task(coroutine)
        self.aio.run_until_complete(task)
        done(task)


class FakeSigner:
    """Tells what it is told to do."""

    def __init__(self, name, told):
        self.name, self.told = name, told

    def __eq__(self, other):
        return self.name == other.name

    __hash__ = None

    def sign(self, message, scheme):
        raise NotImplementedError

    def start(self, aio, report):
        self.told.append(f"start {self.name}")

    def stop(self):
        self.told.append(f"stop {self.name}")


def test_signers_begin_and_end_with_their_certificates(files, monkeypatch):
    told = []
    monkeypatch.setattr(certs, "_signer", lambda key, public, names, at: FakeSigner(len(names), told))
    prepared = plane.prepare(files.settings(), bytes(32))

    class Plane:
        guest = Guest()

    plane.Signers(Plane, lambda level, message: None).follow(prepared.serving)
    assert told == ["start 2"]

    def renew(*names):
        files.write("cert.pem", chain_pem(certificate(files.key, "a", names)))
        prepared.serving.prepare({0: certs.load_entry(files.settings(), 0)}).commit()

    renew("x.example", "y.example")  # the same signer
    assert told == ["start 2"]
    renew("x.example")
    assert told == ["start 2", "start 1", "stop 2"]
    assert isinstance(files.settings().certificate[0], Certificate)
    Plane.guest.aio.close()


def test_check_tells_what_it_is(files, tmp_path):
    from click.testing import CliRunner

    from edge.__main__ import cli

    text = with_line("[[certificate]]", f"key = {toml(files.table)}")
    (tmp_path / "edge.toml").write_text(text)
    result = CliRunner().invoke(cli, ["check", "--config", str(tmp_path / "edge.toml")])
    assert result.exit_code == 0, result.output
    shown = " ".join(result.output.split())
    assert "a.example, b.example ECDSA P-256" in shown
    assert "key server " in shown
    assert config.load(tmp_path / "edge.toml").certificate[0].key.timeout == 1000
