"""`edge keyserver`: the keys it reads, and what it says of a command that cannot be."""

import pytest
from click.testing import CliRunner

from edge import keyserver
from edge.__main__ import cli
from edge.errors import EdgeError
from edge.keyless.client import subject_key_identifier
from tests.edge.certificates.test_certs import certificate, chain_pem, key_pem, p256
from tests.edge.test_signers import Files


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "keys").mkdir()
    return tmp_path / "keys"


def put(directory, name, content, mode=0o600):
    (directory / name).write_bytes(content)
    (directory / name).chmod(mode)


def test_keys_of_a_directory(directory):
    one, other = p256(), p256()
    put(directory, "one.key", key_pem(one))
    put(directory, "other.pem", chain_pem(certificate(other, "x")) + key_pem(other))
    put(directory, "certificate.pem", chain_pem(certificate(one, "x")))  # passed over, as whatever has another name
    put(directory, "README", b"-----BEGIN PRIVATE KEY-----")
    keys, warnings = keyserver.read_keys(directory)
    assert warnings == []
    assert len(keys) == 2
    assert all(subject_key_identifier(key.public_spki()) == ski for ski, key in keys.items())


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o666])
def test_a_key_that_everybody_may_read(directory, mode):
    put(directory, "one.key", key_pem(p256()), mode)
    (warning,) = keyserver.read_keys(directory)[1]
    assert "one.key: every user may read or write this key" in warning


def test_keys_that_cannot_be_used(directory, tmp_path):
    with pytest.raises(EdgeError, match="holds no private key"):
        keyserver.read_keys(directory)
    with pytest.raises(EdgeError, match="nowhere: no such file or directory"):
        keyserver.read_keys(tmp_path / "nowhere")
    put(directory, "one.key", b"nothing")
    with pytest.raises(EdgeError, match=r"one\.key: no private key in PEM form"):
        keyserver.read_keys(directory)


def invoke(*arguments):
    return CliRunner().invoke(cli, ["keyserver", *map(str, arguments)])


def test_commands_that_cannot_be(tmp_path, directory):
    Files(tmp_path)
    own = ["--chain", tmp_path / "us.pem", "--key", tmp_path / "us.key", "--ca", tmp_path / "ca.pem"]
    put(directory, "one.key", key_pem(p256()))
    keys = ["--keys", directory]
    for arguments, words in (
        ((*own, *keys), "Missing option '--listen'"),
        (("--listen", "127.0.0.1:0", *own), "--keys or --module"),
        (("--listen", "127.0.0.1:0", *own, "--module", "/m.so"), "--module and --token go together"),
    ):
        result = invoke(*arguments)
        assert result.exit_code == 2, result.output
        assert words in result.output
    for listen, words in (
        ("127.0.0.1", "has no port"),
        ("127.0.0.1:99999", "has no port"),
        ("192.0.2.1:2407", "cannot assign requested address"),
    ):
        result = invoke("--listen", listen, *own, *keys)
        assert isinstance(result.exception, EdgeError)
        assert f'--listen "{listen}": ' in str(result.exception)
        assert words in str(result.exception)
    own[1] = tmp_path / "nowhere"
    assert "nowhere" in str(invoke("--listen", "127.0.0.1:1", *own, *keys).exception)
